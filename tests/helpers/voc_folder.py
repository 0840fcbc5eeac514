"""Tiny VOC folders, written by the tests themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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
