"""Draw the synthetic shapes: masks, scenes without crowding, and the scenes' images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ablation.data.dataset import Image
from ablation.data.opencv import cv2

NAMES = ("circle", "square", "triangle", "cross", "star")
_TRIES = 30
_SUBPIXEL_BITS = 4
_LARGEST_TILT = math.radians(20)
_NARROWEST = 0.75

Mask = NDArray[np.uint8]


def _circle() -> list[tuple[float, float]]:
    angles = np.arange(48) * (2 * math.pi / 48)
    return [(math.cos(angle), math.sin(angle)) for angle in angles]


def _star() -> list[tuple[float, float]]:
    turns = [(math.pi * k / 5 - math.pi / 2, 1.0 if k % 2 == 0 else 0.42) for k in range(10)]
    return [(radius * math.cos(angle), radius * math.sin(angle)) for angle, radius in turns]


def _cross(arm: float) -> list[tuple[float, float]]:
    """Corners of a cross whose arms are 2 `arm` wide, in turn from the upper left one of the upper arm."""
    upper = [(-arm, -1.0), (arm, -1.0), (arm, -arm), (1.0, -arm), (1.0, arm), (arm, arm)]
    return upper + [(-x, -y) for x, y in upper]


_OUTLINES = {
    "circle": _circle(),
    "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
    "triangle": [(0, -1), (1, 1), (-1, 1)],
    "cross": _cross(0.36),
    "star": _star(),
}
_OUTLINE_ARRAYS = [np.array(_OUTLINES[name], np.float64) for name in NAMES]


@dataclass(frozen=True)
class Thing:
    """Something drawn: its pixels, tightly cropped, and where their upper left corner lies."""

    label: int
    mask: Mask
    left_px: int
    top_px: int

    @property
    def box_xyxy_px(self) -> tuple[int, int, int, int]:
        """The smallest box around its pixels; pixel k covers k .. k + 1."""
        height, width = self.mask.shape
        return self.left_px, self.top_px, self.left_px + width, self.top_px + height


@dataclass(frozen=True)
class Scene:
    """Objects, and things that resemble them but are of no class, in the order of drawing."""

    objects: tuple[Thing, ...]
    negatives: tuple[Thing, ...]


def shape_mask(label: int, side_px: float, narrowing: float, tilt: float, limit_px: int) -> Mask:
    """Pixels of a filled shape, 0 or 255, cropped tightly.

    Args:
        label: index into NAMES.
        side_px: longer side of its box.
        narrowing: in [-1, 1]; how much narrower (negative: lower) than long, before tilting.
        tilt: radians.
        limit_px: the mask is never larger than this on either axis.
    """
    points = _OUTLINE_ARRAYS[label].copy()
    points[:, 0 if narrowing >= 0 else 1] *= 1 - abs(narrowing) * (1 - _NARROWEST)
    cosine, sine = math.cos(tilt), math.sin(tilt)
    points = points @ np.array([[cosine, sine], [-sine, cosine]])
    points -= points.min(axis=0)
    # Pixel centres at both ends span one pixel less than the pixels themselves.
    points *= (side_px - 1) / points.max()
    fixed = np.rint((points + 1) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    canvas = np.zeros((math.ceil(side_px) + 3,) * 2, np.uint8)
    cv2.fillPoly(canvas, [fixed], 255, lineType=cv2.LINE_8, shift=_SUBPIXEL_BITS)
    return _crop(_crop(canvas)[:limit_px, :limit_px])


def _crop(mask: Mask) -> Mask:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _spoil(mask: Mask, rng: np.random.Generator) -> Mask:
    """A shape that is none: its outline alone, or with one quarter bitten off."""
    outline, quarter = rng.random() < 0.5, int(rng.integers(4))
    height, width = mask.shape
    if outline:
        thickness = max(1, min(height, width) // 8)
        padded = np.pad(mask, thickness)
        eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=thickness)
        inner = eroded[thickness:-thickness, thickness:-thickness]
        return np.where(inner > 0, 0, mask).astype(np.uint8)
    bitten = mask.copy()
    rows = slice(0, (height + 1) // 2) if quarter < 2 else slice(height // 2, height)
    columns = slice(0, (width + 1) // 2) if quarter % 2 == 0 else slice(width // 2, width)
    bitten[rows, columns] = 0
    return _crop(bitten) if bitten.any() else mask


def compose(
    rng: np.random.Generator,
    rng_negatives: np.random.Generator,
    *,
    size_px: int,
    num_classes: int,
    objects: tuple[int, int],
    background_share: float,
    sizes_px: tuple[float, float],
    log_uniform: bool,
    max_overlap: float,
    hard_negatives: int,
) -> Scene:
    """Draw what stands where. The settings are those of `Shapes`, in pixels.

    Objects do not depend on the hard negatives, which are placed after them.
    """
    background = rng.random() < background_share
    count = int(rng.integers(objects[0], objects[1] + 1))
    taken = np.empty((0, 4))
    placed: list[Thing] = []
    spoiled: list[Thing] = []
    for k in range((0 if background else count) + hard_negatives):
        negative = k >= (0 if background else count)
        source = rng_negatives if negative else rng
        u = source.random(4)
        low, high = sizes_px
        side = low * (high / low) ** u[0] if log_uniform else low + u[0] * (high - low)
        label = int(source.integers(num_classes))
        mask = shape_mask(label, side, 2 * u[1] - 1, (2 * u[2] - 1) * _LARGEST_TILT, size_px)
        if negative:
            mask = _spoil(mask, source)
        corner = _place(mask.shape, source, taken, size_px, max_overlap)
        if corner is None:
            continue
        thing = Thing(label, mask, *corner)
        (spoiled if negative else placed).append(thing)
        taken = np.concatenate([taken, [thing.box_xyxy_px]])
    return Scene(tuple(placed), tuple(spoiled))


def _place(
    shape: tuple[int, ...], rng: np.random.Generator, taken: NDArray[np.float64], size_px: int, most: float
) -> tuple[int, int] | None:
    """The first of some random places that leaves the others visible, or None."""
    height, width = shape
    left = rng.integers(0, size_px - width + 1, _TRIES)
    top = rng.integers(0, size_px - height + 1, _TRIES)
    if not len(taken):
        return int(left[0]), int(top[0])
    across = np.minimum((left + width)[:, None], taken[:, 2]) - np.maximum(left[:, None], taken[:, 0])
    down = np.minimum((top + height)[:, None], taken[:, 3]) - np.maximum(top[:, None], taken[:, 1])
    areas = (taken[:, 2] - taken[:, 0]) * (taken[:, 3] - taken[:, 1])
    # Over the smaller area, not the union: a small object on a large one has a small IoU.
    overlap = across.clip(0) * down.clip(0) / np.minimum(areas, width * height)
    fits = np.flatnonzero(overlap.max(axis=1) <= most)
    return (int(left[fits[0]]), int(top[fits[0]])) if len(fits) else None


def draw(
    scene: Scene,
    rng: np.random.Generator,
    rng_clutter: np.random.Generator,
    *,
    size_px: int,
    clutter: float,
    contrast: float,
) -> Image:
    """Background, lines, things, noise, in that order. Edges are not smoothed, so boxes are exact."""
    ground = rng.integers(32, 224, 3).astype(np.float64)
    image = np.empty((size_px, size_px, 3), np.uint8)
    image[:] = ground
    for _ in range(round(12 * clutter)):
        ends = rng_clutter.integers(0, size_px, 4).tolist()
        colour = ground + 0.5 * contrast * (rng_clutter.integers(0, 256, 3) - ground)
        thickness = 1 + size_px // 256
        cv2.line(image, ends[:2], ends[2:], np.rint(colour).tolist(), thickness, cv2.LINE_8)
    for thing in (*scene.objects, *scene.negatives):
        # The one of a few random colours that is farthest from the background.
        colours = rng.integers(0, 256, (4, 3))
        farthest = colours[np.abs(colours - ground).sum(axis=1).argmax()]
        x1, y1, x2, y2 = thing.box_xyxy_px
        image[y1:y2, x1:x2][thing.mask > 0] = np.rint(ground + contrast * (farthest - ground))
    if clutter > 0:
        noise = rng_clutter.standard_normal((size_px, size_px, 3), np.float32) * np.float32(24 * clutter)
        image = np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)
    return image
