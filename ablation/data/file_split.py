"""A split whose images are files: what VOC, COCO and YOLO folders have in common.

A format's reader finds, for each image, its file and its annotation as `RawBox`es, and hands both
to `build_split`, which checks them by the same rules whatever the format, so that one set of
images and boxes is one data set with one fingerprint in every format.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from ablation.data.dataset import Example, Fault, Image, Split
from ablation.data.decode import MAX_PIXELS, DamagedImage, decode, read_content
from ablation.data.image_check import CheckedImage, check_images
from ablation.data.orientation import UPRIGHT, swaps_sides, upright_box
from ablation.data.reading import nearest, shorten
from ablation.errors import DataError
from ablation.files import canonical_json, sha256_text

BAD_BOXES = ("error", "drop")
_CLIPPED_SILENTLY_PX = 1.0


@dataclass(frozen=True)
class RawBox:
    """One object as its annotation says it, unchecked.

    Attributes:
        where: for messages: "object 3 (RBC)" or "line 7".
        label: class name.
        corners_xyxy: four numbers, in pixels unless the example says otherwise; NaN or None where
            the file has no number.
        ignored: neither to be found nor a false positive.
        wrong: why the reader could make no box of it, or None.
    """

    where: str
    label: str
    corners_xyxy: tuple[float | None, float | None, float | None, float | None]
    ignored: bool = False
    wrong: str | None = None


@dataclass(frozen=True)
class RawExample:
    """One image as a format's reader found it.

    Attributes:
        name: the image's file name without ending.
        image: its file, or None with `damage` saying why there is none.
        annotation: the file that holds its boxes, for messages.
        boxes: its objects.
        normalised: its boxes' corners are shares of the image's width and height, not pixels.
        stated_px: (width, height) as the annotation states it, or None.
        damage: why image or annotation cannot be used, or None.
    """

    name: str
    image: Path | None
    annotation: Path
    boxes: Sequence[RawBox] = ()
    normalised: bool = False
    stated_px: tuple[int, int] | None = None
    damage: str | None = None


class FileSplit(Split):
    """Examples with their files, ordered by name, so that the order of a listing does not matter."""

    def __init__(
        self,
        examples: list[Example],
        paths: list[Path],
        hashes: list[str],
        faults: list[Fault],
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        order = sorted(range(len(examples)), key=lambda index: examples[index].name)
        self.examples = [examples[index] for index in order]
        self.paths = [paths[index] for index in order]
        self.hashes = [hashes[index] for index in order]
        self.faults, self.max_pixels = faults, max_pixels

    def read(self, index: int) -> Image:
        path = self.paths[index]
        try:
            content = read_content(path, self.max_pixels)
            if sha256(content).hexdigest() != self.hashes[index]:
                raise DataError(f"{path}: has changed since the data set was opened; start the command again")
            return decode(content, self.max_pixels)
        except DamagedImage as error:
            raise DataError(f"{path}: {error}") from error

    def pixels_key(self) -> str:
        """Names the decoded images, whatever their annotations are."""
        return sha256_text(canonical_json(self.hashes))

    def fingerprint(self) -> str:
        entries = [
            [
                example.name,
                digest,
                example.boxes_xyxy_px.tolist(),
                example.labels.tolist(),
                example.ignored.tolist(),
            ]
            for example, digest in zip(self.examples, self.hashes, strict=True)
        ]
        return sha256_text(canonical_json(entries))


def build_split(
    raws: Sequence[RawExample],
    classes: Sequence[str],
    *,
    skip_damaged: bool,
    bad_boxes: str,
    memory: Path | None,
    max_pixels: int = MAX_PIXELS,
) -> FileSplit:
    """Check images and boxes; refuse or drop what is wrong, and count what was dropped.

    Args:
        skip_damaged: leave out images that, or whose annotation, cannot be read, instead of
            raising DataError.
        bad_boxes: "error" raises DataError for a box without area, with a NaN, outside its image or
            of an unknown class; "drop" leaves such boxes out and clips those that stick out of the
            image by more than one pixel. Up to one pixel is clipped silently: formats differ by
            that much in where they begin to count.
        memory: folder in which the check of unchanged images is remembered, or None.
        max_pixels: an image of more is damaged: see data.max_pixels.
    """
    faults: list[Fault] = []
    damaged: list[Fault] = []
    bad: list[Fault] = []
    examples: list[Example] = []
    paths: list[Path] = []
    hashes: list[str] = []
    indices = {name: index for index, name in enumerate(classes)}
    images = [raw.image for raw in raws if raw.image is not None and raw.damage is None]
    checks = dict(zip(images, check_images(images, memory, max_pixels=max_pixels), strict=True))
    turned: list[tuple[Path, int, bool]] = []
    for raw in raws:
        damage = _damage(raw, checks)
        if damage is not None:
            damaged.append(damage)
            continue
        assert raw.image is not None
        checked = checks[raw.image]
        size = (checked.width_px, checked.height_px)
        if checked.orientation != UPRIGHT:
            raw, boxes_turned = _upright(raw, size, checked.orientation)
            turned.append((raw.image or raw.annotation, checked.orientation, boxes_turned))
        if raw.stated_px is not None and raw.stated_px != size:
            stated, real = (f"{width} x {height} px" for width, height in (raw.stated_px, size))
            what = f"says the image is {stated}, it is {real}"
            faults.append(Fault(str(raw.annotation), what, "kept, boxes read in the image's own pixels"))
        examples.append(_example(raw, size, indices, bad))
        paths.append(raw.image)  # type: ignore[arg-type]
        hashes.append(checked.sha256)
    if damaged and not skip_damaged:
        cure = "restore the file, or leave such images out with data.skip_damaged=true"
        raise _refusal(damaged, "image", cure)
    if bad and bad_boxes == "error":
        cure = "correct the annotation, or leave such boxes out with data.bad_boxes=drop"
        raise _refusal(bad, "box", cure)
    if raws and not examples:
        raise DataError(f"{damaged[0].file}: {damaged[0].what}; no image of this split can be used")
    faults += _orientation_fault(turned)
    faults += _conversion_faults({path: checks[path].converted for path in paths})
    return FileSplit(examples, paths, hashes, [*damaged, *bad, *faults], max_pixels)


def _upright(raw: RawExample, upright_px: tuple[int, int], orientation: int) -> tuple[RawExample, bool]:
    """The annotation in the upright image, and whether its boxes had to be turned.

    Tools show, and so annotate, the upright image; an annotation is of the image as stored only where the
    size that it states says so.
    """
    stored_px = (upright_px[1], upright_px[0]) if swaps_sides(orientation) else upright_px
    if raw.stated_px != stored_px or stored_px == upright_px:
        return raw, False
    boxes = [
        replace(box, corners_xyxy=upright_box(_numbers(box), stored_px, orientation)) for box in raw.boxes
    ]
    return replace(raw, boxes=boxes, stated_px=upright_px), True


def _numbers(box: RawBox) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (math.nan if value is None else value for value in box.corners_xyxy)
    return x1, y1, x2, y2


def _orientation_fault(turned: Sequence[tuple[Path, int, bool]]) -> list[Fault]:
    """One line for all images of a split that EXIF turns."""
    if not turned:
        return []
    path, orientation, _ = turned[0]
    boxes = sum(boxes_turned for _, _, boxes_turned in turned)
    what = f"{len(turned)} images have an EXIF orientation, this is the first ({orientation})"
    action = "applied: images turned upright; boxes are read as drawn on the upright image"
    if boxes:
        action += f", but those of {boxes} images, which state the size as stored, were turned too"
    return [Fault(str(path), what, action)]


def _conversion_faults(kinds: Mapping[Path, str]) -> list[Fault]:
    """One line for each kind of image that is not 8-bit RGB in its file."""
    faults = []
    for kind in sorted(set(kinds.values()) - {""}):
        paths = [path for path, other in kinds.items() if other == kind]
        what = "1 image is" if len(paths) == 1 else f"{len(paths)} images are"
        action = "converted to 8-bit RGB" + (": the upper 8 of 16 bits" if kind.startswith("16") else "")
        action += "; alpha is dropped" if "alpha" in kind or "RGBA" in kind else ""
        faults.append(Fault(str(paths[0]), f"{what} {kind}, this is the first", action))
    return faults


def _damage(raw: RawExample, checks: Mapping[Path, CheckedImage]) -> Fault | None:
    if raw.damage is not None:
        return Fault(str(raw.annotation), raw.damage, "image left out")
    if raw.image is None:
        return Fault(str(raw.annotation), "has no image", "image left out")
    damage = checks[raw.image].damage
    return None if damage is None else Fault(str(raw.image), damage, "image left out")


def _refusal(faults: Sequence[Fault], thing: str, cure: str) -> DataError:
    first, more = faults[0], len(faults) - 1
    count = f" (and {more} more {thing}{'es' if thing == 'box' else 's'} at fault)" if more > 1 else ""
    if more == 1:
        count = f" (and one more: {faults[1].file}: {faults[1].what})"
    return DataError(f"{first.file}: {first.what}{count}; {cure}")


def _example(
    raw: RawExample, size_px: tuple[int, int], indices: Mapping[str, int], bad: list[Fault]
) -> Example:
    boxes: list[list[float]] = []
    labels: list[int] = []
    ignored: list[bool] = []
    for box in raw.boxes:
        clipped, wrong = _check_box(box, size_px, indices, raw.normalised)
        if wrong is not None:
            action = "clipped to the image" if clipped is not None else "box left out"
            bad.append(Fault(str(raw.annotation), f"{box.where}: {wrong}", action))
        if clipped is not None:
            boxes.append(clipped)
            labels.append(indices[box.label])
            ignored.append(box.ignored)
    return Example(
        name=raw.name,
        width_px=size_px[0],
        height_px=size_px[1],
        boxes_xyxy_px=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array(labels, np.int64),
        ignored=np.array(ignored, np.bool_),
    )


def _listed(names: Iterable[str], most: int = 20) -> str:
    first = list(names)
    return ", ".join(first[:most]) + (f", and {len(first) - most} more" if len(first) > most else "")


def _check_box(
    box: RawBox, size_px: tuple[int, int], indices: Mapping[str, int], normalised: bool
) -> tuple[list[float] | None, str | None]:
    """The box inside its image, or None; and what is wrong with it, or None."""
    if box.wrong is not None:
        return None, box.wrong
    if box.label not in indices:
        close = nearest(box.label, list(indices))
        hint = "" if close is None else f"; did you mean {close!r}?"
        return None, f"class {shorten(box.label)!r} is not one of the classes ({_listed(indices)}){hint}"
    width, height = size_px
    limits = (width, height, width, height)
    values = list(_numbers(box))
    if normalised:
        values = [value * limit for value, limit in zip(values, limits, strict=True)]
    text = ", ".join(f"{value:g}" for value in values)
    if not all(math.isfinite(value) for value in values):
        return None, f"box {text} must be four finite numbers"
    if values[2] <= values[0] or values[3] <= values[1]:
        return None, f"box {text} has no area: x2 must exceed x1, y2 must exceed y1"
    clipped = [float(np.float32(min(max(v, 0.0), top))) for v, top in zip(values, limits, strict=True)]
    beyond = max(abs(before - after) for before, after in zip(values, clipped, strict=True))
    image = f"the image of {width} x {height} px"
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        return None, f"box {text} lies outside {image}"
    if beyond > _CLIPPED_SILENTLY_PX:
        return clipped, f"box {text} reaches {beyond:g} px out of {image}"
    return clipped, None
