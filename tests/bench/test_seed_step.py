"""The script that times the seed method's code, on a stand-in with its modules and calls."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

NETWORK = """
import torch
class YoloBody(torch.nn.Module):
    def __init__(self, anchors_mask, num_classes, pretrained=False):
        super().__init__()
        self.convs = torch.nn.ModuleList(torch.nn.Conv2d(3, 3 * (5 + num_classes), 1, s) for s in (32, 16, 8))
    def forward(self, x):
        return [conv(x) for conv in self.convs]
"""
LOSS = """
class YOLOLoss:
    def __init__(self, anchors, num_classes, input_shape, cuda, masks, smoothing, focal_loss, alpha, gamma):
        assert anchors.shape == (9, 2) and input_shape == [64, 64] and not cuda and focal_loss
    def __call__(self, l, input, targets=None):
        assert input.shape[2:] == (64 // (32, 16, 8)[l],) * 2 and str(input.dtype) == "torch.float32"
        assert all(t.shape == (3, 5) and 0 <= t[:, :2].min() and t[:, :2].max() <= 1 for t in targets)
        return input.square().mean()
"""


@pytest.mark.bench
def test_steps_are_taken_and_timed(tmp_path: Path) -> None:
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "yolo.py").write_text(NETWORK)
    (tmp_path / "nets" / "yolo_training.py").write_text(LOSS)
    script = Path(__file__).parents[1] / "helpers" / "seed_step.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), "demo", "1"],
        input="1\n2\n",
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert first["loss"] > second["loss"] > 0 and second["wall_s"] > 0
