"""Training augmentation: mosaic, mixup, scale and aspect jitter, flip and HSV, in plain OpenCV.

Every choice is drawn from one generator of (seed, epoch, index), so an augmented image is a pure
function of those three, the configuration and the data set.

The rule for boxes: after clipping to what is shown, a box stays if at least `min_visible` of its
area is left and both its sides are at least `min_side_px` pixels of the network's input.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ablation.data.dataset import Image, Split
from ablation.data.letterbox import GREY, Letterbox
from ablation.data.opencv import cv2
from ablation.data.placement import Placement, Region, fit_region
from ablation.errors import require
from ablation.rng import generator

Boxes = NDArray[np.float32]
Labels = NDArray[np.int64]
Sample = tuple[Image, Boxes, Labels]

_CUT_LOW, _CUT_HIGH = 0.3, 0.7


@dataclass
class AugmentConfig:
    """How training images are varied. The defaults change nothing: letterbox only.

    Attributes:
        mosaic: share of the images that are put together from four.
        mixup: share of the mosaics that are blended, half and half, with one more image.
        scale_min, scale_max: size of a single image relative to its letterboxed size.
        tile_min, tile_max: the same for the four tiles of a mosaic.
        aspect_jitter: j stretches width over height by a factor u1 / u2 with u in 1 - j .. 1 + j.
        hue: largest shift as a share of the colour circle; 0.1 is 36 degrees either way (Darknet's).
        saturation, value: largest relative change; 0.7 is a factor in 0.3 .. 1.7.
        flip: share of the images that are mirrored (tiles of a mosaic each for themselves).
        close_share: mosaic and mixup are off in this last share of the epochs.
        min_visible: a clipped box stays if at least this share of its area is left.
        min_side_px: and if both its sides are at least this long.
        pad_value: grey level where there is no image.
    """

    mosaic: float = 0.0
    mixup: float = 0.0
    scale_min: float = 1.0
    scale_max: float = 1.0
    tile_min: float = 0.4
    tile_max: float = 1.0
    aspect_jitter: float = 0.0
    hue: float = 0.0
    saturation: float = 0.0
    value: float = 0.0
    flip: float = 0.0
    close_share: float = 0.3
    min_visible: float = 0.0
    min_side_px: float = 0.0
    pad_value: int = GREY

    def __post_init__(self) -> None:
        for key in ("mosaic", "mixup", "hue", "saturation", "value", "flip", "close_share", "min_visible"):
            require(0 <= getattr(self, key) <= 1, key, getattr(self, key), "0 to 1")
        for low, high in (("scale_min", "scale_max"), ("tile_min", "tile_max")):
            smallest, largest = getattr(self, low), getattr(self, high)
            require(0.05 <= smallest <= largest, low, smallest, f"0.05 to {high} ({largest:g})")
            require(largest <= 10, high, largest, "at most 10")
        require(0 <= self.aspect_jitter <= 0.9, "aspect_jitter", self.aspect_jitter, "0 to 0.9")
        require(0 <= self.min_side_px <= 64, "min_side_px", self.min_side_px, "0 to 64")
        require(0 <= self.pad_value <= 255, "pad_value", self.pad_value, "0 to 255")

    def mosaic_open(self, epoch: int, epochs: int) -> bool:
        """Whether mosaic and mixup are on in epoch `epoch` (from 0) of `epochs`."""
        return epoch < round(epochs * (1 - self.close_share))


def augment(
    split: Split, index: int, *, size_px: int, config: AugmentConfig, seed: int, epoch: int, epochs: int
) -> Sample:
    """Training image `index` as the network sees it in that epoch.

    Returns:
        (size_px, size_px, 3) uint8 RGB; (n, 4) float32 boxes_xyxy_px inside it; (n,) int64 labels.
        Objects marked ignored are not among the boxes.
    """
    rng = generator(seed, "augment", epoch, index)
    if config.mosaic_open(epoch, epochs) and rng.random() < config.mosaic:
        image, boxes, labels = _mosaic(split, index, size_px, config, rng)
        if rng.random() < config.mixup:
            other = _single(split, int(rng.integers(len(split))), size_px, config, rng)
            image = np.asarray(cv2.addWeighted(image, 0.5, other[0], 0.5, 0), np.uint8)
            boxes, labels = np.concatenate([boxes, other[1]]), np.concatenate([labels, other[2]])
    else:
        image, boxes, labels = _single(split, index, size_px, config, rng)
    return _vary_colours(image, config, rng), boxes, labels


def _single(
    split: Split, index: int, size_px: int, config: AugmentConfig, rng: np.random.Generator
) -> Sample:
    """One image, at a random size and place (centred if size and aspect are not varied)."""
    example = split.examples[index]
    wide, high, geometry = _size(example.width_px, example.height_px, size_px, config, rng, tile=False)
    flip = bool(rng.random() < config.flip)
    u = rng.random(2)
    if geometry is None:
        left, top = _offset(size_px - wide, u[0]), _offset(size_px - high, u[1])
    else:
        left, top = geometry.pad_x_px, geometry.pad_y_px
    canvas = np.full((size_px, size_px, 3), config.pad_value, np.uint8)
    place = fit_region(
        (example.width_px, example.height_px), left, top, wide, high, (0, 0, size_px, size_px), flip
    )
    boxes, labels = _show(split, index, canvas, place, config)
    return canvas, boxes, labels


def _mosaic(
    split: Split, index: int, size_px: int, config: AugmentConfig, rng: np.random.Generator
) -> Sample:
    """Image `index` and three random ones, around a random point.

    A tile that is larger than its quarter shows a random part, a smaller one touches the point.
    """
    partners = rng.integers(len(split), size=3)
    cut_x, cut_y = (round(size_px * u) for u in rng.uniform(_CUT_LOW, _CUT_HIGH, 2))
    quarters: list[Region] = [
        (0, 0, cut_x, cut_y),
        (cut_x, 0, size_px, cut_y),
        (0, cut_y, cut_x, size_px),
        (cut_x, cut_y, size_px, size_px),
    ]
    # Where the image itself comes to lie is random too, as it is for its partners.
    order = rng.permutation(4)
    canvas = np.full((size_px, size_px, 3), config.pad_value, np.uint8)
    boxes, labels = [], []
    for tile, quarter in zip((index, *partners.tolist()), order.tolist(), strict=True):
        example = split.examples[tile]
        wide, high, _ = _size(example.width_px, example.height_px, size_px, config, rng, tile=True)
        flip = bool(rng.random() < config.flip)
        x1, y1, x2, y2 = region = quarters[quarter]
        u = rng.random(2)
        left = x1 + _offset_towards(x2 - x1 - wide, u[0], far=quarter % 2 == 0)
        top = y1 + _offset_towards(y2 - y1 - high, u[1], far=quarter < 2)
        place = fit_region((example.width_px, example.height_px), left, top, wide, high, region, flip)
        tile_boxes, tile_labels = _show(split, tile, canvas, place, config)
        boxes.append(tile_boxes)
        labels.append(tile_labels)
    return canvas, np.concatenate(boxes), np.concatenate(labels)


def _size(
    width: int, height: int, size_px: int, config: AugmentConfig, rng: np.random.Generator, *, tile: bool
) -> tuple[int, int, Letterbox | None]:
    """Width and height on the canvas; and the letterbox where it is exactly that."""
    low, high = (config.tile_min, config.tile_max) if tile else (config.scale_min, config.scale_max)
    scale = rng.uniform(low, high)
    stretch = rng.uniform(1 - config.aspect_jitter, 1 + config.aspect_jitter, 2)
    fitted = Letterbox.fit(width, height, size_px)
    if low == high == 1 and config.aspect_jitter == 0:
        return fitted.resized_width_px, fitted.resized_height_px, fitted
    aspect = width / height * stretch[0] / stretch[1]
    longer = scale * size_px
    wide, tall = (longer, longer / aspect) if aspect >= 1 else (longer * aspect, longer)
    return max(1, round(wide)), max(1, round(tall)), None


def _offset(room: int, u: float) -> int:
    """A uniform start such that the image lies inside the canvas, or covers it where it is larger."""
    return round(room * u)


def _offset_towards(room: int, u: float, *, far: bool) -> int:
    if room < 0:
        return round(room * u)
    return room if far else 0


def _show(
    split: Split, index: int, canvas: Image, place: Placement, config: AugmentConfig
) -> tuple[Boxes, Labels]:
    """Paste an image and return what can still be seen of its boxes."""
    place.paste(split.read(index), canvas)
    example = split.examples[index]
    trained = ~example.ignored
    return clip_boxes(
        place.move(example.boxes_xyxy_px[trained]),
        example.labels[trained],
        place.target,
        min_visible=config.min_visible,
        min_side_px=config.min_side_px,
    )


def clip_boxes(
    boxes_xyxy_px: NDArray[np.floating],
    labels: Labels,
    region: Region,
    *,
    min_visible: float,
    min_side_px: float,
) -> tuple[Boxes, Labels]:
    """Clip (n, 4) boxes to the region; drop those of which too little is left (see the module)."""
    low, high = np.array(region[:2]), np.array(region[2:])
    clipped = np.concatenate(
        [np.clip(boxes_xyxy_px[:, :2], low, high), np.clip(boxes_xyxy_px[:, 2:], low, high)], axis=1
    )
    sides = clipped[:, 2:] - clipped[:, :2]
    whole = (boxes_xyxy_px[:, 2:] - boxes_xyxy_px[:, :2]).prod(axis=1)
    # 1e-6: a box that was not clipped at all must not fail min_visible=1 by a rounding error.
    seen = sides.prod(axis=1) >= (min_visible - 1e-6) * whole
    stays = seen & (sides > 0).all(axis=1) & (sides >= min_side_px).all(axis=1)
    return clipped[stays].astype(np.float32), labels[stays]


def _vary_colours(image: Image, config: AugmentConfig, rng: np.random.Generator) -> Image:
    """Shift the hue, scale saturation and value, through one table each."""
    u = rng.uniform(-1, 1, 3)
    if config.hue == config.saturation == config.value == 0:
        return image
    levels = np.arange(256, dtype=np.float64)
    tables = np.empty((1, 256, 3), np.uint8)
    # OpenCV holds the hue of an 8-bit image in 0 .. 179, half degrees.
    tables[0, :, 0] = np.rint(levels + 180 * config.hue * u[0]) % 180
    tables[0, :, 1] = np.clip(np.rint(levels * (1 + config.saturation * u[1])), 0, 255)
    tables[0, :, 2] = np.clip(np.rint(levels * (1 + config.value * u[2])), 0, 255)
    hsv = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), tables)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)
