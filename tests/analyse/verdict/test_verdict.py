"""The verdict never says more than the runs can carry, and says it where they can."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.planted import truths_of
from helpers.synthetic import bce, focal, grid, run, study, with_state

from ablation.analyse.statistics.paired import DecisionContext, compare, decide
from ablation.analyse.statistics.power import power_of_difference, power_of_equivalence
from ablation.analyse.verdict.verdict import StudyVerdict, judge, judged
from ablation.analyse.view import study_view
from ablation.commands.confirm.verdict import confirm_verdict
from ablation.records import Declaration, StudyRecord
from ablation.rng import generator

MARGIN = Declaration("val/AP", 0.01, 0.95)


def say(record: StudyRecord, partial: bool = False, **more: Any) -> StudyVerdict:
    view = study_view(record)
    return judge(view, partial=partial, generator=generator(0, "verdict"), **more)


def declared(record: StudyRecord, *declarations: Declaration) -> StudyRecord:
    return dataclasses.replace(record, declared=declarations or (MARGIN,))


def pairs(*differences: float) -> StudyRecord:
    """A study of BCE and one focal arm with these paired differences."""
    records = []
    for seed, d in enumerate(differences):
        base = 0.4 + 0.01 * seed
        records += [run(bce(), seed, base), run(focal(0.5, 1), seed, base + d)]
    return declared(StudyRecord("s", records))


@pytest.mark.parametrize(
    ("differences", "verdict", "words"),
    [
        ((0.030, 0.031, 0.029, 0.030), "better", "is better than bce: +0.030 [+0.029, +0.031] val/AP on 4"),
        ((-0.030, -0.031, -0.029, -0.030), "worse", "is worse than bce: -0.030"),
        ((0.002, -0.001, 0.001, 0.000), "equivalent", "no useful difference"),
        ((0.004, 0.005, 0.004, 0.005), "equivalent", "within the margin of 0.01"),
        ((0.03, -0.02, 0.05, -0.01), "inconclusive", "more seeds would tell"),
        ((0.02, 0.0201), "inconclusive", "2 paired seeds"),
        ((0.02,), "inconclusive", "one pair cannot tell"),
    ],
)  # fmt: skip
def test_one_arm(differences: tuple[float, ...], verdict: str, words: str) -> None:
    found = say(pairs(*differences))
    (one,) = found.arms
    assert one.verdict == verdict and words in found.sentence, found.sentence
    assert found.headline is not None and found.headline.comparison == one, "one comparison, one verdict"
    assert (one.more_seeds is not None) == (verdict == "inconclusive")
    assert found.recommended == {"better": one.arm, "worse": "bce", "equivalent": "bce"}.get(verdict)
    assert found.sentence.endswith("BCE was not tuned)") and "\n" not in found.sentence


def test_a_difference_that_is_real_but_small_is_equivalent_and_says_so() -> None:
    (one,) = say(pairs(0.004, 0.005, 0.004, 0.005)).arms
    assert one.p_holm < 0.05 and one.tost_p < 0.05 and one.note == "differs, but by less than matters"


def test_numbers_by_hand() -> None:
    """BCE .40 .41 .42, d = .01 .02 .03: var a = .0004, var b = .0001, var d = .0001, correlation 1."""
    (one,) = say(pairs(0.01, 0.02, 0.03)).arms
    assert (one.difference, one.seed_sd, one.correlation, one.pairing_gain) == pytest.approx(
        (0.02, 0.01, 1, 5)
    )
    assert one.p_sign_flip == 0.25 and one.p_t == one.p_holm == pytest.approx(0.0741799, abs=1e-7)
    assert (one.low, one.high) == pytest.approx((0.02 - 0.02484138, 0.02 + 0.02484138), abs=1e-7)
    # 11 pairs show equivalence for a margin of 1 sd, 10 find it: 8 more than 3.
    assert one.more_seeds == 8 and one.note == "2 if the difference is as large as seen"


def test_two_pairs_have_no_p_however_well_they_agree() -> None:
    (one,) = say(pairs(0.02, 0.0200001)).arms
    assert math.isnan(one.p_t) and math.isnan(one.p_holm) and one.verdict == "inconclusive"
    assert "2 pairs cannot tell; 3 are the least" in one.note
    (three,) = say(pairs(0.02, 0.0200001, 0.02)).arms
    assert three.p_holm < 1e-6 and three.verdict == "better"


def test_equal_generators_give_equal_verdicts() -> None:
    assert say(declared(grid(range(4)))) == say(declared(grid(range(4))))


def test_a_study_without_a_margin_never_says_equivalent() -> None:
    bare = dataclasses.replace(pairs(0.001, -0.001, 0.001, -0.001), declared=())
    found = say(bare)
    assert found.margin is None and found.arms[0].verdict == "inconclusive"
    assert "No margin was declared before the study ran." in found.limitations
    late = say(bare, margin=0.01)
    assert late.arms[0].verdict == "equivalent" and not late.declared_before
    assert any("given afterwards" in text for text in late.limitations)


def test_the_first_declaration_counts_and_later_ones_are_told() -> None:
    record = declared(pairs(0.004, 0.005, 0.004, 0.005), dataclasses.replace(MARGIN, margin=0.002),
                      dataclasses.replace(MARGIN, runs_done=8))  # fmt: skip
    found = say(record)
    assert found.margin == 0.002 and found.declared_before and found.arms[0].verdict == "better"
    assert any("changed after 8 runs" in text for text in found.limitations)
    late = say(declared(pairs(0.1, 0.1, 0.2), dataclasses.replace(MARGIN, runs_done=3)))
    assert not late.declared_before and any("3 runs had ended" in text for text in late.limitations)


@pytest.mark.parametrize("state", ["MISSING", "RUNNING", "FAILED", "STOPPED", "KILLED"])
def test_an_incomplete_study_is_refused_unless_partial(state: str) -> None:
    record = declared(with_state(grid([0, 1, 2]), focal(0.25, 1)[0], 2, state))
    found = say(record)
    assert found.refused and found.sentence.startswith("no verdict: 1 of 39 runs is no data")
    assert {one.verdict for one in found.arms} == {"no verdict"} and found.recommended is None
    partial = say(record, partial=True)
    assert not partial.refused and "no verdict" not in {one.verdict for one in partial.arms}
    assert (
        "INCOMPLETE: 1 of 39 runs" in partial.limitations[0] and "incomplete: 1 of 39" not in found.sentence
    )
    assert "1 of 39" in study_view(record).held_text


def test_pruned_arms_leave_no_verdict_even_if_partial() -> None:
    found = say(declared(with_state(grid([0, 1, 2]), focal(0.25, 1)[0], 2, "PRUNED")), partial=True)
    assert "1 runs were pruned" in found.refused and {one.verdict for one in found.arms} == {"no verdict"}


def test_an_arm_that_diverged_in_some_seed_cannot_be_better() -> None:
    record = declared(study([(bce(), 0.4), (focal(0.5, 1), 0.5)], range(6)))
    assert say(record).arms[0].verdict == "better"
    arm = focal(0.5, 1)[0]
    found = say(with_state(record, arm, 2, "DIVERGED"))
    assert not found.refused, "a run that diverged is a result"
    assert found.arms[0].verdict == "inconclusive" and "diverged in 1 of 6 seeds" in found.arms[0].note
    assert any("Some runs diverged" in text for text in found.limitations)
    for seed in range(6):
        record = with_state(record, arm, seed, "DIVERGED")
    assert say(record).arms[0].verdict == "worse"


def test_nothing_is_worse_than_a_baseline_that_diverged() -> None:
    record = with_state(declared(study([(bce(), 0.5), (focal(0.5, 1), 0.4)], range(6))), "bce", 2, "DIVERGED")
    assert say(record).arms[0].verdict == "inconclusive"


def tuned(gain: float) -> tuple[str, dict[str, str]]:
    return f"bce-gain={gain:g}", {"loss.name": "bce", "criterion.confidence_gain": str(gain)}


def test_the_headline_is_against_the_best_tuned_bce() -> None:
    arms = [
        (bce(), 0.40),
        (bce(4.0), 0.43),
        (tuned(0.25), 0.46),
        (focal(0.5, 1), 0.44),
        (focal(0.5, 2), 0.42),
    ]
    found = say(declared(study(arms, range(6), sd_noise=0.002)))
    assert found.headline is not None
    assert (found.headline.focal, found.headline.bce) == (focal(0.5, 1)[0], "bce-gain=0.25")
    assert found.headline.tuned == ("pos_weight", "gain") and "not tuned" not in found.sentence
    assert found.headline.comparison.verdict == "worse" and found.recommended == "bce-gain=0.25"
    assert found.headline.comparison.difference == pytest.approx(-0.02, abs=0.005)
    assert "bce (gain=0.25)" in found.sentence and found.of(focal(0.5, 1)[0]).verdict == "better"  # type: ignore[union-attr]
    assert found.family == 2, "BCE's own arms are no part of the family"
    view = study_view(study(arms, range(2)))
    assert view.baseline == "bce" and view.not_held == () and "the gain of its term" in view.held_text


def test_without_bce_or_with_nothing_else() -> None:
    none = say(study([(focal(0.5, 1), 0.4), (focal(0.5, 2), 0.5)], range(3)))
    assert "no BCE arm" in none.sentence and none.headline is None and none.recommended is None
    only = say(study([(bce(), 0.4)], range(3)))
    assert "only BCE has finished runs" in only.sentence and only.arms == []


def test_one_run_per_arm_gives_no_answer() -> None:
    found = say(study([(bce(), 0.4), (focal(0.5, 1), 0.5)], [0]))
    assert found.arms[0].verdict == "inconclusive" and any("One run per arm" in t for t in found.limitations)


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
        if min(one.p_t for one in arms) * 4 > 0.06:
            continue  # Holm's first step: no winner
        p = holm([one.p_t for one in arms])
        # The number of further seeds, which only the others get, takes most of the time.
        found = [decide(dataclasses.replace(one, p_holm=q), DecisionContext(None, 0.95, 4)).verdict
                 for one, q in zip(arms, p, strict=True) if q < 0.06]  # fmt: skip
        winners += bool({"better", "worse"} & set(found))
    assert 0.005 < winners / 1000 < 0.078


@pytest.mark.parametrize(("effect", "n"), [(0.02, 6), (0.0, 11)])
def test_effects_and_equality_are_found_as_often_as_power_says(effect: float, n: int) -> None:
    """A true difference of twice the margin at 6 seeds, and of 0 at 11; the differences' sd is the margin."""
    random = generator(0, "verdicts", n)
    found = []
    for d in random.normal(effect, 0.01, (400, n)):
        numbers = compare(pd.Series(d), pd.Series(np.zeros(n)), names=("a", "", "b"), level=0.95, margin=0.01)
        found.append(decide(numbers, DecisionContext(0.01, 0.95)).verdict)
    if effect:
        assert np.mean([v == "better" for v in found]) == pytest.approx(
            power_of_difference(2, 1, n), abs=0.05
        )
    else:
        assert np.mean([v == "equivalent" for v in found]) == pytest.approx(
            power_of_equivalence(1, 1, n), abs=0.05
        )


class Kept:
    """Detections of a study: every image has one object, found with a probability of the run's own."""

    def __init__(self, record: StudyRecord) -> None:
        self.files = {item.run_id: truths_of(0.5 + item.metrics["val/AP"] / 2, item.seed, item.arm)
                      for item in record.runs}  # fmt: skip

    def ground_truth(self, run_id: str) -> dict[str, Any]:
        return self.files[run_id][0]

    def detections(self, run_id: str) -> list[dict[str, Any]]:
        return self.files[run_id][1]


def test_kept_detections_widen_the_interval_to_other_images() -> None:
    plain = declared(study([(bce(), 0.4), (focal(0.5, 1), 0.45)], range(4)))
    kept = Kept(plain)
    from ablation.training.evaluate import coco_metrics as evaluated

    values = {key: evaluated(*files, ["thing"]).metrics["AP"] for key, files in kept.files.items()}
    runs = [dataclasses.replace(item, metrics={"val/AP": values[item.run_id]}) for item in plain.runs]
    record = dataclasses.replace(plain, runs=runs)
    seeds, both = say(record), say(record, artifacts=kept)
    assert seeds.covers == "other seeds" and both.covers == "other seeds and other images"
    one, other = seeds.arms[0], both.arms[0]
    assert one.difference == other.difference and other.image_se > 0 and np.isnan(one.image_se)
    assert (
        other.se == pytest.approx(np.hypot(one.se, other.image_se))
        and other.low < other.difference < other.high
    )
    view = judged(study_view(record), both)
    row = view.arms.iloc[1]
    assert (row["difference_low"], row["verdict"]) == (other.low, other.verdict)
    # Values that the detections do not give are not believed.
    assert np.isnan(say(plain, artifacts=kept).arms[0].image_se)
    assert any("not the logged" in text for text in say(plain, artifacts=kept).limitations)


def test_confirmation_is_one_planned_comparison() -> None:
    a, b = (
        pd.Series([0.43, 0.44, 0.46, 0.44], [10, 11, 12, 13]),
        pd.Series([0.41, 0.42, 0.42, 0.42], [10, 11, 12, 13]),
    )
    found = confirm_verdict(a, b, names=("f", "bce"), settings=("focal", "bce"), metric="test/AP",
                            margin=0.01,
                            before=0.035, generator=generator(0, "confirm"))  # fmt: skip
    assert found.comparison.verdict == "better" and found.comparison.p_holm == found.comparison.p_t
    assert found.shrunk == pytest.approx(0.01)
    assert (
        "on fresh seeds focal is better than bce: +0.025" in found.sentence
        and "+0.035 when" in found.sentence
    )
    lost = confirm_verdict(a[:3], b, names=("f", "bce"), settings=("focal", "bce"), metric="test/AP",
                            margin=0.01,
                           diverged=(1, 0), planned=4, generator=generator(0, "confirm"))  # fmt: skip
    assert lost.comparison.verdict == "inconclusive"
