"""`ablation report`: the page, figures and tables of a study, also attached in MLflow."""

from __future__ import annotations

import getpass
import os
import sys
import time
from pathlib import Path

from ablation.analyse.detections.run_files import RunArtifacts
from ablation.analyse.report.formats import escape_markdown
from ablation.analyse.report.report import ReportFiles, write_report
from ablation.analyse.report.settings import ReportSettings
from ablation.analyse.report.settle_path import SettlePath, read_settle_path
from ablation.analyse.statistics.paired import MIN_PAIRS
from ablation.analyse.verdict.confirmation import read_confirmation
from ablation.commands.arguments import STORE, Arguments
from ablation.errors import UsageError
from ablation.files import safe_name, sha256_text, write_json
from ablation.records import StudyRecord, TakenLook, metric_and_level
from ablation.study.plan_file import refuse_renamed
from ablation.study.study_list import VERDICT_FILE, require_study
from ablation.tracking.experiment import publish_files, save_chart_view, set_experiment
from ablation.tracking.store import Store
from ablation.tracking.study_folder import study_folder
from ablation.tracking.study_record import fetch_artifact, load_study
from ablation.tracking.taken_looks import TAG, as_text, merged, write_looks

_DEFAULTS = {"study": "", "metric": "", "partial": "false", "out": "runs", **STORE}
_LONGEST_TAG = 4000


def run(arguments: list[str]) -> int:
    """Write the report, attach it in MLflow, print the table and the verdict; returns the exit code."""
    args = Arguments.parse("report", arguments, _DEFAULTS)
    require_study("report", args.text("study"), args.path("out"))
    out, partial = args.path("out"), args.flag("partial")
    refuse_renamed(out, args.text("study"))
    path = read_settle_path(out, args.text("study"))
    name = args.text("study") if path is None else _decision_of(path)
    store = args.store()
    study = load_study(store, name, out)
    declared_metric, level = metric_and_level(study.declared)
    ui = store.uri if store.uri.startswith("http") else "http://127.0.0.1:5000"
    experiment = store.experiment(name)
    settings = ReportSettings(
        metric=args.text("metric") or declared_metric,
        level=level,
        partial=partial,
        checks=out / "check",
        link=lambda run_id: f"{ui}/#/experiments/{experiment}/runs/{run_id}",
        confirmation=read_confirmation(study_folder(out, name)),
        path=path,
    )
    artifacts = RunArtifacts(study, lambda run_id, path: fetch_artifact(store, run_id, path))
    declared = settings.metric == declared_metric
    subfolder = report_folder(settings.metric, declared_metric)
    written = write_report(study, study_folder(out, name) / subfolder, settings, artifacts)
    _keep_look(store, study, written, settings.metric, study_folder(out, name))
    if declared:
        page = _show_in_mlflow(store, study, written, settings.metric)
    else:
        publish_files(store, name, written.files, subfolder, {})
        page = f"/#/experiments/{experiment}"
    print(f"{written.text}\n\n{written.headline}\n")
    if not declared:
        print(f"{settings.metric} is not what the study compares by ({declared_metric}); its own report and")
        print("MLflow's headline are left as they are\n")
    if written.verdict.confirmation_line:
        print(f"{written.verdict.confirmation_line}\n")
    print(f"report: {written.page}  (one file to send; figures and tables lie beside it)")
    program = sys.argv[0] if Path(sys.argv[0]).name == "ablation" else "ablation"
    print(f"MLflow: {ui}{page}  (while `{program} ui` runs)")
    return 0


def _decision_of(path: SettlePath) -> str:
    """The study whose report a settle's is.

    Raises:
        UsageError: it has not begun.
    """
    if path.stage == "exploration":
        raise UsageError(
            f"study={path.study}: this settle is still in its exploration, which no report is drawn from; "
            f"`ablation status study={path.study}` shows where it is"
        )
    return path.decision_study


def _keep_look(store: Store, study: StudyRecord, written: ReportFiles, metric: str, folder: Path) -> None:
    """Record that verdicts were drawn, for the reports after it; the same seeds again are no second look."""
    verdict = written.verdict
    pairs = max((comparison.n_pairs for comparison in verdict.arms), default=0)
    if verdict.refused or pairs < MIN_PAIRS:
        return
    seeds = tuple(sorted({run.seed for run in study.planned} | {run.seed for run in study.runs}))
    known = [look.seeds for look in study.looks if look.metric == metric]
    looks = study.looks
    if seeds not in known:
        look = TakenLook(round(time.time() * 1000), _user(), metric, seeds, pairs)
        looks = merged([*looks, look])
    write_looks(folder, looks)
    publish_files(store, study.name, [], "report", {TAG: as_text(looks)})


def _user() -> str:
    """Who asks; in a container the number of a user may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # OSError since Python 3.13
        return str(os.getuid())


def report_folder(metric: str, declared: str) -> str:
    """Where a report goes, in the study's folder and at its MLflow run.

    Only the declared metric's report is called report: another one must not take its place.
    """
    if metric == declared:
        return "report"
    name, plain = safe_name(metric), metric.replace("/", "-")
    return f"report-{name}" if name == plain else f"report-{name}-{sha256_text(metric)[:6]}"


def _show_in_mlflow(store: Store, study: StudyRecord, written: ReportFiles, metric: str) -> str:
    """Attach the report, and let the experiment's page open on its charts; returns that page's path."""
    verdict = written.verdict
    kind = "none" if verdict.headline is None else verdict.headline.comparison.verdict
    recommended = verdict.recommended or "none"
    tags = {"verdict": kind, "headline": written.headline[:_LONGEST_TAG], "recommended": recommended}
    write_json(written.folder / VERDICT_FILE, tags | {"metric": metric})
    publish_files(store, study.name, written.files, "report", tags)
    parts = [
        escape_markdown(study.description),
        f"**{escape_markdown(written.headline)}**",
        "The whole report is an artifact of the study's own run.",
    ]
    set_experiment(store, study.name, "\n\n".join(part for part in parts if part), tags)
    return save_chart_view(store, study.name, metric, "loss.gamma", "loss.alpha")
