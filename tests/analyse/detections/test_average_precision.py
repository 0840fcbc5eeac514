"""AP of weighted images: pycocotools' own number, and its number on literally repeated images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ablation.analyse.detections.average_precision import ap_matches, average_precision, part_of, resamples
from ablation.errors import DataError
from ablation.rng import generator
from ablation.training.evaluate import coco_metrics as evaluated

Dataset = tuple[dict[str, Any], list[dict[str, Any]]]
NAMES = ["one", "two", "three"]


def dataset(seed: int, ties: bool = False, absent: bool = False, crowds: bool = False) -> Dataset:
    """Twelve images, some empty, with boxes found more or less well and false ones."""
    random = generator(seed, "boxes")
    images = [{"id": 3 * i + 2, "file_name": f"{i}.png", "width": 200, "height": 200} for i in range(12)]
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image in images[:-2]:
        for _ in range(int(random.integers(0, 6))):
            x, y, w, h = random.uniform(0, 120), random.uniform(0, 120), *random.uniform(15, 70, 2)
            label = int(random.integers(1, 3 if absent else 4))
            crowd = int(crowds and random.random() < 0.3)
            annotations.append({
                "id": len(annotations) + 1, "image_id": image["id"], "category_id": label,
                "bbox": [x, y, w, h], "area": w * h, "iscrowd": crowd,
            })  # fmt: skip
            if random.random() < 0.8:
                box = np.array([x, y, w, h]) + random.normal(0, 4, 4)
                results.append({"image_id": image["id"], "category_id": label, "bbox": box.tolist(),
                                "score": float(random.uniform(0.2, 1))})  # fmt: skip
    for image in images[1:]:
        for _ in range(3):
            box = [*random.uniform(0, 120, 2), *random.uniform(10, 60, 2)]
            results.append({"image_id": image["id"], "category_id": int(random.integers(1, 4)),
                            "bbox": [float(v) for v in box], 
                            "score": float(random.uniform(0, 0.8))})  # fmt: skip
    if ties:
        for row in results:
            row["score"] = round(row["score"], 1)
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(NAMES)]
    return {"images": images, "annotations": annotations, "categories": categories}, results


CASES = {
    "plain": dataset(0), "ties": dataset(1, ties=True), "a class without objects": dataset(2, absent=True),
    "crowds": dataset(3, crowds=True), "all": dataset(4, True, True, True),
    "no detections": (dataset(5)[0], []),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_every_image_once_is_pycocotools(name: str) -> None:
    truth, results = CASES[name]
    found = ap_matches(truth, results)
    expected = evaluated(truth, results, NAMES).metrics
    once = np.ones(len(found.image_ids))
    names = [n for n in expected if part_of(f"val/{n}") is not None and "voc" not in n]
    assert {"AP", "AP50", "AP75", "AP_class/one", "AP50_class/two"} <= set(names)
    for metric in names:
        value = average_precision(found, once, part_of(f"val/{metric}"))[0]
        assert value == pytest.approx(expected[metric], abs=1e-9), metric
    if "AP_class/three" not in expected:
        assert np.isnan(average_precision(found, once, part_of("val/AP_class/three"))[0])


def repeated(data: Dataset, counts: list[int]) -> Dataset:
    """The set with each image as often as counts says, copies next to each other."""
    truth, results = data
    new: dict[str, Any] = {"images": [], "annotations": [], "categories": truth["categories"]}
    rows: list[dict[str, Any]] = []
    for image, count in zip(truth["images"], counts, strict=True):
        for _ in range(count):
            number = len(new["images"]) + 1
            new["images"].append({**image, "id": number})
            for one in truth["annotations"]:
                if one["image_id"] == image["id"]:
                    place = len(new["annotations"]) + 1
                    new["annotations"].append({**one, "id": place, "image_id": number})
            rows += [{**row, "image_id": number} for row in results if row["image_id"] == image["id"]]
    return new, rows


@pytest.mark.parametrize("name", ["plain", "a class without objects", "crowds"])
def test_weights_are_repeated_images(name: str) -> None:
    found = ap_matches(*CASES[name])
    draws = resamples(len(found.image_ids), 6, generator(0, "draws"))
    values = average_precision(found, draws)
    for counts, value in zip(draws, values, strict=True):
        expected = evaluated(*repeated(CASES[name], counts.tolist()), NAMES).metrics["AP"]
        assert value == pytest.approx(expected, abs=1e-9)


def test_a_class_that_vanishes_is_left_out_and_nothing_is_nan() -> None:
    truth, results = CASES["plain"]
    found = ap_matches(truth, results)
    empty = np.zeros(len(found.image_ids))
    empty[-1] = 1  # an image without objects
    assert np.isnan(average_precision(found, empty)[0])
    only = [i for i, image in enumerate(truth["images"]) if any(
        a["image_id"] == image["id"] and a["category_id"] == 1 for a in truth["annotations"])]  # fmt: skip
    weights = np.zeros(len(found.image_ids))
    weights[only] = 1
    parts = [average_precision(found, weights, part_of(f"val/AP_class/{name}"))[0] for name in NAMES]
    assert average_precision(found, weights)[0] == pytest.approx(np.nanmean(parts), abs=1e-12)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ap_matches(*CASES["all"])
    draws = resamples(len(found.image_ids), 20, generator(1, "draws"))
    whole = average_precision(found, draws)
    monkeypatch.setattr("ablation.analyse.detections.average_precision.CHUNK", 40)
    assert np.array_equal(average_precision(found, draws), whole, equal_nan=True)


def test_resamples_hold_as_many_images() -> None:
    draws = resamples(12, 50, generator(0, "x"))
    assert draws.shape == (50, 12) and (draws.sum(axis=1) == 12).all()
    assert (draws == resamples(12, 50, generator(0, "x"))).all()


def test_other_metrics_have_no_part() -> None:
    assert [part_of(name) for name in ("val/AP_small", "val/AR100", "time/train_s", "val/AP_class/")] == [
        None
    ] * 4


def test_a_detection_in_a_strange_image_is_refused() -> None:
    truth, results = CASES["plain"]
    with pytest.raises(DataError, match="image 999"):
        ap_matches(truth, [{**results[0], "image_id": 999}])
