"""The .cfg beside exported weights, read by another reader and run by another interpreter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import darknet_cfg_reader as reader
from helpers import darknet_reference as reference

from ablation.model.base import Detector, DetectorConfig
from ablation.model.darknet_cfg import darknet_cfg
from ablation.model.darknet_file import write_darknet
from ablation.model.yolov4 import YOLOv4
from ablation.model.yolov4_tiny import YOLOv4Tiny


def cfg(detector: Detector, size_px: int = 64) -> str:
    text = darknet_cfg(detector, size_px, 0.5)
    assert text is not None
    return text


def absolute(layers: list[reference.Layer]) -> list[reference.Layer]:
    """The reference's layers with sources by absolute number."""
    kinds = ("route", "half", "shortcut")
    return [
        (layer[0], *(source if source >= 0 else number + source for source in layer[1:]))
        if layer[0] in kinds
        else layer
        for number, layer in enumerate(layers)
    ]


@pytest.mark.parametrize("config", [YOLOv4(), YOLOv4Tiny()], ids=["yolov4", "yolov4-tiny"])
def test_the_published_networks_have_darknets_own_layers(config: DetectorConfig) -> None:
    with torch.device("meta"):
        detector = config.network(config.head_layout(80, 416))
    published = reference.yolov4(85) if isinstance(config, YOLOv4) else reference.yolov4_tiny(85)
    layers = reader.layers(cfg(detector, 416))
    assert layers == absolute(published)
    size = 257_717_640 if isinstance(config, YOLOv4) else 24_251_276
    assert 20 + 4 * reader.numbers(layers) == size


CONFIGS = [
    YOLOv4(width=0.125, depth=0.1),
    YOLOv4(width=0.0625, depth=0.5),
    YOLOv4Tiny(width=0.125),
    YOLOv4Tiny(width=0.25, depth=0.5),
    YOLOv4Tiny(width=0.125, depth=1.5),
]


@pytest.mark.parametrize("config", CONFIGS, ids=repr)
@torch.no_grad()
def test_what_the_cfg_says_computes_what_the_network_does(config: Any, tmp_path: Path) -> None:
    """Its layers use up the weights file and give the heads' outputs."""
    detector = config.build(3, 64, 0).eval()
    generator = torch.Generator().manual_seed(1)
    for name, value in detector.state_dict().items():  # none of them where it starts
        if name.endswith(("running_var", "bn.weight")):
            value.uniform_(0.5, 1.5, generator=generator)
        elif value.is_floating_point() and value.ndim == 1:
            value.uniform_(-0.2, 0.2, generator=generator)
    path = tmp_path / "net.weights"
    write_darknet(detector, path)
    layers = reader.layers(cfg(detector))
    assert path.stat().st_size == 20 + 4 * reader.numbers(layers)
    images = torch.rand(2, 3, 64, 64, generator=generator).double()
    heads = reference.run(layers, path, images, train=False)
    expected = detector.double()(images)
    heads = sorted(heads, key=lambda head: head.shape[-1])  # coarsest first
    for ours, theirs in zip(expected, heads, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("config", [YOLOv4(width=0.0625, depth=0.1), YOLOv4Tiny(width=0.125)])
def test_heads_and_input_are_the_runs(config: Any) -> None:
    scaled = type(config)(
        width=config.width,
        depth=config.depth,
        anchors_at_px=416,
        scale_xy=[1.05, 1.1, 1.2][: len(config.strides)],
    )
    detector = scaled.build(7, 96, 0)
    (_, net), *rest = reader.sections(cfg(detector, 96))
    assert (net["width"], net["height"], net["channels"], net["letter_box"]) == ("96", "96", "3", "1")
    heads = [options for name, options in rest if name == "yolo"]
    by_mask = {tuple(map(int, head["mask"].split(","))): head for head in heads}
    layout = detector.layout
    for mask, scale in zip(layout.masks, layout.scale_xy, strict=True):
        head = by_mask[mask]
        sides = [float(side) for side in head["anchors"].split(",")]
        assert sides == pytest.approx([side for anchor in layout.anchors_px for side in anchor], rel=1e-6)
        assert int(head["num"]) * 2 == len(sides) and head["classes"] == "7"
        assert float(head["scale_x_y"]) == pytest.approx(scale)
