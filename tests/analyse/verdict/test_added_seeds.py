"""Seeds that are added after a report gave its verdict decide nothing, and the report says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import synthetic
from helpers.command import in_this_process
from helpers.shared import put_store

from ablation.analyse.statistics.paired import BETTER, INCONCLUSIVE
from ablation.analyse.verdict.verdict import StudyVerdict, judge
from ablation.analyse.view import study_view
from ablation.records import Declaration, PlannedRun, StudyRecord, TakenLook
from ablation.rng import generator
from ablation.tracking.taken_looks import LONGEST_TAG, as_text, looks_of_text, merged

BCE, FOCAL = synthetic.bce(), synthetic.focal(0.25, 1)
UNCLEAR = [0.02, -0.02, 0.03]
CLEAR = [0.1, 0.11, 0.09, 0.1, 0.1]


def judged(shifts: list[float], *looks: TakenLook) -> StudyVerdict:
    """The verdict where focal is better by these amounts, seed by seed, after the given reports."""
    runs = [run for seed, shift in enumerate(shifts)
            for run in (synthetic.run(BCE, seed, 0.4), synthetic.run(FOCAL, seed, 0.4 + shift))]  # fmt: skip
    planned = [PlannedRun(run.arm, run.seed, run.key, "", run.params) for run in runs]
    declared = Declaration("val/AP", 0.001, 0.95)
    view = study_view(StudyRecord("s", runs, planned, "", (declared,), (), looks))
    return judge(view, partial=False, generator=generator(0, "report"))


def report_on(seeds: int, metric: str = "val/AP") -> TakenLook:
    return TakenLook(1, "somebody", metric, tuple(range(seeds)), seeds)


def of(verdict: StudyVerdict) -> tuple[str, int]:
    comparison = verdict.of(FOCAL[0])
    assert comparison is not None
    return comparison.verdict, comparison.n_pairs


def test_added_seeds_decide_nothing_however_clear() -> None:
    shifts = UNCLEAR + CLEAR
    assert of(judged(shifts)) == (BETTER, 8)
    late = judged(shifts, report_on(3))
    assert of(late) == (INCONCLUSIVE, 8)
    assert "5 seeds were added" in late.sentence and "ablation confirm" in late.sentence


def test_a_decision_stands_on_its_own_seeds() -> None:
    assert of(judged([*CLEAR, -0.3, -0.3, -0.3], report_on(5))) == (BETTER, 5)


@pytest.mark.parametrize("look", [report_on(8), report_on(3, "val/AP50")])
def test_the_same_seeds_again_and_another_metric_are_no_second_look(look: TakenLook) -> None:
    assert of(judged(UNCLEAR + CLEAR, look)) == (BETTER, 8)


def test_a_tag_that_is_full_keeps_the_first_report_of_each_metric() -> None:
    """MLflow cuts a tag off after 8,000 characters, and half a list cannot be read."""
    many = [TakenLook(ms, "somebody", metric, tuple(range(3 + ms)), 3 + ms)
            for ms in range(60) for metric in ("val/AP", "val/AP50")]  # fmt: skip
    text = as_text(many)
    kept = looks_of_text(text, "tag")
    assert len(text) <= LONGEST_TAG and {many[0], many[1]} <= set(kept) < set(many)
    assert as_text(many[:4]) and looks_of_text(as_text(many[:4]), "tag") == list(merged(many[:4]))


def test_what_is_advised_is_fresh_seeds_not_added_ones() -> None:
    verdict = judged(UNCLEAR)
    comparison = verdict.of(FOCAL[0])
    assert comparison is not None and comparison.fresh and comparison.more_seeds is not None
    assert f"{comparison.more_seeds:,} fresh seeds" in verdict.sentence


def test_through_the_command_line(tmp_path: Path) -> None:
    put_store(tmp_path)

    def reported(seeds: int) -> str:
        lines = ["arm,loss.name,loss.alpha,loss.gamma,seed,AP"]
        for seed, shift in enumerate((UNCLEAR + CLEAR)[:seeds]):
            lines += [f"bce,bce,,,{seed},{0.4 + 0.001 * seed}", f"focal,focal,0.25,1,{seed},{0.4 + shift}"]
        (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
        in_this_process(tmp_path, "import", "study=s", "table=t.csv")
        return in_this_process(tmp_path, "report", "study=s").stdout

    def taken() -> list[dict]:  # type: ignore[type-arg]
        return list(json.loads((tmp_path / "runs/s/looks.json").read_text()))

    assert "not enough to tell" in reported(3)
    reported(3)  # the same seeds again
    assert [(look["pairs"], look["seeds"]) for look in taken()] == [(3, [0, 1, 2])]
    later = reported(8)
    assert "5 seeds were added" in later and "is better" not in later
    assert [look["pairs"] for look in taken()] == [3, 8]
    # The store knows them too: a deleted file is no fresh start.
    (tmp_path / "runs/s/looks.json").unlink()
    assert "5 seeds were added" in reported(8)
    (tmp_path / "runs/s/looks.json").write_text("[1]")
    damaged = in_this_process(tmp_path, "report", "study=s", check=1)
    assert "looks.json" in damaged.stderr and "Traceback" not in damaged.stderr
