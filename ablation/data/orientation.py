"""The orientation that a camera writes into an image file (Exif 2.32, tag 0x0112), for images and boxes.

The stored pixels of a photograph are as the sensor lay; a number from 1 to 8 says how to turn them upright.
Viewers and labelling tools show the upright image.
"""

from __future__ import annotations

import numpy as np

from ablation.data.dataset import Image

UPRIGHT = 1
_TAG, _SHORT = 0x0112, 3
_STEPS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
"""Orientation -> what makes it upright, in turn: swap x and y, mirror y, mirror x."""


def orientation_of(exif: bytes) -> int:
    """The orientation in a TIFF structure as Exif has it; 1 where it states none that is valid."""
    order = {b"II*\0": "little", b"MM\0*": "big"}.get(exif[:4])
    if order is None:
        return UPRIGHT

    def number(position: int, length: int) -> int:
        return int.from_bytes(exif[position : position + length], order)  # type: ignore[arg-type]

    directory = number(4, 4)
    for index in range(number(directory, 2)):
        entry = directory + 2 + 12 * index
        if entry + 12 > len(exif):
            break
        if number(entry, 2) == _TAG:
            value = number(entry + 8, 2)
            return value if number(entry + 2, 2) == _SHORT and value in _STEPS else UPRIGHT
    return UPRIGHT


def swaps_sides(orientation: int) -> bool:
    """Whether the upright image is as wide as the stored one is high."""
    return _STEPS[orientation][0]


def upright_image(stored: Image, orientation: int) -> Image:
    """(height, width, 3) as stored -> upright, in memory of its own unless nothing changes."""
    swap, mirror_y, mirror_x = _STEPS[orientation]
    image = stored.transpose(1, 0, 2) if swap else stored
    image = image[::-1] if mirror_y else image
    image = image[:, ::-1] if mirror_x else image
    return np.ascontiguousarray(image)


def upright_box(
    corners_xyxy: tuple[float, float, float, float], stored_px: tuple[int, int], orientation: int
) -> tuple[float, float, float, float]:
    """A box in the stored image of (width, height) -> the same box in the upright one."""
    swap, mirror_y, mirror_x = _STEPS[orientation]
    x1, y1, x2, y2 = corners_xyxy
    width, height = stored_px
    if swap:
        x1, y1, x2, y2 = y1, x1, y2, x2
        width, height = height, width
    if mirror_y:
        y1, y2 = height - y2, height - y1
    if mirror_x:
        x1, x2 = width - x2, width - x1
    return x1, y1, x2, y2
