"""Damaged and unusual image files: noticed, or converted as documented."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers.voc_folder import encode, picture, png_bomb, png_chunk
from numpy.testing import assert_array_equal

from ablation.data.decode import DamagedImage, OversizedImage, decode, read_header, read_image
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
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 8, 3, 0, 0, 0))
    palette = png_chunk(b"PLTE", bytes([10, 20, 30, 200, 100, 50]))
    rest = png_chunk(b"IDAT", zlib.compress(b"\0\0\1")) + png_chunk(b"IEND", b"")
    assert_array_equal(
        decode(b"\x89PNG\r\n\x1a\n" + header + palette + rest), [[[10, 20, 30], [200, 100, 50]]]
    )


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_of_sixteen_bits_the_upper_eight_are_taken(channels: int) -> None:
    values = np.random.default_rng(0).integers(0, 2**16, (5, 7, channels), dtype=np.uint16)
    colours = values[:, :, :3] if channels > 1 else np.repeat(values, 3, axis=2)
    content = encode(values if channels > 1 else values[:, :, 0], ".png")
    assert_array_equal(decode(content), colours >> 8)
    assert read_header(content).converted == {1: "16-bit grey", 3: "16-bit", 4: "16-bit RGBA"}[channels]


def test_four_channel_jpeg_is_refused_with_a_remedy() -> None:
    content = bytearray(encode(picture()))
    frame = content.find(b"\xff\xc0")
    content[frame + 9] = 4
    with pytest.raises(DamagedImage, match=r"4 channels.*8-bit RGB.*mogrify"):
        decode(bytes(content))


@pytest.mark.parametrize("content", [b"", b"hello, I am a text file", b"GIF89a", b"\xff\xd8\xff\xd9"])
def test_what_is_no_image_is_refused(content: bytes) -> None:
    with pytest.raises(DamagedImage):
        decode(content)


def test_an_image_above_the_limit_is_refused_by_its_header() -> None:
    content = png_bomb(400, 300)
    assert decode(content, max_pixels=120_000).shape == (300, 400, 3)
    with pytest.raises(OversizedImage, match=r"400 x 300 px.*data\.max_pixels=119999"):
        decode(content, max_pixels=119_999)
    jpeg = bytearray(encode(picture()))
    frame = jpeg.find(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    with pytest.raises(OversizedImage, match="65535 x 65535 px"):
        decode(bytes(jpeg))


def test_a_jpeg_of_many_scans_is_refused() -> None:
    bgr = np.ascontiguousarray(picture(64, 48)[:, :, ::-1])
    content = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    start = content.rfind(b"\xff\xda")
    with pytest.raises(DamagedImage, match="more than 100 scans"):
        decode(content[:start] + content[start:-2] * 200 + content[-2:])


def test_a_header_of_another_size_than_the_image_is_noticed() -> None:
    content = encode(picture(), ".png")
    header = content[16:20] + (29).to_bytes(4, "big") + content[24:29]
    shorter = content[:8] + png_chunk(b"IHDR", header) + content[33:]
    with contextlib.suppress(DamagedImage):  # or a decoder that makes the best of it
        assert decode(shorter).shape == (29, 40, 3)


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "long name", "no text"])
def test_what_is_no_ordinary_file_is_refused_and_not_waited_for(kind: str, tmp_path: Path) -> None:
    path = tmp_path / {"long name": "x" * 5000, "no text": "\ud800.png"}.get(kind, "a.png")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"is not a file|cannot be read"):
        read_image(path)


def test_memory_stays_bounded_while_images_are_checked(tmp_path: Path) -> None:
    """Four images of 48 million pixels, and four too large ones, by the threads of a check."""
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(png_bomb(8000, 6000))
        (tmp_path / f"bomb{number}.png").write_bytes(png_bomb(30_000, 3000))
    script = """
import resource, sys
from pathlib import Path
from ablation.data.image_check import check_images
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
checks = check_images(sorted(Path(sys.argv[1]).glob("*.png")), None)
print(sum(check.damage is None for check in checks), sum(check.oversized for check in checks))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    whole, oversized, megabytes = map(int, done.stdout.split())
    assert (whole, oversized) == (4, 4)
    assert megabytes < 400
