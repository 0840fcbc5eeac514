"""Putting a part of an image onto a part of a canvas, and its boxes with it, by one exact map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ablation.data.dataset import Image
from ablation.data.letterbox import resize

Region = tuple[int, int, int, int]
"""x1, y1, x2, y2 in whole pixels."""


@dataclass(frozen=True)
class Placement:
    """The part `source` of an image fills the part `target` of a canvas, mirrored if `flip`.

        x_canvas = target_x1 + (x_image - source_x1) * target width / source width

    or, mirrored, the same distance to the left of target_x2. Both parts are whole pixels, so the
    pixels and the boxes go through the same map.
    """

    source: Region
    target: Region
    flip: bool = False

    def paste(self, image: Image, canvas: Image) -> None:
        """Resize the image's part and write it into the canvas."""
        (sx1, sy1, sx2, sy2), (x1, y1, x2, y2) = self.source, self.target
        part = resize(image[sy1:sy2, sx1:sx2], x2 - x1, y2 - y1)
        canvas[y1:y2, x1:x2] = part[:, ::-1] if self.flip else part

    def move(self, boxes_xyxy_px: NDArray[np.floating]) -> NDArray[np.float64]:
        """(n, 4) boxes in the image -> (n, 4) on the canvas, not clipped."""
        (sx1, sy1, sx2, sy2), (x1, y1, x2, y2) = self.source, self.target
        scale = np.array([(x2 - x1) / (sx2 - sx1), (y2 - y1) / (sy2 - sy1)] * 2)
        moved = (boxes_xyxy_px - np.array([sx1, sy1] * 2, np.float64)) * scale + np.array([x1, y1] * 2)
        if self.flip:
            moved[:, [0, 2]] = (x1 + x2) - moved[:, [2, 0]]
        return np.asarray(moved, np.float64)


def fit_region(
    image_px: tuple[int, int], left: int, top: int, wide: int, high: int, region: Region, flip: bool
) -> Placement:
    """The placement that shows what lies in `region` of an image drawn at `left`, `top`.

    Only the visible part of the image is resized, however large it would be as a whole. The part
    is rounded to whole pixels of the image, which changes its scale by less than one pixel.

    Args:
        image_px: (width, height) of the image.
        left, top, wide, high: where the whole image would lie on the canvas, before mirroring; it
            must overlap the region.
        region: the part of the canvas that may be written.
        flip: mirror what is shown, within its place.
    """
    x = _fit_axis(image_px[0], left, wide, region[0], region[2])
    y = _fit_axis(image_px[1], top, high, region[1], region[3])
    return Placement((x[0], y[0], x[1], y[1]), (x[2], y[2], x[3], y[3]), flip)


def _fit_axis(length: int, start: int, extent: int, low: int, high: int) -> tuple[int, int, int, int]:
    first, last = max(start, low), min(start + extent, high)
    if first >= last:
        raise ValueError(f"an image at {start} .. {start + extent} does not reach {low} .. {high}")
    begin = round((first - start) * length / extent)
    end = round((last - start) * length / extent)
    if begin == end:  # less than a pixel of the image is shown: that pixel
        begin = (first - start) * length // extent
        end = begin + 1
    return begin, end, first, last
