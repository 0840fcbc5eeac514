"""Pascal VOC's AP: cases worked by hand, and a second implementation in plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers.voc_oracle import voc_ap

from ablation.analyse.detections.average_precision import VOC, average_precision, part_of, resamples
from ablation.analyse.detections.voc import voc_matches
from ablation.errors import DataError
from ablation.rng import generator
from ablation.training.evaluate import voc_metrics

Dataset = tuple[dict[str, Any], list[dict[str, Any]]]
Box = tuple[float, float, float, float]


def files(truths: list[tuple[int, int, Box, bool]], results: list[tuple[int, int, Box, float]]) -> Dataset:
    """COCO's files from (image, class, x1 y1 x2 y2, difficult) and (image, class, x1 y1 x2 y2, score)."""

    def xywh(box: Box) -> list[float]:
        return [box[0], box[1], box[2] - box[0], box[3] - box[1]]

    annotations = [
        {"id": number, "image_id": image, "category_id": label, "bbox": xywh(box), "iscrowd": int(difficult)}
        for number, (image, label, box, difficult) in enumerate(truths, 1)
    ]
    rows = [
        {"image_id": image, "category_id": label, "bbox": xywh(box), "score": score}
        for image, label, box, score in results
    ]
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    return {"images": [{"id": 1}, {"id": 2}], "annotations": annotations, "categories": categories}, rows


SQUARE: Box = (10, 10, 50, 50)
NEAR: Box = (10, 10, 50, 48)
FAR: Box = (100, 100, 120, 120)


def ap(*dataset: Any, inclusive: bool = False) -> float:
    return voc_metrics(*files(*dataset), inclusive=inclusive)["AP50_voc"]


def test_the_area_below_the_interpolated_precision() -> None:
    """Right, wrong, right of 3 objects: precision 1 and 2/3 at recalls 1/3 and 2/3: 1/3 + 1/3 x 2/3."""
    truths = [(1, 1, SQUARE, False), (2, 1, SQUARE, False), (2, 1, FAR, False)]
    results = [(1, 1, SQUARE, 0.9), (1, 1, FAR, 0.8), (2, 1, SQUARE, 0.7)]
    assert ap(truths, results) == pytest.approx(5 / 9, abs=1e-12)


def test_precision_is_that_of_a_higher_recall_where_it_is_better() -> None:
    """Wrong, right, right: precision 1/2 then 2/3, so 2/3 at both recalls."""
    truths = [(1, 1, SQUARE, False), (2, 1, SQUARE, False)]
    results = [(1, 1, FAR, 0.9), (1, 1, SQUARE, 0.8), (2, 1, SQUARE, 0.7)]
    assert ap(truths, results) == pytest.approx(2 / 3, abs=1e-12)


def test_a_second_detection_of_an_object_is_wrong() -> None:
    """Right, wrong, right of 2 objects: 1/2 + 1/2 x 2/3."""
    truths = [(1, 1, SQUARE, False), (2, 1, SQUARE, False)]
    results = [(1, 1, SQUARE, 0.9), (1, 1, NEAR, 0.8), (2, 1, SQUARE, 0.7)]
    assert ap(truths, results) == pytest.approx(5 / 6, abs=1e-12)


def test_a_taken_object_is_not_replaced_by_the_next_best() -> None:
    """Both detections overlap the first object most. COCO gives the second one the other object."""
    left, right = (0, 0, 100, 100), (20, 0, 120, 100)
    detections = [(1, 1, left, 0.9), (1, 1, (4, 0, 104, 100), 0.8)]
    assert ap([(1, 1, left, False), (1, 1, right, False)], detections) == pytest.approx(0.5, abs=1e-12)


def test_what_overlaps_a_difficult_object_most_counts_neither_way() -> None:
    difficult, easy = (0, 0, 100, 100), (20, 0, 120, 100)
    on_it = [(1, 1, difficult, 0.9), (1, 1, (4, 0, 104, 100), 0.8)]
    assert ap([(1, 1, difficult, True), (1, 1, easy, False)], on_it) == 0.0
    found = [*on_it, (1, 1, easy, 0.1)]
    assert ap([(1, 1, difficult, True), (1, 1, easy, False)], found) == pytest.approx(1, abs=1e-12)


def test_a_box_that_covers_a_part_of_a_difficult_object_is_wrong() -> None:
    """A crowd of COCO takes in every box inside it; a difficult object needs IoU .5."""
    truths = [(1, 1, (0, 0, 200, 200), True), (2, 1, SQUARE, False)]
    assert ap(truths, [(1, 1, SQUARE, 0.9), (2, 1, SQUARE, 0.8)]) == pytest.approx(0.5, abs=1e-12)


def test_an_overlap_of_one_half_is_enough() -> None:
    assert ap([(1, 1, (0, 0, 10, 10), False)], [(1, 1, (0, 0, 10, 5), 0.9)]) == pytest.approx(1, abs=1e-12)
    assert ap([(1, 1, (0, 0, 10, 10), False)], [(1, 1, (0, 0, 10, 4.99), 0.9)]) == 0.0


def test_inclusive_corners_make_boxes_one_pixel_larger() -> None:
    """3 x 3 against 3 x 1 as edges: 1/3; 4 x 4 against 4 x 2 as pixels: 1/2."""
    truths, results = [(1, 1, (0, 0, 3, 3), False)], [(1, 1, (0, 0, 3, 1), 0.9)]
    assert ap(truths, results) == 0.0
    assert ap(truths, results, inclusive=True) == pytest.approx(1, abs=1e-12)
    column = [(1, 1, (1, 0, 1, 3), 0.9)]  # no area as edges, one pixel wide as pixels
    assert ap(truths, column) == ap(truths, column, inclusive=True) == 0.0
    assert ap([(1, 1, (1, 0, 1, 3), False)], column) == 0.0
    assert ap([(1, 1, (1, 0, 1, 3), False)], column, inclusive=True) == pytest.approx(1, abs=1e-12)


def test_the_mean_is_over_classes_that_have_objects_that_count() -> None:
    truths = [(1, 1, SQUARE, False), (1, 2, FAR, True)]
    metrics = voc_metrics(*files(truths, [(1, 1, SQUARE, 0.5), (1, 2, SQUARE, 0.9)]))
    assert metrics == pytest.approx({"AP50_voc": 1.0, "AP50_voc_class/a": 1.0}, abs=1e-12)
    assert voc_metrics(*files([(1, 2, FAR, True)], [])) == {}
    both = [(1, 1, SQUARE, False), (1, 2, FAR, False)]
    assert voc_metrics(*files(both, [])) == {"AP50_voc": 0, "AP50_voc_class/a": 0, "AP50_voc_class/b": 0}


def random_files(seed: int, integers: bool = False, ties: bool = False) -> Dataset:
    """Crowded images: clusters of objects that overlap, a third of them difficult, 60 detections an image."""
    random = np.random.default_rng(seed)
    truth: dict[str, Any] = {"images": [{"id": 5 * i + 3} for i in range(20)], "annotations": []}
    truth["categories"] = [{"id": 3 * i + 1, "name": f"class {i}"} for i in range(4)]
    results: list[dict[str, Any]] = []
    for image in truth["images"]:
        centres = random.uniform(20, 80, (3, 2))
        for _ in range(int(random.integers(0, 9))):
            box = [*(centres[random.integers(3)] + random.normal(0, 6, 2)), *random.uniform(4, 40, 2)]
            label = 3 * int(random.integers(0, 3)) + 1  # the last class has no objects
            truth["annotations"].append({
                "id": len(truth["annotations"]) + 1, "image_id": image["id"], "category_id": label,
                "bbox": [float(v) for v in box], "iscrowd": int(random.random() < 1 / 3),
            })  # fmt: skip
            for _ in range(int(random.integers(0, 5))):
                near = np.array(box) + random.normal(0, 4, 4)
                near[2:] = near[2:].clip(1)
                results.append({"image_id": image["id"], "category_id": label,
                                "bbox": near.tolist(), "score": random.random()})  # fmt: skip
        for _ in range(20):
            box = [*random.uniform(0, 90, 2), *random.uniform(3, 40, 2)]
            results.append({"image_id": image["id"], "category_id": 3 * int(random.integers(0, 4)) + 1,
                            "bbox": [float(v) for v in box], "score": random.random()})  # fmt: skip
    for row in [*results, *truth["annotations"]]:
        row["bbox"] = [float(round(v)) if integers else float(v) for v in row["bbox"]]
        if ties and "score" in row:
            row["score"] = round(row["score"], 1)
    return truth, [results[i] for i in random.permutation(len(results))]


@pytest.mark.parametrize("inclusive", [True, False])
@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("integers", [True, False])
def test_a_second_implementation_gives_the_same(integers: bool, ties: bool, inclusive: bool) -> None:
    for seed in range(6):
        truth, results = random_files(seed, integers, ties)
        ours, theirs = voc_metrics(truth, results, inclusive=inclusive), voc_ap(truth, results, inclusive)
        assert ours == pytest.approx(theirs, abs=1e-9) and len(ours) == 4
        assert 0.01 < ours["AP50_voc"] < 0.9
    assert voc_ap(truth, results, not inclusive)["AP50_voc"] != pytest.approx(ours["AP50_voc"], abs=1e-6)


def test_weights_are_repeated_images() -> None:
    truth, results = random_files(3)
    matches = voc_matches(truth, results)
    draws = resamples(len(matches.image_ids), 5, generator(0, "draws"))
    values = average_precision(matches, draws, part_of("val/AP50_voc"))
    for counts, value in zip(draws, values, strict=True):
        copies = [
            (image["id"], copy) for image, n in zip(truth["images"], counts, strict=True) for copy in range(n)
        ]
        new = {pair: number for number, pair in enumerate(copies, 1)}
        repeated = truth | {
            "images": [{"id": number} for number in new.values()],
            "annotations": [
                {**note, "image_id": number}
                for (image, _), number in new.items()
                for note in truth["annotations"]
                if note["image_id"] == image
            ],
        }
        rows = [
            {**row, "image_id": number}
            for (image, _), number in new.items()
            for row in results
            if row["image_id"] == image
        ]
        assert value == pytest.approx(voc_ap(repeated, rows, True)["AP50_voc"], abs=1e-9)


def test_the_parts_have_names() -> None:
    assert part_of("val/AP50_voc") == VOC == part_of("test/AP50_voc")
    part = part_of("val/AP50_voc_class/red cell")
    assert part is not None and part.voc and part.name == "red cell"
    assert part_of("val/AP50_voc_class/") is None and part_of("val/AP50_voc/x") is None


def test_a_detection_in_a_strange_image_is_refused() -> None:
    truth, results = random_files(0)
    with pytest.raises(DataError, match="image 999"):
        voc_matches(truth, [{**results[0], "image_id": 999}])
