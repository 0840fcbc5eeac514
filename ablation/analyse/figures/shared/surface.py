"""A smooth response of the metric over gamma and logit alpha, with what is not known about it."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablation.analyse.figures.shared.grid import focal_arms
from ablation.analyse.view import StudyView

Floats = NDArray[np.float64]
MIN_ARMS = 5
"""With fewer arms two length scales, a height and a noise cannot be told apart."""
DRAWS = 2000
POINTS = 41


@dataclass(frozen=True)
class Surface:
    """The posterior on a grid.

    Attributes:
        gammas, logits: (columns,), (rows,) of the grid; logit = log(alpha / (1 - alpha)).
        mean, sd: (rows, columns) of the metric's expectation, without the noise of a single run.
        best: (rows, columns) probability that the maximum over the grid lies there; sums to 1.
        noise: estimated standard deviation of a single run.
    """

    gammas: Floats
    logits: Floats
    mean: Floats
    sd: Floats
    best: Floats
    noise: float


def points(view: StudyView) -> pd.DataFrame:
    """Every valid run of focal loss: columns gamma, alpha, logit, value, seed.

    Runs without alpha weigh both labels by 1, which is alpha 0.5 at twice the scale: they have no place on
    this plane and are left out. So are alpha 0 and 1, which lie at infinity.
    """
    arms = focal_arms(view)
    arms = arms[arms["loss.alpha"].between(0, 1, inclusive="neither")] if "loss.alpha" in arms else arms[:0]
    rows = view.runs[view.runs["valid"] & view.runs["arm"].isin(arms["arm"])]
    rows = rows[rows[view.metric].notna()] if len(rows) else rows
    empty = pd.Series(dtype=float)
    alpha = rows["loss.alpha"].astype(float) if len(rows) else empty
    columns = {
        "gamma": rows["loss.gamma"].astype(float) if len(rows) else empty,
        "alpha": alpha,
        "logit": np.log(alpha / (1 - alpha)),
        "seed": rows["seed"],
        "value": rows[view.metric].astype(float) if len(rows) else empty,
    }
    return pd.DataFrame(columns).reset_index(drop=True)


def why_no_surface(view: StudyView) -> str | None:
    """None where a surface can be fitted, else the reason."""
    arms = points(view)[["gamma", "alpha"]].drop_duplicates()
    if len(arms) < MIN_ARMS:
        return f"a surface needs {MIN_ARMS} finished focal arms with an alpha, the study has {len(arms)}"
    if arms["gamma"].nunique() < 2 or arms["alpha"].nunique() < 2:
        return "alpha or gamma has one value only"
    return None


def fit(runs: pd.DataFrame, generator: np.random.Generator) -> Surface:
    """Gaussian process: Matern 5/2 with a length for each axis, plus white noise estimated from the seeds.

    Axes are scaled to [0, 1] and the values to mean 0 and SD 1; lengths, height and noise maximise the
    marginal likelihood. What a seed does to all arms alike is taken out first: its mean deviation from
    the arms' means.

    Args:
        runs: as from points.
        generator: for the draws behind `best`.

    Source: Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    deviation = runs["value"] - runs.groupby(["gamma", "alpha"])["value"].transform("mean")
    value = (runs["value"] - deviation.groupby(runs["seed"]).transform("mean")).to_numpy(float)
    axes = [runs["gamma"].to_numpy(float), runs["logit"].to_numpy(float)]
    low, span = [float(axis.min()) for axis in axes], [float(np.ptp(axis)) for axis in axes]
    x = np.column_stack([(axis - a) / s for axis, a, s in zip(axes, low, span, strict=True)])
    height = float(value.std()) or 1.0
    kernel = ConstantKernel(1.0, (1e-2, 1e2)) * Matern([0.5, 0.5], (0.1, 10), nu=2.5) + WhiteKernel(
        0.3, (1e-4, 1e1)
    )
    process = GaussianProcessRegressor(kernel, n_restarts_optimizer=3, random_state=0)
    with warnings.catch_warnings():
        # A length at its bound means that the metric does not vary along that axis: no fault.
        warnings.simplefilter("ignore", ConvergenceWarning)
        process.fit(x, (value - value.mean()) / height)
    unit = np.linspace(0, 1, POINTS)
    grid = np.stack(np.meshgrid(unit, unit), axis=-1).reshape(-1, 2)
    mean, covariance = process.predict(grid, return_cov=True)
    noise = float(process.kernel_.k2.noise_level)
    covariance = covariance - noise * np.eye(len(grid))
    spread = np.sqrt(np.clip(np.diag(covariance), 0, None))
    draws = _draws(mean, covariance, generator)
    best = np.bincount(draws.argmax(axis=1), minlength=len(grid)) / len(draws)
    shape = (POINTS, POINTS)
    return Surface(
        gammas=low[0] + span[0] * unit,
        logits=low[1] + span[1] * unit,
        mean=mean.reshape(shape) * height + value.mean(),
        sd=spread.reshape(shape) * height,
        best=best.reshape(shape),
        noise=math.sqrt(noise) * height,
    )


def _draws(mean: Floats, covariance: Floats, generator: np.random.Generator) -> Floats:
    """(DRAWS, points) from the joint posterior; its covariance is singular, so by its eigenvectors."""
    values, vectors = np.linalg.eigh(covariance)
    keep = values > 1e-9 * values[-1]
    root = vectors[:, keep] * np.sqrt(values[keep])
    drawn: Floats = mean + generator.standard_normal((DRAWS, int(keep.sum()))) @ root.T
    return drawn
