"""Successive halving: at each rung of epochs the arms that stand lowest are not trained further.

For exploration only: what is left was chosen by looking, so a report gives no verdict after it. An arm
is judged by the mean over its seeds, never by one seed, and the BCE arms, to which the others are compared,
are never pruned. A pruned run keeps its checkpoint and goes on when launched with halving.enabled=false.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Mapping, Sequence

from ablation.errors import UsageError, counted, one_line
from ablation.files import exclusive_lock
from ablation.losses.base import ConfidenceLoss
from ablation.study.execute import Prepared
from ablation.tracking.mirror import Mirror
from ablation.tracking.run_folder import DONE_STATES
from ablation.tracking.store import Store

log = logging.getLogger(__name__)

BASELINE_LOSS = "bce"
AT_THE_BOTTOM = 0.0
"""What a run that diverged before the rung counts as: every metric of detection is at least that."""


def check_rungs(runs: Sequence[Prepared]) -> None:
    """Refuse what cannot be ranked, before anything is started.

    Raises:
        UsageError: a rung without an evaluation or beyond the end, an arm with a single seed.
    """
    settings = runs[0].config.halving
    for run in runs:
        train = run.config.train
        if train.stop_after is not None:
            raise UsageError("train.stop_after: halving.enabled=true sets it itself; leave it out")
        for rung in settings.rungs:
            if rung >= train.epochs:
                raise UsageError(
                    f"halving.rungs: found {rung}, must be below train.epochs ({train.epochs} in {run.label})"
                )
            if rung % train.eval_every:
                raise UsageError(
                    f"halving.rungs: found {rung}, must be a multiple of train.eval_every "
                    f"({train.eval_every} in {run.label}): arms are ranked by an evaluation"
                )
    for arm, seeds in _by_arm(runs).items():
        if len(seeds) < 2:
            raise UsageError(
                f"halving.enabled: arm {arm} has one seed; give at least two: a single seed cannot rank arms"
            )


def losers(
    means: Mapping[str, float], protected: set[str], keep_one_in: int
) -> tuple[list[str], list[tuple[str, int]]]:
    """Which arms go on, and which do not.

    Args:
        means: of each arm at the rung; higher is better.
        protected: arms that always go on and take no place of the others.

    Returns:
        The others' ranking, best first, and of those that do not go on (arm, place from 1). Of m arms
        ceil(m / keep_one_in) go on; of equal ones the first by name.
    """
    ranked = sorted((arm for arm in means if arm not in protected), key=lambda arm: (-means[arm], arm))
    going_on = -(-len(ranked) // keep_one_in)
    return ranked, [(arm, place) for place, arm in enumerate(ranked[going_on:], going_on + 1)]


def prune(runs: Sequence[Prepared], rung: int, store: Store | None) -> list[Prepared]:
    """Mark the runs of the arms that stand lowest after `rung` epochs as PRUNED; returns them.

    An arm of which a run has no value there (it failed, or another launcher has it) is neither
    pruned nor counted.
    """
    settings, metric = runs[0].config.halving, runs[0].config.analysis.metric
    arms = _by_arm(runs)
    means = {}
    for arm, members in arms.items():
        values = [_value(run, rung, metric) for run in members]
        known = [value for value in values if value is not None]
        if len(known) == len(values):
            means[arm] = statistics.fmean(known)
    protected = {arm for arm, members in arms.items() if _is_bce(members[0].config.loss)}
    ranked, below = losers(means, protected, settings.keep_one_in)
    best = ", ".join(f"{arm} {means[arm]:.3f}" for arm in ranked[: min(3, len(ranked) - len(below))])
    pruned = []
    for arm, place in below:
        reason = (
            f"arm stood {place} of {len(ranked)} at epoch {rung}: mean {metric} {means[arm]:.3f} "
            f"over {counted(len(arms[arm]), 'seed')}; best were {best}"
        )
        marked = [run for run in arms[arm] if _mark(run, reason, store)]
        if marked:
            log.info("pruned   %s: %s", arm, reason)
        pruned += marked
    return pruned


def _by_arm(runs: Sequence[Prepared]) -> dict[str, list[Prepared]]:
    arms: dict[str, list[Prepared]] = {}
    for run in runs:
        arms.setdefault(str(run.config.arm), []).append(run)
    return arms


def _is_bce(loss: ConfidenceLoss) -> bool:
    return type(loss).name() == BASELINE_LOSS


def _value(run: Prepared, rung: int, metric: str) -> float | None:
    for line in run.folder.settled_metrics():
        if line["epoch"] == rung:
            if metric not in line["metrics"]:
                known = ", ".join(name for name in line["metrics"] if name.startswith("val/"))
                raise UsageError(
                    f"analysis.metric: {metric} was not logged at epoch {rung}; "
                    f"there are: {one_line(known, 200)}"
                )
            value = float(line["metrics"][metric])
            return value if value == value else AT_THE_BOTTOM
    return AT_THE_BOTTOM if run.folder.state == "DIVERGED" else None


def _mark(run: Prepared, reason: str, store: Store | None) -> bool:
    folder = run.folder
    if folder.state in (*DONE_STATES, "FAILED", "PRUNED"):
        return False
    with exclusive_lock(folder.file(".lock")) as locked:
        if locked:
            folder.set_state("PRUNED", reason)
            Mirror(store, folder).finish([])
        return locked
