"""The sentence never says more than the runs can carry."""

from __future__ import annotations

import pytest

from ablation.analyse import table
from ablation.analyse.headline import headline
from ablation.records import StudyRecord
from tests.analyse.synthetic import bce, focal, grid, run, study, with_state


def say(record: StudyRecord) -> str:
    return headline(table.arms_table(table.runs_table(record), "val/AP"), "val/AP")


def pairs(*scores: tuple[float, float]) -> StudyRecord:
    """A study of one focal arm from (bce, focal) scores, one pair per seed."""
    records = [item for seed, (b, f) in enumerate(scores)
               for item in (run(bce(), seed, b), run(focal(0.5, 1), seed, f))]  # fmt: skip
    return StudyRecord("s", records)


def test_two_pairs_are_never_enough() -> None:
    # The differences agree so well that their interval excludes 0.
    text = say(pairs((0.40, 0.4200), (0.30, 0.3201)))
    assert text == (
        "focal (alpha=0.5, gamma=1): val/AP 0.370, +0.020 [+0.019, +0.021] against BCE on 2 paired seeds: "
        "not enough runs to tell"
    )


def test_one_pair_has_no_interval() -> None:
    text = say(pairs((0.40, 0.42)))
    assert text.endswith("+0.020 against BCE on 1 paired seed: not enough runs to tell")


def test_clear_differences_are_called_so() -> None:
    better = say(pairs((0.40, 0.43), (0.30, 0.331), (0.35, 0.379)))
    assert better.endswith("on 3 paired seeds: better than BCE on these seeds")
    worse = say(pairs((0.43, 0.40), (0.331, 0.30), (0.379, 0.35)))
    assert worse.endswith("on 3 paired seeds: worse than BCE") and "-0.030" in worse


def test_an_interval_that_includes_zero_is_no_difference() -> None:
    text = say(pairs((0.40, 0.43), (0.30, 0.29), (0.35, 0.36)))
    assert "includes 0" in text and "better" not in text


def test_equal_arms_are_not_better() -> None:
    assert "includes 0" in say(pairs(*[(0.4, 0.4)] * 5))


def test_the_best_of_many_equal_arms_is_seldom_called_better() -> None:
    """12 arms equal to BCE, 100 studies: at the plain 5 % some arm would 'win' in about every fifth."""
    arms = [(bce(), 0.4)] + [(focal(a, g), 0.4) for a in (None, 0.25, 0.75) for g in (0.0, 0.5, 1.0, 2.0)]
    texts = [say(study(arms, range(4), stream=f"null {i}")) for i in range(100)]
    better = sum("better than BCE" in text for text in texts)
    excluded = sum("excludes 0" in text for text in texts) + better
    # Bonferroni bounds the share by 5 %, of which half on the good side; 4 standard errors: 13.
    assert better <= 13 and excluded > better


def test_a_planted_effect_is_found() -> None:
    record = study([(bce(), 0.40), (focal(0.25, 1), 0.40), (focal(0.75, 1), 0.45)], range(6))
    text = say(record)
    assert text.startswith("best of 2 arms: focal (alpha=0.75, gamma=1)") and "better than BCE" in text


def test_without_plain_bce_no_difference_is_given() -> None:
    text = say(study([(bce(4.0), 0.4), (focal(0.5, 1), 0.5)], [0, 1, 2]))
    assert text.startswith("the study has no plain BCE") and "focal (alpha=0.5, gamma=1)" in text


def test_bce_that_did_not_finish_is_said() -> None:
    record = with_state(study([(bce(), 0.4), (focal(0.5, 1), 0.5)], [0]), "bce", 0, "DIVERGED")
    assert say(record) == (
        "plain BCE has no finished run, so no difference can be given; the highest mean is "
        f"focal (alpha=0.5, gamma=1): val/AP {record.runs[1].metrics['val/AP']:.3f} on 1 seed "
        "(1 of 2 runs did not finish or are missing: see the problems)"
    )


def test_only_bce() -> None:
    assert say(study([(bce(), 0.4)], [0, 1])).startswith("only BCE has finished runs")


def test_no_common_seed() -> None:
    record = StudyRecord("s", [run(bce(), 0, 0.4), run(focal(0.5, 1), 1, 0.4)])
    assert "no seed has finished in both" in say(record)


@pytest.mark.parametrize("state", ["MISSING", "RUNNING", "FAILED", "DIVERGED"])
def test_an_incomplete_study_says_so(state: str) -> None:
    assert "did not finish" not in say(grid([0, 1, 2]))
    assert "(1 of 39 runs did not finish" in say(with_state(grid([0, 1, 2]), focal(0.25, 1)[0], 2, state))
