"""The verdict never says more than the runs can carry, and says it where they can."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.planted import truths_of
from helpers.synthetic import bce, focal, grid, run, study, with_state
from helpers.verdicts import MARGIN, declared, pairs, say

from ablation.analyse.detections.run_files import RunArtifacts
from ablation.analyse.statistics.paired import DecisionContext, compare, decide
from ablation.analyse.statistics.power import power_of_difference, power_of_equivalence
from ablation.analyse.verdict.verdict import judge, judged, planned_comparison
from ablation.analyse.view import study_view
from ablation.records import RunRecord, StudyRecord
from ablation.rng import generator


def test_no_verdict_where_the_plan_or_files_of_runs_cannot_be_found() -> None:
    whole = pairs(0.030, 0.031, 0.029, 0.030)
    record = dataclasses.replace(whole, missing=("plan.json is gone; give out=DIR", "files of a run"))
    result = say(record)
    assert "plan.json is gone; give out=DIR; and 1 more" in result.refused and result.recommended is None
    assert sum("plan.json is gone" in line or "files of a run" in line for line in result.limitations) == 2
    result = say(record, partial=True)
    assert not result.refused and result.recommended is not None and len(result.limitations) > 2


@pytest.mark.parametrize(
    ("differences", "verdict", "numbers"),
    [
        ((0.030, 0.031, 0.029, 0.030), "better", ["+0.030", "[+0.029, +0.031]", "val/AP", "4 paired"]),
        ((-0.030, -0.031, -0.029, -0.030), "worse", ["-0.030"]),
        ((0.002, -0.001, 0.001, 0.000), "equivalent", ["0.01"]),
        ((0.004, 0.005, 0.004, 0.005), "equivalent", ["0.01"]),
        ((0.03, -0.02, 0.05, -0.01), "inconclusive", ["fresh seeds"]),
        ((0.02, 0.0201), "inconclusive", ["2 paired"]),
        ((0.02,), "inconclusive", ["1 paired"]),
    ],
)
def test_one_arm(differences: tuple[float, ...], verdict: str, numbers: list[str]) -> None:
    result = say(pairs(*differences))
    (arm,) = result.arms
    assert arm.verdict == verdict and all(text in result.sentence for text in numbers), result.sentence
    assert result.headline is not None and result.headline.comparison == arm, "one comparison, one verdict"
    assert (arm.more_seeds is not None) == (verdict == "inconclusive")
    assert result.recommended == {"better": arm.arm, "worse": "bce", "equivalent": "bce"}.get(verdict)
    assert "not tuned" in result.sentence and "\n" not in result.sentence


def test_a_difference_that_is_real_but_small_is_equivalent_and_says_so() -> None:
    (arm,) = say(pairs(0.004, 0.005, 0.004, 0.005)).arms
    assert arm.p_holm < 0.05 and arm.tost_p < 0.05 and arm.verdict == "equivalent" and "differs" in arm.note


def test_numbers_by_hand() -> None:
    """BCE .40 .41 .42, d = .01 .02 .03: var a = .0004, var b = .0001, var d = .0001, correlation 1."""
    (arm,) = say(pairs(0.01, 0.02, 0.03)).arms
    numbers = (arm.difference, arm.seed_sd, arm.correlation, arm.pairing_gain)
    assert numbers == pytest.approx((0.02, 0.01, 1, 5))
    assert arm.p_sign_flip == 0.25 and arm.p_t == arm.p_holm == pytest.approx(0.0741799, abs=1e-7)
    assert (arm.low, arm.high) == pytest.approx((0.02 - 0.02484138, 0.02 + 0.02484138), abs=1e-7)
    # 11 pairs show equivalence for a margin of 1 sd, 10 find it. The verdict on 3 is drawn: 11 fresh ones.
    assert arm.more_seeds == 11 and arm.fresh


def test_two_pairs_have_no_p_however_well_they_agree() -> None:
    (two,) = say(pairs(0.02, 0.0200001)).arms
    assert math.isnan(two.p_t) and math.isnan(two.p_holm) and two.verdict == "inconclusive"
    assert "2 pairs" in two.note and "3" in two.note
    (three,) = say(pairs(0.02, 0.0200001, 0.02)).arms
    assert three.p_holm < 1e-6 and three.verdict == "better"


def test_equal_generators_give_equal_verdicts() -> None:
    assert say(declared(grid(range(4)))) == say(declared(grid(range(4))))


def test_a_study_without_a_margin_never_says_equivalent() -> None:
    bare = dataclasses.replace(pairs(0.001, -0.001, 0.001, -0.001), declared=())
    result = say(bare)
    assert result.margin is None and result.arms[0].verdict == "inconclusive"
    assert any("margin" in text for text in result.limitations)
    late = say(bare, margin=0.01)
    assert late.arms[0].verdict == "equivalent" and not late.declared_before
    assert any("0.01 was set afterwards" in text for text in late.limitations)


def test_the_first_declaration_counts_and_later_ones_are_told() -> None:
    first, later = dataclasses.replace(MARGIN, margin=0.002), dataclasses.replace(MARGIN, runs_done=8)
    record = declared(pairs(0.004, 0.005, 0.004, 0.005), first, later)
    result = say(record)
    assert result.margin == 0.002 and result.declared_before and result.arms[0].verdict == "better"
    assert any("changed after 8 runs" in text for text in result.limitations)
    late = say(declared(pairs(0.1, 0.1, 0.2), dataclasses.replace(MARGIN, runs_done=3)))
    assert not late.declared_before and any("3 runs had ended" in text for text in late.limitations)


@pytest.mark.parametrize("state", ["MISSING", "RUNNING", "FAILED", "STOPPED", "KILLED"])
def test_an_incomplete_study_is_refused_unless_partial(state: str) -> None:
    record = declared(with_state(grid([0, 1, 2]), focal(0.25, 1)[0], 2, state))
    result = say(record)
    assert (
        result.refused and result.sentence == f"no verdict: {result.refused}" and "1 of 39" in result.refused
    )
    assert {arm.verdict for arm in result.arms} == {"no verdict"} and result.recommended is None
    partial = say(record, partial=True)
    assert not partial.refused and "no verdict" not in {arm.verdict for arm in partial.arms}
    assert "1 of 39" in partial.limitations[0] and "incomplete: 1 of 39" in partial.sentence
    assert "1 of 39" in study_view(record).held_text


def test_pruned_arms_leave_no_verdict_even_if_partial() -> None:
    result = say(declared(with_state(grid([0, 1, 2]), focal(0.25, 1)[0], 2, "PRUNED")), partial=True)
    assert "pruned" in result.refused and {arm.verdict for arm in result.arms} == {"no verdict"}


def test_an_arm_that_diverged_in_some_seed_cannot_be_better() -> None:
    record = declared(study([(bce(), 0.4), (focal(0.5, 1), 0.5)], range(6)))
    assert say(record).arms[0].verdict == "better"
    arm = focal(0.5, 1)[0]
    result = say(with_state(record, arm, 2, "DIVERGED"))
    assert not result.refused, "a run that diverged is a result"
    assert result.arms[0].verdict == "inconclusive" and "diverged in 1 of 6 seeds" in result.arms[0].note
    assert any("diverged" in text and "1 of 6" in text for text in result.limitations)
    for seed in range(6):
        record = with_state(record, arm, seed, "DIVERGED")
    assert say(record).arms[0].verdict == "worse"


def test_nothing_is_worse_than_a_baseline_that_diverged() -> None:
    record = with_state(declared(study([(bce(), 0.5), (focal(0.5, 1), 0.4)], range(6))), "bce", 2, "DIVERGED")
    assert say(record).arms[0].verdict == "inconclusive"


def test_without_bce_or_with_nothing_else() -> None:
    none = say(study([(focal(0.5, 1), 0.4), (focal(0.5, 2), 0.5)], range(3)))
    assert "no BCE arm" in none.sentence and none.headline is None and none.recommended is None
    only = say(study([(bce(), 0.4)], range(3)))
    assert "only BCE has finished runs" in only.sentence and only.arms == []


def test_one_run_per_arm_gives_no_answer() -> None:
    result = say(study([(bce(), 0.4), (focal(0.5, 1), 0.5)], [0]))
    assert result.arms[0].verdict == "inconclusive" and any(
        "One run per arm" in t for t in result.limitations
    )


def test_under_no_effect_few_families_show_a_winner() -> None:
    """1,000 families of 4 arms that share their baseline, 5 seeds; 4 standard errors above 5 % is 7.8 %."""
    random = generator(0, "null families")
    winners = 0
    from ablation.analyse.statistics.hypothesis_tests import holm

    for _ in range(1000):
        values = pd.DataFrame(random.normal(0.4, 0.02, (5, 5)))
        arms = [
            compare(values[k], values[0], names=(str(k), "", "0"), level=0.95, margin=0.01)
            for k in range(1, 5)
        ]
        if min(arm.p_t for arm in arms) * 4 > 0.06:
            continue  # Holm's first step: no winner
        p = holm([arm.p_t for arm in arms])
        # The number of further seeds, which only the others get, takes most of the time.
        near = [dataclasses.replace(arm, p_holm=q) for arm, q in zip(arms, p, strict=True) if q < 0.06]
        verdicts = {decide(arm, DecisionContext(None, 0.95, 4)).verdict for arm in near}
        winners += bool({"better", "worse"} & verdicts)
    assert 0.005 < winners / 1000 < 0.078


@pytest.mark.parametrize(("effect", "n"), [(0.02, 6), (0.0, 11)])
def test_effects_and_equality_are_found_as_often_as_power_says(effect: float, n: int) -> None:
    """A true difference of twice the margin at 6 seeds, and of 0 at 11; the differences' sd is the margin."""
    random = generator(0, "verdicts", n)
    verdicts = []
    for d in random.normal(effect, 0.01, (400, n)):
        numbers = compare(pd.Series(d), pd.Series(np.zeros(n)), names=("a", "", "b"), level=0.95, margin=0.01)
        verdicts.append(decide(numbers, DecisionContext(0.01, 0.95)).verdict)
    verdict, power = (
        ("better", power_of_difference(2, 1, n)) if effect else ("equivalent", power_of_equivalence(1, 1, n))
    )
    assert verdicts.count(verdict) / len(verdicts) == pytest.approx(power, abs=0.05)


class Detections:
    """Detections of a study: every image has one object, found with a probability that the run has."""

    def __init__(self, record: StudyRecord) -> None:
        self.files = {
            run.run_id: truths_of(0.5 + run.metrics["val/AP"] / 2, run.seed, run.arm) for run in record.runs
        }

    def ground_truth(self, run_id: str) -> dict[str, Any]:
        return self.files[run_id][0]

    def detections(self, run_id: str) -> list[dict[str, Any]]:
        return self.files[run_id][1]


def test_kept_detections_widen_the_interval_to_other_images() -> None:
    plain = declared(study([(bce(), 0.4), (focal(0.5, 1), 0.45)], range(4)))
    stored = Detections(plain)
    from ablation.training.evaluate import coco_metrics as evaluated

    values = {key: evaluated(*files, ["thing"]).metrics["AP"] for key, files in stored.files.items()}
    runs = [dataclasses.replace(item, metrics={"val/AP": values[item.run_id]}) for item in plain.runs]
    record = dataclasses.replace(plain, runs=runs)
    seeds, both = say(record), say(record, artifacts=stored)
    assert seeds.covers == "other seeds" and both.covers == "other seeds and other images"
    narrow, wide = seeds.arms[0], both.arms[0]
    assert narrow.difference == wide.difference and wide.image_se > 0 and np.isnan(narrow.image_se)
    assert wide.se == pytest.approx(np.hypot(narrow.se, wide.image_se))
    assert wide.low < wide.difference < wide.high
    row = judged(study_view(record), both).arms.iloc[1]
    assert (row["difference_low"], row["verdict"]) == (wide.low, wide.verdict)
    # Values that the detections do not give are not believed.
    assert np.isnan(say(plain, artifacts=stored).arms[0].image_se)
    assert any("not the logged" in text for text in say(plain, artifacts=stored).limitations)


def fresh(seeds: range, diverged: tuple[int, ...] = ()) -> StudyRecord:
    """The finalists of a study on fresh seeds, with their values on test."""
    values = {0: (0.43, 0.41), 1: (0.44, 0.42), 2: (0.46, 0.42), 3: (0.44, 0.42)}
    record = StudyRecord(
        "s", [run(arm, s, values[s][i]) for i, arm in enumerate((focal(0.5, 1), bce(4.0))) for s in seeds]
    )
    runs = [dataclasses.replace(item, metrics={"test/AP": item.metrics["val/AP"]}) for item in record.runs]
    record = declared(dataclasses.replace(record, runs=runs), dataclasses.replace(MARGIN, metric="test/AP"))
    for seed in diverged:
        record = with_state(record, focal(0.5, 1)[0], seed, "DIVERGED")
    return record


def test_a_planned_comparison_gives_the_numbers_of_the_verdict_without_adjustment() -> None:
    view = study_view(fresh(range(4)), "test/AP")
    names = (focal(0.5, 1)[0], bce(4.0)[0])
    planned = planned_comparison(view, *names, generator(0, "verdict"))
    assert planned.verdict == "better" and planned.p_holm == planned.p_t
    assert planned.difference == pytest.approx(0.025)
    result = judge(view, partial=False, generator=generator(0, "verdict"))
    assert result.headline is not None and result.headline.comparison == planned
    lost = planned_comparison(study_view(fresh(range(4), (3,)), "test/AP"), *names, generator(0, "verdict"))
    assert lost.verdict == "inconclusive"
    gone = planned_comparison(
        study_view(fresh(range(4), (0, 1, 2, 3)), "test/AP"), *names, generator(0, "verdict")
    )
    assert gone.verdict == "worse" and gone.n_pairs == 0


def test_what_is_said_about_the_test_split_is_read_from_the_runs() -> None:
    on_test = judge(study_view(fresh(range(4)), "test/AP"), partial=False, generator=generator(0, "v"))
    assert any("8 runs were evaluated on the test split" in text for text in on_test.limitations)
    assert any("the test split has not been read" in text for text in say(pairs(0.1, 0.2, 0.3)).limitations)


def test_the_number_of_further_seeds_is_one_quantity() -> None:
    """It is printed at most once, and never beside "no number of seeds"."""
    random = generator(0, "further seeds")
    records = [pairs(*random.normal(0, scale, n)) for scale in (0, 1e-3, 0.01, 0.3) for n in (1, 2, 2, 3, 5)]
    records += [pairs(0.02, -0.02), pairs(0, 0), pairs(1e-9, -1e-9), pairs(0.3, -0.3)]
    for record in records:
        for bare in (record, dataclasses.replace(record, declared=())):
            result = say(bare)
            (arm,) = result.arms
            numbers = re.findall(r"([\d,]+) (?:more|fresh) seeds?", result.sentence)
            assert len(numbers) <= 1 and "if the difference" not in result.sentence
            if arm.verdict != "inconclusive":
                assert numbers == [] and arm.more_seeds is None
            elif arm.more_seeds is None:
                assert numbers == [] and "no number of seeds" in result.sentence
            else:
                assert numbers == [f"{arm.more_seeds:,}"] and "no number" not in result.sentence


def moved(record: StudyRecord, arm: str, seeds: set[int], **changes: Any) -> StudyRecord:
    """The study with some runs on other data (fingerprint=...) or with other settings (params={...})."""

    def change(item: RunRecord) -> RunRecord:
        params = item.params | changes.get("params", {})
        fingerprint = changes.get("fingerprint", item.fingerprint)
        return dataclasses.replace(item, params=params, fingerprint=fingerprint)

    chosen = [change(item) if item.arm == arm and item.seed in seeds else item for item in record.runs]
    return dataclasses.replace(record, runs=chosen)


@pytest.mark.parametrize("seeds", [{0, 1, 2, 3}, {3}])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fingerprint": "b" * 32}, ["2 data sets", "00000000", "bbbbbbbb", "study=NAME"]),
        ({"params": {"train.epochs": "40"}}, ["train.epochs", "20", "40"]),
        ({"params": {"train.size_px": "96"}}, []),
    ],
)
def test_runs_whose_fixed_things_differ_are_never_compared(
    seeds: set[int], changes: dict[str, Any], words: list[str]
) -> None:
    arms = [(bce(), 0.4), (focal(0.5, 1), 0.5), (focal(0.5, 2), 0.5)]
    record = declared(study(arms, range(4)))
    runs = [dataclasses.replace(item, params={"train.size_px": "64"} | item.params) for item in record.runs]
    record = dataclasses.replace(record, runs=runs)
    assert say(record).headline is not None
    arm = focal(0.5, 1)[0]
    result = say(moved(record, arm, seeds, **changes), partial=True)
    changed, same = result.of(arm), result.of(focal(0.5, 2)[0])
    assert changed is not None and changed.n_pairs == 0 and math.isnan(changed.difference)
    assert math.isnan(changed.p_holm) and changed.verdict == "no verdict" and changed.note
    assert same is not None and same.n_pairs == 4 and same.verdict == "no verdict"
    assert result.headline is None and result.recommended is None and result.refused
    assert all(word in result.sentence for word in words) and arm in result.sentence
    assert any(result.refused in text for text in result.limitations)


def test_arms_of_a_varied_setting_are_compared_and_the_sentence_names_it() -> None:
    arms = [(f"{name}-lr={lr}", params, lr) for name, params in (bce(), focal(0.5, 1)) for lr in ("1", "2")]
    values = {"bce-lr=1": 0.4, "bce-lr=2": 0.39, f"{focal(0.5, 1)[0]}-lr=1": 0.41}
    records = [
        run((arm, params), seed, values.get(arm, 0.5) + 0.001 * seed, extra={"optim.lr": lr})
        for arm, params, lr in arms
        for seed in range(4)
    ]
    result = say(declared(StudyRecord("s", records)))
    assert result.headline is not None and result.headline.comparison.verdict == "better"
    assert "optim.lr" in result.sentence and "optim.lr" in result.headline.comparison.note
    assert any("optim.lr" in text for text in result.limitations)


def test_a_comparison_on_test_rests_on_the_detections_of_the_test_split(tmp_path: Path) -> None:
    from ablation.training.evaluate import coco_metrics

    runs = []
    for arm, share in ((bce(), 0.6), (focal(0.5, 1), 0.75)):
        for seed in range(3):
            truth, results = truths_of(share, seed, arm[0])
            value = coco_metrics(truth, results, ["thing"]).metrics["AP"]
            folder = tmp_path / f"{arm[0]}-{seed}"
            (folder / "detections").mkdir(parents=True)
            (folder / "detections" / "test_ground_truth.json").write_text(json.dumps(truth))
            (folder / "detections" / "test.json").write_text(json.dumps(results))
            item = run(arm, seed, value)
            runs.append(dataclasses.replace(item, metrics={"test/AP": value}, folder=str(folder)))
    record = declared(StudyRecord("s", runs), dataclasses.replace(MARGIN, metric="test/AP"))
    view = study_view(record, "test/AP", artifacts=RunArtifacts(record))
    planned = planned_comparison(view, focal(0.5, 1)[0], "bce", generator(0, "report"))
    assert math.isfinite(planned.image_se)
    result = judge(view, partial=False, generator=generator(0, "report"))
    assert result.arms == [planned] and result.covers == "other seeds and other images"
