"""What a study declares about its analysis is kept with its time, and a later change stays visible."""

from __future__ import annotations

import json
from pathlib import Path

from helpers.command import TINY, ablation, error_line, in_this_process

from ablation.records import Declaration
from ablation.study.plan_file import extend_plan, plan_file
from ablation.tracking.store import Store
from ablation.tracking.study_folder import read_plan
from ablation.tracking.study_record import load_study


def test_the_first_declaration_stays_and_a_changed_margin_is_added(tmp_path: Path) -> None:
    study = ["train", "-m", *TINY, "loss=bce,focal", "train.epochs=1", "study=declared"]
    ablation(tmp_path, *study, "analysis.margin=0.02")
    ablation(tmp_path, *study, "analysis.margin=0.05")  # nothing to train: the results are known by now
    ablation(tmp_path, *study, "analysis.margin=0.05")
    plan = read_plan(tmp_path / "runs" / "declared" / "plan.json")
    assert [(d.margin, d.runs_done) for d in plan.declared] == [(0.02, 0), (0.05, 2)]
    store = Store.of(f"sqlite:///{tmp_path / 'mlflow.db'}", None)
    assert load_study(store, "declared").declared == tuple(plan.declared)
    ablation(tmp_path, "sync")
    assert load_study(store, "declared").declared == tuple(plan.declared)


def test_a_margin_is_no_part_of_a_run(copied_study: Path) -> None:
    """Else a margin that was thought over would train everything anew."""
    run = ["train", *TINY, "study=little", "seed=1"]
    again = ablation(copied_study, *run, "analysis.margin=0.3", "analysis.metric=val/AP50")
    assert "FINISHED already" in again.stderr
    assert len(list(copied_study.glob("runs/*/*/*/run.json"))) == 6


def test_a_margin_that_is_none_is_refused(tmp_path: Path) -> None:
    result = in_this_process(tmp_path, "train", *TINY, "analysis.margin=0", check=2)
    assert "analysis.margin: found 0.0, must be > 0" in error_line(result)


def test_a_plan_of_an_older_version_declares_nothing(tmp_path: Path) -> None:
    path = plan_file(tmp_path, "s")
    path.parent.mkdir()
    path.write_text(json.dumps({"runs": [{"arm": "bce", "seed": 0, "key": "k", "command": "c"}]}))
    assert read_plan(path).declared == []
    plan, _ = extend_plan(tmp_path, "s", [], Declaration("val/AP", 0.01, 0.95, ("focal",), 5, 1))
    assert read_plan(path) == plan and plan.declared[0].family == ("focal",)
