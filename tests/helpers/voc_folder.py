"""Tiny VOC folders, written by the tests themselves."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from ablation.data.opencv import cv2

Box = tuple[str, object, object, object, object]


def picture(width: int = 40, height: int = 30, seed: int = 0) -> np.ndarray:
    """A smooth, colourful image, so that JPEG keeps it nearly as it is."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR))


def encode(image: np.ndarray, suffix: str = ".jpg") -> bytes:
    """An RGB (or grey, or RGBA) array as a file's content."""
    if image.ndim == 3:
        image = image[:, :, [2, 1, 0, 3][: image.shape[2]]]
    fine, content = cv2.imencode(suffix, np.ascontiguousarray(image))
    assert fine
    return content.tobytes()


def annotation(name: str, boxes: Sequence[Box], size: tuple[int, int] = (40, 30), extra: str = "") -> str:
    """A VOC annotation; `extra` goes into every object."""
    objects = "".join(
        f"<object><name>{label}</name>{extra}<bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for label, x1, y1, x2, y2 in boxes
    )
    return (
        f"<annotation><filename>{name}.jpg</filename><size><width>{size[0]}</width>"
        f"<height>{size[1]}</height><depth>3</depth></size>{objects}</annotation>"
    )


def write_voc(root: Path) -> Path:
    """Two images a split: a and b in train, c and d in val, e and f in test; one cat and one dog each."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for split, stems in (("train", "ab"), ("val", "cd"), ("test", "ef")):
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems))
        for stem in stems:
            (root / "JPEGImages" / f"{stem}.jpg").write_bytes(encode(picture(seed=ord(stem))))
            boxes: list[Box] = [("dog", 2, 3, 12, 13), ("cat", 20, 10, 40, 30)]
            (root / "Annotations" / f"{stem}.xml").write_text(annotation(stem, boxes))
    return root


def with_orientation(content: bytes, orientation: int, order: Literal["little", "big"] = "little") -> bytes:
    """A JPEG's or PNG's content with an EXIF orientation put in."""

    def number(value: int, length: int) -> bytes:
        return value.to_bytes(length, order)

    entry = number(0x0112, 2) + number(3, 2) + number(1, 4) + number(orientation, 2) + b"\0\0"
    tiff = {"little": b"II", "big": b"MM"}[order] + number(42, 2) + number(8, 4)
    tiff += number(1, 2) + entry + number(0, 4)
    if content[:2] == b"\xff\xd8":
        segment = b"Exif\0\0" + tiff
        return content[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + content[2:]
    return content[:33] + png_chunk(b"eXIf", tiff) + content[33:]  # after IHDR


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(width: int, height: int) -> bytes:
    """A small PNG file that decodes to an image of any size, all black."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    packer, row = zlib.compressobj(9), bytes(3 * width + 1)
    data = b"".join([packer.compress(row) for _ in range(height)]) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")
