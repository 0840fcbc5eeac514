"""What every detector is: settings that build a network, and a network with a head layout."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from ablation.errors import UsageError, require
from ablation.model.blocks import ConvSlot
from ablation.model.head import HeadLayout
from ablation.model.initialise import initialise
from ablation.records import NOT_IDENTITY

AUTO = "auto"
"""The value of `anchors` that asks for anchors made from the data."""


class Detector(nn.Module, ABC):
    """A network of backbone, neck and heads.

    Images (B, 3, H, W), float in [0, 1], H and W multiples of the coarsest stride -> one tensor
    (B, anchors (5 + classes), H / stride, W / stride) per head, in the order of `layout`
    (coarsest first). The channels of each anchor are x, y, w, h, objectness, classes; all raw:
    `ablation.model.head` says how they are decoded.
    """

    darknet_partial_convs: ClassVar[int]
    """Convolutions in the backbone file that Darknet's authors publish for this architecture."""

    def __init__(
        self, layout: HeadLayout, backbone: nn.Module, neck: nn.Module, heads: Iterable[nn.Module]
    ) -> None:
        super().__init__()
        self.layout = layout
        self.backbone = backbone
        self.neck = neck
        self.heads = nn.ModuleList(heads)
        self._backbone_frozen = False

    def forward(self, images: Tensor) -> list[Tensor]:
        features = self.neck(*self.backbone(images))
        return [head(feature) for head, feature in zip(self.heads, features, strict=True)]

    @abstractmethod
    def darknet_convs(self) -> list[ConvSlot]:
        """Every convolution, in the order of Darknet's weights files."""

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that `freeze_backbone` stops."""
        return self.backbone.parameters()

    def freeze_backbone(self, frozen: bool) -> None:
        """Stop or resume the training of the backbone, batch norm's statistics included.

        Without the latter a "frozen" backbone still drifts: in train mode batch norm updates its
        running mean and variance at every step. A frozen backbone stays in eval mode whatever
        `train()` is called with.
        """
        self._backbone_frozen = frozen
        for parameter in self.backbone_parameters():
            parameter.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> Detector:
        """As nn.Module.train, but leaves a frozen backbone in eval mode."""
        super().train(mode)
        if self._backbone_frozen:
            self.backbone.eval()
        return self


@dataclass(frozen=True)
class DetectorConfig(ABC):
    """Base of the `model` group: the settings of an architecture.

    Attributes:
        width: factor on every number of channels, > 0; 1 is the published network. Numbers are
            rounded to multiples of 8, at least 8.
        depth: factor on the number of repeated blocks, > 0; rounded, at least 1.
        anchors: auto: make them from the train split's boxes at the size of the input, by k-means, in
            place of anchors_px; the numbers replace the word before a run's key is made. None:
            anchors_px.
        anchors_px: [width, height, width, height, ...] as in Darknet's .cfg, in pixels of an
            input of anchors_at_px.
        anchors_at_px: size of the input that the anchors were made for: they are scaled by
            size_px / anchors_at_px. None: they are pixels of the input, whatever its size.
        prior: confidence that every cell starts with, in (0, 1) (arXiv 1708.02002). None:
            objectness bias 0, near 0.5, as in the seed method.
        scale_xy: Darknet's scale_x_y for each head, coarsest stride first; 1 is the plain sigmoid
            of the seed method. Weights were trained with one of the two: keep to it.
        weights: file of pretrained weights to start from (see ablation.model.weights), or None.
        load_heads: take the heads' last convolutions as well where the number of classes is the
            same. False: such a head was trained with one of the losses to be compared (BCE, as a
            rule) and would favour that arm.
    """

    width: float = 1.0
    depth: float = 1.0
    anchors: str | None = field(default=None, metadata=NOT_IDENTITY)  # the numbers are, see prepare
    anchors_px: list[float] = field(default_factory=list)
    anchors_at_px: int | None = None
    prior: float | None = 0.01
    scale_xy: list[float] = field(default_factory=list)
    weights: str | None = field(default=None, metadata=NOT_IDENTITY)  # its content is, see prepare
    load_heads: bool = False

    masks: ClassVar[tuple[tuple[int, ...], ...]]
    """For each head, the anchors that it serves."""
    strides: ClassVar[tuple[int, ...]]
    """For each head, input pixels per cell; coarsest first."""
    num_anchors: ClassVar[int]

    def __post_init__(self) -> None:
        """Raise ValueError, one line that begins with the field's name, for a value out of range."""
        require(0 < self.width < math.inf, "width", self.width, "above 0")
        require(0 < self.depth < math.inf, "depth", self.depth, "above 0")
        require(self.anchors in (None, AUTO), "anchors", self.anchors, f"{AUTO}, or null")
        at = self.anchors_at_px
        require(at is None or at >= 1, "anchors_at_px", at, "at least 1, or null")
        require(self.prior is None or 0 < self.prior < 1, "prior", self.prior, "in (0, 1), or null")
        must = f"{2 * self.num_anchors} numbers, width and height of {self.num_anchors} anchors"
        require(len(self.anchors_px) == 2 * self.num_anchors, "anchors_px", list(self.anchors_px), must)
        positive = all(0 < side < math.inf for side in self.anchors_px)
        require(positive, "anchors_px", list(self.anchors_px), "above 0")
        must = f"one number for each of the strides {', '.join(map(str, self.strides))}"
        require(len(self.scale_xy) == len(self.strides), "scale_xy", list(self.scale_xy), must)
        in_range = all(1 <= scale < 2 for scale in self.scale_xy)
        require(in_range, "scale_xy", list(self.scale_xy), "numbers in [1, 2)")

    @abstractmethod
    def network(self, layout: HeadLayout) -> Detector:
        """The network for `layout`, with whatever weights PyTorch gives it."""

    def build(self, num_classes: int, size_px: int, seed: int) -> Detector:
        """A network with initial weights that depend on (settings, num_classes, seed) only.

        `weights` is not read here: call ablation.model.weights.load_weights, which reports.

        Args:
            num_classes: >= 1.
            size_px: side of the square input; a multiple of the coarsest stride.
            seed: the run's seed.

        Raises:
            UsageError: no class, or a size that is not such a multiple.
        """
        layout = self.head_layout(num_classes, size_px)
        # On "meta" nothing is drawn: PyTorch's own initialisation would advance the global generator.
        with torch.device("meta"):
            detector = self.network(layout)
        # As to_empty, whose empty_like of a meta tensor imports sympy, half a second.
        detector._apply(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype))  # type: ignore[no-untyped-call]
        initialise(detector.darknet_convs(), 5 + num_classes, seed, self.prior)
        return detector

    def head_layout(self, num_classes: int, size_px: int) -> HeadLayout:
        """The heads of the network for square inputs of `size_px`. Raises UsageError."""
        self._check_input(num_classes, size_px)
        if self.anchors is not None:
            raise UsageError(f"model.anchors: {self.anchors} must be resolved before a network is built")
        factor = 1.0 if self.anchors_at_px is None else size_px / self.anchors_at_px
        sides = [side * factor for side in self.anchors_px]
        return HeadLayout(
            anchors_px=tuple(zip(sides[::2], sides[1::2], strict=True)),
            masks=self.masks,
            strides=self.strides,
            scale_xy=tuple(self.scale_xy),
            num_classes=num_classes,
        )

    def _check_input(self, num_classes: int, size_px: int) -> None:
        if num_classes < 1:
            raise UsageError(f"a detector needs at least one class, the data set has {num_classes}")
        if size_px < 1 or size_px % self.strides[0]:
            raise UsageError(f"size_px={size_px}: the input's side must be a multiple of {self.strides[0]}")
