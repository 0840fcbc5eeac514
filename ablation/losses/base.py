"""The contract of a confidence loss.

A confidence loss says what one cell costs. It never sums, averages, masks or scales: the criterion
does that, in one place, identically for every arm of a study. To add one: a frozen dataclass in
its own file here, and a YAML in conf/loss/ that names it.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class ConfidenceTargets:
    """What a confidence loss may know about each cell; (batch, anchors, height, width) each.

    Attributes:
        objectness: float, 1 where a ground truth is assigned (positive), else 0.
        quality: float in [0, 1], the detached IoU of the predicted box with its ground truth at
            positives, 0 elsewhere.
        valid: bool, False where the cell is neither positive nor negative (ignored). The
            criterion masks these; a loss may look (to count, say) but need not.
    """

    objectness: Tensor
    quality: Tensor
    valid: Tensor


class ConfidenceLoss(ABC):
    """Base of every confidence loss. Subclasses are frozen dataclasses; their fields are the settings."""

    @classmethod
    def name(cls) -> str:
        """The name used in configuration, tables and figures: the class name in snake_case."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__).lower()

    @classmethod
    def family(cls) -> dict[str, ConfidenceLoss]:
        """Variants of this loss worth laying side by side on one and the same model, by label.

        Each run's diagnostics look at its final model through the families of all losses, whatever
        it was trained with. None by default.
        """
        return {}

    @abstractmethod
    def __call__(self, objectness_logits: Tensor, targets: ConfidenceTargets) -> Tensor:
        """The UNREDUCED loss of each cell, in the shape of `objectness_logits`.

        Finite, with finite gradients, for every logit that is finite in float32.
        """


def signed_logit(objectness_logits: Tensor, objectness: Tensor) -> Tensor:
    """s = (2 y - 1) z: large where the cell is right, very negative where it is wrong."""
    return (2 * objectness - 1) * objectness_logits


def cross_entropy(signed_logits: Tensor) -> Tensor:
    """Binary cross-entropy of a hard label, -log sigmoid(s), without ever forming a probability."""
    return -F.logsigmoid(signed_logits)
