"""YOLOv4-tiny (arXiv 2011.08036, section 4.3): two heads, LeakyReLU throughout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablation.model.base import Detector, DetectorConfig
from ablation.model.blocks import ConvBNAct, ConvSlot, Head, scaled_channels, scaled_count, upsample
from ablation.model.head import HeadLayout

ANCHORS_PX = (10.0, 14.0, 23.0, 27.0, 37.0, 58.0, 81.0, 82.0, 135.0, 169.0, 344.0, 319.0)


def _block(inputs: int, outputs: int, kernel: int, stride: int = 1) -> ConvBNAct:
    return ConvBNAct(inputs, outputs, kernel, stride, activation="leaky")


class SplitBody(nn.Module):
    """A cross-stage stage by splitting channels: (B, C, H, W) -> (B, C, H, W) and (B, 2 C, H, W).

        y = first(x),  y_1 = inner_1(second half of y),  y_i = inner_i(y_{i-1}),
        z = last([y_n, ..., y_1]),   out = [y, z]

    z is returned as well: the head at stride 16 reads it. n is 2 in the published network.
    """

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.channels, self.part = channels, channels // 2
        self.first = _block(channels, channels, 3)
        self.inner = nn.ModuleList(_block(self.part, self.part, 3) for _ in range(inner))
        self.last = _block(inner * self.part, channels, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        untouched, part = self.first(x).split([self.channels - self.part, self.part], dim=1)
        whole = [untouched, part]
        parts: list[Tensor] = []
        for block in self.inner:
            part = block(part)
            parts.insert(0, part)
        z = self.last(torch.cat(parts, dim=1))
        return z, torch.cat([*whole, z], dim=1)

    def slots(self, key: str) -> Iterator[ConvSlot]:
        """Its convolutions in file order; a third and further inner one has no name elsewhere."""
        names = ["conv2", "conv3", *(f"inner{i}" for i in range(2, len(self.inner)))]
        yield ConvSlot(f"{key}.conv1", self.first)
        for name, block in zip(names, self.inner, strict=False):
            yield ConvSlot(f"{key}.{name}", cast(ConvBNAct, block))
        yield ConvSlot(f"{key}.conv4", self.last)


class TinyBackbone(nn.Module):
    """Images (B, 3, H, W) -> features at strides 16 and 32, with `channels` channels.

    Args:
        width: factor on every number of channels (256 and 512 at 1).
        depth: factor on the inner convolutions of each stage (2 at 1), at least 1.
    """

    channels: tuple[int, int]

    def __init__(self, width: float = 1.0, depth: float = 1.0) -> None:
        super().__init__()
        c32, c64 = scaled_channels(32, width), scaled_channels(64, width)
        inner = scaled_count(2, depth)
        self.stem = nn.Sequential(_block(3, c32, 3, 2), _block(c32, c64, 3, 2))
        # Each stage puts out twice what it takes in, so only the first number is scaled.
        self.bodies = nn.ModuleList(SplitBody(c64 * factor, inner) for factor in (1, 2, 4))
        self.last = _block(8 * c64, 8 * c64, 3)
        self.channels = (4 * c64, 8 * c64)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(images)
        z = x
        for body in self.bodies:
            z, x = body(x)
            x = F.max_pool2d(x, 2, 2)
        return z, self.last(x)

    def slots(self, key: str) -> Iterator[ConvSlot]:
        """Its convolutions in file order."""
        for position, block in enumerate(self.stem, start=1):
            yield ConvSlot(f"{key}.conv{position}", cast(ConvBNAct, block))
        for position, body in enumerate(self.bodies, start=1):
            yield from cast(SplitBody, body).slots(f"{key}.resblock_body{position}")
        yield ConvSlot(f"{key}.conv3", self.last)


class TinyNeck(nn.Module):
    """Features at strides 16, 32 -> features at strides 32, 16, with `channels` channels."""

    channels: tuple[int, int]

    def __init__(self, inputs: tuple[int, int], width: float = 1.0) -> None:
        super().__init__()
        c128, c256 = scaled_channels(128, width), scaled_channels(256, width)
        self.reduce = _block(inputs[1], c256, 1)
        self.down_to_16 = _block(c256, c128, 1)
        self.channels = (c256, c128 + inputs[0])

    def forward(self, middle: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        at_32 = self.reduce(coarse)
        return at_32, torch.cat([upsample(self.down_to_16(at_32)), middle], dim=1)


class YOLOv4TinyDetector(Detector):
    """Backbone of three split stages, heads at strides 32 and 16; 21 convolutions."""

    darknet_partial_convs = 17  # yolov4-tiny.conv.29

    def darknet_convs(self) -> list[ConvSlot]:
        """Every convolution in file order."""
        neck = cast(TinyNeck, self.neck)
        at_32, at_16 = (cast(Head, head) for head in self.heads)
        return [
            *cast(TinyBackbone, self.backbone).slots("backbone"),
            ConvSlot("conv_for_P5", neck.reduce),
            *at_32.slots("yolo_headP5"),
            ConvSlot("upsample.upsample.0", neck.down_to_16),
            *at_16.slots("yolo_headP4"),
        ]


@dataclass(frozen=True)
class YOLOv4Tiny(DetectorConfig):
    """Settings of YOLOv4-tiny; see DetectorConfig. Anchor 3 serves both heads, anchor 0 none.

    depth counts the inner convolutions of each stage, 2 at 1. Darknet's scale_xy is [1.05, 1.05].
    """

    anchors_px: list[float] = field(default_factory=lambda: list(ANCHORS_PX))
    scale_xy: list[float] = field(default_factory=lambda: [1.0, 1.0])

    masks: ClassVar[tuple[tuple[int, ...], ...]] = ((3, 4, 5), (1, 2, 3))
    strides: ClassVar[tuple[int, ...]] = (32, 16)
    num_anchors: ClassVar[int] = 6

    def network(self, layout: HeadLayout) -> Detector:
        """The network for `layout`."""
        backbone = TinyBackbone(self.width, self.depth)
        neck = TinyNeck(backbone.channels, self.width)
        heads = [
            Head(inputs, scaled_channels(hidden, self.width), outputs)
            for inputs, hidden, outputs in zip(neck.channels, (512, 256), layout.channels, strict=True)
        ]
        return YOLOv4TinyDetector(layout, backbone, neck, heads)
