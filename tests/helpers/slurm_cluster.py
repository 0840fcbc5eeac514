"""A real Slurm of one node on this machine, in a private folder, for tests.

    python -m helpers.slurm_cluster FOLDER    starts it, prints `export SLURM_CONF=...`, ends with Ctrl-C

munged, slurmctld and slurmd run as the caller, listen on the loopback alone, need no systemd, and
are ended by their process ids; nothing outside the folder is changed.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")


def missing() -> list[str]:
    """The programs that a test would need and this machine does not have."""
    return [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]


def _path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Cluster:
    """Slurm's daemons in `folder`.

    Attributes:
        environment: what a process needs to be a client of this cluster.
    """

    def __init__(self, folder: Path, cpus: int = 16) -> None:
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        self.folder.chmod(0o755)
        self.environment = os.environ | {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _path()}
        self._daemons: list[subprocess.Popen[bytes]] = []
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        for name in ("state", "spool"):
            (self.folder / name).mkdir(exist_ok=True)
        user = pwd.getpwuid(os.getuid()).pw_name
        lines = {
            "ClusterName": "test",
            "SlurmctldHost": "localhost(127.0.0.1)",
            "SlurmUser": user,
            "SlurmdUser": user,
            "AuthType": "auth/munge",
            # A requeued job may start once its credential has expired: two minutes, if nothing is said.
            "AuthInfo": f"socket={self.folder / 'munge.socket'},cred_expire=5",
            "SlurmctldPort": _free_port(),
            "SlurmdPort": _free_port(),
            "StateSaveLocation": self.folder / "state",
            "SlurmdSpoolDir": self.folder / "spool",
            "SlurmctldPidFile": self.folder / "slurmctld.pid",
            "SlurmdPidFile": self.folder / "slurmd.pid",
            "SlurmctldLogFile": self.folder / "slurmctld.log",
            "SlurmdLogFile": self.folder / "slurmd.log",
            "ProctrackType": "proctrack/pgid",
            "TaskPlugin": "task/none",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_Core",
            "SchedulerType": "sched/backfill",
            "SlurmdParameters": "config_overrides",
            "CommunicationParameters": "NoCtldInAddrAny,NoInAddrAny",
            "ReturnToService": 2,
            "KillWait": 5,
            "MpiDefault": "none",
            "SchedulerParameters": "bf_interval=2,sched_interval=2",
        }
        text = "".join(f"{key}={value}\n" for key, value in lines.items())
        text += f"NodeName=localhost NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN\n"
        text += "PartitionName=main Nodes=localhost Default=YES MaxTime=INFINITE State=UP\n"
        (self.folder / "slurm.conf").write_text(text)

    def start(self) -> None:
        """Start the three daemons and wait until the node is idle."""
        munge = {
            "socket": "munge.socket", "pid-file": "munge.pid", "log-file": "munge.log",
            "seed-file": "munge.seed", "key-file": "munge.key",
        }  # fmt: skip
        self._spawn("munged", "-F", *(f"--{name}={self.folder / file}" for name, file in munge.items()))
        self._until(lambda: (self.folder / "munge.socket").exists(), "munged did not start")
        self._spawn("slurmctld", "-D", "-c")
        self._spawn("slurmd", "-D", "-N", "localhost")
        self._until(lambda: self.ask("sinfo", "-h", "-o", "%T").strip() == "idle", "the node is not idle")

    def ask(self, *command: str) -> str:
        """What a command of Slurm's prints."""
        result = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=30, check=False
        )
        return result.stdout

    def stop(self) -> None:
        """End every job, then the daemons, by their process ids."""
        with contextlib.suppress(Exception):
            jobs = self.ask("squeue", "-h", "-o", "%i").split()
            if jobs:
                self.ask("scancel", *jobs)
                self._until(lambda: not self.ask("squeue", "-h").strip(), "jobs do not end")
        for daemon in reversed(self._daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._daemons.clear()

    def _spawn(self, program: str, *arguments: str) -> None:
        path = shutil.which(program, path=_path())
        assert path is not None, f"{program} is not installed"
        with (self.folder / f"{program}.out").open("wb") as out:
            self._daemons.append(
                subprocess.Popen([path, *arguments], env=self.environment, stdout=out, stderr=out)
            )

    def _until(self, true: object, what: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not true():  # type: ignore[operator]
            if time.monotonic() > deadline or any(d.poll() is not None for d in self._daemons):
                logs = [path.read_text(errors="replace")[-500:] for path in self.folder.glob("*.out")]
                raise RuntimeError(f"{what}: " + " | ".join(logs))
            time.sleep(0.1)


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster that is gone afterwards."""
    running = Cluster(folder)
    try:
        running.start()
        yield running
    finally:
        running.stop()


if __name__ == "__main__":
    with cluster(Path(sys.argv[1])) as mine:
        print(f"export SLURM_CONF={mine.environment['SLURM_CONF']}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            signal.pause()
