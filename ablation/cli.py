"""The `ablation` command."""

from __future__ import annotations

import errno
import logging
import sys
import traceback
from pathlib import Path

from ablation import __version__
from ablation.commands.arguments import STORE, Arguments
from ablation.errors import AblationError, UsageError, counted, one_line, redact
from ablation.imports import large_import
from ablation.tracking.credentials import clean_argument

USAGE = """\
ablation: should focal loss replace BCE on YOLOv4's confidence term, for your data?

  ablation train [overrides]           one run, e.g. loss=focal loss.gamma=2
  ablation train -m [overrides]        several: loss.gamma=0,1,2 seed=0,1, or a study: sweeps=NAME
  ablation plan sweeps=NAME [overrides]  what a study would do: runs, time, disk, seeds; starts nothing.
                                       measure=true times a few real steps
  ablation plan settle sweeps=NAME     what `ablation settle` would take: stages, runs, hours
  ablation status study=NAME           where every run stands; [out=runs] [watch=true] [json=true]
  ablation studies                     every study: state, verdict, next command; [out=runs] [json=true]
  ablation check [overrides]           audit a data set before training: data=voc data.root=DIR
  ablation doctor [device=cuda]        is this machine ready, how fast is it, how long would sweeps=NAME
                                       take; [json=true]; within 8 minutes
  ablation report study=NAME           report.html, figures and tables; also attached in MLflow;
                                       [partial=true] [metric=val/AP50]
  ablation confirm study=NAME seeds=10-15  best focal and best BCE on fresh seeds; the test split, once
  ablation settle sweeps=NAME [budget_h=6] [max_seeds=16]  goes on until the question is answered:
                                       explores the arms, then decides on fresh seeds; resumes
  ablation predict run=RUN images=DIR  draw detections, and write detections.json; RUN is a run's
                                       folder, or the beginning of its key or MLflow id; [score=the
                                       report's threshold for its arm, else 0.25]
  ablation export run=RUN format=NAME  the network as darknet (.weights), pth or onnx
  ablation ui [port=5000]              MLflow's UI on the store in this folder
  ablation sync [out=runs]             replay runs' folders into MLflow
  ablation import study=NAME table=FILE.csv|.jsonl [gt=FILE] [detections=DIR] [metric=AP]
                                       runs made elsewhere: arm, seed, metrics; or COCO detections;
                                       or table=DIR: ultralytics' folders with results.csv
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
            print(redact(traceback.format_exc()), file=sys.stderr, end="")
        print(f"ablation: {one_line(error, 2000)}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("ablation: interrupted; launch the same command again to go on", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        if show:
            print(redact(traceback.format_exc()), file=sys.stderr, end="")
        print(f"ablation: {one_line(_os_error_text(error), 2000)}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        if show:
            print(redact(traceback.format_exc()), file=sys.stderr, end="")
        text = one_line(f"{type(error).__name__}: {error}")
        print(f"ablation: unexpected {text} (--traceback shows where)", file=sys.stderr)
        sys.exit(1)


def _os_error_text(error: OSError) -> str:
    """A file that cannot be read or written, with what to do where the folder is read-only."""
    where = redact(str(error.filename)) if error.filename else "a file"
    reason = f"{where}: {error.strerror or type(error).__name__}"
    if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
        return reason
    return (
        f"{reason}; a project's folder must be writable: work in another one, or name places with out=DIR "
        "(runs), tracking.uri=sqlite:////PATH/mlflow.db (MLflow) and data.cache_dir=DIR"
    )


def run(arguments: list[str]) -> int:
    """Dispatch to a command; returns the exit code."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(__version__)
        return 0
    arguments = [clean_argument(argument) for argument in arguments]
    command, rest = arguments[0], arguments[1:]
    if command not in COMMANDS:
        raise UsageError(f"{command}: no such command; there are: {', '.join(COMMANDS)}")
    return COMMANDS[command](rest)


def train(arguments: list[str]) -> int:
    """One run, or with -m several."""
    several = bool({"-m", "--multirun"} & set(arguments))
    if several and not any(argument.startswith("hydra/launcher=") for argument in arguments):
        from ablation.study.launchers.local.server import start_early

        start_early()
    with large_import():
        from ablation.study.app import main as application
    from ablation.study.notify import notified
    from ablation.study.study_list import command

    with notified("train"):
        launched = application(arguments)
    if launched is not None:
        print(f"next:  {command('report', launched.study, Path(launched.out))}")
    return 0


def plan(arguments: list[str]) -> int:
    """What a study would do; takes what `train -m` takes, and measure=true."""
    if arguments and arguments[0] == "settle":
        from ablation.commands.settle.command import plan as plan_settle

        return plan_settle(arguments[1:])
    with large_import():
        from ablation.study.app import study_runs
    from ablation.study.forecast.forecast import plan_study
    from ablation.study.forecast.seeds import seeds_text
    from ablation.study.forecast.text import measured, rendered
    from ablation.study.sweeper import launched_statuses
    from ablation.study.terminal.status_table import console_on

    args = Arguments.parse("plan", arguments, {"measure": "false"}, overrides=True)
    measure = args.flag("measure")
    runs, capacity = study_runs(args.overrides)
    launched = launched_statuses(runs[0].config)
    costs = measured(runs, capacity, launched) if measure else None
    study = plan_study(runs, capacity, launched, costs)
    console_on(sys.stdout).print(rendered(study, launched))
    answer, noise = study.analysis, study.noise
    facts = (None, 0, 0) if noise is None else (noise.sd, noise.pairs, noise.arms)
    for line in seeds_text(
        planned=min(study.seeds.values()),
        metric=answer.metric,
        margin=answer.margin,
        level=answer.level,
        sd=facts[0],
        pairs=facts[1],
        arms=facts[2],
    ):
        print(line)
    if not runs[0].config.data.has_test():
        print("test   no test split, or an empty one, and `ablation confirm` needs one; where the data set")
        print("       names none, data.test_share=0.2 makes one (set it before training)")
    return 0


def status(arguments: list[str]) -> int:
    """Where every run of a study stands; from the folder alone, so from another terminal as well."""
    from ablation.analyse.report.settle_path import read_settle_path
    from ablation.study.study_list import require_study
    from ablation.study.terminal.status_table import show_status

    args = Arguments.parse(
        "status", arguments, {"study": "", "out": "runs", "watch": "false", "json": "false"}
    )
    require_study("status", args.text("study"), args.path("out"))
    settle_path = read_settle_path(args.path("out"), args.text("study"))
    if settle_path is not None and settle_path.study == args.text("study"):
        from ablation.commands.settle.status import show_settle  # with training: torch

        show_settle(args.path("out"), settle_path, watch=args.flag("watch"), as_json=args.flag("json"))
        return 0
    show_status(args.path("out"), args.text("study"), watch=args.flag("watch"), as_json=args.flag("json"))
    return 0


def studies(arguments: list[str]) -> int:
    """Every study below out=: its state, its verdict, and what to do next."""
    from ablation.study.terminal.studies_table import show_studies

    args = Arguments.parse("studies", arguments, {"out": "runs", "json": "false"})
    show_studies(args.path("out"), as_json=args.flag("json"))
    return 0


def check(arguments: list[str]) -> int:
    """Audit a data set; takes what train takes, and test=true to look at the test split too."""
    from ablation.commands.check.check import check as look_at
    from ablation.commands.check.layout import layout_lines
    from ablation.commands.check.report import show, write_files
    from ablation.config import typed
    from ablation.files import safe_name
    from ablation.study.app import composed

    args = Arguments.parse("check", arguments, {"test": "false"}, overrides=True)
    test = args.flag("test")
    values = composed(args.overrides)
    config = typed(values)
    for line in layout_lines(values):
        print(line)
    checked = look_at(config, test=test)
    folder = Path(config.out) / "check" / safe_name(checked.audit.name)
    show(checked.audit)
    write_files(checked.audit, folder)
    print(f"figures and check.json: {folder}/")
    if checked.refusal is not None:
        raise checked.refusal
    return 0


def doctor(arguments: list[str]) -> int:
    """Whether this machine is ready, and what to expect of it."""
    from ablation.commands.doctor.command import run

    return run(arguments)


def report(arguments: list[str]) -> int:
    """The page, figures and tables of a study; MLflow's pages then open on its charts and verdict."""
    from ablation.commands.report import run

    return run(arguments)


def confirm(arguments: list[str]) -> int:
    """The finalists of a study on fresh seeds, and on the test split; takes what train takes besides."""
    from ablation.commands.confirm.command import run
    from ablation.study.notify import notified

    with notified("confirm"):
        return run(arguments)


def settle(arguments: list[str]) -> int:
    """Explore, then decide on fresh seeds at declared looks; takes what train takes besides."""
    from ablation.commands.settle.command import run as settle_study

    return settle_study(arguments)


def ui(arguments: list[str]) -> int:
    """MLflow's UI, on loopback, until Ctrl-C."""
    from ablation.commands.ui import run

    return run(arguments)


def sync(arguments: list[str]) -> int:
    """Replay every run's folder into MLflow; what is there already is left alone."""
    from ablation.commands.sync import replay

    args = Arguments.parse("sync", arguments, {"out": "runs", **STORE})
    store = args.store()
    count = replay(args.path("out"), store)
    print(f"{counted(count, 'run')} of {args.text('out')}/ in {store.uri}")
    return 0


def import_table(arguments: list[str]) -> int:
    """Runs made elsewhere, from a table, into a study of their own."""
    from ablation.commands.imports.import_runs import import_runs
    from ablation.study.study_list import command

    args = Arguments.parse(
        "import",
        arguments,
        {
            "study": None,
            "table": None,
            "gt": "",
            "detections": "",
            "metric": "AP",
            "out": "runs",
            "replace": "false",
            "voc_inclusive": "true",
            **STORE,
        },
    )
    store = args.store()
    truth = args.optional_path("gt")
    detections = args.optional_path("detections")
    table, out = args.path("table"), args.path("out")
    folders = import_runs(
        args.text("study"),
        table,
        out,
        store,
        truth,
        detections,
        args.text("metric"),
        replace_data=args.flag("replace"),
        voc_inclusive=args.flag("voc_inclusive"),
    )
    print(f"{counted(len(folders), 'run')} of {table} in {out}/ and in {store.uri}")
    print(f"next:  {command('report', args.text('study'), out)}")
    return 0


def predict(arguments: list[str]) -> int:
    """Detections of a trained run on a folder of images."""
    from ablation.commands.predict import ScoreThreshold, recommended_threshold
    from ablation.commands.predict import predict as predict_images
    from ablation.files import safe_name
    from ablation.training.trained_run import find_run, load_run

    args = Arguments.parse(
        "predict", arguments, {"run": None, "images": None, "score": "", "to": "", **STORE}
    )
    score = args.optional_number("score")
    run = load_run(find_run(args.text("run"), args.store()))
    images = args.path("images")
    to = args.path("to") if args.text("to") else run.folder.file("predictions") / safe_name(images.name)
    threshold = recommended_threshold(run) if score is None else ScoreThreshold(score, "as asked for")
    predictions = predict_images(run, images, to, threshold.score)
    print(f"score threshold {threshold.score:g}: {threshold.source}")
    print(
        f"{counted(len(predictions.results), 'detection')} above {threshold.score:g} "
        f"in {counted(predictions.images, 'image')}: {to}/"
    )
    if predictions.failed:
        raise AblationError(
            f"{len(predictions.failed)} of {predictions.images} images could not be read: "
            f"{'; '.join(predictions.failed[:3])}"
        )
    return 0


def export(arguments: list[str]) -> int:
    """A trained run's network for other programs."""
    from ablation.commands.export import export as export_network
    from ablation.training.trained_run import find_run, load_run

    args = Arguments.parse("export", arguments, {"run": None, "format": None, "to": "", **STORE})
    run = load_run(find_run(args.text("run"), args.store()))
    path = export_network(run, args.text("format"), args.optional_path("to"))
    print(f"{path} ({path.stat().st_size:,} bytes); what is needed to use it: {path}.json")
    return 0


COMMANDS = {
    "train": train,
    "plan": plan,
    "status": status,
    "studies": studies,
    "check": check,
    "doctor": doctor,
    "report": report,
    "confirm": confirm,
    "settle": settle,
    "predict": predict,
    "export": export,
    "ui": ui,
    "sync": sync,
    "import": import_table,
}


if __name__ == "__main__":
    main()
