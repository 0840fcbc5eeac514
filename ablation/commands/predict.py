"""Detections of a trained run on images of a folder: drawn, and in COCO's result format."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ablation.analyse.report.report import THRESHOLDS
from ablation.data.dataset import Image
from ablation.data.decode import SUFFIXES, read_image
from ablation.data.letterbox import Letterbox, letterbox
from ablation.data.visualise import draw_boxes, write_image
from ablation.errors import DataError, StoreError, UsageError, one_line
from ablation.files import write_json
from ablation.machine import resolve_device
from ablation.model.head import cell_grid
from ablation.training.detect import Detections, detect
from ablation.training.evaluate import CocoResult, EvaluationSettings, coco_results, image_id
from ablation.training.trained_run import TrainedRun

log = logging.getLogger(__name__)

BATCH = 8
DEFAULT_SCORE = 0.25
"""Where no report says which threshold is best."""


@dataclass(frozen=True)
class Predictions:
    """The detections of some images.

    Attributes:
        images: how many images there are.
        results: COCO's result format in original pixels, with file_name and category_name added.
        failed: one line for each image that could not be read.
    """

    images: int
    results: list[CocoResult]
    failed: list[str]


@dataclass(frozen=True)
class ScoreThreshold:
    """A score threshold and where it comes from.

    Attributes:
        score: in [0, 1).
        source: for a person: the report's file, or why there is none.
    """

    score: float
    source: str


def recommended_threshold(run: TrainedRun) -> ScoreThreshold:
    """The threshold of the run's arm in its study's report; DEFAULT_SCORE where there is none.

    Raises:
        StoreError: the report's file is damaged.
    """
    study = run.folder.path.resolve().parents[1]
    path, arm = study / "report" / THRESHOLDS, str(run.config.arm)
    command = f"ablation report study={shlex.quote(run.config.study)}"
    try:
        arms = json.loads(path.read_text(encoding="utf-8"))
        score = float(arms[arm]["score"]) if arm in arms else None
    except FileNotFoundError:
        return ScoreThreshold(DEFAULT_SCORE, f"the study has no report; {command} finds a better one")
    except (ValueError, KeyError, TypeError, RecursionError, OSError) as error:
        raise StoreError(f"{path}: not readable ({one_line(error, 80)}); {command} writes it again") from None
    if score is None:
        return ScoreThreshold(DEFAULT_SCORE, f"{path} has none for arm {arm}")
    if not 0 <= score < 1:
        raise StoreError(f"{path}: {arm}: found {score}, must be in [0, 1); {command} writes it again")
    return ScoreThreshold(score, f"the best for arm {arm} on val, from {path}")


def predict(run: TrainedRun, images: Path, to: Path, score: float) -> Predictions:
    """Detect in every image of a folder (or in one file), draw, and write detections.json.

    Size, precision, non-maximum suppression and the limit of detections are those the run was
    evaluated with. In `to`: each image under its own name with its boxes, detections.json, and
    images.json, which holds the images and categories that its ids stand for (as in COCO's
    ground truth). image_id counts the images from 1 in the order of their names.

    Args:
        images: a folder (not what lies below it) or a file; .jpg, .jpeg, .png.
        to: made where it does not exist; another folder than that of the images.
        score: in [0, 1): objectness times class probability must be above it.

    Raises:
        UsageError: no images there, or a score out of range.
    """
    if not 0 <= score < 1:
        raise UsageError(f"score={score}: must be in [0, 1)")
    paths = find_images(images)
    if to.resolve() == paths[0].parent.resolve():
        raise UsageError(f"to={to}: the images themselves lie there and would be overwritten")
    settings = _settings(run, score)
    network = run.network.to(settings.device)
    grid = cell_grid(network.layout, settings.size_px, settings.size_px, settings.device)
    results: list[CocoResult] = []
    failed: list[str] = []
    entries: list[dict[str, Any]] = []
    numbered = iter(enumerate(paths))
    while chunk := list(islice(numbered, BATCH)):
        read = list(_read(chunk, failed))
        if not read:
            continue
        fitted = [letterbox(image, settings.size_px) for _, _, image in read]
        pixels = np.stack([square.transpose(2, 0, 1) for square, _ in fitted])
        with torch.no_grad():
            outputs = settings.forward(network, torch.from_numpy(pixels))
        detected = detect(outputs, network.layout, grid, settings.detection)
        for (index, path, image), detections, (_, geometry) in zip(read, detected, fitted, strict=True):
            of_image = _named(run.classes, path, coco_results([index], [detections], [geometry]))
            results += of_image
            entries.append(_image_entry(index, path, geometry))
            _draw(to / path.name, image, detections, geometry, of_image)
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(run.classes)]
    write_json(to / "detections.json", results)
    write_json(to / "images.json", {"images": entries, "categories": categories})
    return Predictions(len(paths), results, failed)


def _settings(run: TrainedRun, score: float) -> EvaluationSettings:
    """As the run was evaluated, but for the score threshold and the number of images at a time."""
    settings = EvaluationSettings.of(run.config.train, resolve_device("auto"))
    detection = replace(settings.detection, score_threshold=score)
    return replace(settings, batch_size=BATCH, detection=detection)


def find_images(images: Path) -> list[Path]:
    """The images of a folder by name, or the one file. Raises UsageError where there is none."""
    if images.is_file():
        paths = [images]
    elif images.is_dir():
        paths = sorted(path for path in images.iterdir() if path.is_file())
    else:
        raise UsageError(f"images={images}: no such folder or file")
    paths = [path for path in paths if path.suffix.lower() in SUFFIXES]
    if not paths:
        raise UsageError(f"images={images}: no image there; the endings are {', '.join(SUFFIXES)}")
    return paths


def _read(chunk: Sequence[tuple[int, Path]], failed: list[str]) -> Iterator[tuple[int, Path, Image]]:
    for index, path in chunk:
        try:
            yield index, path, read_image(path)
        except DataError as error:
            log.warning("%s", error)
            failed.append(str(error))


def _image_entry(index: int, path: Path, geometry: Letterbox) -> dict[str, Any]:
    """An image as COCO's ground truth lists it."""
    size = {"width": geometry.width_px, "height": geometry.height_px}
    return {"id": image_id(index), "file_name": path.name} | size


def _named(classes: Sequence[str], path: Path, results: list[CocoResult]) -> list[CocoResult]:
    return [
        result | {"file_name": path.name, "category_name": classes[result["category_id"] - 1]}
        for result in results
    ]


def _draw(
    path: Path, image: Image, detections: Detections, geometry: Letterbox, results: list[CocoResult]
) -> None:
    # The weakest first, so that the best lie on top.
    boxes = geometry.to_original(detections.boxes_xyxy_px)[::-1]
    texts = [f"{result['category_name']} {result['score']:.2f}" for result in reversed(results)]
    write_image(path, draw_boxes(image, boxes, detections.labels[::-1].tolist(), texts))
