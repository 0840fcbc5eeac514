"""Example images: which are chosen, what is marked, and where the images come from."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablation.analyse.detections.matching import match
from ablation.analyse.figures.shared.style import house_style
from ablation.analyse.report.differences import most_different
from ablation.analyse.report.examples import ImagesMissing, draw, open_val
from ablation.data.shapes import Shapes
from ablation.training.evaluate import coco_ground_truth

CLASSES = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]


def box(x: float, y: float = 0.0) -> list[float]:
    return [x, y, 10.0, 10.0]


def truth() -> dict[str, Any]:
    """Three images: two objects, one object, one object and a crowd."""
    rows = [(1, 0, 0), (1, 40, 0), (2, 0, 0), (3, 0, 0), (3, 40, 1)]
    annotations = [
        {"id": i, "image_id": image, "category_id": 1, "bbox": box(x), "area": 100.0, "iscrowd": crowd}
        for i, (image, x, crowd) in enumerate(rows, 1)
    ]
    images = [{"id": i, "file_name": f"im{i}", "width": 60, "height": 40} for i in (1, 2, 3)]
    return {"images": images, "annotations": annotations, "categories": CLASSES}


def hit(image: int, x: float, score: float = 0.9, category: int = 1, y: float = 0.0) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": box(x, y), "score": score}


def test_differences_by_hand() -> None:
    left = [hit(1, 0), hit(1, 40, 0.3), hit(2, 0), hit(3, 0), hit(3, 40), hit(2, 20, y=20)]
    right = [hit(1, 0), hit(2, 0), hit(2, 21, y=20), hit(2, 40, 0.6, y=20), hit(3, 0), hit(3, 40, 0.2)]
    found = most_different(truth(), (match(truth(), left), 0.25), (match(truth(), right), 0.5))
    # Image 1: object 2 found by the left only. Image 2: one false detection shared, one of the right only.
    # Image 3: what lies in the crowd counts nowhere, so nothing differs.
    assert [(pair.name, pair.differing) for pair in found] == [("im1", 1), ("im2", 1)]
    assert found[0].left.detected.keys() == {1, 2} and found[0].right.detected.keys() == {1}
    assert found[1].false_in_both == ((0, 0),) and len(found[1].right.false) == 2
    # With the left's threshold at 0.5 its object 2 is gone, and with it the difference.
    other = most_different(truth(), (match(truth(), left), 0.5), (match(truth(), right), 0.5))
    assert [pair.name for pair in other] == ["im2"]


def test_a_false_detection_of_another_class_is_not_the_same() -> None:
    [pair] = most_different(
        truth(),
        (match(truth(), [hit(2, 20, y=20)]), 0.1),
        (match(truth(), [hit(2, 20, y=20, category=2)]), 0.1),
    )
    assert pair.differing == 2 and pair.false_in_both == ()


def test_the_choice_does_not_depend_on_which_arm_is_which() -> None:
    left, right = match(truth(), [hit(1, 0), hit(2, 30)]), match(truth(), [hit(1, 40), hit(3, 0)])
    one = most_different(truth(), (left, 0.1), (right, 0.1))
    other = most_different(truth(), (right, 0.1), (left, 0.1))
    assert [(pair.name, pair.differing) for pair in one] == [(pair.name, pair.differing) for pair in other]
    assert [pair.differing for pair in one] == sorted((pair.differing for pair in one), reverse=True)


def test_at_most_so_many_and_none_that_agree() -> None:
    left, none = match(truth(), [hit(i, 0) for i in (1, 2, 3)]), match(truth(), [])
    assert len(most_different(truth(), (left, 0.1), (none, 0.1), most=2)) == 2
    assert most_different(truth(), (left, 0.1), (left, 0.1)) == []


def test_both_panels_are_drawn_with_their_counts_and_any_class_name() -> None:
    [pair] = most_different(truth(), (match(truth(), [hit(2, 0)]), 0.1), (match(truth(), [hit(2, 30)]), 0.1))
    with house_style():
        canvas = draw(pair, np.zeros((40, 60, 3), np.uint8), ("a $x_", "b"), {1: "$\\frac{<name"})
        assert [ax.get_title(loc="left") for ax in canvas.axes] == [
            "a $x_\n1 of 1 found, 0 false", "b\n0 of 1 found, 1 false"]  # fmt: skip
        canvas.canvas.draw()  # a class name that is no valid formula must not be read as one


SHAPES = Shapes(train_images=2, val_images=3, size_px=32, size_min=0.25, cache="none")


def about(**changes: Any) -> dict[str, Any]:
    """The `data` of a run.json."""
    found = {"name": "shapes", "_target_": "ablation.data.shapes.Shapes", **dataclasses.asdict(SHAPES)}
    return found | changes


def test_the_images_are_those_that_were_evaluated() -> None:
    val = SHAPES.open().val
    images = open_val(about(), coco_ground_truth(val, SHAPES.classes))
    for index in range(len(val)):
        np.testing.assert_array_equal(images.read(index + 1), val.read(index))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"val_images": 4}, "changed since: 3 then, 4 now"),
        ({"size_px": 64}, "changed since"),
        ({"_target_": "os.system"}, "not one of this package"),
        ({"_target_": "ablation.data.nothing.X"}, "no reader"),
        ({"_target_": "ablation.data.shapes.generator"}, "does not read data sets"),
        ({"_target_": "ablation.data.voc.Voc"}, "cannot be opened here"),
        ({"size_px": 7}, "do not fit this version"),
    ],
)
def test_images_that_are_not_there_are_a_reason(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ImagesMissing, match=why):
        open_val(about(**changes), coco_ground_truth(SHAPES.open().val, SHAPES.classes))


def test_no_cache_is_made_where_there_was_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    open_val(about(cache="disk"), coco_ground_truth(SHAPES.open().val, SHAPES.classes)).read(1)
    assert list(tmp_path.iterdir()) == []
