"""Decode image files to RGB arrays, and detect damage that OpenCV does not report.

OpenCV may decode a JPEG whose end is missing without complaint and leave the rest grey (it depends on
version and call), so the file's structure is walked first: JPEG segments up to the end-of-image
marker, PNG chunks with their checksums up to IEND. A JPEG whose compressed data was altered, with its
markers whole, is not noticed: the format has no checksum.

Grey, palette and RGBA images become RGB (the alpha channel is dropped, not blended). CMYK and more
than 8 bits a channel are refused: there is no one right conversion. The EXIF orientation is applied,
as labelling tools do when they show the image.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import numpy as np

from ablation.data.dataset import Image
from ablation.data.opencv import cv2
from ablation.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png")

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Inside compressed data, FF is followed by 00 (a data byte), D0 to D7 (restart) or FF (filling);
# anything else is the next segment.
_SCAN_END = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")


class DamagedImage(ValueError):
    """Why an image cannot be used, without the name of its file."""


def decode(content: bytes) -> Image:
    """A JPEG or PNG file's content -> (height, width, 3) uint8, RGB. Raises DamagedImage."""
    check_structure(content)
    try:
        bgr = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise DamagedImage(f"cannot be decoded ({' '.join(str(error).split())[:120]})") from error
    if bgr is None:
        raise DamagedImage("cannot be decoded")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def read_image(path: Path) -> Image:
    """Decode a file. Raises DataError with one line that names it."""
    try:
        return decode(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except DamagedImage as error:
        raise DataError(f"{path}: {error}") from error


def check_structure(content: bytes) -> None:
    """Raise DamagedImage unless `content` is a whole 8-bit JPEG or PNG, grey or colour."""
    if not content:
        raise DamagedImage("is empty (0 bytes), must be a JPEG or PNG image")
    if content[:2] == b"\xff\xd8":
        _check_jpeg(content)
    elif content[:8] == _PNG_SIGNATURE:
        _check_png(content)
    else:
        raise DamagedImage(f"is not a JPEG or PNG image (begins with {content[:8]!r})")


def _check_jpeg(content: bytes) -> None:
    position, frame, scan = 2, False, False
    truncated = DamagedImage(f"is a truncated JPEG ({len(content)} bytes, no end-of-image marker)")
    while True:
        position = content.find(b"\xff", position)
        while 0 <= position < len(content) and content[position] == 0xFF:
            position += 1
        if position < 0 or position >= len(content):
            raise truncated
        marker = content[position]
        position += 1
        if marker == 0xD9:
            break
        if marker <= 0x01 or 0xD0 <= marker <= 0xD8:
            continue
        length = int.from_bytes(content[position : position + 2], "big")
        if length < 2 or position + length > len(content):
            raise truncated
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            frame = True
            bits, components = content[position + 2], content[position + 7]
            if bits != 8:
                raise DamagedImage(f"has {bits} bits a channel, must have 8")
            if components not in (1, 3):
                raise DamagedImage(f"has {components} channels (CMYK?), must be grey or RGB")
        position += length
        if marker == 0xDA:
            scan = True
            end = _SCAN_END.search(content, position)
            if end is None:
                raise truncated
            position = end.start()
    if not (frame and scan):
        raise DamagedImage("is a JPEG without image data")


def _check_png(content: bytes) -> None:
    position, data = 8, False
    while True:
        length = int.from_bytes(content[position : position + 4], "big")
        kind = content[position + 4 : position + 8]
        end = position + 12 + length
        if end > len(content):
            raise DamagedImage(f"is a truncated PNG ({len(content)} bytes, no IEND chunk)")
        stated = int.from_bytes(content[end - 4 : end], "big")
        if zlib.crc32(content[position + 4 : end - 4]) != stated:
            raise DamagedImage(f"is a damaged PNG (checksum of chunk {kind!r} at byte {position})")
        if kind == b"IHDR" and length >= 10 and content[position + 16] > 8:
            raise DamagedImage(f"has {content[position + 16]} bits a channel, must have 8")
        data = data or kind == b"IDAT"
        if kind == b"IEND":
            break
        position = end
    if not data:
        raise DamagedImage("is a PNG without image data")
