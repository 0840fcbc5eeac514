"""Do scores mean what they say: reliability, detection calibration error, undoing a loss's distortion.

A detection is right where it matches an object at IoU .5 (see matching.py).

    D-ECE = sum over bins of (n_bin / n) |precision of the bin - mean score of the bin|

after Küppers et al., "Multivariate Confidence Calibration for Object Detection", arXiv 2004.13546,
in the score alone. Over bins of equal width, or of equal numbers of detections (mass).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.special import expit, logit

from ablation.analyse.detections.matching import Floats, Matches
from ablation.analyse.detections.run_files import number

Scheme = Literal["width", "mass"]


def reliability(
    scores: Floats, right: NDArray[np.bool_], bins: int = 10, scheme: Scheme = "width"
) -> pd.DataFrame:
    """One row per bin that is not empty: low, high, n, score (mean), precision.

    Args:
        scores: in [0, 1]; right: whether each detection is.
        bins: how many; fewer by mass where there are fewer detections.
        scheme: "width": equal parts of [0, 1], the upper end included in the bin below it; "mass":
            equal numbers of detections, by rising score.
    """
    order = np.argsort(scores, kind="stable")
    scores, right = scores[order], right[order]
    if scheme == "width":
        edges = np.linspace(0, 1, bins + 1)
        number_of = np.clip(np.searchsorted(edges, scores, side="left") - 1, 0, bins - 1)
    else:
        number_of = np.arange(len(scores)) * min(bins, len(scores)) // max(len(scores), 1)
    rows = []
    for index in np.unique(number_of):
        inside = number_of == index
        of_bin = scores[inside]
        low, high = (edges[index], edges[index + 1]) if scheme == "width" else (of_bin[0], of_bin[-1])
        rows.append((float(low), float(high), len(of_bin), of_bin.mean(), right[inside].mean()))
    return pd.DataFrame(rows, columns=["low", "high", "n", "score", "precision"])


def calibration_error(table: pd.DataFrame) -> float:
    """D-ECE of a reliability table; NaN without detections."""
    if table["n"].sum() == 0:
        return float("nan")
    gaps = (table["precision"] - table["score"]).abs()
    return float((table["n"] * gaps).sum() / table["n"].sum())


class Inversion:
    """The true probability that an objectness stands for, from a run's score_inversion.json.

    Between the grid's points a cubic spline runs through the log-odds; beyond its ends the last one
    holds. Where the loss cannot tell (null in the file), the probability is 0 below and 1 above.
    """

    def __init__(self, record: dict[str, Any]) -> None:
        logits = np.array(record["logits"], np.float64)
        odds = np.array([number(value) for value in record["log_odds"]])
        known = np.isfinite(odds)
        if known.sum() < 2:
            raise ValueError("score_inversion.json: no score of this loss has a probability")
        self._low, self._high = logits[known][0], logits[known][-1]
        self._open_below, self._open_above = not known[0], not known[-1]
        self._spline = CubicSpline(logits[known], odds[known])

    def __call__(self, scores: Floats) -> Floats:
        """eta of each score in [0, 1]."""
        z = logit(np.clip(scores, 1e-12, 1 - 1e-12))
        eta = expit(self._spline(np.clip(z, self._low, self._high)))
        if self._open_below:
            eta = np.where(z < self._low, 0.0, eta)
        if self._open_above:
            eta = np.where(z > self._high, 1.0, eta)
        values: Floats = np.asarray(eta, np.float64)
        return values


def recalibrated_scores(matches: Matches, inversion: Inversion) -> Floats:
    """eta(objectness) x class probability of each detection of matches.counted."""
    counted = matches.counted
    objectness = counted["objectness"].to_numpy()
    scores: Floats = inversion(objectness) * counted["score"].to_numpy() / np.maximum(objectness, 1e-12)
    return np.clip(scores, 0, 1)
