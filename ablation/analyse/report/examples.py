"""The example images of a report: the validation images read again, drawn under two arms, and written."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.patheffects as effects
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from ablation.analyse.detections.matching import matches_of
from ablation.analyse.detections.run_files import RunArtifacts
from ablation.analyse.figures.shared import style
from ablation.analyse.figures.shared.base import save
from ablation.analyse.report.differences import Box, Pair, Side, most_different
from ablation.analyse.report.html import Picture, picture
from ablation.analyse.report.recommendation import arm_threshold, valid_runs
from ablation.analyse.verdict.verdict import StudyVerdict
from ablation.analyse.view import StudyView
from ablation.data.dataset import DataSource, Image, Split
from ablation.errors import AblationError, one_line
from ablation.files import write_atomic


@dataclass(frozen=True)
class Example:
    """One image under two arms, in the page and as files."""

    picture: Picture
    files: tuple[Path, ...]


def write_examples(
    view: StudyView, verdict: StudyVerdict, artifacts: RunArtifacts, folder: Path
) -> tuple[str, list[Example]]:
    """Draw the images on which BCE and the best other arm differ most into example_<k>.png, .pdf, .svg.

    Returns:
        How they were chosen, or why there are none; and the examples.
    """
    for old in folder.glob("example_*.*"):  # of an earlier state: there may be fewer now
        old.unlink()
    try:
        return _write(view, verdict, artifacts, folder)
    except ImagesMissing as why:
        return f"No example images: {why}.", []


def _write(
    view: StudyView, verdict: StudyVerdict, artifacts: RunArtifacts, folder: Path
) -> tuple[str, list[Example]]:
    if verdict.headline is None:
        raise ImagesMissing("there are no two arms to compare")
    names = (verdict.headline.bce, verdict.headline.focal)
    runs = [{run.seed: run for run in valid_runs(view, arm)} for arm in names]
    seeds = sorted(runs[0].keys() & runs[1].keys())
    if not seeds:
        raise ImagesMissing("no seed has finished in both arms")
    pair = [by_seed[seeds[0]] for by_seed in runs]
    truth = artifacts.ground_truth(pair[0].run_id)
    description = artifacts.json("run.json", pair[0].run_id)
    matches = [matches_of(artifacts, run.run_id) for run in pair]
    thresholds = [arm_threshold(view, arm, artifacts) for arm in names]
    if truth is None or any(item is None for item in (*matches, *thresholds)):
        raise ImagesMissing("the runs' detections are not here")
    if description is None:
        raise ImagesMissing("the runs' folders, which say where the images are, are not here")
    images = open_val(description["data"], truth)
    sides = [
        (matched, best.score) for matched, best in zip(matches, thresholds, strict=True) if matched and best
    ]
    pairs = most_different(truth, sides[0], sides[1])
    setting = dict(zip(view.arms["arm"], view.arms["setting"], strict=True))
    labels = tuple(
        f"{setting[arm]}, score at least {score:.2f}" for arm, (_, score) in zip(names, sides, strict=True)
    )
    classes = {int(item["id"]): str(item["name"]) for item in truth["categories"]}
    examples = [
        _example(number, differing, images.read(differing.image_id), (labels[0], labels[1]), classes, folder)
        for number, differing in enumerate(pairs, 1)
    ]
    if not examples:
        return f"{setting[names[0]]} and {setting[names[1]]} agree on every validation image.", []
    return (
        f"The {len(examples)} of {len(truth['images'])} validation images on which {setting[names[0]]} and "
        f"{setting[names[1]]} differ most, with seed {seeds[0]} and each at its own best score threshold: "
        "those with the most objects found, and false detections made, by only one of them. They show what "
        "the difference looks like where it is largest. They are not typical, and neither arm was favoured "
        "in choosing them."
    ), examples


def _example(
    number: int,
    pair: Pair,
    image: Image,
    labels: tuple[str, str],
    classes: dict[int, str],
    folder: Path,
) -> Example:
    with style.house_style():
        files = save(draw(pair, image, labels, classes))
    paths = []
    for kind, data in files.items():
        path = folder / f"example_{number}.{kind}"
        write_atomic(path, lambda file, data=data: file.write(data))  # type: ignore[misc]
        paths.append(path)
    caption = (
        f"{labels[0]} to the left, {labels[1]} to the right. {len(pair.objects)} objects, "
        f"{len(pair.left.found)} and {len(pair.right.found)} found at IoU 0.5, "
        f"{len(pair.left.false)} and {len(pair.right.false)} false detections."
    )
    embedded = picture(f"example-{number}", f"Image {pair.name}", caption, paths, dense=True)
    return Example(embedded, tuple(paths))


# Okabe and Ito's colours, as in the other figures; line styles repeat what the colours say.
_BOTH = {"color": "#FFFFFF", "linewidth": 0.9, "linestyle": "-"}
_ONLY = {"color": "#56B4E9", "linewidth": 2.0, "linestyle": "-"}
_LOST = {"color": "#E69F00", "linewidth": 2.0, "linestyle": (0, (2.5, 1.2))}
_NEITHER = {"color": "#DDDDDD", "linewidth": 0.9, "linestyle": (0, (1, 1.6))}
_FALSE = {"color": "#F0589A", "linewidth": 1.6, "linestyle": "-"}
_FALSE_IN_BOTH = {"color": "#F3A6C8", "linewidth": 0.8, "linestyle": "-"}
_MARKS = (
    ("found by both", _BOTH),
    ("found here only", _ONLY),
    ("found by the other only", _LOST),
    ("found by neither", _NEITHER),
    ("false here only", _FALSE),
    ("false in both", _FALSE_IN_BOTH),
)
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
    panel = style.WIDTH_IN / 2 - 0.1
    canvas = Canvas(figsize=(style.WIDTH_IN, min(panel * height / width, 6.0) + 0.85), layout="compressed")
    axes = canvas.subplots(1, 2)
    shared = [{i for i, _ in pair.false_in_both}, {j for _, j in pair.false_in_both}]
    sides = ((pair.left, pair.right), (pair.right, pair.left))
    with_text = pair.differing <= _CROWDED
    for ax, label, (side, opposite), both in zip(axes, labels, sides, shared, strict=True):
        ax.imshow(image, interpolation="nearest" if max(height, width) < 200 else "antialiased")
        ax.set_xticks([])
        ax.set_yticks([])
        for spine in ax.spines.values():
            spine.set_visible(False)
        _boxes(ax, pair, side, opposite, both, classes if with_text else None)
        label = label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}\u2026"
        count = f"{len(side.found)} of {len(pair.objects)} found, {len(side.false)} false"
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
    ax: Axes,
    pair: Pair,
    side: Side,
    opposite: Side,
    false_in_both: set[int],
    classes: Mapping[int, str] | None,
) -> None:
    """Without `classes` there are too many differences for words: they would hide what they name."""

    def text(category: int, score: float | None = None) -> str:
        if classes is None:
            return ""
        name = classes.get(category, str(category))
        return name if score is None else f"{name} {score:.2f}"

    for i, (box, score, category) in enumerate(side.false):
        shared = i in false_in_both
        mark = _FALSE_IN_BOTH if shared else _FALSE
        _box(ax, box, mark, "" if shared else text(category, score), crossed=not shared)
    for key, (box, category) in pair.objects.items():
        if key in side.found:
            detected, score = side.found[key]
            mark = _BOTH if key in opposite.found else _ONLY
            _box(ax, detected, mark, text(category, score) if mark is _ONLY else "")
        else:
            mark = _LOST if key in opposite.found else _NEITHER
            _box(ax, box, mark, text(category) if mark is _LOST else "")


def _box(ax: Axes, box: Box, mark: Mapping[str, Any], text: str, crossed: bool = False) -> None:
    # Pixel k of a picture is drawn from k - 0.5 to k + 0.5; COCO counts from its left edge.
    x, y, width, height = box[0] - 0.5, box[1] - 0.5, box[2], box[3]
    ax.add_patch(Rectangle((x, y), width, height, fill=False, path_effects=_HALO, **mark))
    if crossed:
        cross = {"marker": "x", "markersize": 5, "markeredgewidth": 1.2, "color": mark["color"]}
        ax.plot([x + width / 2], [y + height / 2], path_effects=_HALO, **cross)
    if text:
        label = text if len(text) <= 24 else text[:23] + "\u2026"
        background = {"facecolor": mark["color"], "edgecolor": "none", "pad": 0.8}
        ax.text(
            x,
            y,
            label,
            fontsize=5.5,
            color="black",
            va="bottom",
            bbox=background,
            clip_on=True,
            parse_math=False,
        )


class ImagesMissing(Exception):
    """Why there are no example images, as half a sentence for people."""


class ValImages:
    """Images of the validation split, by their ids in the ground truth. The test split is not opened."""

    def __init__(self, split: Split) -> None:
        self._split = split

    def read(self, image_id: int) -> Image:
        """(height, width, 3) RGB. Raises ImagesMissing where the file is damaged or gone."""
        try:
            return self._split.read(image_id - 1)
        except (AblationError, OSError) as error:
            raise ImagesMissing(one_line(error, 200)) from None


def open_val(data: Mapping[str, Any], ground_truth: Mapping[str, Any]) -> ValImages:
    """Open the data set that a run was evaluated on, and check that it is still the same images.

    Args:
        data: the `data` of a run's run.json: the class that reads it and its settings.
        ground_truth: what the run was evaluated with, in COCO's format; image k + 1 is example k.

    Raises:
        ImagesMissing: the data set is not where it was, or no longer the same.
    """
    try:
        split = _source(data).open().val
    except (AblationError, OSError) as error:
        raise ImagesMissing(f"the data set cannot be opened here ({one_line(error, 200)})") from None
    now = [(example.name, example.width_px, example.height_px) for example in split.examples]
    then = [(image["file_name"], image["width"], image["height"]) for image in ground_truth["images"]]
    if now != then:
        raise ImagesMissing(
            f"the validation images have changed since: {len(then)} then, {len(now)} now"
            + (f", the first that differs is {_first_difference(then, now)}" if len(then) == len(now) else "")
        )
    return ValImages(split)


def _source(data: Mapping[str, Any]) -> DataSource:
    """The reader, built from its own class only: what a file names is not trusted further."""
    module, _, name = str(data.get("_target_", "")).rpartition(".")
    if not module.startswith("ablation.data."):
        raise ImagesMissing(f"their reader {module}.{name} is not one of this package")
    try:
        reader = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        raise ImagesMissing(f"this version has no reader {module}.{name}") from None
    if not (isinstance(reader, type) and issubclass(reader, DataSource) and dataclasses.is_dataclass(reader)):
        raise ImagesMissing(f"{module}.{name} does not read data sets")
    known = {field.name for field in dataclasses.fields(reader)}
    settings = {key: value for key, value in data.items() if key in known}
    # A report reads what is cached already, and writes no cache where there is none.
    if "cache" in known and not Path(str(settings.get("cache_dir", ""))).expanduser().is_dir():
        settings["cache"] = "none"
    try:
        return reader(**settings)
    except (TypeError, ValueError) as error:
        raise ImagesMissing(f"its settings do not fit this version ({one_line(error, 120)})") from None


def _first_difference(then: Sequence[tuple[Any, ...]], now: Sequence[tuple[Any, ...]]) -> str:
    return str(next(a[0] for a, b in zip(then, now, strict=True) if a != b))
