"""What a study cannot conclude, from its own facts."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ablation.analyse.statistics.image_resampling import MOST_RUNS, ImageLevel
from ablation.analyse.statistics.paired import Comparison
from ablation.analyse.tables.settings import BASELINE_LOSS
from ablation.analyse.verdict.comparisons import ArmRuns
from ablation.analyse.verdict.declaration import DeclaredTerms
from ablation.analyse.verdict.headline import Headline
from ablation.analyse.view import StudyView


def limitations(
    view: StudyView, terms: DeclaredTerms, verdicts: Sequence[Comparison], main: Headline | None,
    images: ImageLevel, arms: Sequence[ArmRuns], family: int,
) -> list[str]:  # fmt: skip
    """Sentences, the gravest first."""
    found = [view.partial] if view.partial else []
    found += _tuning(main, arms)
    if view.not_held:
        found.append(
            f"Besides the loss these differ between runs: {', '.join(view.not_held)}. They may be the reason."
        )
    found += _diverged(arms)
    found += terms.remarks
    found += _pairs(view, verdicts, family)
    found += _coverage(view, verdicts, images)
    if main is not None and max(main.arms) > 1:
        found.append(_choice(main, view.metric))
    found.append(
        "It holds for this data set, network, length of training and criterion; "
        "the test split has not been read."
    )
    return found


def _tuning(main: Headline | None, arms: Sequence[ArmRuns]) -> list[str]:
    if main is None:
        return []
    if not main.tuned:
        return [
            "BCE was not tuned: the study has no BCE arm with another pos_weight or gain. A focal arm that "
            "is better may be better than this setting of BCE only."
        ]
    other = {"pos_weight", "gain"} - set(main.tuned)
    found = [f"BCE was tuned in its {main.tuned[0]}, but not in its {other.pop()}."] if other else []
    if main.arms[1] < main.arms[0]:
        found.append(
            f"BCE had {main.arms[1]} arms and focal loss {main.arms[0]}: the larger search had more chances."
        )
    return found


def _diverged(arms: Sequence[ArmRuns]) -> list[str]:
    names = [f"{one.setting} in {one.diverged} of {one.planned} seeds" for one in arms if one.diverged]
    if not names:
        return []
    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more arms" if len(names) > 6 else "")
    return [f"Some runs diverged, which is a result and not missing data: {shown}."]


def _pairs(view: StudyView, verdicts: Sequence[Comparison], family: int) -> list[str]:
    pairs = [one.n_pairs for one in verdicts if one.n_pairs]
    if not pairs:
        return []
    alpha, most = 1 - view.level, max(pairs)
    found = []
    if most == 1:
        found.append("One run per arm: a difference cannot be told from the luck of a seed.")
    elif most == 2:
        found.append(
            "With two seeds an interval rests on one degree of freedom (at 95%: 12.7 standard errors)."
        )
    floor = 2.0 ** (1 - most)
    if most > 1 and floor * max(family, 1) > alpha:
        many = f" for one arm of {family}" if family > 1 else ""
        found.append(
            f"With {most} pairs the sign-flip p cannot be smaller than {floor:.3g}, too large{many}; so the "
            "paired t test decides, which takes the differences between seeds as near normal."
        )
    outside = [one for one in view.arms["loss"] if one == BASELINE_LOSS]
    if family > 1:
        found.append(
            f"{family} arms are tested together, and p is allowed for that (Holm); intervals and the test "
            "of equivalence are of one arm at a time"
            + (
                f". The {len(outside) - 1} tuned BCE arms are a family of their own."
                if len(outside) > 1
                else "."
            )
        )
    return found


def _coverage(view: StudyView, verdicts: Sequence[Comparison], images: ImageLevel) -> list[str]:
    compared = [one for one in verdicts if one.n_pairs > 1]
    without = [one for one in compared if not math.isfinite(one.image_se)]
    if not compared or not without:
        return []
    if len(without) < len(compared):
        counted = int(view.runs["valid"].sum())
        why = (
            f"only the best arms' images are resampled in a study of more than {MOST_RUNS} runs"
            if counted > MOST_RUNS
            else next(iter(images.missing.values()), "detections are missing")
        )
        return [f"The intervals of {len(without)} arms cover other seeds, but not other images: {why}."]
    why = next(iter(images.missing.values()), "no detections could be resampled")
    return [f"Intervals cover other seeds, but not other images of the same kind: {why}."]


def _choice(main: Headline, metric: str) -> str:
    focal, bce = main.arms
    text = (
        f"The best of {focal} focal {'arm' if focal == 1 else 'arms'} and of {bce} BCE "
        f"{'arm' if bce == 1 else 'arms'} were chosen on the same validation images and seeds they are "
        "compared on"
    )
    if not math.isfinite(main.corrected):
        return f"{text}; with fewer than 2 common seeds nobody can say how much is owed to that."
    return (
        f"{text}; {main.optimism.value:+.3f} of the difference is expected to be owed to that, which leaves "
        f"{main.corrected:+.3f} {metric}. Fresh seeds and the test split would confirm it."
    )
