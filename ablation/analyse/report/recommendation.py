"""What to do with a study's answer: the overrides of an arm, and the score threshold that goes with it."""

from __future__ import annotations

import re
import shlex

from ablation.analyse.detections.matching import matches_of
from ablation.analyse.detections.run_files import RunArtifacts
from ablation.analyse.detections.thresholds import BestThreshold, best_threshold, threshold_curve
from ablation.analyse.tables.held_fixed import is_free
from ablation.analyse.tables.settings import format_setting, is_setting, parse_setting
from ablation.analyse.view import StudyView
from ablation.records import RunRecord


def arm_threshold(view: StudyView, arm: str, artifacts: RunArtifacts) -> BestThreshold | None:
    """One threshold at IoU 0.5 for all seeds of an arm; None where no run has detections."""
    matches = [matches_of(artifacts, run.run_id) for run in valid_runs(view, arm)]
    return best_threshold([threshold_curve(detections) for detections in matches if detections is not None])


def valid_runs(view: StudyView, arm: str) -> list[RunRecord]:
    """The valid runs of an arm, by seed."""
    rows = view.runs[view.runs["valid"] & (view.runs["arm"] == arm)]
    records = {run.run_id: run for run in view.study.runs}
    return [records[run_id] for run_id in rows.sort_values("seed", kind="stable")["run_id"]]


def overrides(view: StudyView, arm: str) -> list[str]:
    """The overrides with which `ablation train` trains an arm: its loss, and the other settings that vary.

    Each is quoted for a shell where it needs to be. Empty where the arm has no valid run.
    """
    runs = valid_runs(view, arm)
    if not runs:
        return []
    params = runs[0].params
    # In the order of the configuration: the loss before its settings.
    arguments = [f"loss={_value(params['loss.name'])}"] if "loss.name" in params else []
    arguments += [f"{key}={_value(params[key])}" for key in sorted(params) if is_setting(key)]
    varied = [key for key in _varied(view) if key in params and not is_setting(key)]
    arguments += [f"{key}={_value(params[key])}" for key in varied]
    return [shlex.quote(argument) for argument in arguments]


def _varied(view: StudyView) -> list[str]:
    """Settings besides the loss that differ between runs, such as a swept gain; not the names of groups."""
    valid = set(view.runs.loc[view.runs["valid"], "run_id"])
    values: dict[str, set[str]] = {}
    for run in view.study.runs:
        if run.run_id in valid:
            for name, text in run.params.items():
                values.setdefault(name, set()).add(repr(parse_setting(text)))
    varied = [name for name, settings in values.items() if len(settings) > 1]
    return sorted(name for name in varied if not is_free(name) and not name.endswith(".name"))


def _value(text: str) -> str:
    """A parameter as the store keeps it -> a value of Hydra's grammar; quoted unless it is a plain word."""
    value = parse_setting(text)
    if value is None:
        return "null"
    if not isinstance(value, str):
        return format_setting(value)
    if re.fullmatch(r"[A-Za-z_][\w./-]*|\[[\w., -]*\]", value):
        return value.replace(" ", "")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
