"""Matching, thresholds, calibration and TIDE: hand-worked, and against pycocotools."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.synthetic import bce, run
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ablation.analyse.detections import calibration, thresholds, tide
from ablation.analyse.detections.matching import Matches, match, precision_curves
from ablation.analyse.detections.run_files import RunArtifacts
from ablation.errors import StoreError
from ablation.records import StudyRecord
from ablation.rng import generator


def truth(
    *objects: tuple[int, int, list[float]], images: int = 2, crowd: tuple[int, ...] = ()
) -> dict[str, Any]:
    """(image, category, [x, y, w, h]); `crowd` counts objects from 1."""
    annotations = [
        {"id": i, "image_id": image, "category_id": category, "bbox": box, "area": box[2] * box[3],
         "iscrowd": int(i in crowd)}
        for i, (image, category, box) in enumerate(objects, 1)
    ]  # fmt: skip
    return {
        "images": [{"id": i + 1, "width": 100, "height": 100} for i in range(images)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }


def found(*detections: tuple[int, int, list[float], float]) -> list[dict[str, Any]]:
    """(image, category, [x, y, w, h], score)."""
    return [
        {"image_id": image, "category_id": category, "bbox": box, "score": score, "objectness": score}
        for image, category, box, score in detections
    ]


def random_study(seed: int, images: int = 12) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Boxes with jittered copies, wrong classes, duplicates, tied scores, crowds and an empty image."""
    rng = generator(seed, "detections")
    objects, results = [], []
    for image in range(1, images):
        for _ in range(int(rng.integers(1, 6))):
            box = [*rng.uniform(0, 60, 2), *rng.uniform(8, 40, 2)]
            category = int(rng.integers(1, 3))
            objects.append((image, category, [float(v) for v in box]))
            for _ in range(int(rng.integers(0, 4))):
                moved = [float(v) for v in np.array(box) + rng.normal(0, 4, 4)]
                label = category if rng.random() < 0.8 else 3 - category
                results.append((image, label, [*moved[:2], max(moved[2], 1), max(moved[3], 1)],
                                float(np.round(rng.random(), 1))))  # fmt: skip
    crowd = tuple(int(i) for i in rng.choice(len(objects), 3, replace=False) + 1)
    return truth(*objects, images=images, crowd=crowd), found(*results)


def average_precision(matches: Matches) -> float:
    """AP at IoU .5, the mean over the classes."""
    return float(np.mean([curve.mean() for curve in precision_curves(matches).values()]))


def coco_eval(ground_truth: dict[str, Any], results: list[dict[str, Any]]) -> COCOeval:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = ground_truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes([dict(item) for item in results]), "bbox")
        evaluation.params.iouThrs = np.array([0.5])
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


@pytest.mark.parametrize("seed", range(6))
def test_matching_is_that_of_pycocotools(seed: int) -> None:
    ground_truth, results = random_study(seed)
    matches = match(ground_truth, results)
    evaluation = coco_eval(ground_truth, results)
    precision = evaluation.eval["precision"][0, :, :, 0, -1]
    for index, category in enumerate(evaluation.params.catIds):
        np.testing.assert_allclose(precision_curves(matches)[category], precision[:, index], atol=1e-9)
    assert average_precision(matches) == pytest.approx(precision.mean(), abs=1e-9)
    whole = evaluation.params.areaRng[0]
    images = [e for e in evaluation.evalImgs if e is not None and e["aRng"] == whole]
    by_pair = {(e["image_id"], e["category_id"]): e for e in images}
    for pair, rows in matches.detections.groupby(["image_id", "category_id"]):
        theirs = by_pair[pair]
        assert rows["truth_id"].tolist() == theirs["dtMatches"][0].astype(int).tolist()
        assert rows["ignored"].tolist() == theirs["dtIgnore"][0].astype(bool).tolist()


HAND = truth((1, 1, [0, 0, 10, 10]), (1, 1, [50, 50, 10, 10]), (2, 1, [0, 0, 10, 10]))


def test_f1_by_hand() -> None:
    """Three objects; right, wrong, right, with scores .9, .8, .6: F1 is 2/4, 2/5, 4/6."""
    results = found((1, 1, [0, 0, 10, 10], 0.9), (1, 1, [80, 80, 10, 10], 0.8), (2, 1, [0, 0, 10, 8], 0.6))
    curve = thresholds.threshold_curve(match(HAND, results))
    assert curve.threshold.tolist() == [0.9, 0.8, 0.6]
    assert curve.f1 == pytest.approx([0.5, 0.4, 2 / 3])
    assert curve.precision == pytest.approx([1, 0.5, 2 / 3]) and curve.recall == pytest.approx(
        [1 / 3, 1 / 3, 2 / 3]
    )
    assert curve.f1_at(np.array([0.95, 0.9, 0.85, 0.7, 0.0])) == pytest.approx([0, 0.5, 0.5, 0.4, 2 / 3])
    # One wrong detection in two images; two thirds of the objects is the most that is reached.
    assert curve.false_at_recall([0.3, 0.5, 0.7])[:2] == pytest.approx([0, 0.5])
    assert math.isnan(curve.false_at_recall([0.7])[0])


def test_the_best_threshold_is_the_middle_of_the_equally_good_ones_with_the_highest_mean_f1() -> None:
    """HAND: three objects. Run 1 is best from .11 to .60, run 2 from .21 to .80, both from .21 to .60."""
    box, nowhere = [0, 0, 10, 10], [80, 80, 10, 10]
    low = found((1, 1, box, 0.6), (2, 1, box, 0.6), (1, 1, nowhere, 0.1))
    high = found((1, 1, box, 0.8), (2, 1, box, 0.8), (1, 1, nowhere, 0.2))
    first, second = (thresholds.threshold_curve(match(HAND, results)) for results in (low, high))
    assert thresholds.best_threshold([first]) == thresholds.BestThreshold(
        0.35, pytest.approx(0.8), 0.35, 0.35, 1
    )
    empty = thresholds.threshold_curve(match(HAND, []))
    both = thresholds.best_threshold([first, empty, second])
    assert both == thresholds.BestThreshold(0.4, pytest.approx(0.8), 0.35, 0.5, 2)
    assert thresholds.best_threshold([]) is None


def test_equal_scores_are_kept_or_dropped_together() -> None:
    results = found((1, 1, [0, 0, 10, 10], 0.5), (1, 1, [80, 80, 10, 10], 0.5))
    curve = thresholds.threshold_curve(match(HAND, results))
    assert curve.threshold.tolist() == [0.5] and curve.f1 == pytest.approx([2 / 5])


def test_no_detections_are_a_result() -> None:
    matches = match(HAND, [])
    assert average_precision(matches) == 0
    assert thresholds.best_threshold([thresholds.threshold_curve(matches)]) is None
    table = calibration.reliability(np.zeros(0), np.zeros(0, bool))
    assert table.empty and math.isnan(calibration.calibration_error(table))
    assert tide.errors(matches).counts["missed"] == 3 and tide.errors(matches).cost["missed"] == 1


def test_calibration_error_by_hand() -> None:
    """Scores .15 .15 .15 .15 with one right, .85 .95 both right: gaps .10 (4 of 6), .15 and .05 (1 each)."""
    scores = np.array([0.95, 0.15, 0.15, 0.15, 0.15, 0.85])
    right = np.array([True, True, False, False, False, True])
    wide = calibration.reliability(scores, right, 10)
    assert wide["n"].tolist() == [4, 1, 1] and wide["low"].tolist() == pytest.approx([0.1, 0.8, 0.9])
    assert wide["precision"].tolist() == [0.25, 1, 1]
    assert calibration.calibration_error(wide) == pytest.approx((4 * 0.10 + 0.15 + 0.05) / 6)
    # Three bins of two detections each: (.15, .15 with one right), (.15, .15 wrong), (.85, .95 right).
    mass = calibration.reliability(scores, right, 3, "mass")
    assert mass["n"].tolist() == [2, 2, 2] and mass["precision"].tolist() == [0.5, 0, 1]
    assert calibration.calibration_error(mass) == pytest.approx((0.35 + 0.15 + 0.10) / 3)
    ends = calibration.reliability(np.array([0.0, 0.1, 1.0]), np.array([False, False, True]), 10)
    assert ends["n"].tolist() == [2, 1]


def test_scores_that_are_probabilities_have_no_calibration_error() -> None:
    rng = generator(0, "calibrated")
    scores = rng.random(200_000)
    right = rng.random(200_000) < scores
    for scheme in ("width", "mass"):
        assert calibration.calibration_error(calibration.reliability(scores, right, 10, scheme)) < 0.01


def test_undoing_a_distortion_gives_the_probabilities_back() -> None:
    """The grid of log-odds of a known distortion, odds(v) = odds(eta)^2, read between its points."""
    grid = np.linspace(-16, 16, 321)
    inversion = calibration.Inversion({"logits": grid.tolist(), "log_odds": (grid / 2).tolist()})
    eta = np.linspace(0.001, 0.999, 999)
    odds = (eta / (1 - eta)) ** 2
    assert np.abs(inversion(odds / (1 + odds)) - eta).max() < 1e-6
    open_below = [None if z < -3 else z for z in grid.tolist()]
    assert calibration.Inversion({"logits": grid.tolist(), "log_odds": open_below})(np.array([0.01]))[0] == 0


@pytest.mark.parametrize(
    ("eta", "score"), [(0.001, 0.050), (0.01, 0.11), (0.5, 0.40), (0.9, 0.60), (0.99, 0.79)]
)
def test_the_analysis_reads_focals_record_as_torch_does(eta: float, score: float) -> None:
    import torch

    from ablation.losses.focal import Focal
    from ablation.training.diagnostics.inversion import inversion_record, true_probability

    inversion = calibration.Inversion(inversion_record(Focal(0.25, 2.0)))
    scores = np.linspace(1e-5, 1 - 1e-5, 2001)
    exact = true_probability(Focal(0.25, 2.0), torch.from_numpy(scores)).numpy()
    assert np.abs(inversion(scores) - exact).max() < 1e-6
    assert np.interp(eta, inversion(scores), scores) == pytest.approx(score, abs=0.006)


# TIDE: one image, one object of class 1 at [0, 0, 10, 10] unless said otherwise

ONE = truth((1, 1, [0, 0, 10, 10]), images=1)
RIGHT = (1, 1, [0, 0, 10, 10], 0.5)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("localisation", (1, 1, [0, 0, 10, 4.9], 0.9)),
        ("localisation", (1, 1, [0, 0, 10, 1], 0.9)),  # exactly .1
        ("classification", (1, 2, [0, 0, 10, 5], 0.9)),  # exactly .5
        ("both", (1, 2, [0, 0, 10, 4.9], 0.9)),
        ("duplicate", (1, 1, [0, 0, 10, 9], 0.4)),
        ("background", (1, 1, [0, 0, 10, 0.9], 0.9)),
        ("background", (1, 2, [50, 50, 10, 10], 0.9)),
    ],
)
def test_each_error_has_its_type(kind: str, error: tuple[int, int, list[float], float]) -> None:
    result = tide.errors(match(ONE, found(RIGHT, error)))
    assert {name: n for name, n in result.counts.items() if n} == {kind: 1}


def test_an_object_that_nothing_points_at_is_missed() -> None:
    two = truth((1, 1, [0, 0, 10, 10]), (1, 1, [50, 50, 10, 10]), images=1)
    assert tide.errors(match(two, found(RIGHT))).counts["missed"] == 1
    near = found(RIGHT, (1, 1, [50, 50, 10, 4], 0.3))
    result = tide.errors(match(two, near))
    assert result.counts["missed"] == 0 and result.counts["localisation"] == 1
    # 51 of 101 recall points at precision 1: AP .50495; with the box moved, everything is right.
    assert result.ap == pytest.approx(51 / 101) and result.cost["localisation"] == pytest.approx(50 / 101)


def test_the_cost_of_each_type_by_hand() -> None:
    """A wrong detection above the only right one makes AP 1/2; to take it away is worth 1/2."""
    for kind, wrong in [("background", (1, 1, [50, 50, 10, 10], 0.9)), ("duplicate", None)]:
        if wrong is None:
            # The duplicate ranks between two right ones of two objects: precision 1, 1/2, 2/3.
            both = truth((1, 1, [0, 0, 10, 10]), (1, 1, [50, 50, 10, 10]), images=1)
            results = found(
                (1, 1, [0, 0, 10, 10], 0.9), (1, 1, [0, 0, 10, 9], 0.8), (1, 1, [50, 50, 10, 10], 0.7)
            )
            result = tide.errors(match(both, results))
            assert result.ap == pytest.approx((51 + 50 * 2 / 3) / 101)
            assert result.cost["duplicate"] == pytest.approx(50 / 3 / 101)
            continue
        result = tide.errors(match(ONE, found(RIGHT, wrong)))
        assert result.ap == pytest.approx(0.5) and result.cost[kind] == pytest.approx(0.5)
        assert sum(result.cost.values()) == pytest.approx(0.5)


def test_a_classification_error_put_right_counts_in_the_other_class() -> None:
    """An object of each class, both boxes called b: AP a 0, b 1/2; right, both are 1."""
    two = truth((1, 1, [0, 0, 10, 10]), (1, 2, [50, 50, 10, 10]), images=1)
    result = tide.errors(match(two, found((1, 2, [0, 0, 10, 10], 0.9), (1, 2, [50, 50, 10, 10], 0.5))))
    assert result.ap == pytest.approx(0.25) and result.cost["classification"] == pytest.approx(0.75)
    assert result.counts["missed"] == 0


def test_of_several_errors_at_one_object_one_is_put_right() -> None:
    """Two near misses at the only object: one becomes right, the other goes; AP 0 becomes 1."""
    results = found((1, 1, [0, 0, 10, 4], 0.9), (1, 1, [0, 0, 10, 3], 0.8))
    result = tide.errors(match(ONE, results))
    assert result.ap == 0 and result.counts["localisation"] == 2
    assert result.cost["localisation"] == pytest.approx(1) and result.cost["missed"] == 0


@pytest.mark.parametrize("seed", range(3))
def test_every_wrong_detection_has_one_type_and_no_cost_is_negative(seed: int) -> None:
    matches = match(*random_study(seed))
    result = tide.errors(matches)
    wrong = int((~matches.counted["matched"]).sum())
    assert sum(n for name, n in result.counts.items() if name != "missed") == wrong
    assert all(-1e-12 <= cost <= 1 - result.ap + 1e-12 for cost in result.cost.values())
    assert result.ap == pytest.approx(average_precision(matches), abs=1e-12)


# artifacts


def test_evidence_is_read_from_the_folder_first_and_fetched_once(tmp_path: Path) -> None:
    record = dataclasses.replace(run(bce(), 0, 0.4), folder=str(tmp_path / "run"))
    (tmp_path / "run" / "diagnostics").mkdir(parents=True)
    (tmp_path / "run" / "diagnostics" / "a.json").write_text('{"x": 1}')
    elsewhere = tmp_path / "b.json"
    elsewhere.write_text(json.dumps({"x": 2}))
    asked: list[tuple[str, str]] = []

    def fetch(run_id: str, path: str) -> Path | None:
        asked.append((run_id, path))
        return elsewhere if path == "diagnostics/b.json" else None

    artifacts = RunArtifacts(StudyRecord("s", [record]), fetch)
    assert artifacts.json("diagnostics/a.json", record.run_id) == {"x": 1} and asked == []
    for _ in range(2):
        assert artifacts.json("diagnostics/b.json", record.run_id) == {"x": 2}
        assert artifacts.json("diagnostics/c.json", record.run_id) is None
        assert artifacts.detections(record.run_id) is None and artifacts.ground_truth(record.run_id) is None
    assert len(asked) == len(set(asked)) == 4
    elsewhere.write_text("{")
    with pytest.raises(StoreError, match=r"b\.json: not readable"):
        RunArtifacts(StudyRecord("s", [record]), fetch).json("diagnostics/b.json", record.run_id)
