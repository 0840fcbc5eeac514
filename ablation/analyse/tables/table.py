"""Records -> typed tables: one row per run, one row per arm, one row per problem.

Only a valid run carries metric values: it is FINISHED and the one record that counts for its arm and
seed. The last values of a run that is still going, was killed or diverged are never analysed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ablation.analyse.statistics.intervals import mean_interval
from ablation.analyse.tables.baseline import RunSetting, baseline_of
from ablation.analyse.tables.records import invalid_records, params_of_arms
from ablation.analyse.tables.settings import (
    BASELINE_LOSS,
    LOSS,
    format_setting,
    gain_of,
    is_setting,
    parse_metric,
    parse_setting,
    setting_name,
)
from ablation.records import StudyRecord

MISSING = "MISSING"


def runs_table(study: StudyRecord) -> pd.DataFrame:
    """One row per planned or recorded run.

    Columns:
        study, arm, seed, key, state (MISSING: planned, but no record);
        setting: the loss and its settings for people;
        loss, gain (of the confidence term), and one `loss.X` per setting of any loss, typed: numbers
            are float64, null is NaN;
        one float64 column per metric (their names contain `/`), NaN unless the row is valid;
        valid: the run is FINISHED and is the one record that counts for its arm and seed;
        problem: why a record does not count: 'duplicate', 'superseded' (the plan has this arm and
            seed with another configuration) or 'conflict' (no plan, and one arm and seed finished
            with different configurations); else empty;
        reason, run_id, folder, command.
    """
    problems, details = invalid_records(study)
    params_of_arm = params_of_arms(study)
    commands = {plan.key: plan.command for plan in study.planned}
    rows: list[dict[str, Any]] = []
    for run in study.runs:
        valid = run.state == "FINISHED" and not problems[run.run_id]
        row = _row(study.name, run.arm, run.seed, run.key, run.state, params_of_arm[run.arm] | run.params)
        row |= {
            "valid": valid,
            "problem": problems[run.run_id],
            "reason": "; ".join(text for text in (details[run.run_id], run.reason) if text),
            "run_id": run.run_id,
            "folder": run.folder,
            "command": commands.get(run.key, ""),
        }
        for name, value in run.metrics.items():
            row[_metric_column(name)] = parse_metric(name, value) if valid else math.nan
        rows.append(row)
    recorded = {run.key for run in study.runs}
    for plan in {plan.key: plan for plan in study.planned if plan.key not in recorded}.values():
        row = _row(study.name, plan.arm, plan.seed, plan.key, MISSING, params_of_arm[plan.arm])
        row |= dict.fromkeys(("problem", "run_id", "folder"), "")
        row |= {"valid": False, "reason": "planned, but never recorded", "command": plan.command}
        rows.append(row)
    return _typed(rows)


def _row(study: str, arm: str, seed: int, key: str, state: str, params: Mapping[str, str]) -> dict[str, Any]:
    row: dict[str, Any] = {"study": study, "arm": arm, "seed": seed, "key": key, "state": state}
    row["setting"] = setting_name(params)
    row["loss"] = params.get("loss.name", "unknown")
    row["gain"] = gain_of(params)
    return row | {name: parse_setting(text) for name, text in params.items() if is_setting(name)}


def _metric_column(name: str) -> str:
    """Metrics are told from the other columns by their slash."""
    if re.fullmatch(r"\w+/AP\d*_undistorted", name):  # its name in stores of version 0.1; no class's
        name = name.replace("_undistorted", "_recalibrated")
    return name if "/" in name else f"metric/{name}"


FIRST_COLUMNS = ("study", "arm", "seed", "key", "state", "setting", "loss", "gain")
LAST_COLUMNS = ("valid", "problem", "reason", "run_id", "folder", "command")


def _typed(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows -> a table whose columns have one type each, in a fixed order of columns and rows."""
    names = {name for row in rows for name in row}
    settings = sorted(name for name in names if name.startswith(LOSS))
    metrics = sorted(name for name in names if "/" in name)
    data = {
        name: _typed_column([row.get(name) for row in rows], numeric=name in metrics)
        for name in (*FIRST_COLUMNS, *settings, *metrics, *LAST_COLUMNS)
    }
    table = pd.DataFrame(data)
    if table.empty:
        return table
    first = (table["loss"] != BASELINE_LOSS).rename("_first")
    keys = [first, *(table[name] for name in ("arm", "seed", "problem", "run_id"))]
    order = pd.concat(keys, axis=1).sort_values(["_first", "arm", "seed", "problem", "run_id"], kind="stable")
    return table.loc[order.index].reset_index(drop=True)


def _typed_column(values: list[Any], numeric: bool = False) -> pd.Series:
    present = [value for value in values if value is not None]
    if numeric or all(isinstance(value, float) for value in present):
        return pd.Series([math.nan if value is None else float(value) for value in values], dtype="float64")
    if all(isinstance(value, bool) for value in present) and len(present) == len(values):
        return pd.Series(values, dtype="bool")
    if all(isinstance(value, int) and not isinstance(value, bool) for value in present):
        return pd.Series(values, dtype="int64")
    # One setting that is a number in one loss and a word in another can only be compared as text.
    texts = [value if isinstance(value, str) or value is None else format_setting(value) for value in values]
    return pd.Series(texts, dtype="object")


def metric_names(runs: pd.DataFrame) -> list[str]:
    """The metrics that at least one valid run has a value of."""
    return [name for name in runs.columns if "/" in name and bool(runs[name].notna().any())]


def setting_columns(table: pd.DataFrame) -> list[str]:
    """The columns that hold settings of the losses."""
    return [name for name in table.columns if name.startswith(LOSS)]


def baseline_arm(runs: pd.DataFrame) -> str | None:
    """The arm that the others are compared with; see baseline.baseline_of."""
    no_weight = pd.Series(math.nan, index=runs.index)
    weights = runs["loss.pos_weight"] if "loss.pos_weight" in runs.columns else no_weight
    rows = zip(runs["arm"], runs["loss"], weights, runs["gain"], strict=True)
    return baseline_of(
        RunSetting(str(arm), str(loss), None if pd.isna(weight) else weight, float(gain))
        for arm, loss, weight, gain in rows
    )


def arms_table(runs: pd.DataFrame, metric: str, level: float = 0.95) -> pd.DataFrame:
    """One row per arm; the baseline first, then by loss and its settings.

    Columns:
        arm, setting, loss, gain, loss.X: as in runs_table;
        baseline: whether the other arms are compared with this one;
        n_finished, n_planned, n_diverged, n_failed (FAILED or KILLED), n_unfinished (RUNNING or
            STOPPED), n_missing: runs of the arm; duplicates and superseded records are not counted.
            n_planned is what should be there: planned runs, and recorded ones beyond the plan;
        n, mean, sd, low, high: the metric over the valid runs, see intervals.mean_interval.

    The columns of the comparisons are added by verdict.comparisons.with_comparisons.
    """
    baseline = baseline_arm(runs)
    values = runs[metric].astype(float) if metric in runs.columns else pd.Series(np.nan, index=runs.index)
    rows = []
    for arm, group in runs.groupby("arm"):
        lead = group.sort_values("problem", kind="stable").iloc[0]
        interval = mean_interval(values[group.index[group["valid"]]], level)
        row = {"arm": str(arm), "setting": lead["setting"], "loss": lead["loss"], "gain": lead["gain"]}
        row |= {name: lead[name] for name in setting_columns(runs)}
        row |= {"baseline": arm == baseline, **_run_counts(group)}
        row |= {name: getattr(interval, name) for name in ("n", "mean", "sd", "low", "high")}
        rows.append(row)
    table = pd.DataFrame(rows)
    table["setting"] = _distinct(table)
    order = table.assign(_rest=~table["baseline"]).sort_values(
        ["_rest", "loss", *setting_columns(table), "arm"], kind="stable", na_position="first"
    )
    return table.loc[order.index].reset_index(drop=True)


def _run_counts(group: pd.DataFrame) -> dict[str, int]:
    """How many runs of one arm are in which state."""
    real = group[~group["problem"].isin(["duplicate", "superseded"])]
    states = real["state"].where(real["problem"] == "", "CONFLICT")
    return {
        "n_finished": int(real["valid"].sum()),
        "n_planned": int(real["seed"].nunique()),
        "n_diverged": int((states == "DIVERGED").sum()),
        "n_failed": int(states.isin(["FAILED", "KILLED"]).sum()),
        "n_unfinished": int(states.isin(["RUNNING", "STOPPED"]).sum()),
        "n_missing": int((states == MISSING).sum()),
    }


def _distinct(table: pd.DataFrame) -> list[str]:
    """Settings as labels: where two arms have the same, the arm's name tells them apart."""
    twice = table["setting"].duplicated(keep=False)
    return [
        f"{setting} [{arm}]" if again else str(setting)
        for setting, arm, again in zip(table["setting"], table["arm"], twice, strict=True)
    ]


def problems(runs: pd.DataFrame, metric: str | None = None) -> pd.DataFrame:
    """Every run that is not analysed, and why: columns arm, seed, key, problem, reason, command.

    `problem` is missing, diverged, failed, killed, running, stopped, duplicate, superseded, conflict,
    or 'no value' for a finished run without a finite value of `metric`.
    """
    kind = runs["problem"].where(runs["problem"] != "", runs["state"].str.lower())
    if metric is not None:
        has = runs[metric].notna() if metric in runs.columns else pd.Series(False, index=runs.index)
        kind = kind.where(~(runs["valid"] & ~has), "no value")
    reason = runs["reason"].where(kind != "no value", f"finished without a finite {metric}")
    table = runs.assign(problem=kind, reason=reason)[kind != "finished"]
    return table[["arm", "seed", "key", "problem", "reason", "command"]].reset_index(drop=True)


def state_counts(runs: pd.DataFrame) -> str:
    """How many runs are in which state, in words: '3 DIVERGED, 1 MISSING'."""
    states = runs["state"].where(runs["problem"] == "", runs["problem"].str.upper())
    counts = states.value_counts().sort_index()
    return ", ".join(f"{count} {state}" for state, count in counts.items()) or "no runs"


def curves(study: StudyRecord, metric: str) -> pd.DataFrame:
    """The metric over the epochs of every valid run: columns arm, seed, epoch, value.

    Values that are not finite are left out; an epoch that was logged twice (a resumed run) has its
    last value.
    """
    runs = runs_table(study)
    valid = set(runs.loc[runs["valid"], "run_id"]) if len(runs) else set()
    columns = {"arm": "str", "seed": "int64", "epoch": "int64", "value": "float64"}
    parts = [pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in columns.items()})]
    for run in study.runs:
        if run.run_id not in valid or run.history.empty:
            continue
        points = run.history[run.history["metric"] == metric].drop_duplicates("epoch", keep="last")
        values = pd.Series([parse_metric(metric, value) for value in points["value"]], dtype="float64")
        part = pd.DataFrame({"epoch": points["epoch"].to_numpy(), "value": values.to_numpy()}).dropna()
        if len(part):
            parts.append(part.assign(arm=run.arm, seed=run.seed)[list(columns)])
    table = pd.concat(parts[1:] or parts, ignore_index=True)
    return table.sort_values(["arm", "seed", "epoch"], kind="stable").reset_index(drop=True)
