"""A tiny data set in COCO's format, and a study of the detector in tests/foreign on it."""

from __future__ import annotations

import json
import shutil
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
  settings: {pause: 0}
  data: [../data/train.json]
  ground_truth: ../data/val.json
  detections: "{run.folder}/val.json"
  epoch_metrics: "{run.folder}/metrics.csv"
  checkpoint: "{run.folder}/last.pth"
  test_command: [PYTHON, train.py, --evaluate, ../data/test.json, --out, "{run.folder}"]
  test_ground_truth: ../data/test.json
  test_detections: "{run.folder}/test.json"
train: {epochs: 6, threads: 1}
"""


def put_own_trainer(folder: Path, python: str) -> Path:
    """The script in own/, its data in data/, the study in sweeps/own.yaml."""
    (folder / "own").mkdir()
    shutil.copy(SCRIPT, folder / "own")
    for number, (split, images) in enumerate({"train": 24, "val": 8, "test": 8}.items()):
        put_images(folder / "data", split, images, np.random.default_rng(number))
    (folder / "sweeps").mkdir()
    (folder / "sweeps" / "own.yaml").write_text(SWEEP.replace("PYTHON", python))
    return folder


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
