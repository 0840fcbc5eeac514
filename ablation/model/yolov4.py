"""YOLOv4 (Bochkovskiy et al., arXiv 2004.10934)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, cast

from ablation.model.backbone import CSPDarknet53
from ablation.model.base import Detector, DetectorConfig
from ablation.model.blocks import ConvSlot, Head, scaled_channels
from ablation.model.head import HeadLayout
from ablation.model.neck import PathAggregation

# fmt: off
ANCHORS_PX = (
    12.0, 16.0, 19.0, 36.0, 40.0, 28.0,
    36.0, 75.0, 76.0, 55.0, 72.0, 146.0,
    142.0, 110.0, 192.0, 243.0, 459.0, 401.0,
)
# fmt: on
HIDDEN = (1024, 512, 256)
"""Channels of the hidden layer of each head."""


class YOLOv4Detector(Detector):
    """CSPDarknet53, spatial pyramid, path aggregation, heads at strides 32, 16, 8; 110 convolutions."""

    darknet_partial_convs = 92  # yolov4.conv.137

    def darknet_convs(self) -> list[ConvSlot]:
        """Every convolution in file order: there the heads come finest first."""
        backbone = cast(CSPDarknet53, self.backbone)
        neck = cast(PathAggregation, self.neck)
        at_32, at_16, at_8 = (cast(Head, head) for head in self.heads)
        return [
            *backbone.slots("backbone"),
            *neck.slots_to_8(),
            *at_8.slots("yolo_head3"),
            *neck.slots_to_16(),
            *at_16.slots("yolo_head2"),
            *neck.slots_to_32(),
            *at_32.slots("yolo_head1"),
        ]


@dataclass(frozen=True)
class YOLOv4(DetectorConfig):
    """Settings of YOLOv4; see DetectorConfig. Darknet's scale_xy is [1.05, 1.1, 1.2]."""

    anchors_px: list[float] = field(default_factory=lambda: list(ANCHORS_PX))
    scale_xy: list[float] = field(default_factory=lambda: [1.0, 1.0, 1.0])

    masks: ClassVar[tuple[tuple[int, ...], ...]] = ((6, 7, 8), (3, 4, 5), (0, 1, 2))
    strides: ClassVar[tuple[int, ...]] = (32, 16, 8)
    num_anchors: ClassVar[int] = 9

    def network(self, layout: HeadLayout) -> Detector:
        """The network for `layout`."""
        backbone = CSPDarknet53(self.width, self.depth)
        neck = PathAggregation(backbone.channels, self.width)
        heads = [
            Head(inputs, scaled_channels(hidden, self.width), outputs)
            for inputs, hidden, outputs in zip(neck.channels, HIDDEN, layout.channels, strict=True)
        ]
        return YOLOv4Detector(layout, backbone, neck, heads)
