"""The validation images on which two arms differ most: in the objects detected and in false detections."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ablation.analyse.detections.matching import BOX, Matches

MOST = 4
"""How many images a report shows."""
IOU = 0.5
"""From this overlap on, two false detections of one class are the same."""

Box = tuple[float, float, float, float]
"""COCO's [x, y, width, height], in original pixels."""


@dataclass(frozen=True)
class ImageDetections:
    """One arm's detections in one image, at the arm's own score threshold.

    Attributes:
        detected: id of an object -> box and score of the detection that matches it.
        false: box, score and category id of each detection that matches no object.
    """

    detected: dict[int, tuple[Box, float]]
    false: tuple[tuple[Box, float, int], ...]


@dataclass(frozen=True)
class ComparedImage:
    """One image under two arms.

    Attributes:
        image_id, name: of the image.
        objects: id -> box and category id of every object that counts.
        left, right: the baseline and the other arm.
    """

    image_id: int
    name: str
    objects: dict[int, tuple[Box, int]]
    left: ImageDetections
    right: ImageDetections

    @property
    def differing(self) -> int:
        """Objects that only one of the two detected, and false detections that only one of them made."""
        objects = len(self.left.detected.keys() ^ self.right.detected.keys())
        return objects + len(self.left.false) + len(self.right.false) - 2 * len(self.false_in_both)

    @property
    def false_in_both(self) -> tuple[tuple[int, int], ...]:
        """Positions in left.false and right.false of equal class, overlapping by IOU; each at most once."""
        taken: list[tuple[int, int]] = []
        for i, (box, _, category) in enumerate(self.left.false):
            used = {right for _, right in taken}
            overlaps = [
                (_iou(box, other_box), -j)
                for j, (other_box, _, other_category) in enumerate(self.right.false)
                if other_category == category and j not in used
            ]
            if overlaps and max(overlaps)[0] >= IOU:
                taken.append((i, -max(overlaps)[1]))
        return tuple(taken)


def most_different(
    ground_truth: Mapping[str, Any],
    left: tuple[Matches, float],
    right: tuple[Matches, float],
    most: int = MOST,
) -> list[ComparedImage]:
    """The images on which two arms differ most; equal ones in the order of the data set.

    Which arm is right more often plays no part: exchanging the two arms gives the same images.

    Args:
        ground_truth: COCO's dictionary.
        left, right: the matched detections of one run each, and the lowest score that counts.
            Matching goes by falling score, so leaving out the lower ones changes no match above.

    Returns:
        At most `most` images, those with the largest `differing` first, none with 0.
    """
    sides = [_by_image(*arm) for arm in (left, right)]
    objects: dict[int, dict[int, tuple[Box, int]]] = defaultdict(dict)
    for annotation in ground_truth["annotations"]:
        if not annotation.get("iscrowd"):
            box: Box = tuple(annotation["bbox"])
            objects[annotation["image_id"]][annotation["id"]] = (box, annotation["category_id"])
    empty = ImageDetections({}, ())
    compared = [
        ComparedImage(
            image_id=image["id"],
            name=str(image["file_name"]),
            objects=objects[image["id"]],
            left=sides[0].get(image["id"], empty),
            right=sides[1].get(image["id"], empty),
        )
        for image in ground_truth["images"]
    ]
    different = [image for image in compared if image.differing]
    return sorted(different, key=lambda image: -image.differing)[:most]


def _by_image(matches: Matches, threshold: float) -> dict[int, ImageDetections]:
    """Image id -> the detections in it with at least that score."""
    scored = matches.detections[matches.detections["score"] >= threshold]
    scored = scored[~scored["ignored"]]
    detected: dict[int, dict[int, tuple[Box, float]]] = defaultdict(dict)
    false: dict[int, list[tuple[Box, float, int]]] = defaultdict(list)
    names = ["image_id", "category_id", "score", "matched", "truth_id", *BOX]
    for image, category, score, matched, truth, x1, y1, x2, y2 in scored[names].itertuples(index=False):
        box: Box = (x1, y1, x2 - x1, y2 - y1)
        if matched:
            detected[image][int(truth)] = (box, float(score))
        else:
            false[image].append((box, float(score), int(category)))
    images = detected.keys() | false.keys()
    return {image: ImageDetections(detected.get(image, {}), tuple(false.get(image, ()))) for image in images}


def _iou(a: Box, b: Box) -> float:
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(across, 0.0) * max(down, 0.0)
    union = a[2] * a[3] + b[2] * b[3] - shared
    return shared / union if union > 0 else 0.0
