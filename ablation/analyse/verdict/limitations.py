"""What a study cannot conclude, from its own facts. The report prints these lines and adds none."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ablation.analyse.tables.settings import BASELINE_LOSS
from ablation.analyse.verdict.comparisons import ArmRuns
from ablation.analyse.verdict.coverage import coverage_limit
from ablation.analyse.verdict.findings import Findings
from ablation.analyse.verdict.headline import Headline
from ablation.analyse.view import StudyView
from ablation.errors import counted

_ARMS_NAMED = 6
"""So many diverged arms are named; of more only their number is given."""


def limitations(findings: Findings) -> list[str]:
    """One sentence or two for each limit, the most serious first."""
    view, headline = findings.view, findings.headline
    lines = [view.partial] if view.partial else []
    lines += [f"Not found: {line}." for line in view.study.missing]
    lines += _tuning(headline)
    lines += _not_held_fixed(view)
    lines += _command(findings)
    lines += _diverged(findings.arms)
    lines += findings.declaration.remarks
    lines += _number_of_pairs(findings)
    lines += _several_arms(findings)
    lines += coverage_limit(findings.comparisons, findings.images, int(view.runs["valid"].sum()))
    if headline is not None and max(headline.arms) > 1:
        lines.append(_choice(headline, view.metric, confirmed=findings.confirmation is not None))
    scope = "It holds for this data set, network, length of training and criterion"
    lines.append(f"{scope}; {_test_split(findings)}.")
    return lines


def _test_split(findings: Findings) -> str:
    """Who read the test split, from the metrics of the runs."""
    view = findings.view
    if view.test_runs:
        runs = "1 run was" if view.test_runs == 1 else f"{view.test_runs} runs were"
        return f"{runs} evaluated on the test split"
    if findings.confirmation is not None:
        return "its own runs have not read the test split, those of its confirmation have"
    return "the test split has not been read"


def _tuning(headline: Headline | None) -> list[str]:
    if headline is None:
        return []
    if not headline.tuned:
        return [
            "BCE was not tuned: the study has no BCE arm with another pos_weight or gain. A focal arm that "
            "is better may be better than this setting of BCE only."
        ]
    untuned = {"pos_weight", "gain"} - set(headline.tuned)
    lines = [f"BCE was tuned in its {headline.tuned[0]}, but not in its {untuned.pop()}."] if untuned else []
    focal, bce = headline.arms
    if bce < focal:
        lines.append(f"BCE had {bce} arms and focal loss {focal}: the larger search had more chances.")
    return lines


def _not_held_fixed(view: StudyView) -> list[str]:
    held = view.held
    lines = []
    if held.refusal:
        lines.append(f"Runs of this study cannot be compared: {held.refusal}.")
    if varied := held.varied(held.runs):
        names = ", ".join(difference.name for difference in varied)
        lines.append(f"Besides the loss these differ between arms: {names}. They may be the reason.")
    if held.unknown_data and not held.imported:
        do = "does" if held.unknown_data == 1 else "do"
        of_all = f"{held.unknown_data} of {counted(len(held.runs), 'run')}"
        lines.append(f"{of_all} {do} not record which data they were trained on.")
    return lines


def _command(findings: Findings) -> list[str]:
    """What pairing rests on where a command trained the runs, and what it was worth."""
    if not findings.view.held.command:
        return []
    line = (
        "A trainer of the study's own made these runs: that arms with one seed start from the same weights "
        "and see the same batches cannot be promised, so pairing rests on the seed only."
    )
    if "{seed}" not in findings.view.held.command_text:
        line += " Its command does not even take the seed: runs are paired by their number alone."
    correlations = [
        f"{comparison.correlation:+.2f} ({comparison.setting}, {counted(comparison.n_pairs, 'pair')})"
        for comparison in findings.comparisons
        if math.isfinite(comparison.correlation)
    ]
    if correlations:
        more = f" and {counted(len(correlations) - _ARMS_NAMED, 'more arm')}" * (
            len(correlations) > _ARMS_NAMED
        )
        text = ", ".join(correlations[:_ARMS_NAMED]) + more
        line += f" Correlation with the baseline over the seeds: {text}; pairing gains where it is above 0."
    return [line]


def _diverged(arms: Sequence[ArmRuns]) -> list[str]:
    names = [
        f"{arm.setting} in {arm.diverged} of {counted(arm.planned, 'seed')}" for arm in arms if arm.diverged
    ]
    if not names:
        return []
    more = f" and {counted(len(names) - _ARMS_NAMED, 'more arm')}" if len(names) > _ARMS_NAMED else ""
    text = ", ".join(names[:_ARMS_NAMED]) + more
    return [f"Some runs diverged, which is a result and not missing data: {text}."]


def _number_of_pairs(findings: Findings) -> list[str]:
    """What so few pairs cannot show: nothing from one, hardly anything from two, no small sign-flip p."""
    pairs = max((comparison.n_pairs for comparison in findings.comparisons), default=0)
    if pairs == 0:
        return []
    if pairs == 1:
        return ["One run per arm: a difference cannot be told from the chance of a seed."]
    lines = []
    if pairs == 2:
        lines.append(
            "With two seeds an interval rests on one degree of freedom (at 95%: 12.7 standard errors)."
        )
    smallest, family = 2.0 ** (1 - pairs), findings.family
    if smallest * max(family, 1) > 1 - findings.view.level:
        several = f" for one arm of {family}" if family > 1 else ""
        lines.append(
            f"With {pairs} pairs the sign-flip p cannot be smaller than {smallest:.3g}, too large{several}; "
            "so the paired t test decides, which assumes nearly normal differences between seeds."
        )
    return lines


def _several_arms(findings: Findings) -> list[str]:
    if findings.family < 2 or not any(comparison.n_pairs for comparison in findings.comparisons):
        return []
    tuned = int((findings.view.arms["loss"] == BASELINE_LOSS).sum()) - 1
    arms = "tuned BCE arm is" if tuned == 1 else f"{tuned} tuned BCE arms are"
    apart = f". The {arms} a family apart" if tuned > 0 else ""
    return [
        f"{findings.family} arms are tested together, and p is adjusted for that (Holm); intervals and the "
        f"test of equivalence are of one arm at a time{apart}."
    ]


def _choice(headline: Headline, metric: str, confirmed: bool) -> str:
    focal, bce = headline.arms
    text = (
        f"The best of {focal} focal {'arm' if focal == 1 else 'arms'} and of {bce} BCE "
        f"{'arm' if bce == 1 else 'arms'} were chosen on the same validation images and seeds they are "
        "compared on"
    )
    advice = "" if confirmed else " Fresh seeds and the test split would confirm it (`ablation confirm`)."
    return (
        f"{text}, so their difference of {headline.comparison.difference:+.3f} {metric} is too large on "
        f"average, and they are never called equivalent.{advice}"
    )
