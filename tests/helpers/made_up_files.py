"""The files that runs leave, made up: what figures need to be drawn for studies that were never trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ablation.analyse.detections.run_files import RunArtifacts
from ablation.records import RunRecord, StudyRecord
from ablation.rng import generator

LOGITS = np.linspace(-14, 14, 113)
CLASSES = ({"id": 1, "name": "red $cell"}, {"id": 2, "name": "white_cell"})


def made_up(record: StudyRecord, folder: Path) -> RunArtifacts:
    """Artifacts of every run, written into `folder` when it is asked for; it depends on arm and seed only."""
    runs = {run.run_id: run for run in record.runs}

    def fetch(run_id: str, name: str) -> Path | None:
        if name not in MAKERS:
            return None
        path = folder / run_id / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(MAKERS[name](runs[run_id])))
        return path

    return RunArtifacts(record, fetch)


def _rng(run: RunRecord, what: str) -> np.random.Generator:
    return generator(run.seed, f"{what} {run.arm}")


def _gradients(run: RunRecord) -> dict[str, Any]:
    rng = _rng(run, "gradients")
    groups, terms = ("positives", "easy_negatives", "hard_negatives"), ("box", "class", "confidence")
    return {
        "epochs": [
            {"epoch": epoch, "objectness": dict(zip(groups, rng.uniform(0.01, 1, 3).tolist(), strict=True)),
             "outputs_l2": dict(zip(terms, rng.uniform(0.1, 1, 3).tolist(), strict=True))}
            for epoch in (0, 5, 10)
        ]
    }  # fmt: skip


def _hill(rng: np.random.Generator, edges: np.ndarray, centre: float) -> list[float]:
    return [float(v) for v in np.histogram(rng.normal(centre, 2, 300), edges)[0]]


def _norms(run: RunRecord) -> dict[str, Any]:
    rng, decades = _rng(run, "norms"), np.linspace(-10, 3, 105)
    parts = {
        name: {"norms": _hill(rng, decades, -3), "cells": _hill(rng, LOGITS, centre),
               "gradient": _hill(rng, LOGITS, centre)}
        for name, centre in (("positives", 0.0), ("negatives", -3.0))
    }  # fmt: skip
    return {"log10_edges": decades.tolist(), "logit_edges": LOGITS.tolist()} | parts


def _objectness(run: RunRecord) -> dict[str, Any]:
    rng = _rng(run, "objectness")
    return {
        "logit_edges": LOGITS.tolist(),
        "positives": _hill(rng, LOGITS, 1.0),
        "negatives": _hill(rng, LOGITS, -5.0),
    }


def _cdf(run: RunRecord) -> dict[str, Any]:
    fractions = np.linspace(0, 1, 21)

    def curves(power: float) -> dict[str, list[float]]:
        return {"positives": (fractions**power).tolist(), "negatives": (fractions ** (4 * power)).tolist()}

    family = {f"gamma={gamma:g}": curves(1.5 + gamma) for gamma in (0.0, 2.0)}
    own = curves(float(_rng(run, "cdf").uniform(1, 3)))
    return {"fractions": fractions.tolist(), "own": own, "families": {"focal": family}}


def _inversion(run: RunRecord) -> dict[str, Any]:
    logits = np.linspace(-16, 16, 65)
    steep = 1.0 if run.arm == "bce" else 2.0
    return {"logits": logits.tolist(), "log_odds": (steep * logits).tolist()}


def _truth(run: RunRecord) -> dict[str, Any]:
    rng = generator(0, "objects")
    boxes = [[*rng.uniform(0, 200, 2), *rng.uniform(20, 120, 2)] for _ in range(24)]
    objects = [
        {"id": i + 1, "image_id": i // 3 + 1, "category_id": i % 2 + 1, "bbox": [float(v) for v in box],
         "area": float(box[2] * box[3]), "iscrowd": int(i == 23)}
        for i, box in enumerate(boxes)
    ]  # fmt: skip
    images = [{"id": i + 1, "width": 320, "height": 320, "file_name": f"{i}"} for i in range(9)]
    return {"images": images, "annotations": objects, "categories": list(CLASSES)}


def _detections(run: RunRecord) -> list[dict[str, Any]]:
    rng, found = _rng(run, "found"), []
    for item in _truth(run)["annotations"]:
        for _ in range(int(rng.integers(0, 4))):
            box = np.array(item["bbox"]) + rng.normal(0, 8, 4)
            score = float(rng.uniform(0.01, 0.9))
            found.append(
                {"image_id": item["image_id"], "bbox": [float(v) for v in np.maximum(box, 1)],
                 "category_id": item["category_id"] if rng.random() < 0.8 else 3 - item["category_id"],
                 "score": score, "objectness": score ** 0.8}
            )  # fmt: skip
    return found


MAKERS = {
    "diagnostics/gradients.json": _gradients,
    "diagnostics/gradient_norms.json": _norms,
    "diagnostics/objectness.json": _objectness,
    "diagnostics/loss_cdf.json": _cdf,
    "diagnostics/score_inversion.json": _inversion,
    "detections/ground_truth.json": _truth,
    "detections/val.json": _detections,
}
