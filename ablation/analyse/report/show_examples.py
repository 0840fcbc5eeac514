"""The example images of a report: which runs they come from, how they were chosen, drawn and written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import matplotlib.style

from ablation.analyse.detections.matching import matches_of
from ablation.analyse.detections.run_files import RunArtifacts
from ablation.analyse.figures import StudyView, _style
from ablation.analyse.figures._base import save
from ablation.analyse.report import examples
from ablation.analyse.report import recommendation as use
from ablation.analyse.report.html import Picture, picture
from ablation.analyse.report.val_images import ImagesMissing, open_val
from ablation.analyse.verdict.verdict import StudyVerdict
from ablation.data.dataset import Image
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
    runs = [{run.seed: run for run in use.counted_runs(view, arm)} for arm in names]
    seeds = sorted(runs[0].keys() & runs[1].keys())
    if not seeds:
        raise ImagesMissing("no seed has finished in both arms")
    pair = [one[seeds[0]] for one in runs]
    truth, about = artifacts.ground_truth(pair[0].run_id), artifacts.json("run.json", pair[0].run_id)
    matches = [matches_of(artifacts, run.run_id) for run in pair]
    thresholds = [use.arm_threshold(view, arm, artifacts) for arm in names]
    if truth is None or any(one is None for one in (*matches, *thresholds)):
        raise ImagesMissing("the runs' detections are not here")
    if about is None:
        raise ImagesMissing("the runs' folders, which say where the images are, are not here")
    images = open_val(about["data"], truth)
    sides = [(one, best.score) for one, best in zip(matches, thresholds, strict=True) if one and best]
    found = examples.most_different(truth, sides[0], sides[1])
    setting = dict(zip(view.arms["arm"], view.arms["setting"], strict=True))
    labels = tuple(
        f"{setting[arm]}, score at least {score:.2f}" for arm, (_, score) in zip(names, sides, strict=True)
    )
    classes = {int(item["id"]): str(item["name"]) for item in truth["categories"]}
    drawn = [
        _one(number, one, images.read(one.image_id), (labels[0], labels[1]), classes, folder)
        for number, one in enumerate(found, 1)
    ]
    if not drawn:
        return f"{setting[names[0]]} and {setting[names[1]]} agree on every validation image.", []
    return (
        f"The {len(drawn)} of {len(truth['images'])} validation images on which {setting[names[0]]} and "
        f"{setting[names[1]]} differ most, with seed {seeds[0]} and each at its own best score threshold: "
        "those with the most objects found, and false detections made, by only one of them. They show what "
        "the difference looks like where it is largest. They are not typical, and neither arm was favoured "
        "in choosing them."
    ), drawn


def _one(
    number: int, pair: examples.Pair, image: Image, labels: tuple[str, str],
    classes: dict[int, str], folder: Path,
) -> Example:  # fmt: skip
    with mpl.style.context(["default", _style.STYLE]):
        files = save(examples.draw(pair, image, labels, classes))
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
    shown = picture(f"example-{number}", f"Image {pair.name}", caption, paths, dense=True)
    return Example(shown, tuple(paths))
