"""Damaged and unusual image files: noticed, or converted as documented."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers.voc_folder import encode, picture
from numpy.testing import assert_array_equal

from ablation.data.decode import DamagedImage, decode, read_image
from ablation.data.opencv import cv2
from ablation.errors import DataError


def test_png_is_read_exactly_and_in_rgb_order() -> None:
    image = picture()
    assert_array_equal(decode(encode(image, ".png")), image)


def test_jpeg_is_read_nearly_exactly_and_in_rgb_order() -> None:
    image = picture()
    assert np.abs(decode(encode(image)).astype(int) - image).mean() < 3


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_every_truncation_is_noticed(suffix: str) -> None:
    content = encode(picture(), suffix)
    for length in range(0, len(content), 7):
        with pytest.raises(DamagedImage):
            decode(content[:length])
    with pytest.raises(DamagedImage):
        decode(content[:-1])


def test_opencv_alone_does_not_notice(tmp_path: Path) -> None:
    """Why the structure is walked at all: should this fail one day, the walk could be dropped."""
    content = encode(picture(200, 200))
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(content[: len(content) * 9 // 10])
    assert cv2.imread(str(cut)) is not None
    with pytest.raises(DataError, match=r"cut\.jpg: is a truncated JPEG"):
        read_image(cut)


def test_an_end_marker_in_an_embedded_thumbnail_is_not_the_end() -> None:
    content, thumbnail = encode(picture()), encode(picture(8, 8))
    segment = b"\xff\xe1" + (len(thumbnail) + 8).to_bytes(2, "big") + b"Exif\0\0" + thumbnail
    whole = content[:2] + segment + content[2:]
    assert_array_equal(decode(whole), decode(content))
    with pytest.raises(DamagedImage, match="truncated"):
        decode(whole[:-10])


def test_bytes_after_the_end_are_harmless() -> None:
    content = encode(picture())
    assert_array_equal(decode(content + b"trailer of a camera"), decode(content))


def test_progressive_jpeg_with_several_scans() -> None:
    bgr = picture(64, 48)[:, :, ::-1]
    fine, content = cv2.imencode(".jpg", np.ascontiguousarray(bgr), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    assert fine and content.tobytes().count(b"\xff\xda") > 1
    assert decode(content.tobytes()).shape == (48, 64, 3)


def test_a_changed_byte_in_a_png_is_noticed() -> None:
    content = bytearray(encode(picture(), ".png"))
    content[len(content) // 2] ^= 1
    with pytest.raises(DamagedImage, match="checksum"):
        decode(bytes(content))


def test_grey_becomes_three_equal_channels() -> None:
    grey = picture()[:, :, 0]
    image = decode(encode(grey, ".png"))
    assert_array_equal(image, np.repeat(grey[:, :, None], 3, axis=2))


def test_alpha_is_dropped_not_blended() -> None:
    image = picture()
    rgba = np.dstack([image, np.zeros(image.shape[:2], np.uint8)])
    assert_array_equal(decode(encode(rgba, ".png")), image)


def test_palette_becomes_rgb() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 8, 3, 0, 0, 0))
    palette = chunk(b"PLTE", bytes([10, 20, 30, 200, 100, 50]))
    rest = chunk(b"IDAT", zlib.compress(b"\0\0\1")) + chunk(b"IEND", b"")
    assert_array_equal(
        decode(b"\x89PNG\r\n\x1a\n" + header + palette + rest), [[[10, 20, 30], [200, 100, 50]]]
    )


def test_sixteen_bits_are_refused() -> None:
    with pytest.raises(DamagedImage, match="16 bits"):
        decode(encode(picture().astype(np.uint16) * 257, ".png"))


def test_four_channel_jpeg_is_refused() -> None:
    content = bytearray(encode(picture()))
    frame = content.find(b"\xff\xc0")
    content[frame + 9] = 4
    with pytest.raises(DamagedImage, match="4 channels"):
        decode(bytes(content))


@pytest.mark.parametrize("content", [b"", b"hello, I am a text file", b"GIF89a", b"\xff\xd8\xff\xd9"])
def test_what_is_no_image_is_refused(content: bytes) -> None:
    with pytest.raises(DamagedImage):
        decode(content)
