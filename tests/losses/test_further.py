"""Truths about the further confidence losses, beside those that every file of conf/loss/ must meet."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from ablation.losses.asl import ASL
from ablation.losses.base import ConfidenceLoss, ConfidenceTargets
from ablation.losses.bce import BCE
from ablation.losses.focal import Focal
from ablation.losses.quality_focal import QualityFocal
from ablation.losses.varifocal import Varifocal

EXTREME = torch.tensor([-120.0, -88.0, -30.0, -11.2, -1.0, -1e-4, 0.0, 1e-4, 1.0, 11.2, 30.0, 88.0, 120.0])
SHAPE = (2, 3, 5, 7)


def cells(objectness: torch.Tensor, quality: torch.Tensor) -> ConfidenceTargets:
    return ConfidenceTargets(objectness, quality * objectness, torch.ones_like(objectness, dtype=torch.bool))


def one(loss: ConfidenceLoss, p: float, objectness: float, quality: float = 0.0) -> float:
    """The loss of one cell of probability p, in float64."""
    z = torch.full((1, 1, 1, 1), math.log(p / (1 - p)), dtype=torch.float64)
    return float(loss(z, cells(torch.full_like(z, objectness), torch.full_like(z, quality))))


def random_case(quality: float | None = None) -> tuple[torch.Tensor, ConfidenceTargets]:
    g = torch.Generator().manual_seed(3)
    z = (torch.randn(SHAPE, generator=g) * 4).double()
    objectness = (torch.rand(SHAPE, generator=g) < 0.3).double()
    q = torch.rand(SHAPE, generator=g).double() if quality is None else torch.full(SHAPE, quality).double()
    return z, cells(objectness, q)


def gradient(
    loss: ConfidenceLoss, z: torch.Tensor, t: ConfidenceTargets
) -> tuple[torch.Tensor, torch.Tensor]:
    z = z.clone().requires_grad_()
    value = loss(z, t)
    return value.detach(), torch.autograd.grad(value.sum(), z)[0]


def test_quality_focal_by_hand() -> None:
    """p = .5, y = .8: .3^2 x ln 2; p = .9 at a negative: .9^2 x -ln .1; beta 1: .3 x ln 2."""
    assert one(QualityFocal(), 0.5, 1, 0.8) == pytest.approx(0.09 * math.log(2), rel=1e-12)
    assert one(QualityFocal(), 0.9, 0) == pytest.approx(0.81 * 2.302585092994046, rel=1e-12)
    assert one(QualityFocal(beta=1.0), 0.5, 1, 0.8) == pytest.approx(0.3 * math.log(2), rel=1e-12)


def test_varifocal_by_hand() -> None:
    """p = .9, q = .6: .6 x (-.6 ln .9 - .4 ln .1); p = .9 at a negative: .75 x .81 x -ln .1."""
    expected = 0.6 * (0.6 * 0.10536051565782628 + 0.4 * 2.302585092994046)
    assert one(Varifocal(), 0.9, 1, 0.6) == pytest.approx(expected, rel=1e-12)
    assert one(Varifocal(), 0.9, 0) == pytest.approx(0.75 * 0.81 * 2.302585092994046, rel=1e-12)


def test_asl_by_hand() -> None:
    """p = .55, margin .05: p_m = .5, so .5^4 x ln 2; p = .9 at a positive: .1 x -ln .9 at gamma_pos 1."""
    assert one(ASL(), 0.55, 0) == pytest.approx(0.0625 * math.log(2), rel=1e-9)
    assert one(ASL(gamma_pos=1.0), 0.9, 1) == pytest.approx(0.1 * 0.10536051565782628, rel=1e-12)
    assert one(ASL(), 0.04, 0) == 0.0


def test_quality_focal_without_focusing_is_bce_with_a_soft_label() -> None:
    z, t = random_case()
    expected = F.binary_cross_entropy_with_logits(z, t.quality, reduction="none")
    assert torch.equal(QualityFocal(beta=0.0)(z, t), expected)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 3.5])
def test_quality_focal_of_perfect_boxes_is_focal_without_alpha(power: float) -> None:
    z, t = random_case(quality=1.0)
    focal = Focal(alpha=None, gamma=power)
    torch.testing.assert_close(QualityFocal(beta=power)(z, t), focal(z, t), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("q", [0.2, 0.5, 0.9])
def test_a_confidence_equal_to_the_quality_is_where_these_losses_are_least(q: float) -> None:
    z = torch.linspace(-6, 6, 2401, dtype=torch.float64).view(1, 1, 1, -1)
    t = cells(torch.ones_like(z), torch.full_like(z, q))
    for loss in (QualityFocal(), QualityFocal(beta=0.0), Varifocal()):
        assert float(z.flatten()[loss(z, t).argmin()].sigmoid()) == pytest.approx(q, abs=2e-3)


def test_varifocal_without_focusing_and_with_perfect_boxes_is_bce() -> None:
    z, t = random_case(quality=1.0)
    torch.testing.assert_close(Varifocal(alpha=1.0, gamma=0.0)(z, t), BCE()(z, t), rtol=1e-12, atol=1e-14)


def test_varifocal_at_negatives_is_focal_with_the_complementary_alpha() -> None:
    z, t = random_case()
    negative = t.objectness == 0
    found, expected = Varifocal(alpha=0.75, gamma=2.0)(z, t), Focal(alpha=0.25, gamma=2.0)(z, t)
    torch.testing.assert_close(found[negative], expected[negative], rtol=1e-12, atol=1e-14)


def test_a_positive_that_misses_its_object_is_a_negative_to_varifocal() -> None:
    assert one(Varifocal(), 0.3, 1, 0.0) == one(Varifocal(), 0.3, 0)


@pytest.mark.parametrize("power", [0.0, 0.5, 2.0])
def test_asl_with_equal_powers_and_no_margin_is_focal_without_alpha(power: float) -> None:
    for z in (random_case()[0], EXTREME.double().view(1, 1, 1, -1)):
        for label in (0.0, 1.0):
            t = cells(torch.full_like(z, label), torch.ones_like(z))
            asl = gradient(ASL(gamma_pos=power, gamma_neg=power, margin=0.0), z, t)
            focal = gradient(Focal(alpha=None, gamma=power), z, t)
            assert torch.equal(asl[0], focal[0])
            assert torch.equal(asl[1], focal[1])


def test_asl_tends_to_focal_as_its_margin_tends_to_zero() -> None:
    z, t = random_case()
    focal = Focal(alpha=None, gamma=2.0)(z, t)
    small = ASL(gamma_pos=2.0, gamma_neg=2.0, margin=1e-9)(z, t)
    torch.testing.assert_close(small, focal, rtol=1e-5, atol=1e-7)


def test_negatives_below_the_margin_have_no_gradient() -> None:
    z = torch.linspace(-8, 8, 161, dtype=torch.float64).view(1, 1, 1, -1)
    value, slope = gradient(ASL(margin=0.2), z, cells(torch.zeros_like(z), torch.zeros_like(z)))
    easy = z.sigmoid() < 0.2 - 1e-9
    assert easy.any() and not easy.all()
    assert (value[easy] == 0).all() and (slope[easy] == 0).all()
    assert (value[~easy] > 0).all() and (slope[~easy] > 0).all()


FURTHER = [
    *(QualityFocal(beta=b) for b in (0.0, 0.1, 0.5, 1.0, 1.5, 2.0, 5.0)),
    *(Varifocal(alpha=a, gamma=g) for a in (0.0, 0.75) for g in (0.0, 0.1, 0.5, 2.0, 5.0)),
    *(ASL(g, 2 * g, m) for g in (0.0, 0.1, 0.5, 2.0) for m in (0.0, 1e-9, 0.05, 0.5)),
]


@pytest.mark.parametrize("loss", FURTHER, ids=repr)
@pytest.mark.parametrize("quality", [0.0, 0.3, 0.5, 1.0])
def test_value_and_gradient_are_finite_up_to_a_logit_of_120(loss: ConfidenceLoss, quality: float) -> None:
    for label in (0.0, 1.0):
        # 0 is p = .5, exactly the quality .5: the cusp of quality focal.
        z = EXTREME.view(1, 1, 1, -1)
        value, slope = gradient(loss, z, cells(torch.full_like(z, label), torch.full_like(z, quality)))
        assert torch.isfinite(value).all() and (value >= 0).all()
        assert torch.isfinite(slope).all()


@pytest.mark.parametrize(
    "loss",
    [QualityFocal(), QualityFocal(beta=1.5), Varifocal(), Varifocal(1.0, 0.5), ASL(), ASL(0.5, 0.5, 0.1)],
    ids=repr,
)
def test_gradients_against_finite_differences(loss: ConfidenceLoss) -> None:
    z = torch.linspace(-7.9, 8.1, 33, dtype=torch.float64).view(1, 1, 3, 11).requires_grad_()
    objectness = (torch.arange(33) % 2).double().view(1, 1, 3, 11)
    quality = torch.linspace(0.05, 0.95, 33, dtype=torch.float64).view(1, 1, 3, 11)
    assert torch.autograd.gradcheck(lambda x: loss(x, cells(objectness, quality)), (z,))


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: QualityFocal(beta=-0.1), "beta"),
        (lambda: QualityFocal(beta=float("nan")), "beta"),
        (lambda: Varifocal(alpha=-1.0), "alpha"),
        (lambda: Varifocal(gamma=float("inf")), "gamma"),
        (lambda: ASL(gamma_pos=-1.0), "gamma_pos"),
        (lambda: ASL(gamma_neg=float("nan")), "gamma_neg"),
        (lambda: ASL(margin=1.0), "margin"),
        (lambda: ASL(margin=-0.05), "margin"),
    ],
)
def test_values_out_of_range_are_refused_by_name(make: object, key: str) -> None:
    with pytest.raises(ValueError, match=f"^{key}: found .*, must be"):
        make()  # type: ignore[operator]
