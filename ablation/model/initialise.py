"""A network's initial weights, a function of the seed alone."""

from __future__ import annotations

import math

import torch

from ablation.model.blocks import ConvSlot
from ablation.model.head import OBJECTNESS
from ablation.rng import torch_seed

HEAD_STD = 0.01


def objectness_bias(prior: float) -> float:
    """b = -log((1 - prior) / prior), so that sigmoid(b) = prior (focal loss, arXiv 1708.02002, 4.1).

    prior in (0, 1): the confidence that every cell starts with.
    """
    return -math.log((1 - prior) / prior)


@torch.no_grad()
def initialise(slots: list[ConvSlot], fields: int, seed: int, prior: float | None) -> None:
    """Set every weight, bias and statistic of the convolutions in `slots`.

    - Convolutions with batch norm: normal with variance 2 / fan_in (He et al., arXiv 1502.01852);
      batch norm: weight 1, bias 0, mean 0, variance 1. The seed method draws every convolution
      with standard deviation 0.02 whatever its size and batch norm's weight from normal(1, 0.02).
      Batch norm cancels the scale of the weights in the forward pass but not their step size
      relative to it, which with He's scale is alike from the narrow to the full network.
    - The last convolution of a head: normal with standard deviation 0.01, bias 0 except the
      objectness, which starts at `prior`. None leaves it 0: every cell starts with a confidence
      near 0.5, as in the seed method.

    Heads are drawn last, so networks that differ in their classes only share all other weights.

    Args:
        slots: every convolution of the network, in Darknet's file order, which fixes who draws when.
        fields: 5 + classes, predictions per anchor.
        seed: the run's seed. The global generator is neither read nor advanced.
        prior: in (0, 1), or None.
    """
    generator = torch.Generator().manual_seed(torch_seed(seed, "weights"))
    for slot in sorted(slots, key=lambda slot: slot.ends_head):
        conv, norm = slot.conv, slot.norm
        std = HEAD_STD if norm is None else math.sqrt(2 / conv.weight[0].numel())
        conv.weight.normal_(0.0, std, generator=generator)
        if norm is not None:
            norm.reset_parameters()
        if conv.bias is not None:
            conv.bias.zero_()
            if prior is not None:
                conv.bias[OBJECTNESS::fields] = objectness_bias(prior)
