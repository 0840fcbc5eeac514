"""Time until a command answers, and what MLflow's records, checkpoints and AP cost, against their references.

BENCH_JSON=FILE keeps the numbers in that file, with the machine they were measured on.
"""

from __future__ import annotations

import contextlib
import copy
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.bench import keep
from helpers.command import TINY, ablation
from helpers.process_server import ENVIRONMENT
from helpers.store import run_folder, store_in
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ablation.tracking.mirror import Mirror
from ablation.training.checkpoint import save
from ablation.training.evaluate import coco_metrics


def show(name: str, **numbers: float) -> None:
    """Print the numbers and add them to the file of results."""
    print(f"\n{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in numbers.items()))
    keep("records", name, numbers)


def least(call: Callable[[], Any], times: int = 3) -> float:
    """Wall seconds of the fastest of some calls."""
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def python(folder: Path, *arguments: str) -> None:
    subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | ENVIRONMENT,
        capture_output=True,
        check=True,
    )


@pytest.mark.bench
def test_start(tmp_path: Path) -> None:
    ablation(tmp_path, "train", "study=s", *TINY)
    torch_s = least(lambda: python(tmp_path, "-c", "import torch"))
    commands = {"help": ["--help"], "status": ["status", "study=s"], "plan": ["plan", "sweeps=demo"]}
    seconds = {
        name: least(partial(python, tmp_path, "-m", "ablation.cli", *arguments))
        for name, arguments in commands.items()
    }
    seconds["whole tiny run"] = least(
        lambda: python(tmp_path, "-m", "ablation.cli", "train", f"seed={time.monotonic_ns() % 10**9}", *TINY)
    )
    show("start, s", **{"import torch": torch_s}, **seconds)
    assert seconds["help"] < torch_s and seconds["status"] < torch_s


@pytest.mark.bench
def test_logging_is_linear_in_the_epochs(tmp_path: Path) -> None:
    store, folder = store_in(tmp_path), run_folder(tmp_path)
    store.prepare()
    mirror = Mirror(store, folder)
    mirror.start()
    seconds = []
    for number in range(1, 601):
        folder.append_metrics(number, {f"val/m{k}": number / 1000 for k in range(30)})
        folder.file(f"checkpoint-{number:06d}-0123456789abcdef.pt").touch()
        if number > 1:
            folder.file(f"checkpoint-{number - 1:06d}-0123456789abcdef.pt").unlink()
        started = time.process_time()
        mirror.push()
        seconds.append(time.process_time() - started)
    early, late = float(np.median(seconds[50:150])), float(np.median(seconds[-100:]))
    show("push of an epoch, ms", **{"epoch 100": early * 1e3, "epoch 550": late * 1e3, "ratio": late / early})
    assert late < 1.5 * early


@pytest.mark.bench
def test_a_checkpoint_against_the_bare_write(tmp_path: Path) -> None:
    state = {"model": {str(k): torch.randn(1_000_000) for k in range(64)}, "classes": ["a"]}

    def bare() -> None:
        with (tmp_path / "bare").open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())

    seconds = {"torch.save and fsync": least(bare), "checkpoint": least(lambda: save(tmp_path, 1, state))}
    show("checkpoint of 256 MB, s", **seconds)


@pytest.mark.bench
def test_ap_of_100_000_detections_against_pycocotools_alone() -> None:
    truth, results, names = made_up(1000, 7, 100, 20)

    def alone() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO()
            coco.dataset = truth_copy
            coco.createIndex()
            evaluation = COCOeval(coco, coco.loadRes(results_copy), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()

    ratios = []
    for _ in range(3):
        truth_copy, results_copy = copy.deepcopy(truth), copy.deepcopy(results)
        started = time.process_time()
        alone()
        middle = time.process_time()
        coco_metrics(truth, results, names)
        ratios.append((time.process_time() - middle) / (middle - started))
    show("AP of 100,000 detections", **{"over pycocotools": float(np.median(ratios))})
    assert float(np.median(ratios)) < 1.2


def made_up(images: int, objects: int, detections: int, classes: int) -> tuple[Any, Any, list[str]]:
    """Random ground truth and results in COCO's format."""
    random = np.random.default_rng(0)

    def boxes(count: int) -> list[list[float]]:
        columns = [random.uniform(low, high, count) for low, high in ((0, 500), (0, 380), (8, 140), (8, 100))]
        return np.stack(columns, 1).tolist()

    annotations, results = [], []
    for image in range(1, images + 1):
        for box in boxes(objects):
            label = int(random.integers(1, classes + 1))
            entry = {"image_id": image, "category_id": label, "bbox": box, "area": box[2] * box[3]}
            annotations.append(entry | {"id": len(annotations) + 1, "iscrowd": 0})
        for box in boxes(detections):
            label, score = int(random.integers(1, classes + 1)), float(random.uniform())
            results.append({"image_id": image, "category_id": label, "bbox": box, "score": score})
    names = [str(label) for label in range(1, classes + 1)]
    truth = {
        "images": [{"id": image, "width": 640, "height": 480} for image in range(1, images + 1)],
        "annotations": annotations,
        "categories": [{"id": label, "name": name} for label, name in enumerate(names, 1)],
    }
    return truth, results, names
