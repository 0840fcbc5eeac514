"""Draw boxes and class names on images, and a training batch as a grid of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ablation.data.dataset import Image
from ablation.data.opencv import cv2
from ablation.files import write_atomic

MOST_IMAGES = 16
_LARGEST_TILE_PX = 256
_SMALLEST_TILE_PX = 192
_GAP_PX = 4
_LEGEND_PX = 22
_CROWDED = 12
# Wong's palette without black: eight colours that people with colour blindness tell apart as well.
_COLOURS = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)


def colour_of(label: int) -> tuple[int, int, int]:
    """The RGB colour of a class; classes further on in the list share colours."""
    return _COLOURS[label % len(_COLOURS)]


def draw_boxes(
    image: Image, boxes_xyxy_px: NDArray[np.floating], labels: Sequence[int], texts: Sequence[str]
) -> Image:
    """A copy of the image with each box outlined and its text above it, inside it where there is no room.

    Args:
        image: (height, width, 3) uint8, RGB.
        boxes_xyxy_px: (n, 4) in its pixels; what reaches beyond it is cut off.
        labels: (n,), which choose the colours.
        texts: (n,); only drawn. Signs beyond ASCII, which OpenCV's font lacks, become "?".
    """
    canvas = np.ascontiguousarray(image).copy()
    height, width = canvas.shape[:2]
    thickness = max(1, round(min(height, width) / 400))
    size = 0.4 * max(1.0, min(height, width) / 500)
    # OpenCV's coordinates are 32-bit; a box of a network that diverged can lie anywhere.
    corners = np.nan_to_num(np.asarray(boxes_xyxy_px, np.float64)).clip(-1, max(height, width) + 1)
    for (x1, y1, x2, y2), label, text in zip(
        np.rint(corners).astype(int).tolist(), labels, texts, strict=True
    ):
        colour = colour_of(label)
        cv2.rectangle(canvas, (x1, y1), (x2 - 1, y2 - 1), colour, thickness)
        if text:
            _put_text(canvas, text, x1, y1, size, colour)
    return canvas


def _put_text(canvas: Image, text: str, x: int, y: int, size: float, colour: tuple[int, int, int]) -> None:
    """Black or white on a patch of the colour, whichever reads better, moved inside the image."""
    drawn = _drawable(text)
    (wide, high), below = cv2.getTextSize(drawn, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    tall = high + below + 1
    top = y - tall if y >= tall else y
    left = max(0, min(x, canvas.shape[1] - wide))
    top = max(0, min(top, canvas.shape[0] - tall))
    cv2.rectangle(canvas, (left, top), (left + wide, top + tall), colour, cv2.FILLED)
    bright = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 128
    ink = (0, 0, 0) if bright else (255, 255, 255)
    cv2.putText(canvas, drawn, (left, top + high), cv2.FONT_HERSHEY_SIMPLEX, size, ink, 1, cv2.LINE_AA)


def _drawable(text: str) -> str:
    return "".join(sign if " " <= sign <= "~" else "?" for sign in text)[:60]


def batch_picture(
    images: NDArray[np.uint8],
    boxes_cxcywh_px: NDArray[np.float32],
    labels: NDArray[np.int64],
    present: NDArray[np.bool_],
    classes: Sequence[str],
) -> Image:
    """Up to 16 images of a batch, with their boxes and the names of their classes, in a square grid.

    Small inputs are enlarged and large ones reduced, so that the picture shows pixels and text at a
    size that can be read. In an image of more than 12 boxes names would hide what they name: there
    the colours speak, which the last line of the picture explains.

    Args:
        images: (batch, 3, height, width), RGB.
        boxes_cxcywh_px: (batch, objects, 4), pixels of the input.
        labels, present: (batch, objects).
    """
    count = min(len(images), MOST_IMAGES)
    side = max(images.shape[-2:])
    factor = min(1.0, _LARGEST_TILE_PX / side) if side > _SMALLEST_TILE_PX else -(-_SMALLEST_TILE_PX // side)
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    high, wide = (round(px * factor) for px in images.shape[-2:])
    height = rows * (high + _GAP_PX)
    picture = np.full((height + _LEGEND_PX, columns * (wide + _GAP_PX), 3), 255, np.uint8)
    _put_legend(picture[height:], classes)
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST
    for index in range(count):
        image = np.ascontiguousarray(images[index].transpose(1, 2, 0))
        image = np.asarray(cv2.resize(image, (wide, high), interpolation=method), np.uint8)
        mask = present[index]
        centre, size = boxes_cxcywh_px[index, mask, :2], boxes_cxcywh_px[index, mask, 2:]
        boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1) * factor
        names = labels[index, mask].tolist()
        texts = [classes[label] if len(names) <= _CROWDED else "" for label in names]
        tile = draw_boxes(image, boxes, names, texts)
        top, left = (index // columns) * (high + _GAP_PX), (index % columns) * (wide + _GAP_PX)
        picture[top : top + high, left : left + wide] = tile
    return picture


def _put_legend(line: Image, classes: Sequence[str]) -> None:
    """The names of the classes in their colours, as many as fit."""
    x = 2
    for label, name in enumerate(classes):
        drawn = _drawable(name)
        (wide, _), _ = cv2.getTextSize(drawn, cv2.FONT_HERSHEY_SIMPLEX, 0.4, 1)
        if x + wide > line.shape[1]:
            break
        _put_text(line, drawn, x, 0, 0.4, colour_of(label))
        x += wide + 12


def write_png(path: Path, image: Image) -> None:
    """Write an RGB image atomically as PNG, quickly rather than small."""
    _write(path, ".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])


def write_image(path: Path, image: Image) -> None:
    """Write an RGB image atomically as its ending says: .jpg, .jpeg or .png."""
    _write(path, path.suffix.lower(), image, [])


def _write(path: Path, suffix: str, image: Image, settings: list[int]) -> None:
    fine, content = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), settings)
    assert fine, f"OpenCV cannot write {suffix}"
    write_atomic(path, lambda file: file.write(content.tobytes()))
