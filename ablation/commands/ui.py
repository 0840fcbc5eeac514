"""`ablation ui`: MLflow's UI on the tracking store, until it is told to stop."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import subprocess
import sys

from ablation.commands.arguments import STORE, Arguments
from ablation.errors import UsageError

GRACE_S = 5.0
"""How long MLflow's processes may take to end before they are killed."""
_QUIET = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def run(arguments: list[str]) -> int:
    """Serve until Ctrl-C, SIGTERM or SIGHUP, then end MLflow and all its workers; returns the exit code."""
    args = Arguments.parse("ui", arguments, {"port": "5000", "host": "127.0.0.1", **STORE})
    host, port, store = args.text("host"), args.text("port"), args.store()
    if store.uri.lower().startswith(("http://", "https://")):
        raise UsageError(f"uri={store.uri}: a server has its own UI; open this address in a browser")
    store.prepare()
    command = [sys.executable, "-m", "mlflow", "ui", "--host", host, "--port", port]
    if store.artifacts:
        command += ["--default-artifact-root", store.artifacts]
    if not is_loopback(host):
        warning = (
            "whoever can reach this machine can read, change and delete every study; there is no password"
        )
        print(f"ablation: host={host}: {warning}", file=sys.stderr, flush=True)
    print(f"MLflow on http://{host}:{port} (Ctrl-C ends it)", flush=True)
    # In the environment: a command line, which may hold a database's password, is open to every user.
    return serve(command, os.environ | _QUIET | {"MLFLOW_BACKEND_STORE_URI": store.private_uri})


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve(command: list[str], environment: dict[str, str]) -> int:
    """Run a server in a process group of its own, and end the whole group when it or this process ends.

    Returns:
        The server's exit code; 0 where this process was told to stop.
    """
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.default_int_handler)  # raises KeyboardInterrupt
    server = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        for number in _STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        _end_group(server)


def _end_group(server: subprocess.Popen[bytes]) -> None:
    """Ask every process of the server's group to end, and kill those that do not."""
    _signal_group(server.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(GRACE_S)
    _signal_group(server.pid, signal.SIGKILL)
    server.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # every process of the group has ended
        os.killpg(group, number)
