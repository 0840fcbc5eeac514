"""Truths about confidence losses, the parametrised ones over every file of conf/loss/."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from ablation.config import typed_group
from ablation.losses.base import ConfidenceLoss, ConfidenceTargets
from ablation.losses.bce import BCE
from ablation.losses.focal import Focal

FILES = sorted((Path(__file__).resolve().parents[2] / "conf" / "loss").glob("*.yaml"))
SHAPE = (3, 3, 7, 5)
EXTREME = torch.tensor([-120.0, -88.0, -30.0, -11.2, -1.0, -1e-4, 0.0, 1e-4, 1.0, 11.2, 30.0, 88.0, 120.0])


def from_yaml(path: Path) -> ConfidenceLoss:
    return typed_group("loss", OmegaConf.to_container(OmegaConf.load(path)), ConfidenceLoss)


def targets(objectness: torch.Tensor, quality: torch.Tensor | None = None) -> ConfidenceTargets:
    if quality is None:
        quality = 0.7 * objectness
    return ConfidenceTargets(objectness, quality, torch.ones_like(objectness, dtype=torch.bool))


def random_case(seed: int = 0) -> tuple[torch.Tensor, ConfidenceTargets]:
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(SHAPE, generator=g) * 6
    return logits, targets((torch.rand(SHAPE, generator=g) < 0.2).float())


def value_and_gradient(
    loss: ConfidenceLoss, logits: torch.Tensor, t: ConfidenceTargets
) -> tuple[torch.Tensor, torch.Tensor]:
    z = logits.clone().requires_grad_()
    value = loss(z, t)
    (gradient,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), gradient


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_loss_is_unreduced_finite_and_not_negative(path: Path) -> None:
    loss = from_yaml(path)
    logits, t = random_case()
    assert loss(logits, t).shape == SHAPE
    for label in (0.0, 1.0):
        objectness = torch.full((1, 1, 1, len(EXTREME)), label)
        value, gradient = value_and_gradient(loss, EXTREME.view(1, 1, 1, -1), targets(objectness))
        assert torch.isfinite(value).all() and torch.isfinite(gradient).all()
        assert (value >= 0).all()


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_loss_treats_cells_in_any_order_alike(path: Path) -> None:
    loss = from_yaml(path)
    logits, t = random_case()
    order = torch.randperm(SHAPE[-1], generator=torch.Generator().manual_seed(1))
    shuffled = ConfidenceTargets(t.objectness[..., order], t.quality[..., order], t.valid[..., order])
    assert torch.equal(loss(logits, t)[..., order], loss(logits[..., order], shuffled))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_loss_is_frozen_and_named_like_its_file(path: Path) -> None:
    loss = from_yaml(path)
    assert loss.name() == path.stem
    with pytest.raises(AttributeError):
        loss.anything = 1  # type: ignore[attr-defined]


def test_focal_without_focusing_or_weighting_is_bce_bit_for_bit() -> None:
    for logits, t in (
        random_case(0),
        random_case(1),
        (EXTREME.view(1, 1, 1, -1), targets(torch.ones(1, 1, 1, 13))),
    ):
        bce = value_and_gradient(BCE(), logits, t)
        focal = value_and_gradient(Focal(alpha=None, gamma=0.0), logits, t)
        assert torch.equal(bce[0], focal[0])
        assert torch.equal(bce[1], focal[1])


def test_half_alpha_halves_bce() -> None:
    logits, t = random_case()
    assert torch.equal(2 * Focal(alpha=0.5, gamma=0.0)(logits, t), BCE()(logits, t))


def test_bce_equals_torch() -> None:
    logits, t = random_case()
    logits, t = logits.double(), targets(t.objectness.double())
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, t.objectness, reduction="none")
    torch.testing.assert_close(BCE()(logits, t), expected, rtol=1e-12, atol=1e-14)
    weight = torch.tensor(3.5)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, t.objectness, reduction="none", pos_weight=weight
    )
    torch.testing.assert_close(BCE(pos_weight=3.5)(logits, t), expected, rtol=1e-12, atol=1e-14)


def test_pos_weight_one_is_plain_bce() -> None:
    logits, t = random_case()
    assert torch.equal(BCE(pos_weight=1.0)(logits, t), BCE()(logits, t))


@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("alpha", [None, 0.0, 0.25, 1.0])
def test_focal_gradient_is_finite_up_to_a_logit_of_120(gamma: float, alpha: float | None) -> None:
    for label in (0.0, 1.0):
        objectness = torch.full((1, 1, 1, len(EXTREME)), label)
        value, gradient = value_and_gradient(
            Focal(alpha, gamma), EXTREME.view(1, 1, 1, -1), targets(objectness)
        )
        assert torch.isfinite(value).all() and torch.isfinite(gradient).all()
        # Where it is badly wrong, focal is its cross-entropy: the gradient is the weight itself.
        wrong = gradient.flatten()[-1 if label == 0 else 0]
        weight = 1.0 if alpha is None else alpha if label == 1 else 1 - alpha
        assert float(wrong.abs()) == pytest.approx(weight, rel=1e-5, abs=1e-12)


def test_focal_by_hand() -> None:
    """p = 0.9 at a negative: 0.75 x 0.9^2 x -ln 0.1; at a positive: 0.25 x 0.1^2 x -ln 0.9."""
    logit = torch.full((1, 1, 1, 1), math.log(0.9 / 0.1), dtype=torch.float64)
    loss = Focal(alpha=0.25, gamma=2.0)
    zero, one = torch.zeros(1, 1, 1, 1).double(), torch.ones(1, 1, 1, 1).double()
    assert float(loss(logit, targets(zero))) == pytest.approx(0.75 * 0.81 * 2.302585092994046, rel=1e-12)
    assert float(loss(logit, targets(one))) == pytest.approx(0.25 * 0.01 * 0.10536051565782628, rel=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_gradient_against_finite_differences(gamma: float) -> None:
    z = torch.linspace(-8, 8, 33, dtype=torch.float64).view(1, 1, 3, 11).requires_grad_()
    objectness = (torch.arange(33) % 2).double().view(1, 1, 3, 11)
    assert torch.autograd.gradcheck(lambda x: Focal(0.25, gamma)(x, targets(objectness)), (z,))


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: Focal(alpha=-0.1), "alpha"),
        (lambda: Focal(alpha=1.1), "alpha"),
        (lambda: Focal(alpha=float("nan")), "alpha"),
        (lambda: Focal(gamma=-1.0), "gamma"),
        (lambda: Focal(gamma=float("nan")), "gamma"),
        (lambda: Focal(gamma=float("inf")), "gamma"),
        (lambda: BCE(pos_weight=0.0), "pos_weight"),
        (lambda: BCE(pos_weight=float("nan")), "pos_weight"),
    ],
)
def test_values_out_of_range_are_refused_by_name(make: object, key: str) -> None:
    with pytest.raises(ValueError, match=f"^{key}: found .*, must be"):
        make()  # type: ignore[operator]
