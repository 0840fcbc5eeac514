"""Typed tables: parsing, which record counts, arms, problems, curves."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from helpers.synthetic import bce, focal, grid, run, study, with_state

from ablation.analyse.tables import settings as values
from ablation.analyse.tables import table
from ablation.analyse.verdict.verdict import judge, judged
from ablation.analyse.view import study_view
from ablation.records import PlannedRun, RunRecord, StudyRecord
from ablation.rng import generator

METRIC = "val/AP"


def compared(record: StudyRecord) -> pd.DataFrame:
    """The arms table with the comparisons of a verdict."""
    view = study_view(record, METRIC)
    return judged(view, judge(view, partial=True, generator=generator(0, "tables"))).arms


@pytest.mark.parametrize(
    ("text", "value"),
    [("2", 2.0), ("2.0", 2.0), (" 2e0 ", 2.0), ("None", None), ("null", None), ("", None), ("nan", None),
     ("inf", None), ("-inf", None), ("true", True), ("False", False), ("focal", "focal"), (None, None),
     ("0", 0.0), ("-0.5", -0.5)],
)  # fmt: skip
def test_settings_are_parsed(text: str | None, value: object) -> None:
    parsed = values.parse_setting(text)
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    ("name", "stored", "value"),
    [("val/AP", 0.25, 0.25), ("val/AP", 0.0, 0.0), ("val/AP_class/RBC", -1.0, math.nan),
     ("val/AP75", -1.0, math.nan),
     ("train/loss", -1.0, -1.0), ("train/loss", 1.7976931348623157e308, math.nan),
     ("val/AP", math.inf, math.nan)],
)  # fmt: skip
def test_metrics_are_parsed(name: str, stored: float, value: float) -> None:
    assert values.parse_metric(name, stored) == pytest.approx(value, nan_ok=True)


def test_setting_columns_are_floats_and_null_is_nan() -> None:
    record = StudyRecord("s", [
        run(bce(), 0, 0.4), run(bce(4.0), 0, 0.4), run(focal(None, 2), 0, 0.4),
        run(("f", {"loss.name": "focal", "loss.alpha": "0.25", "loss.gamma": "2"}), 0, 0.4),
        run(("g", {"loss.name": "focal", "loss.alpha": "0.25", "loss.gamma": "2.0"}), 0, 0.4),
    ])  # fmt: skip
    runs = table.runs_table(record).set_index("arm")
    assert (runs[["loss.alpha", "loss.gamma", "loss.pos_weight"]].dtypes == np.float64).all()
    assert runs.loc["f", "loss.gamma"] == runs.loc["g", "loss.gamma"] == 2.0
    assert runs.loc["f", "setting"] == runs.loc["g", "setting"] == "focal (alpha=0.25, gamma=2)"
    assert math.isnan(runs.loc["focal-gamma=2", "loss.alpha"])
    assert runs.loc["focal-gamma=2", "setting"] == "focal (alpha=none, gamma=2)"
    assert math.isnan(runs.loc["bce", "loss.pos_weight"]) and runs.loc["bce", "setting"] == "bce"
    assert runs.loc["bce-pos_weight=4", "loss.pos_weight"] == 4.0
    assert math.isnan(runs.loc["bce", "loss.gamma"])


def test_a_setting_that_is_a_word_stays_a_word() -> None:
    arms = [("a", {"loss.name": "x", "loss.mode": "hard"}), ("b", {"loss.name": "x", "loss.mode": "2"})]
    runs = table.runs_table(StudyRecord("s", [run(arm, 0, 0.4) for arm in arms]))
    assert list(runs["loss.mode"]) == ["hard", "2"]


@pytest.mark.parametrize("state", ["DIVERGED", "FAILED", "KILLED", "RUNNING", "STOPPED", "SUPERSEDED"])
def test_only_finished_runs_are_data(state: str) -> None:
    """A huge value in a run that has not finished must leave every number of the study as it was."""
    clean = study([(bce(), 0.4), (focal(0.5, 1), 0.4)], [0, 1, 2])
    wild = run(focal(0.5, 1), 3, 0.99, state=state)
    dirty = dataclasses.replace(clean, runs=[*clean.runs, run(bce(), 3, 0.1), wild])
    without = dataclasses.replace(clean, runs=[*clean.runs, run(bce(), 3, 0.1)])
    runs = table.runs_table(dirty)
    row = runs[(runs["seed"] == 3) & (runs["loss"] == "focal")]
    assert row[[METRIC, "val/AP50", "train/loss"]].isna().all(axis=None) and not row["valid"].any()
    numbers = ["n", "mean", "sd", "low", "high", "difference", "difference_low", "n_pairs", "n_finished"]
    pd.testing.assert_frame_equal(compared(dirty)[numbers], compared(without)[numbers])
    assert list(table.problems(runs)["problem"]) == [state.lower()]
    assert 0.99 not in set(table.curves(dirty, METRIC)["value"])


def test_a_planned_run_without_a_record_is_a_row() -> None:
    record = with_state(grid([0, 1]), focal(0.75, 2)[0], 1, "MISSING")
    runs = table.runs_table(record)
    assert len(runs) == 26 and list(runs.loc[runs["state"] == "MISSING", "seed"]) == [1]
    problem = table.problems(runs).iloc[0]
    assert problem["problem"] == "missing" and "loss.gamma=2.0" in problem["command"]
    arm = table.arms_table(runs, METRIC).set_index("arm").loc[focal(0.75, 2)[0]]
    assert arm["n_planned"] == 2 and arm["n_finished"] == arm["n_missing"] == arm["n"] == 1


def test_an_arm_without_any_record_gets_its_settings_from_the_plan() -> None:
    whole = grid([0, 1])
    name = focal(0.25, 0.5)[0]
    bare = dataclasses.replace(whole, runs=[item for item in whole.runs if item.arm != name])
    by_command = table.runs_table(bare).set_index("arm").loc[name].iloc[0]
    assert (by_command["loss"], by_command["loss.alpha"], by_command["loss.gamma"]) == ("focal", 0.25, 0.5)
    plan = PlannedRun("x", 0, "k", "ablation train +weird='", {"loss.name": "focal", "loss.gamma": "3"})
    by_params = table.runs_table(dataclasses.replace(whole, planned=[plan])).set_index("arm").loc["x"]
    assert (by_params["loss"], by_params["loss.gamma"], by_params["state"]) == ("focal", 3.0, "MISSING")


def test_of_several_records_with_one_key_the_finished_one_counts() -> None:
    failed = run(bce(), 0, 0.9, state="FAILED", key="k", run_id="a")
    finished = run(bce(), 0, 0.4, key="k", run_id="b")
    again = run(bce(), 0, 0.4, key="k", run_id="c")
    for records in ([failed, finished, again], [again, finished, failed]):
        runs = table.runs_table(StudyRecord("s", records)).set_index("run_id")
        assert list(runs["valid"]) == [True, False, False] and list(runs.index) == ["b", "a", "c"]
        assert list(runs["problem"]) == ["", "duplicate", "duplicate"]
        arm = table.arms_table(runs.reset_index(), METRIC).iloc[0]
        assert (arm["n"], arm["n_planned"], arm["n_failed"], arm["mean"]) == (1, 1, 0, 0.4)
    assert "run b" in runs.loc["a", "reason"]


def test_a_record_that_the_plan_has_replaced_does_not_count() -> None:
    new, old = run(bce(), 0, 0.4, key="new"), run(bce(), 0, 0.9, key="old")
    extra = run(bce(), 7, 0.5)
    record = StudyRecord("s", [old, new, extra], [PlannedRun("bce", 0, "new", "")])
    runs = table.runs_table(record).set_index("key")
    assert runs.loc["old", "problem"] == "superseded" and not runs.loc["old", "valid"]
    # A seed beyond the plan contradicts nothing in it.
    assert table.arms_table(runs.reset_index(), METRIC).iloc[0]["mean"] == pytest.approx(0.45)


def test_one_arm_and_seed_with_two_configurations_is_a_conflict_and_neither_counts() -> None:
    records = [run(bce(), 0, 0.4, key="a"), run(bce(), 0, 0.5, key="b"), run(bce(), 1, 0.3)]
    runs = table.runs_table(StudyRecord("s", records))
    assert list(table.problems(runs)["problem"]) == ["conflict", "conflict"]
    arm = table.arms_table(runs, METRIC).iloc[0]
    assert (arm["n"], arm["mean"]) == (1, 0.3)


def test_arms_table_by_hand() -> None:
    """Differences .02, .04, .06: mean .04, sd .02, t(.975, 2) = 4.302653, half-width .0496828."""
    records = [run(bce(), seed, value) for seed, value in enumerate((0.30, 0.40, 0.50))]
    records += [run(focal(0.5, 1), seed, value) for seed, value in enumerate((0.32, 0.44, 0.56, 0.99))]
    records += [run(focal(0.5, 1), 4, 0.2, state="DIVERGED"), run(focal(0.5, 1), 5, 0.2, state="KILLED")]
    records += [run(bce(), 5, 0.2, state="STOPPED")]
    arms = compared(StudyRecord("s", records))
    base, arm = arms.iloc[0], arms.iloc[1]
    assert base["baseline"] and not arm["baseline"]
    assert (base["mean"], base["sd"]) == pytest.approx((0.4, 0.1))
    assert (base["low"], base["high"]) == pytest.approx((0.4 - 0.2484138, 0.4 + 0.2484138), abs=1e-6)
    assert (arm["n"], arm["n_pairs"], arm["n_planned"], arm["n_diverged"], arm["n_failed"]) == (4, 3, 6, 1, 1)
    assert base["n_unfinished"] == 1 and math.isnan(base["difference"]) and base["n_pairs"] == 0
    assert arm["mean"] == pytest.approx((0.32 + 0.44 + 0.56 + 0.99) / 4)
    numbers = arm[["difference", "difference_sd", "difference_low", "difference_high", "difference_p"]]
    assert list(numbers) == pytest.approx([0.04, 0.02, 0.04 - 0.0496828, 0.04 + 0.0496828, 0.25], abs=1e-6)


def test_arms_are_sorted_baseline_first_then_by_settings() -> None:
    arms = table.arms_table(table.runs_table(grid([0])), METRIC)
    assert arms["setting"].iloc[0] == "bce"
    pairs = arms.iloc[1:][["loss.alpha", "loss.gamma"]].fillna(-1)
    assert list(map(tuple, pairs.to_numpy())) == sorted(map(tuple, pairs.to_numpy()))


@pytest.mark.parametrize(
    ("arms", "expected"),
    [
        ([bce()], "bce"),
        (
            [("bce-pos_weight=1", {"loss.name": "bce", "loss.pos_weight": "1.0"}), bce(4.0)],
            "bce-pos_weight=1",
        ),
        ([("a-bce", {"loss.name": "bce"}), bce()], "bce"),
        ([("b-bce", {"loss.name": "bce"}), ("a-bce", {"loss.name": "bce"})], "a-bce"),
        ([bce(4.0), focal(None, 0)], None),
    ],
)
def test_baseline(arms: list[tuple[str, dict[str, str]]], expected: str | None) -> None:
    runs = table.runs_table(StudyRecord("s", [run(arm, 0, 0.4) for arm in arms]))
    assert table.baseline_arm(runs) == expected
    assert table.arms_table(runs, METRIC)["baseline"].sum() == (expected is not None)


def test_arms_with_one_setting_are_told_apart_by_name() -> None:
    arms = [("bce", {"loss.name": "bce"}), ("bce-wide", {"loss.name": "bce"})]
    runs = table.runs_table(StudyRecord("s", [run(arm, 0, 0.4) for arm in arms]))
    assert list(table.arms_table(runs, METRIC)["setting"]) == ["bce [bce]", "bce [bce-wide]"]


def test_a_finished_run_without_the_metric_is_a_problem() -> None:
    records = [run(bce(), 0, 0.4), dataclasses.replace(run(bce(), 1, 0.4), metrics={METRIC: math.nan})]
    runs = table.runs_table(StudyRecord("s", records))
    assert list(table.problems(runs, METRIC)["problem"]) == ["no value"]
    arm = table.arms_table(runs, METRIC).iloc[0]
    assert (arm["n_finished"], arm["n"]) == (2, 1)


def test_curves_keep_the_last_value_of_an_epoch_and_drop_what_is_not_finite() -> None:
    history = pd.DataFrame(
        {
            "epoch": [1, 2, 2, 3, 4],
            "metric": [METRIC] * 4 + ["other"],
            "value": [0.1, 0.2, 0.25, math.nan, 9.0],
        }
    )
    record = RunRecord("r", "s", "bce", 3, "k", "FINISHED", {"loss.name": "bce"}, {METRIC: 0.25}, history)
    points = table.curves(StudyRecord("s", [record]), METRIC)
    assert points.to_dict("list") == {
        "arm": ["bce"] * 2,
        "seed": [3, 3],
        "epoch": [1, 2],
        "value": [0.1, 0.25],
    }
    assert table.curves(StudyRecord("s", []), METRIC).empty


def test_an_unknown_state_is_refused() -> None:
    with pytest.raises(ValueError, match="DONE"):
        run(bce(), 0, 0.4, state="DONE")


def test_a_store_of_an_older_version_names_recalibrated_ap_otherwise_and_is_read() -> None:
    record = study([(bce(), 0.4)], [0])
    (run,) = record.runs
    metrics = {name: value for name, value in run.metrics.items() if "recalibrated" not in name}
    old = dataclasses.replace(run, metrics=metrics | {"val/AP_undistorted": 0.37})
    runs = table.runs_table(dataclasses.replace(record, runs=[old]))
    assert runs["val/AP_recalibrated"].tolist() == [0.37] and "val/AP_undistorted" not in runs.columns


@pytest.mark.parametrize(
    ("stored", "column"),
    [
        ("val/AP_undistorted", "val/AP_recalibrated"),
        ("val/AP50_undistorted", "val/AP50_recalibrated"),
        ("val/AP_class/x_undistorted", "val/AP_class/x_undistorted"),
    ],
)
def test_names_of_version_0_1_are_read_and_classes_keep_theirs(stored: str, column: str) -> None:
    record = dataclasses.replace(run(bce(), 0, 0.4), metrics={stored: 0.25})
    assert table.runs_table(StudyRecord("s", [record]))[column].tolist() == [0.25]
