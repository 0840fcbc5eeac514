"""Fitting an image of any shape into a square without distorting it, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ablation.data.dataset import Image
from ablation.data.opencv import cv2

GREY = 128


@dataclass(frozen=True)
class Letterbox:
    """The geometry of one letterboxed image.

        x_input = x_original * resized_width_px / width_px + pad_x_px

    and likewise y. The two axes have each their own scale, because a size is rounded to whole
    pixels on each axis: one common scale would displace boxes by up to half a pixel, and rounding
    differently on the way back by up to two.

    Attributes:
        width_px, height_px: the original image.
        size_px: side of the square.
        resized_width_px, resized_height_px: the image inside the square.
        pad_x_px, pad_y_px: grey columns on its left, grey rows above it.
    """

    width_px: int
    height_px: int
    size_px: int
    resized_width_px: int
    resized_height_px: int
    pad_x_px: int
    pad_y_px: int

    @classmethod
    def fit(cls, width_px: int, height_px: int, size_px: int) -> Letterbox:
        """The largest undistorted fit, centred; never thinner than one pixel."""
        scale = size_px / max(width_px, height_px)
        wide = min(size_px, max(1, round(width_px * scale)))
        high = min(size_px, max(1, round(height_px * scale)))
        return cls(width_px, height_px, size_px, wide, high, (size_px - wide) // 2, (size_px - high) // 2)

    @property
    def scale_x(self) -> float:
        """Input pixels per original pixel, horizontally."""
        return self.resized_width_px / self.width_px

    @property
    def scale_y(self) -> float:
        """Input pixels per original pixel, vertically."""
        return self.resized_height_px / self.height_px

    def _factors(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        scale = np.array([self.scale_x, self.scale_y] * 2)
        return scale, np.array([self.pad_x_px, self.pad_y_px] * 2, dtype=np.float64)

    def to_input(self, boxes_xyxy_px: NDArray[np.floating]) -> NDArray[np.float32]:
        """(..., 4) boxes in the original image -> (..., 4) in the square. Nothing is clipped."""
        scale, pad = self._factors()
        return (np.asarray(boxes_xyxy_px, np.float64) * scale + pad).astype(np.float32)

    def to_original(self, boxes_xyxy_px: NDArray[np.floating]) -> NDArray[np.float32]:
        """(..., 4) boxes in the square -> (..., 4) in the original image: inverse of to_input."""
        scale, pad = self._factors()
        return ((np.asarray(boxes_xyxy_px, np.float64) - pad) / scale).astype(np.float32)


def letterbox(image: Image, size_px: int) -> tuple[Image, Letterbox]:
    """Image (height, width, 3) -> (size_px, size_px, 3) with grey 128 around it, and its geometry."""
    geometry = Letterbox.fit(image.shape[1], image.shape[0], size_px)
    square = np.full((size_px, size_px, 3), GREY, np.uint8)
    top, left = geometry.pad_y_px, geometry.pad_x_px
    wide, high = geometry.resized_width_px, geometry.resized_height_px
    square[top : top + high, left : left + wide] = resize(image, wide, high)
    return square, geometry


def resize(image: Image, width_px: int, height_px: int) -> Image:
    """Resize to exactly that size. Pixels are areas: a corner x moves to x * width_px / old width.

    Linear, as in the seed method, unless an axis shrinks to less than half: linear reads two
    neighbours only and would then skip pixels, so that small objects come and go; the mean over
    the area is taken instead.
    """
    height, width = image.shape[:2]
    if (height, width) == (height_px, width_px):
        return image
    shrinks = 2 * width_px < width or 2 * height_px < height
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width_px, height_px), interpolation=method), np.uint8)
