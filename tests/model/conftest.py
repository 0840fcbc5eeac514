"""Small networks with every tensor its own value."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from ablation.model.base import Detector
from ablation.model.yolov4 import YOLOv4
from ablation.model.yolov4_tiny import YOLOv4Tiny


@pytest.fixture
def facts() -> dict[str, Any]:
    """Keys and shapes of published files, gathered apart from this project."""
    folder = os.environ.get("ABLATION_FACTS")
    if not folder:
        pytest.skip("set ABLATION_FACTS to the folder that holds weights.json")
    return json.loads((Path(folder) / "weights.json").read_text())  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def full() -> Detector:
    """The published YOLOv4 with COCO's 80 classes: 64 million numbers, so built once."""
    return YOLOv4().build(80, 416, 0)


def shaken(detector: Detector, seed: int = 1) -> Detector:
    """Give every tensor a value of its own, batch norm's statistics included, scaled to stay finite."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for slot in detector.darknet_convs():
            for key, live in slot.tensors():
                if key.endswith("num_batches_tracked"):
                    live.fill_(7)
                elif key.endswith(("running_var", "bn.weight")):
                    live.uniform_(0.5, 1.5, generator=generator)
                elif live.ndim == 1:
                    live.uniform_(-0.2, 0.2, generator=generator)
    return detector


@pytest.fixture
def small() -> Detector:
    return shaken(YOLOv4(width=0.125, depth=0.33).build(3, 64, 0))


@pytest.fixture
def small_tiny() -> Detector:
    return shaken(YOLOv4Tiny(width=0.125).build(3, 64, 0))


@pytest.fixture
def quarter() -> Detector:
    """Full depth, exactly a quarter of every channel: the layers of yolov4.cfg."""
    return shaken(YOLOv4(width=0.25).build(3, 256, 0))


@pytest.fixture
def quarter_tiny() -> Detector:
    return shaken(YOLOv4Tiny(width=0.25).build(3, 256, 0))
