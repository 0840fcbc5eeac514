"""The .cfg that belongs to a Darknet .weights file: the network's layers as Darknet reads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

from torch import nn

from ablation.model.backbone import CSPDarknet53
from ablation.model.base import Detector
from ablation.model.blocks import ConvBNAct, CSPStage, Head, Residual
from ablation.model.head import HeadLayout
from ablation.model.neck import PathAggregation
from ablation.model.yolov4 import YOLOv4Detector
from ablation.model.yolov4_tiny import SplitBody, TinyBackbone, TinyNeck, YOLOv4TinyDetector

NMS_BETA = 0.6
"""Of Darknet's greedynms; its yolov4.cfg has it."""

Value = str | int | float


def darknet_cfg(detector: Detector, size_px: int, nms_iou: float) -> str | None:
    """The text of the .cfg for square inputs of `size_px`; None for an architecture without one.

    Its convolutions stand in the order of `detector.darknet_convs()`, the order of the weights file.
    Images are letterboxed with grey as in training; what only a training by Darknet would need is left out.

    Args:
        nms_iou: threshold of non-maximum suppression, in (0, 1].
    """
    layers = _Layers(detector.layout, nms_iou)
    if isinstance(detector, YOLOv4Detector):
        _yolov4(layers, detector)
    elif isinstance(detector, YOLOv4TinyDetector):
        _yolov4_tiny(layers, detector)
    else:
        return None
    net: dict[str, Value] = {
        "batch": 1,
        "subdivisions": 1,
        "width": size_px,
        "height": size_px,
        "channels": 3,
    }
    sections = [("net", net | {"letter_box": 1}), *layers.sections]
    return "\n".join(_section(name, options) for name, options in sections)


def _section(name: str, options: dict[str, Value]) -> str:
    lines = [
        f"{key}={value:.8g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in options.items()
    ]
    return "\n".join([f"[{name}]", *lines, ""])


class _Layers:
    """The sections so far. Every method adds one layer and returns its number."""

    def __init__(self, layout: HeadLayout, nms_iou: float) -> None:
        self.layout, self.nms_iou = layout, nms_iou
        self.sections: list[tuple[str, dict[str, Value]]] = []

    def _add(self, name: str, **options: Value) -> int:
        self.sections.append((name, options))
        return len(self.sections) - 1

    def conv(self, block: ConvBNAct | nn.Conv2d) -> int:
        """A convolution with its batch norm and activation, on the layer before it."""
        normed = isinstance(block, ConvBNAct)
        conv = block.conv if isinstance(block, ConvBNAct) else block
        options: dict[str, Value] = {"batch_normalize": 1} if normed else {}
        options |= {
            "filters": conv.out_channels,
            "size": conv.kernel_size[0],
            "stride": conv.stride[0],
            "pad": 1,
        }
        activation = block.activation if isinstance(block, ConvBNAct) else "linear"
        return self._add("convolutional", **options, activation=activation)

    def chain(self, blocks: Iterable[nn.Module]) -> int:
        """Convolutions one after another; the number of the last."""
        for block in blocks:
            number = self.conv(cast(ConvBNAct, block))
        return number

    def route(self, *sources: int) -> int:
        """The channels of earlier layers, side by side."""
        here = len(self.sections)
        return self._add("route", layers=",".join(str(source - here) for source in sources))

    def second_half(self, source: int) -> int:
        """The second half of a layer's channels."""
        return self._add("route", layers=source - len(self.sections), groups=2, group_id=1)

    def plus(self, source: int) -> int:
        """The sum of the layer before and an earlier one."""
        return self._add("shortcut", **{"from": source - len(self.sections)}, activation="linear")

    def maxpool(self, size: int, stride: int) -> int:
        """Max pooling; with stride 1 the resolution stays."""
        return self._add("maxpool", size=size, stride=stride)

    def upsample(self) -> int:
        """Twice the resolution."""
        return self._add("upsample", stride=2)

    def head(self, head: nn.Module, stride: int) -> int:
        """A head's two convolutions and its [yolo] layer."""
        layout, position = self.layout, self.layout.strides.index(stride)
        self.conv(cast(Head, head).mix)
        self.conv(cast(Head, head).predict)
        return self._add(
            "yolo",
            mask=_joined(layout.masks[position]),
            anchors=_joined([side for anchor in layout.anchors_px for side in anchor]),
            classes=layout.num_classes,
            num=len(layout.anchors_px),
            scale_x_y=float(layout.scale_xy[position]),
            iou_loss="ciou",
            nms_kind="greedynms",
            beta_nms=NMS_BETA,
            nms_threshold=self.nms_iou,
        )


def _joined(numbers: Sequence[float]) -> str:
    return ",".join(f"{number:.8g}" for number in numbers)


def _stage(layers: _Layers, stage: CSPStage) -> int:
    down = layers.conv(stage.down)
    shortcut = layers.conv(stage.shortcut)
    layers.route(down)
    last = layers.conv(stage.enter)
    for residual in stage.residuals:
        layers.conv(cast(Residual, residual).squeeze)
        layers.conv(cast(Residual, residual).expand)
        last = layers.plus(last)
    deep = layers.conv(stage.leave)
    layers.route(deep, shortcut)
    return layers.conv(stage.merge)


def _yolov4(layers: _Layers, detector: YOLOv4Detector) -> None:
    backbone, neck = cast(CSPDarknet53, detector.backbone), cast(PathAggregation, detector.neck)
    head_32, head_16, head_8 = detector.heads
    layers.conv(backbone.stem)
    features = [_stage(layers, cast(CSPStage, stage)) for stage in backbone.stages]
    fine, middle = features[2], features[3]
    x = layers.chain(neck.before_pyramid)
    pools: list[int] = []
    for size in (5, 9, 13):
        pools.insert(0, layers.maxpool(size, 1))
        if size < 13:
            layers.route(x)
    layers.route(*pools, x)
    at_32 = layers.chain(neck.after_pyramid)
    layers.conv(neck.down_to_16)
    up = layers.upsample()
    layers.route(middle)
    layers.route(layers.conv(neck.lateral_16), up)
    at_16 = layers.chain(neck.mix_down_16)
    layers.conv(neck.down_to_8)
    up = layers.upsample()
    layers.route(fine)
    layers.route(layers.conv(neck.lateral_8), up)
    at_8 = layers.chain(neck.mix_down_8)
    layers.head(head_8, 8)
    layers.route(at_8)
    layers.route(layers.conv(neck.up_to_16), at_16)
    at_16 = layers.chain(neck.mix_up_16)
    layers.head(head_16, 16)
    layers.route(at_16)
    layers.route(layers.conv(neck.up_to_32), at_32)
    layers.chain(neck.mix_up_32)
    layers.head(head_32, 32)


def _split_body(layers: _Layers, body: SplitBody) -> int:
    """Returns the number of its last convolution; the layer before is what the next stage takes."""
    first = layers.conv(body.first)
    layers.second_half(first)
    inner = [layers.conv(cast(ConvBNAct, block)) for block in body.inner]
    layers.route(*reversed(inner))
    last = layers.conv(body.last)
    layers.route(first, last)
    layers.maxpool(2, 2)
    return last


def _yolov4_tiny(layers: _Layers, detector: YOLOv4TinyDetector) -> None:
    backbone, neck = cast(TinyBackbone, detector.backbone), cast(TinyNeck, detector.neck)
    head_32, head_16 = detector.heads
    layers.chain(backbone.stem)
    for body in backbone.bodies:
        middle = _split_body(layers, cast(SplitBody, body))
    layers.conv(backbone.last)
    at_32 = layers.conv(neck.reduce)
    layers.head(head_32, 32)
    layers.route(at_32)
    layers.conv(neck.down_to_16)
    up = layers.upsample()
    layers.route(up, middle)
    layers.head(head_16, 16)
