"""Trainers of a user's own: the detector of tests/foreign with images, and a script that only writes APs."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from helpers.command import ROOT

SCRIPT = ROOT / "tests" / "foreign" / "train.py"

SWEEP = """\
# @package _global_
study: own
seeds: [0, 1, 2]
arms:
  - {loss: bce}
  - {loss: focal}
trainer:
  name: command
  folder: own
  files: ['*.py']
  command: [PYTHON, train.py, --train, ../data/train.json, --val, ../data/val.json, --out, "{run.folder}",
            --seed, "{seed}", --epochs, "{train.epochs}", --loss, "{loss.name}",
            [--alpha, "{loss.alpha}"], [--gamma, "{loss.gamma}"], --pause, "{settings.pause}"]
  settings: {pause: 0.2}
  data: [../data/train.json]
  ground_truth: ../data/val.json
  detections: "{run.folder}/val.json"
  epoch_metrics: "{run.folder}/metrics.csv"
  checkpoint: "{run.folder}/last.pth"
  test_command: [PYTHON, train.py, --evaluate, ../data/test.json, --out, "{run.folder}"]
  test_ground_truth: ../data/test.json
  test_detections: "{run.folder}/test.json"
train: {epochs: 4, threads: 1}
"""

QUICK = """\
# @package _global_
study: quick
seeds: [0, 1]
arms: [{loss: bce}, {loss: focal}]
trainer:
  name: command
  folder: own
  files: ['*.py']
  command: [PYTHON, -I, -S, train.py, "{run.folder}", "{seed}", "{loss.name}"]
  data: [train.py]
  epoch_metrics: "{run.folder}/m.csv"
train: {epochs: 3}
tracking: {enabled: false}
"""

QUICK_SCRIPT = """\
import os, pathlib, sys, time
out, seed, loss = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
with (out / "m.csv").open("w") as file:
    file.write("epoch,AP\\n")
    for epoch in range(1, 4):
        FAULT
        file.write(f"{epoch},{(epoch + seed + (loss == 'bce')) / 10}\\n")
        file.flush()
"""


def put_own_trainer(folder: Path) -> Path:
    """The detector in own/, its data in data/, the study in sweeps/own.yaml."""
    _put(folder, "own", SWEEP)
    shutil.copy(SCRIPT, folder / "own")
    for number, (split, images) in enumerate({"train": 24, "val": 8, "test": 8}.items()):
        put_images(folder / "data", split, images, np.random.default_rng(number))
    return folder


def put_quick_trainer(folder: Path, fault: str = "pass") -> Path:
    """A script that writes an AP of (epoch + seed + 1 for BCE) / 10; `fault` is done before each line."""
    _put(folder, "quick", QUICK)
    (folder / "own" / "train.py").write_text(QUICK_SCRIPT.replace("FAULT", fault))
    return folder


def _put(folder: Path, study: str, sweep: str) -> None:
    (folder / "own").mkdir()
    (folder / "sweeps").mkdir()
    (folder / "sweeps" / f"{study}.yaml").write_text(sweep.replace("PYTHON", sys.executable))


def put_images(folder: Path, split: str, count: int, rng: np.random.Generator) -> None:
    """Images of 32 px with one or two rectangles, red or green, and their COCO file."""
    folder.mkdir(exist_ok=True)
    content: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [{"id": 3, "name": "red"}, {"id": 7, "name": "green"}]
    for index in range(count):
        pixels = rng.integers(0, 60, (32, 32, 3), dtype=np.uint8)
        name = f"{split}{index}.png"
        content["images"].append({"id": 100 + index, "file_name": name, "width": 32, "height": 32})
        for x in (0, 16)[: 1 + index % 2]:
            w, h = rng.integers(8, 14, 2).tolist()
            left, top, red = x + int(rng.integers(0, 3)), int(rng.integers(0, 16)), bool(rng.integers(2))
            pixels[top : top + h, left : left + w, 2 if red else 1] = 220
            row = {"image_id": 100 + index, "category_id": 3 if red else 7, "bbox": [left, top, w, h]}
            content["annotations"].append({"id": len(content["annotations"]) + 1} | row)
        cv2.imwrite(str(folder / name), pixels)
    (folder / f"{split}.json").write_text(json.dumps(content))
