"""YOLOv4's neck: spatial pyramid pooling, then path aggregation (PANet, arXiv 1803.01534)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ablation.model.blocks import (
    ConvBNAct,
    ConvSlot,
    SpatialPyramid,
    bottleneck_chain,
    chain_slots,
    scaled_channels,
    upsample,
)


class PathAggregation(nn.Module):
    """Features at strides 8, 16, 32 -> features at strides 32, 16, 8, with `channels` channels.

    Down from the coarsest features to the finest, then up again; each time the two are
    concatenated and mixed by five convolutions. The number before a comment's arrow is the
    layer in Darknet's yolov4.cfg.

    Args:
        inputs: channels of the backbone's three features.
        width: factor on the channels (512, 256, 128 at strides 32, 16, 8 at 1).
    """

    channels: tuple[int, int, int]

    def __init__(self, inputs: tuple[int, int, int], width: float = 1.0) -> None:
        super().__init__()
        c128, c256, c512, c1024 = (scaled_channels(c, width) for c in (128, 256, 512, 1024))
        fine, middle, coarse = inputs
        self.before_pyramid = bottleneck_chain(coarse, c512, c1024, 3)  # 105 -> 107
        self.pyramid = SpatialPyramid()
        self.after_pyramid = bottleneck_chain(4 * c512, c512, c1024, 3)  # 114 -> 116
        self.down_to_16 = ConvBNAct(c512, c256, 1, activation="leaky")  # 117
        self.lateral_16 = ConvBNAct(middle, c256, 1, activation="leaky")  # 120
        self.mix_down_16 = bottleneck_chain(2 * c256, c256, c512, 5)  # 122 -> 126
        self.down_to_8 = ConvBNAct(c256, c128, 1, activation="leaky")  # 127
        self.lateral_8 = ConvBNAct(fine, c128, 1, activation="leaky")  # 130
        self.mix_down_8 = bottleneck_chain(2 * c128, c128, c256, 5)  # 132 -> 136
        self.up_to_16 = ConvBNAct(c128, c256, 3, 2, activation="leaky")  # 141
        self.mix_up_16 = bottleneck_chain(2 * c256, c256, c512, 5)  # 143 -> 147
        self.up_to_32 = ConvBNAct(c256, c512, 3, 2, activation="leaky")  # 152
        self.mix_up_32 = bottleneck_chain(2 * c512, c512, c1024, 5)  # 154 -> 158
        self.channels = (c512, c256, c128)

    def forward(self, fine: Tensor, middle: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        at_32 = self.after_pyramid(self.pyramid(self.before_pyramid(coarse)))
        at_16 = torch.cat([self.lateral_16(middle), upsample(self.down_to_16(at_32))], dim=1)
        at_16 = self.mix_down_16(at_16)
        at_8 = torch.cat([self.lateral_8(fine), upsample(self.down_to_8(at_16))], dim=1)
        at_8 = self.mix_down_8(at_8)
        at_16 = self.mix_up_16(torch.cat([self.up_to_16(at_8), at_16], dim=1))
        at_32 = self.mix_up_32(torch.cat([self.up_to_32(at_16), at_32], dim=1))
        return at_32, at_16, at_8

    def slots_to_8(self) -> Iterator[ConvSlot]:
        """The convolutions before the head of stride 8, in file order."""
        yield from chain_slots(self.before_pyramid, "conv1")
        yield from chain_slots(self.after_pyramid, "conv2")
        yield ConvSlot("upsample1.upsample.0", self.down_to_16)
        yield ConvSlot("conv_for_P4", self.lateral_16)
        yield from chain_slots(self.mix_down_16, "make_five_conv1")
        yield ConvSlot("upsample2.upsample.0", self.down_to_8)
        yield ConvSlot("conv_for_P3", self.lateral_8)
        yield from chain_slots(self.mix_down_8, "make_five_conv2")

    def slots_to_16(self) -> Iterator[ConvSlot]:
        """Those between the heads of strides 8 and 16."""
        yield ConvSlot("down_sample1", self.up_to_16)
        yield from chain_slots(self.mix_up_16, "make_five_conv3")

    def slots_to_32(self) -> Iterator[ConvSlot]:
        """Those between the heads of strides 16 and 32."""
        yield ConvSlot("down_sample2", self.up_to_32)
        yield from chain_slots(self.mix_up_32, "make_five_conv4")
