"""The response surface finds a planted best, knows its noise, and says when it cannot be drawn."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.synthetic import bce, focal, grid, study

from ablation.analyse.figures.shared.surface import fit, points, why_no_surface
from ablation.analyse.view import study_view
from ablation.records import StudyRecord
from ablation.rng import generator

ALPHAS, GAMMAS = (0.1, 0.25, 0.5, 0.75, 0.9), (0.0, 1.0, 2.0, 3.0, 4.0)


def planted(noise: float) -> StudyRecord:
    """A hill with its top at gamma 2, alpha .75; the unit of logit alpha is 1.5."""
    arms = [(bce(), 0.4)] + [
        (focal(a, g), 0.5 - 0.02 * (g - 2) ** 2 - 0.02 * ((np.log(a / (1 - a)) - np.log(3)) / 1.5) ** 2)
        for a in ALPHAS for g in GAMMAS
    ]  # fmt: skip
    return study(arms, range(4), sd_noise=noise)


def test_a_planted_hill_is_found() -> None:
    surface = fit(points(study_view(planted(0.005))), generator(0, "surface"))
    row, column = np.unravel_index(int(surface.mean.argmax()), surface.mean.shape)
    assert surface.gammas[column] == pytest.approx(2, abs=0.3)
    assert surface.logits[row] == pytest.approx(np.log(3), abs=0.4)
    assert surface.mean.max() == pytest.approx(0.5, abs=0.02)
    assert surface.noise == pytest.approx(0.005, rel=0.3)
    near = np.abs(surface.gammas[None] - 2) + np.abs(surface.logits[:, None] - np.log(3)) < 1
    assert surface.best.sum() == pytest.approx(1) and surface.best[near].sum() > 0.95


def test_noise_widens_where_the_best_may_lie() -> None:
    clear, noisy = (fit(points(study_view(planted(n))), generator(0, "s")) for n in (0.002, 0.05))
    assert (noisy.best > 0).sum() > 2 * (clear.best > 0).sum() and noisy.noise > 5 * clear.noise


def test_arms_without_alpha_are_left_out_and_too_few_are_told() -> None:
    view = study_view(grid([0, 1]))
    assert set(points(view)["alpha"]) == {0.25, 0.75} and why_no_surface(view) is None
    few = study_view(study([(bce(), 0.4), (focal(0.5, 1), 0.4), (focal(None, 2), 0.4)], [0]))
    assert "the study has 1" in str(why_no_surface(few))
    line = study_view(study([(bce(), 0.4)] + [(focal(0.5, g), 0.4) for g in range(6)], [0]))
    assert why_no_surface(line) == "alpha or gamma has one value only"
