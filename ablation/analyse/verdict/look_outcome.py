"""What one look of a decision said; read without the packages that compute it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    """What one look of the decision said.

    Attributes:
        planned: pairs that the design has at this look.
        pairs: of these, both runs finished.
        difference: mean of the other loss - BCE, in the metric's units.
        low, high: repeated confidence interval, which holds at all looks together.
        se, df: standard error of the difference and its degrees of freedom.
        p, p_limit: two-sided p and the nominal level below which it decides.
        tost_p, tost_limit: likewise of equivalence.
        verdict: better, worse, equivalent, inconclusive (last look only) or "go on".
        note: what a reader has to know beside it, such as runs that diverged.
    """

    planned: int
    pairs: int
    difference: float
    low: float
    high: float
    se: float
    df: float
    p: float
    p_limit: float
    tost_p: float
    tost_limit: float
    verdict: str
    note: str
