"""The local pool: what a run can do to itself costs that run alone, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch
from helpers.command import TINY, ablation, error_line, metrics, run_folders
from helpers.faulty_command import faulty_command, processes_in, start

from ablation.errors import UsageError
from ablation.machine import share_out
from ablation.study.launchers.local.launcher import LocalLauncher
from ablation.study.launchers.local.memory import is_out_of_memory, kernel_kills
from ablation.study.launchers.local.pool import place
from ablation.study.terminal.progress import JobInfo, PlainObserver
from ablation.tracking.run_folder import RunFolder

SHORT = [
    *TINY,
    "data.train_images=8",
    "data.val_images=4",
    "tracking=none",
    "loss=bce",
    "hydra.launcher.slots=2",
]


def folder_of(folder: Path, seed: int) -> RunFolder:
    (path,) = [path for path in run_folders(folder) if path.name.startswith(f"seed{seed}-")]
    return RunFolder(path)


def wait_until(true: object, seconds: float, what: str) -> None:
    """`true` is a function without arguments."""
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One study in which six of eight runs fail, each in its own way; its folder, what was printed."""
    folder = tmp_path_factory.mktemp("faults")
    command = faulty_command(
        folder,
        {
            0: "raise ValueError('a fault of my own')",
            1: "sys.exit(3)",
            2: "os._exit(7)",
            3: "ctypes.string_at(0)",
            4: "os.kill(os.getpid(), signal.SIGKILL)",
            6: "if first_time(self, 'tried'): raise torch.OutOfMemoryError('CUDA out of memory.')",
            7: "torch.empty(2**60)",
        },
    )
    log = folder / "output"
    arguments = ["train", "-m", *SHORT, "seed=range(8)"]
    launcher = start([*command, *arguments], folder, log)
    assert launcher.wait(400) == 1, log.read_text()
    return folder, log.read_text()


@pytest.mark.parametrize(
    ("seed", "message"),
    [
        (0, "ValueError: a fault of my own"),
        (1, "exited with code 3 without a message"),
        (2, "exited with code 7 without a message"),
        (3, "killed by SIGSEGV"),
        (4, "killed by SIGKILL"),
        (7, "can't allocate memory"),
    ],
)
def test_a_fault_costs_its_run_alone_and_is_named_with_its_log(
    faults: tuple[Path, str], seed: int, message: str
) -> None:
    folder, output = faults
    (line,) = [line for line in output.splitlines() if line.startswith(f"FAILED   bce seed {seed}: ")]
    assert message in line
    assert f"(log: runs/default/logs/bce-seed{seed}.log)" in line
    assert (folder / "runs/default/logs" / f"bce-seed{seed}.log").is_file()
    # A killed run goes on when launched again; one that crashed would crash again.
    assert folder_of(folder, seed).state == ("KILLED" if message == "killed by SIGKILL" else "FAILED")
    assert len(metrics(folder_of(folder, seed).path)) == 1  # its first epoch is kept


def test_the_others_finish(faults: tuple[Path, str]) -> None:
    folder, output = faults
    assert folder_of(folder, 5).state == "FINISHED"
    assert "ablation: 6 of 8 runs failed: bce seed 0: ValueError" in output


def test_out_of_memory_is_tried_again_alone_and_unchanged(faults: tuple[Path, str]) -> None:
    folder, output = faults
    lines = output.splitlines()
    assert "finished bce seed 6: FINISHED, alone, after it had run out of memory" in lines
    assert any(line.startswith("bce seed 6: OutOfMemoryError: CUDA out of memory.") for line in lines)
    began = [i for i, line in enumerate(lines) if line == "started  bce seed 6"]
    ends = [i for i, line in enumerate(lines) if line.startswith(("finished", "FAILED "))]
    assert len(began) == 2
    # Alone: the two that ran out of memory come after every other run, one after the other.
    assert len([i for i in ends if i < began[1]]) == 6
    assert [line.split()[3] for line in lines if line.startswith("started")][-2:] == ["6", "7"]
    assert folder_of(folder, 6).state == "FINISHED"
    again = "(log: runs/default/logs/bce-seed7.log) (tried again alone after it ran out of memory)"
    assert any(line.startswith("FAILED   bce seed 7") and line.endswith(again) for line in lines)


def test_nothing_is_left_running(faults: tuple[Path, str]) -> None:
    folder, _ = faults
    wait_until(lambda: not processes_in(folder), 10, str(processes_in(folder)))
    assert processes_in(folder) == {}


@pytest.mark.fault
def test_a_run_beyond_its_time_limit_is_stopped_or_killed_and_goes_on_later(tmp_path: Path) -> None:
    """One listens when it is asked to stop; the other is deaf, and helped by a process that is deaf too."""
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nos.fork()\nwhile True: time.sleep(1)"
    command = faulty_command(tmp_path, {0: "time.sleep(600)", 1: deaf})
    arguments = [
        "train",
        "-m",
        *SHORT,
        "seed=0,1",
        "hydra.launcher.timeout_h=0.004",
        "hydra.launcher.grace_s=1",
    ]
    log = tmp_path / "output"
    assert start([*command, *arguments], tmp_path, log).wait(300) == 1
    too_long = "ran longer than timeout_h=0.004"
    assert f"2 of 2 runs failed: bce seed 0: {too_long} (log: " in log.read_text()
    assert f"bce seed 1: {too_long}, did not stop when asked to and was killed (log: " in log.read_text()
    listened, deaf_one = folder_of(tmp_path, 0), folder_of(tmp_path, 1)
    assert (listened.state, listened.reason) == ("KILLED", too_long)
    assert deaf_one.state == "KILLED" and deaf_one.reason.startswith(f"{too_long}, did not stop")
    wait_until(lambda: not processes_in(tmp_path), 10, str(processes_in(tmp_path)))
    ablation(tmp_path, "train", "-m", *SHORT, "seed=0,1")
    assert [folder_of(tmp_path, seed).state for seed in range(2)] == ["FINISHED"] * 2


@pytest.mark.fault
def test_runs_notice_within_seconds_that_their_launcher_was_killed(tmp_path: Path) -> None:
    """kill -9 of the launcher while one run is in the middle of an epoch and another is stuck for good."""
    command = faulty_command(
        tmp_path,
        {0: "time.sleep(600)", 1: "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"},
    )
    log = tmp_path / "output"
    arguments = ["train", "-m", *SHORT, "seed=0,1,2", "train.workers=1", "hydra.launcher.grace_s=2"]
    launcher = start([*command, *arguments], tmp_path, log)
    wait_until(lambda: len(list(tmp_path.glob("runs/*/*/*/checkpoint-000001-*"))) == 2, 200, "no checkpoint")
    time.sleep(0.5)
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    wait_until(lambda: not processes_in(tmp_path), 15, str(processes_in(tmp_path)))
    listened = folder_of(tmp_path, 0)
    assert listened.state == "KILLED"
    assert "its launcher was gone" in listened.reason
    assert len(run_folders(tmp_path)) == 2  # the third was never started
    ablation(tmp_path, "train", "-m", *SHORT, "seed=0,1,2", "train.workers=1")
    assert [folder_of(tmp_path, seed).state for seed in range(3)] == ["FINISHED"] * 3


@pytest.mark.fault
def test_a_killed_fork_server_costs_no_run(tmp_path: Path) -> None:
    """What starts the runs is killed in the middle: those that run go on, those that wait get a new one."""
    command = faulty_command(tmp_path, {0: "time.sleep(2)"})
    log = tmp_path / "output"
    launcher = start([*command, "train", "-m", *SHORT, "seed=0,1,2"], tmp_path, log)
    wait_until(lambda: list(tmp_path.glob("runs/*/*/seed0-*/checkpoint-000001-*")), 200, "no checkpoint")
    servers = [
        pid
        for pid, text in processes_in(tmp_path).items()
        if parent(pid) == launcher.pid and "resource_tracker" not in text
    ]
    (server,) = servers
    os.kill(server, signal.SIGKILL)
    assert launcher.wait(300) == 0, log.read_text()
    assert [folder_of(tmp_path, seed).state for seed in range(3)] == ["FINISHED"] * 3
    wait_until(lambda: not processes_in(tmp_path), 10, str(processes_in(tmp_path)))


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[1])


# what is handed out


def test_gpus_are_handed_out_in_turn() -> None:
    assert [place(slot, 3) for slot in range(6)] == ["cuda:0", "cuda:1", "cuda:2"] * 2
    assert place(5, 0) is None


@pytest.mark.parametrize(
    ("asked", "machine", "expected"),
    [
        ((None, None, 1), (0, 2), (2, 1)),  # two cores: two runs of one thread
        ((None, None, 1), (4, 32), (4, 8)),
        ((None, None, 2), (4, 32), (8, 4)),
        ((None, None, 3), (0, 8), (8, 1)),
        ((2, None, 1), (0, 8), (2, 4)),
        ((16, None, 1), (0, 8), (16, 1)),
        ((None, 3, 1), (2, 8), (2, 3)),
    ],
)
def test_slots_and_threads_follow_the_machine(
    asked: tuple[int | None, int | None, int], machine: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert share_out(*asked, *machine) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("slots", 0),
        ("threads", 0),
        ("runs_per_gpu", 0),
        ("timeout_h", 0.0),
        ("timeout_h", float("nan")),
        ("stall_h", -1.0),
        ("grace_s", -1.0),
        ("oom_retries", -1),
    ],
)
def test_settings_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=rf"hydra\.launcher\.{name}: found "):
        LocalLauncher(**{name: value})  # type: ignore[arg-type]


def test_a_wrong_setting_is_one_line(tmp_path: Path) -> None:
    result = ablation(tmp_path, "train", "-m", *SHORT, "seed=0,1", "hydra.launcher.timeout_h=-1", check=2)
    assert error_line(result) == "ablation: hydra.launcher.timeout_h: found -1.0, must be > 0, or null"


# memory


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried"
        ),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_exceptions_that_mean_out_of_memory(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("shape mismatch"), ValueError("out of memory"), KeyError("memory")]
)
def test_exceptions_that_do_not(error: Exception) -> None:
    assert not is_out_of_memory(error)


def test_the_kernels_count_is_read_from_the_control_group_before_the_machine(tmp_path: Path) -> None:
    process, groups, machine = tmp_path / "cgroup", tmp_path / "groups", tmp_path / "vmstat"
    assert kernel_kills(process, groups, machine) is None
    machine.write_text("nr_free_pages 12\noom_kill 9\n")
    assert kernel_kills(process, groups, machine) == 9
    process.write_text("4:memory,hugetlb:/old\n0::/new/one\n")
    (groups / "memory/old").mkdir(parents=True)
    (groups / "memory/old/memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert kernel_kills(process, groups, machine) == 2
    process.write_text("0::/new/one\n")
    (groups / "new/one").mkdir(parents=True)
    (groups / "new/one/memory.events").write_text("low 0\noom 5\noom_kill 4\n")
    assert kernel_kills(process, groups, machine) == 4


# what is shown


def test_plain_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    plain = PlainObserver([JobInfo(0, "bce seed 0", 4), JobInfo(1, "bce seed 1", 4)])
    plain.started(0, "bce seed 0", Path("x.log"))
    plain.epoch(0, 1, 4, {"train/loss": 1.0})
    plain.epoch(0, 2, 4, {"val/AP": 0.5, "val/AP50": 0.75, "time/images_per_s": 12.4})
    plain.ended(0, "bce seed 0", "FINISHED", True)
    plain.epoch(1, 4, 4, {"val/AP": 0.25})
    plain.ended(1, "bce seed 1", "killed by SIGKILL (log: x)", False)
    assert caplog.messages == [
        "started  bce seed 0",
        "[0/2 done] bce seed 0: epoch 2/4  val/AP 0.500  val/AP50 0.750  12 images/s",
        "finished bce seed 0: FINISHED",
        "[1/2 done] bce seed 1: epoch 4/4  val/AP 0.250",
        "FAILED   bce seed 1: killed by SIGKILL (log: x)",
    ]
