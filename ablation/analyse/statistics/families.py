"""Several arms tested at once: which p-values count once that is allowed for."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float], tested: int | None = None) -> list[float]:
    """Holm's step-down p-values: below alpha, the chance of any false finding is at most alpha.

    With the p sorted, p'_(i) = max_{j <= i} min(1, (k - j + 1) p_(j)), k the size of the family.

    Args:
        p_values: one per arm; NaN (no test was possible) stays NaN.
        tested: size k of the family; None: as many as have a p. Arms that were planned but could not
            be tested belong to it: they would have been winners had they won.

    Source: Holm, Scand. J. Statistics 6, 1979.
    """
    from statsmodels.stats.multitest import multipletests

    p = np.asarray(p_values, float)
    there = np.isfinite(p)
    adjusted = np.full(len(p), math.nan)
    if there.any():
        untested = max((tested or 0) - int(there.sum()), 0)
        padded = np.concatenate([p[there], np.ones(untested)])
        adjusted[there] = multipletests(padded, method="holm")[1][: int(there.sum())]
    return [float(value) for value in adjusted]
