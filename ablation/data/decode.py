"""Decode image files to RGB arrays, and detect damage that OpenCV does not report.

OpenCV may decode a JPEG whose end is missing without complaint and leave the rest grey (it depends on
version and call), so the file's structure is walked first: JPEG segments up to the end-of-image
marker, PNG chunks with their checksums up to IEND. A JPEG whose compressed data was altered, with its
markers whole, is not noticed: the format has no checksum.

The size is read from the header before anything is decoded, since a small file can hold an image that
fills the memory.

Grey, palette and RGBA images become RGB (the alpha channel is dropped, not blended); of 16 bits a channel
the upper 8 are taken. CMYK is refused: there is no one right conversion. The EXIF orientation is applied
(orientation.py), as labelling tools do when they show the image.
"""

from __future__ import annotations

import re
import stat
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ablation.data.dataset import Image
from ablation.data.opencv import cv2
from ablation.data.orientation import UPRIGHT, orientation_of, swaps_sides, upright_image
from ablation.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png")
MAX_PIXELS = 64_000_000
"""Width x height of the largest image that is decoded unless data.max_pixels says otherwise."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Inside compressed data, FF is followed by 00 (a data byte), D0 to D7 (restart) or FF (filling);
# anything else is the next segment.
_SCAN_END = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_MOST_SCANS = 100  # progressive files have about ten; each costs as much as decoding the whole image
_PNG_COLOURS = {0: "grey", 2: "", 3: "palette", 4: "grey with alpha", 6: "RGBA"}
_CONVERT = "convert it to 8-bit RGB, as `mogrify -depth 8 -colorspace sRGB FILE` of ImageMagick does"


class DamagedImage(ValueError):
    """Why an image cannot be used, without the name of its file."""


class OversizedImage(DamagedImage):
    """It is whole as far as its header tells, but larger than the limit."""


@dataclass(frozen=True)
class ImageHeader:
    """What a file says about its image before it is decoded.

    Attributes:
        stored_px: (width, height) of the pixels in the file.
        orientation: 1 to 8, see orientation.py.
        converted: what makes it no 8-bit RGB image, "grey" or "16-bit RGBA"; empty where it is one.
    """

    stored_px: tuple[int, int]
    orientation: int
    converted: str = ""

    @property
    def upright_px(self) -> tuple[int, int]:
        """(width, height) of the decoded image."""
        width, height = self.stored_px
        return (height, width) if swaps_sides(self.orientation) else (width, height)


def decode(content: bytes, max_pixels: int = MAX_PIXELS) -> Image:
    """A JPEG or PNG file's content -> (height, width, 3) uint8, RGB, upright. Raises DamagedImage."""
    header = read_header(content, max_pixels)
    bgr = decode_stored(content, header)
    rgb = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
    return upright_image(rgb, header.orientation)


def decode_stored(content: bytes, header: ImageHeader) -> Image:
    """(height, width, 3) uint8 in BGR order, as stored. Raises DamagedImage."""
    try:
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        bgr = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error as error:
        raise DamagedImage(f"cannot be decoded ({' '.join(str(error).split())[:120]})") from error
    if bgr is None:
        raise DamagedImage("cannot be decoded")
    width, height = header.stored_px
    if bgr.shape[:2] != (height, width):
        raise DamagedImage(
            f"is {bgr.shape[1]} x {bgr.shape[0]} px, but its header says {width} x {height} px"
        )
    return np.asarray(bgr, np.uint8)


def read_image(path: Path, max_pixels: int = MAX_PIXELS) -> Image:
    """Decode a file. Raises DataError with one line that names it."""
    try:
        return decode(read_content(path, max_pixels), max_pixels)
    except DamagedImage as error:
        raise DataError(f"{path}: {error}") from error


def read_content(path: Path, max_pixels: int = MAX_PIXELS) -> bytes:
    """The bytes of an image file: an ordinary file of a possible length. Raises DamagedImage."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device might never end
            raise DamagedImage("is not a file")
        if status.st_size > 4 * max_pixels + 2**26:  # more than the largest image takes uncompressed
            raise OversizedImage(
                f"is {status.st_size / 1e6:,.0f} MB, more than {_limit(max_pixels)} can take"
            )
        return path.read_bytes()
    except OSError as error:
        raise DamagedImage(f"cannot be read: {error.strerror}") from error
    except UnicodeEncodeError as error:
        raise DamagedImage("cannot be read: its name is not valid text") from error


def read_header(content: bytes, max_pixels: int = MAX_PIXELS) -> ImageHeader:
    """What the header of a whole JPEG or PNG says, grey or colour.

    Raises:
        OversizedImage: width x height exceeds `max_pixels`.
        DamagedImage: it is anything else.
    """
    if not content:
        raise DamagedImage("is empty (0 bytes), must be a JPEG or PNG image")
    if content[:2] == b"\xff\xd8":
        return _jpeg_header(content, max_pixels)
    if content[:8] == _PNG_SIGNATURE:
        return _png_header(content, max_pixels)
    raise DamagedImage(f"is not a JPEG or PNG image (begins with {content[:8]!r})")


def _limit(max_pixels: int) -> str:
    return f"data.max_pixels={max_pixels}"


def _checked_size(width: int, height: int, max_pixels: int) -> tuple[int, int]:
    if not (width and height):
        raise DamagedImage(f"is {width} x {height} px, must be 1 x 1 px or more")
    if width * height > max_pixels:
        raise OversizedImage(
            f"is {width} x {height} px, more than {_limit(max_pixels)} allows; make it smaller, or raise the "
            f"limit ({3 * width * height / 1e9:.1f} GB for each such image)"
        )
    return width, height


def _jpeg_header(content: bytes, max_pixels: int) -> ImageHeader:
    position, scans, size, orientation, grey = 2, 0, None, None, False
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
        segment = content[position + 2 : position + length]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            size = _jpeg_frame(segment, max_pixels)
            grey = segment[5] == 1
        elif marker == 0xE1 and segment[:6] == b"Exif\0\0" and orientation is None:
            orientation = orientation_of(segment[6:])
        position += length
        if marker == 0xDA:
            scans += 1
            if scans > _MOST_SCANS:
                raise DamagedImage(f"is a JPEG of more than {_MOST_SCANS} scans; save it again")
            end = _SCAN_END.search(content, position)
            if end is None:
                raise truncated
            position = end.start()
    if size is None or not scans:
        raise DamagedImage("is a JPEG without image data")
    return ImageHeader(size, orientation or UPRIGHT, "grey" if grey else "")


def _jpeg_frame(segment: bytes, max_pixels: int) -> tuple[int, int]:
    """Size of a frame; the segment is bits, height, width, number of components, components."""
    if len(segment) < 6:
        raise DamagedImage("is a damaged JPEG (frame header too short)")
    bits, components = segment[0], segment[5]
    if bits != 8:
        raise DamagedImage(f"has {bits} bits a channel, must have 8; {_CONVERT}")
    if components not in (1, 3):
        raise DamagedImage(f"has {components} channels (CMYK?), must be grey or RGB; {_CONVERT}")
    height, width = int.from_bytes(segment[1:3], "big"), int.from_bytes(segment[3:5], "big")
    return _checked_size(width, height, max_pixels)


def _png_header(content: bytes, max_pixels: int) -> ImageHeader:
    position, data, size, orientation, converted = 8, False, None, UPRIGHT, ""
    while True:
        length = int.from_bytes(content[position : position + 4], "big")
        kind = content[position + 4 : position + 8]
        end = position + 12 + length
        if end > len(content):
            raise DamagedImage(f"is a truncated PNG ({len(content)} bytes, no IEND chunk)")
        stated = int.from_bytes(content[end - 4 : end], "big")
        if zlib.crc32(memoryview(content)[position + 4 : end - 4]) != stated:
            raise DamagedImage(f"is a damaged PNG (checksum of chunk {kind!r} at byte {position})")
        chunk = content[position + 8 : end - 4] if kind in (b"IHDR", b"eXIf") else b""
        if kind == b"IHDR":
            if length < 13 or position != 8:
                raise DamagedImage("is a damaged PNG (IHDR chunk)")
            depth = "16-bit " if chunk[8] > 8 else ""
            converted = (depth + _PNG_COLOURS.get(chunk[9], "")).strip()
            width, height = int.from_bytes(chunk[:4], "big"), int.from_bytes(chunk[4:8], "big")
            size = _checked_size(width, height, max_pixels)
        elif kind == b"eXIf":
            orientation = orientation_of(chunk)
        data = data or kind == b"IDAT"
        if kind == b"IEND":
            break
        position = end
    if not data or size is None:
        raise DamagedImage("is a PNG without image data")
    return ImageHeader(size, orientation, converted)
