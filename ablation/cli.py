"""The `ablation` command."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import traceback
from pathlib import Path

from ablation import __version__
from ablation.errors import AblationError, UsageError, one_line

USAGE = """\
ablation: should focal loss replace BCE on YOLOv4's confidence term, for your data?

  ablation train [overrides]           one run, e.g. loss=focal loss.gamma=2
  ablation train -m [overrides]        several: loss.gamma=0,1,2 seed=0,1, or a study: sweeps=NAME
  ablation report study=NAME           figures and tables; also attached to the study's MLflow run
  ablation ui [port=5000]              MLflow's UI on the store in this folder
  ablation sync [out=runs]             replay runs' folders into MLflow
  ablation --version | --help          `ablation train --help` lists the configuration

Every command takes --traceback to show where an error came from.
"""


def main() -> None:
    """Entry point. Exit codes: 0 fine, 1 something failed, 2 wrong usage."""
    arguments = sys.argv[1:]
    show = "--traceback" in arguments
    arguments = [argument for argument in arguments if argument != "--traceback"]
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("alembic", "mlflow", "matplotlib", "fontTools"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        sys.exit(run(arguments))
    except AblationError as error:
        if show:
            traceback.print_exc()
        print(f"ablation: {one_line(error, 2000)}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("ablation: interrupted; launch the same command again to go on", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if show:
            raise
        text = one_line(f"{type(error).__name__}: {error}")
        print(f"ablation: unexpected {text} (--traceback shows where)", file=sys.stderr)
        sys.exit(1)


def run(arguments: list[str]) -> int:
    """Dispatch to a command; returns the exit code."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(__version__)
        return 0
    command, rest = arguments[0], arguments[1:]
    commands = {"train": train, "report": report, "ui": ui, "sync": sync}
    if command not in commands:
        raise UsageError(f"{command}: no such command; there are: {', '.join(commands)}")
    return commands[command](rest)


def settings(command: str, arguments: list[str], defaults: dict[str, str | None]) -> dict[str, str]:
    """`key=value` arguments, checked against what the command knows; None marks a required one."""
    found: dict[str, str] = {key: value for key, value in defaults.items() if value is not None}
    for argument in arguments:
        key, sign, value = argument.partition("=")
        if not sign or key not in defaults:
            known = ", ".join(f"{name}=..." for name in defaults)
            raise UsageError(f"ablation {command} {argument}: not understood; it takes {known}")
        found[key] = value
    for key, default in defaults.items():
        if default is None and not found.get(key):
            raise UsageError(f"ablation {command}: {key}=... is missing")
    return found


def train(arguments: list[str]) -> int:
    """One run, or with -m several."""
    from ablation.study.app import main as application

    application(arguments)
    return 0


def report(arguments: list[str]) -> int:
    """Figures and tables of a study."""
    from ablation.analyse.report import write_report
    from ablation.files import safe_name
    from ablation.track import Store, load_study, publish_files

    given = settings("report", arguments, {"study": None, "metric": "val/AP", "out": "runs",
                                           "uri": "", "artifacts": ""})  # fmt: skip
    store = Store.of(given["uri"] or None, given["artifacts"] or None)
    study = load_study(store, given["study"])
    folder = Path(given["out"]) / safe_name(given["study"]) / "report"
    written = write_report(study, folder, metric=given["metric"])
    parent = publish_files(store, given["study"], written.files, "report", {"headline": written.headline})
    print(written.text)
    print(f"\nfigures and tables: {folder}/  (and at MLflow run {parent})")
    program = sys.argv[0] if Path(sys.argv[0]).name == "ablation" else "ablation"
    print(f"next:  {program} ui                                                # every curve of every run")
    print(f"       {program} train -m sweeps=alpha_gamma data=voc data.root=DIR   # your own data")
    return 0


def ui(arguments: list[str]) -> int:
    """MLflow's UI, on loopback, until Ctrl-C."""
    from ablation.track import Store

    given = settings("ui", arguments, {"port": "5000", "host": "127.0.0.1", "uri": "", "artifacts": ""})
    store = Store.of(given["uri"] or None, given["artifacts"] or None)
    store.prepare()
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store.uri,
               "--host", given["host"], "--port", given["port"]]  # fmt: skip
    if store.artifacts:
        command += ["--default-artifact-root", store.artifacts]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    print(f"MLflow on http://{given['host']}:{given['port']} (Ctrl-C ends it)")
    try:
        return subprocess.run(command, env=os.environ | quiet, check=False).returncode
    except KeyboardInterrupt:
        return 0


def sync(arguments: list[str]) -> int:
    """Replay every run's folder into MLflow; what is there already is left alone."""
    from ablation.study.replay import replay
    from ablation.track import Store

    given = settings("sync", arguments, {"out": "runs", "uri": "", "artifacts": ""})
    store = Store.of(given["uri"] or None, given["artifacts"] or None)
    count = replay(Path(given["out"]), store)
    print(f"{count} runs in {given['out']}/ are now in {store.uri}")
    return 0


if __name__ == "__main__":
    main()
