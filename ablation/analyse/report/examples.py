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

from ablation.analyse.detections.matching import Matches, matches_of
from ablation.analyse.detections.run_files import RunArtifacts
from ablation.analyse.figures.shared import style
from ablation.analyse.figures.shared.base import save
from ablation.analyse.report.differences import Box, ComparedImage, ImageDetections, most_different
from ablation.analyse.report.drawn_figures import write_pictures
from ablation.analyse.report.html import Picture, picture
from ablation.analyse.report.recommendation import arm_threshold, valid_runs
from ablation.analyse.verdict.verdict import StudyVerdict
from ablation.analyse.view import StudyView
from ablation.data.dataset import DataSource, Image, Split
from ablation.errors import AblationError, one_line


@dataclass(frozen=True)
class Example:
    """One image under two arms, in the page and as files."""

    picture: Picture
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Examples:
    """The example images, and how they were chosen or why there are none."""

    text: str
    images: tuple[Example, ...] = ()


@dataclass(frozen=True)
class ComparedArm:
    """One of the two arms under whose detections the images are drawn.

    Attributes:
        setting: its loss and settings, for people.
        matches: the detections of one run.
        score: the arm's best score threshold.
    """

    setting: str
    matches: Matches
    score: float

    @property
    def label(self) -> str:
        """What stands above its panel."""
        return f"{self.setting}, score at least {self.score:.2f}"


def write_examples(view: StudyView, verdict: StudyVerdict, artifacts: RunArtifacts, folder: Path) -> Examples:
    """Draw the images on which BCE and the best other arm differ most into example_<k>.png, .pdf, .svg."""
    for old in folder.glob("example_*.*"):  # of an earlier state: there may be fewer now
        old.unlink()
    try:
        return _write(view, verdict, artifacts, folder)
    except ImagesMissing as why:
        return Examples(f"No example images: {why}.")


def _write(view: StudyView, verdict: StudyVerdict, artifacts: RunArtifacts, folder: Path) -> Examples:
    if verdict.headline is None:
        raise ImagesMissing("there are no two arms to compare")
    names = (verdict.headline.bce, verdict.headline.focal)
    runs = [{run.seed: run.run_id for run in valid_runs(view, arm)} for arm in names]
    seeds = sorted(runs[0].keys() & runs[1].keys())
    if not seeds:
        raise ImagesMissing("no seed has finished in both arms")
    run_ids = [of_seed[seeds[0]] for of_seed in runs]
    truth = artifacts.ground_truth(run_ids[0])
    left, right = (
        _compared_arm(view, arm, run_id, artifacts) for arm, run_id in zip(names, run_ids, strict=True)
    )
    if truth is None:
        raise ImagesMissing("the ground truth of the runs was not found")
    description = artifacts.json("run.json", run_ids[0])
    if description is None:
        raise ImagesMissing("the folders of the runs, which say where the images are, were not found")
    if description["data"].get("read_by") == "trainer":
        raise ImagesMissing("the study's own trainer reads the images, and only it knows where they are")
    images = open_val(description["data"], truth)
    different = most_different(truth, (left.matches, left.score), (right.matches, right.score))
    if not different:
        return Examples(f"{left.setting} and {right.setting} agree on every validation image.")
    classes = {int(item["id"]): str(item["name"]) for item in truth["categories"]}
    return Examples(
        f"The {len(different)} of {len(truth['images'])} validation images on which {left.setting} and "
        f"{right.setting} differ most, with seed {seeds[0]} and each arm at its best score threshold: those "
        "with the most objects that only one of the two detected, and false detections that only one of them "
        "made. They are not typical: they show the difference where it is largest. Which arm is right more "
        "often played no part in the choice.",
        tuple(
            _example(folder / f"example_{k}", image, images.read(image.image_id), (left, right), classes)
            for k, image in enumerate(different, 1)
        ),
    )


def _compared_arm(view: StudyView, arm: str, run_id: str, artifacts: RunArtifacts) -> ComparedArm:
    matches, best = matches_of(artifacts, run_id), arm_threshold(view, arm, artifacts)
    if matches is None or best is None:
        raise ImagesMissing("the detections of the runs were not found")
    setting = view.arms.loc[view.arms["arm"] == arm, "setting"].iloc[0]
    return ComparedArm(str(setting), matches, best.score)


def _example(
    stem: Path,
    compared: ComparedImage,
    image: Image,
    arms: tuple[ComparedArm, ComparedArm],
    classes: dict[int, str],
) -> Example:
    labels = (arms[0].label, arms[1].label)
    with style.house_style():
        paths = write_pictures(stem, save(draw(compared, image, labels, classes)))
    left, right = compared.left, compared.right
    caption = (
        f"{labels[0]} to the left, {labels[1]} to the right. {len(compared.objects)} objects, "
        f"{len(left.detected)} and {len(right.detected)} found at IoU 0.5, "
        f"{len(left.false)} and {len(right.false)} false detections."
    )
    anchor = stem.name.replace("_", "-")
    return Example(picture(anchor, f"Image {compared.name}", caption, paths, dense=True), paths)


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
_LABEL_SHARE = 0.05
"""Height of a label as a share of the picture's, about."""


def draw(
    compared: ComparedImage, image: Image, labels: tuple[str, str], classes: Mapping[int, str]
) -> Canvas:
    """One image twice, the baseline to the left, with the boxes of both and a legend of the marks.

    Args:
        labels: of the two arms, with their thresholds.
        classes: category id -> name.
    """
    height, width = image.shape[:2]
    panel = style.WIDTH_IN / 2 - 0.1
    canvas = Canvas(figsize=(style.WIDTH_IN, min(panel * height / width, 6.0) + 0.85), layout="compressed")
    axes = canvas.subplots(1, 2)
    shared = [{i for i, _ in compared.false_in_both}, {j for _, j in compared.false_in_both}]
    sides = ((compared.left, compared.right), (compared.right, compared.left))
    with_text = compared.differing <= _CROWDED
    for ax, label, (side, opposite), both in zip(axes, labels, sides, shared, strict=True):
        ax.imshow(image, interpolation="nearest" if max(height, width) < 200 else "antialiased")
        ax.set_xticks([])
        ax.set_yticks([])
        for spine in ax.spines.values():
            spine.set_visible(False)
        _boxes(ax, compared, side, opposite, both, classes if with_text else None)
        label = label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}\u2026"
        count = f"{len(side.detected)} of {len(compared.objects)} found, {len(side.false)} false"
        ax.set_title(f"{label}\n{count}", fontsize=8, loc="left")
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
    compared: ComparedImage,
    side: ImageDetections,
    opposite: ImageDetections,
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
    for key, (box, category) in compared.objects.items():
        if key in side.detected:
            detection, score = side.detected[key]
            mark = _BOTH if key in opposite.detected else _ONLY
            _box(ax, detection, mark, text(category, score) if mark is _ONLY else "")
        else:
            mark = _LOST if key in opposite.detected else _NEITHER
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
        # Above the box, or inside it where the picture ends above.
        side = "top" if y < _LABEL_SHARE * ax.get_ylim()[0] else "bottom"
        look: dict[str, Any] = {"fontsize": 5.5, "color": "black", "va": side, "clip_on": True}
        background = {"facecolor": mark["color"], "edgecolor": "none", "pad": 0.8}
        ax.text(x, y, label, bbox=background, **look)


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
    # A report reads an existing cache and makes none.
    if "cache" in known and not Path(str(settings.get("cache_dir", ""))).expanduser().is_dir():
        settings["cache"] = "none"
    try:
        return reader(**settings)
    except (TypeError, ValueError) as error:
        raise ImagesMissing(f"its settings do not fit this version ({one_line(error, 120)})") from None


def _first_difference(then: Sequence[tuple[Any, ...]], now: Sequence[tuple[Any, ...]]) -> str:
    return str(next(a[0] for a, b in zip(then, now, strict=True) if a != b))
