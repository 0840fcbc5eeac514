"""Validation images on which BCE and the best other arm differ most, side by side, the differences marked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib.patheffects as effects
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from ablation.analyse.detections.matching import BOX, Matches
from ablation.analyse.figures._style import WIDTH_IN
from ablation.data.dataset import Image

MOST = 4
"""How many images are shown."""
IOU = 0.5
"""From this overlap on, two false detections of one class are the same."""

Box = tuple[float, float, float, float]
"""COCO's [x, y, width, height], in original pixels."""


@dataclass(frozen=True)
class Side:
    """What one arm did with one image, at its own score threshold.

    Attributes:
        found: id of an object -> the box and score it was found with.
        false: box, score and category id of each detection that found nothing.
    """

    found: dict[int, tuple[Box, float]]
    false: tuple[tuple[Box, float, int], ...]


@dataclass(frozen=True)
class Pair:
    """One image under two arms.

    Attributes:
        image_id, name: of the image.
        objects: id -> box and category id of every object that counts.
        left, right: the baseline and the other arm.
    """

    image_id: int
    name: str
    objects: dict[int, tuple[Box, int]]
    left: Side
    right: Side

    @property
    def differing(self) -> int:
        """Objects that only one of the two found, and false detections that only one of them made."""
        objects = len(self.left.found.keys() ^ self.right.found.keys())
        return objects + len(self.left.false) + len(self.right.false) - 2 * len(self.false_in_both)

    @property
    def false_in_both(self) -> tuple[tuple[int, int], ...]:
        """Positions in left.false and right.false of one class that overlap by IOU; each at most once."""
        taken: list[tuple[int, int]] = []
        for i, (box, _, category) in enumerate(self.left.false):
            free = [
                (_iou(box, other), -j) for j, (other, _, kind) in enumerate(self.right.false)
                if kind == category and j not in {right for _, right in taken}
            ]  # fmt: skip
            if free and max(free)[0] >= IOU:
                taken.append((i, -max(free)[1]))
        return tuple(taken)


def most_different(
    ground_truth: Mapping[str, Any],
    left: tuple[Matches, float],
    right: tuple[Matches, float],
    most: int = MOST,
) -> list[Pair]:
    """The images on which two arms differ most; equal ones in the order of the data set.

    Nothing here looks at which arm is right more often: an image counts for either in the same way.

    Args:
        ground_truth: COCO's dictionary.
        left, right: the matched detections of one run each, and the score from which on they count.
            Matching goes by falling score, so leaving out the lower ones changes no match above.

    Returns:
        At most `most` pairs, those with the largest `differing` first, none with 0.
    """
    sides = [_sides(*arm) for arm in (left, right)]
    objects: dict[int, dict[int, tuple[Box, int]]] = defaultdict(dict)
    for annotation in ground_truth["annotations"]:
        if not annotation.get("iscrowd"):
            box: Box = tuple(annotation["bbox"])
            objects[annotation["image_id"]][annotation["id"]] = (box, annotation["category_id"])
    empty = Side({}, ())
    pairs = [
        Pair(image["id"], str(image["file_name"]), objects[image["id"]],
             sides[0].get(image["id"], empty), sides[1].get(image["id"], empty))
        for image in ground_truth["images"]
    ]  # fmt: skip
    ranked = sorted((pair for pair in pairs if pair.differing), key=lambda pair: -pair.differing)
    return ranked[:most]


def _sides(matches: Matches, threshold: float) -> dict[int, Side]:
    """Image id -> what was found there."""
    kept = matches.detections[matches.detections["score"] >= threshold]
    kept = kept[~kept["ignored"]]
    found: dict[int, dict[int, tuple[Box, float]]] = defaultdict(dict)
    false: dict[int, list[tuple[Box, float, int]]] = defaultdict(list)
    names = ["image_id", "category_id", "score", "matched", "truth_id", *BOX]
    for image, category, score, matched, truth, x1, y1, x2, y2 in kept[names].itertuples(index=False):
        box: Box = (x1, y1, x2 - x1, y2 - y1)
        if matched:
            found[image][int(truth)] = (box, float(score))
        else:
            false[image].append((box, float(score), int(category)))
    images = found.keys() | false.keys()
    return {image: Side(found.get(image, {}), tuple(false.get(image, ()))) for image in images}


def _iou(a: Box, b: Box) -> float:
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(across, 0.0) * max(down, 0.0)
    union = a[2] * a[3] + b[2] * b[3] - shared
    return shared / union if union > 0 else 0.0


# Okabe and Ito's colours, as in the other figures; line styles repeat what the colours say.
_BOTH = {"color": "#FFFFFF", "linewidth": 0.9, "linestyle": "-"}
_ONLY = {"color": "#56B4E9", "linewidth": 2.0, "linestyle": "-"}
_LOST = {"color": "#E69F00", "linewidth": 2.0, "linestyle": (0, (2.5, 1.2))}
_NEITHER = {"color": "#DDDDDD", "linewidth": 0.9, "linestyle": (0, (1, 1.6))}
_FALSE = {"color": "#F0589A", "linewidth": 1.6, "linestyle": "-"}
_FALSE_IN_BOTH = {"color": "#F3A6C8", "linewidth": 0.8, "linestyle": "-"}
_MARKS = (
    ("found by both", _BOTH), ("found here only", _ONLY), ("found by the other only", _LOST),
    ("found by neither", _NEITHER), ("false here only", _FALSE), ("false in both", _FALSE_IN_BOTH),
)  # fmt: skip
_HALO = [effects.withStroke(linewidth=2.2, foreground="#00000088")]
_CROWDED = 16
_LONGEST = 60


def draw(pair: Pair, image: Image, labels: tuple[str, str], classes: Mapping[int, str]) -> Canvas:
    """One image twice, the baseline to the left, with the boxes of both and a legend of the marks.

    Args:
        labels: of the two arms, with their thresholds.
        classes: category id -> name.
    """
    height, width = image.shape[:2]
    panel = WIDTH_IN / 2 - 0.1
    canvas = Canvas(figsize=(WIDTH_IN, min(panel * height / width, 6.0) + 0.85), layout="compressed")
    axes = canvas.subplots(1, 2)
    shared = [{i for i, _ in pair.false_in_both}, {j for _, j in pair.false_in_both}]
    sides = ((pair.left, pair.right), (pair.right, pair.left))
    words = pair.differing <= _CROWDED
    for ax, label, (here, there), both in zip(axes, labels, sides, shared, strict=True):
        ax.imshow(image, interpolation="nearest" if max(height, width) < 200 else "antialiased")
        ax.set_xticks([])
        ax.set_yticks([])
        for spine in ax.spines.values():
            spine.set_visible(False)
        _boxes(ax, pair, here, there, both, classes if words else None)
        label = label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}\u2026"
        count = f"{len(here.found)} of {len(pair.objects)} found, {len(here.false)} false"
        ax.set_title(f"{label}\n{count}", fontsize=8, loc="left", parse_math=False)
    handles = [
        Line2D([], [], label=text, path_effects=_HALO, **mark)  # type: ignore[arg-type]
        for text, mark in _MARKS
    ]
    canvas.legend(
        handles=handles, loc="outside lower center", ncols=6, fontsize=6.5, handlelength=1.6, columnspacing=1
    )
    return canvas


def _boxes(
    ax: Axes, pair: Pair, here: Side, there: Side, false_in_both: set[int], classes: Mapping[int, str] | None
) -> None:
    """Without `classes` there are too many differences for words: they would hide what they name."""

    def text(category: int, score: float | None = None) -> str:
        if classes is None:
            return ""
        name = classes.get(category, str(category))
        return name if score is None else f"{name} {score:.2f}"

    for i, (box, score, category) in enumerate(here.false):
        shared = i in false_in_both
        mark = _FALSE_IN_BOTH if shared else _FALSE
        _box(ax, box, mark, "" if shared else text(category, score), crossed=not shared)
    for key, (box, category) in pair.objects.items():
        if key in here.found:
            found, score = here.found[key]
            mark = _BOTH if key in there.found else _ONLY
            _box(ax, found, mark, text(category, score) if mark is _ONLY else "")
        else:
            mark = _LOST if key in there.found else _NEITHER
            _box(ax, box, mark, text(category) if mark is _LOST else "")


def _box(ax: Axes, box: Box, mark: Mapping[str, Any], text: str, crossed: bool = False) -> None:
    # Pixel k of a picture is drawn from k - 0.5 to k + 0.5; COCO counts from its left edge.
    x, y, width, height = box[0] - 0.5, box[1] - 0.5, box[2], box[3]
    ax.add_patch(Rectangle((x, y), width, height, fill=False, path_effects=_HALO, **mark))
    if crossed:
        ax.plot(
            [x + width / 2], [y + height / 2], marker="x", markersize=5, markeredgewidth=1.2,
            color=mark["color"], path_effects=_HALO,
        )  # fmt: skip
    if text:
        shown = text if len(text) <= 24 else text[:23] + "\u2026"
        ground = {"facecolor": mark["color"], "edgecolor": "none", "pad": 0.8}
        ax.text(
            x, y, shown, fontsize=5.5, color="black", va="bottom", clip_on=True, bbox=ground, parse_math=False
        )  # fmt: skip
