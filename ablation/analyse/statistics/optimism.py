"""How much better the best of several arms looks than it is, because it was chosen for looking best."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SPLITS = 500
"""Halves of the seeds that are tried at most."""


@dataclass(frozen=True)
class Optimism:
    """The winner's curse of one choice.

    Attributes:
        value: by how much the chosen difference is expected to exceed its own truth, in the
            metric's units; NaN where there are fewer than 2 common seeds.
        seeds: how many it was estimated from.
        arms: how many were chosen from, on either side.
    """

    value: float
    seeds: int
    arms: tuple[int, int]


def of_choice(
    candidates: NDArray[np.float64], opponents: NDArray[np.float64], generator: np.random.Generator
) -> Optimism:
    """Optimism of "the best candidate minus the best opponent", both chosen by their means.

    The seeds are split in halves again and again. On the one half the best of either side is chosen;
    how much larger its difference is there than on the other half, which had no say, is the optimism
    of a choice on a half. On all n seeds the noise is smaller by sqrt(n_half / n), and so is the
    optimism: exactly where the arms are equal, and where they are far apart it is 0 either way.
    It does not cover that all seeds were judged on the same images: the test split does.

    Args:
        candidates, opponents: (seeds, arms), rows are the same seeds; no NaN. One opponent: no choice.
        generator: for the splits, where there are more than SPLITS.
    """
    n = len(candidates)
    arms = (candidates.shape[1], opponents.shape[1])
    if n < 2:
        return Optimism(math.nan, n, arms)
    if arms == (1, 1):
        return Optimism(0.0, n, arms)
    half = (n + 1) // 2
    if math.comb(n, half) <= SPLITS:
        chosen = np.array(list(itertools.combinations(range(n), half)))
    else:
        chosen = generator.permuted(np.tile(np.arange(n), (SPLITS, 1)), axis=1)[:, :half]
    inside = np.zeros((len(chosen), n))
    np.put_along_axis(inside, chosen, 1.0, axis=1)
    gap = np.zeros(len(chosen))
    for sign, values in ((1.0, candidates), (-1.0, opponents)):
        chosen_half, other_half = inside @ values / half, (1 - inside) @ values / (n - half)
        best = chosen_half.argmax(axis=1)[:, None]
        gap += sign * np.take_along_axis(chosen_half - other_half, best, axis=1)[:, 0]
    return Optimism(float(gap.mean()) * math.sqrt(half / n), n, arms)
