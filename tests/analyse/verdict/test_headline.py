"""The best focal arm against the best BCE arm: which two they are, and that the choice is paid for."""

from __future__ import annotations

import pytest
from helpers.synthetic import Arm, bce, focal, run, study
from helpers.verdicts import declared, say

from ablation.analyse.verdict.headline import Headline
from ablation.analyse.verdict.verdict import StudyVerdict
from ablation.analyse.view import study_view
from ablation.records import StudyRecord


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
    result = say(declared(study(arms, range(6), sd_noise=0.002)))
    assert result.headline is not None
    assert (result.headline.focal, result.headline.bce) == (focal(0.5, 1)[0], "bce-gain=0.25")
    assert result.headline.tuned == ("pos_weight", "gain") and "not tuned" not in result.sentence
    assert result.headline.comparison.verdict == "worse" and result.recommended == "bce-gain=0.25"
    assert result.headline.comparison.difference == pytest.approx(-0.02, abs=0.005)
    assert "bce (gain=0.25)" in result.sentence and result.of(focal(0.5, 1)[0]).verdict == "better"  # type: ignore[union-attr]
    assert result.family == 2, "BCE's own arms are no part of the family"
    view = study_view(study(arms, range(2)))
    assert view.baseline == "bce" and view.held.differences == () and "the gain of its term" in view.held_text


def judged(**arms: tuple[Arm, list[float]]) -> tuple[StudyVerdict, Headline]:
    """The verdict on a study of arms with these values by seed, and its headline."""
    runs = [run(arm, seed, value) for arm, values in arms.values() for seed, value in enumerate(values)]
    verdict = say(declared(StudyRecord("s", runs)))
    assert verdict.headline is not None
    return verdict, verdict.headline


BASE = [0.40, 0.41, 0.42, 0.43, 0.44, 0.45]
SAME = [value + shift for value, shift in zip(BASE, [0.001, -0.001, 0.0, 0.001, -0.001, 0.0], strict=True)]


def test_two_chosen_arms_are_never_equivalent_and_two_that_are_given_can_be() -> None:
    given, alone = judged(bce=(bce(), BASE), focal=(focal(0.5, 1), SAME))
    assert alone.comparison.verdict == "equivalent" and given.sentence.startswith("no useful difference")
    lower = [value - 0.002 for value in SAME]
    several, chosen = judged(bce=(bce(), BASE), a=(focal(0.5, 1), SAME), b=(focal(0.5, 2), lower))
    assert [arm.verdict for arm in several.arms] == ["equivalent", "equivalent"]  # each is an arm by itself
    assert chosen.comparison.verdict == "inconclusive" and "fresh seeds" in several.sentence


def test_the_choice_of_the_bce_is_paid_for_where_the_baseline_is_the_best_of_them() -> None:
    """d = -.02 +- .0183, 6 pairs: t = -2.68, p = .044; with three BCE arms to choose from .131."""
    spread = [0.0185 * z for z in (-1.2, 1.2, -0.8, 0.8, -0.6, 0.6)]
    worse = [value - 0.02 + noise for value, noise in zip(BASE, spread, strict=True)]
    _, of_one = judged(bce=(bce(), BASE), focal=(focal(0.5, 1), worse))
    assert of_one.comparison.p_holm == of_one.comparison.p_t < 0.05 and of_one.comparison.verdict == "worse"
    lower = [value - 0.05 for value in BASE]
    _, of_three = judged(
        bce=(bce(), BASE), two=(bce(2.0), lower), four=(bce(4.0), lower), focal=(focal(0.5, 1), worse)
    )
    assert of_three.bce == "bce" and of_three.arms == (1, 3)
    assert of_three.comparison.p_t == of_one.comparison.p_t
    assert of_three.comparison.p_holm == pytest.approx(3 * of_three.comparison.p_t)
    assert of_three.comparison.verdict == "inconclusive"


@pytest.mark.parametrize("seeds", [2, 4])
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_number_of_seeds_is_the_one_of_the_arms_table(seeds: int, sign: int) -> None:
    noise = [0.03, -0.02, 0.025, -0.03][:seeds]
    values = [0.4 + sign * 0.011 + z for z in noise]
    lower = [0.37 + sign * 0.011 + z for z in noise[::-1]]
    verdict, main = judged(bce=(bce(), [0.4] * seeds), a=(focal(0.5, 1), values), b=(focal(0.5, 2), lower))
    row = verdict.of(main.focal)
    assert row is not None and main.bce == "bce" and row.more_seeds is not None
    assert (main.comparison.more_seeds, main.comparison.fresh) == (row.more_seeds, row.fresh)
    assert f"{row.more_seeds:,} " in verdict.sentence and row.fresh == (seeds >= 3)
