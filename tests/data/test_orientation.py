"""EXIF orientation: images as OpenCV turns them, boxes with their image, and a line that says so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.format_copies import read_voc, write_coco, write_yolo
from helpers.voc_folder import annotation, encode, picture, with_orientation, write_voc
from numpy.testing import assert_array_equal

from ablation.data.coco import Coco
from ablation.data.decode import decode
from ablation.data.opencv import cv2
from ablation.data.orientation import orientation_of, upright_box, upright_image
from ablation.data.voc import Voc
from ablation.data.yolo import Yolo

STORED = (40, 30)
BOX = (2, 3, 12, 13)


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpegs_are_turned_as_opencv_turns_them(orientation: int, order: str) -> None:
    content = with_orientation(encode(picture()), orientation, order)
    opencv = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert_array_equal(decode(content), opencv[:, :, ::-1])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_png_is_turned_too(orientation: int) -> None:
    image = picture()
    content = with_orientation(encode(image, ".png"), orientation)
    assert_array_equal(decode(content), upright_image(image, orientation))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_stays_around_its_pixels(orientation: int) -> None:
    image = np.zeros((30, 40, 3), np.uint8)
    x1, y1, x2, y2 = BOX
    image[y1:y2, x1:x2] = 255
    rows, columns = np.nonzero(upright_image(image, orientation)[:, :, 0])
    around = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert upright_box(BOX, STORED, orientation) == around


@pytest.mark.parametrize(
    "exif", [b"", b"II*\0", b"MM\0*" + b"\xff" * 40, b"II*\0" + b"\0" * 3, b"II*\0\x08\0\0\0\xff\xff"]
)
def test_broken_exif_is_no_orientation(exif: bytes) -> None:
    assert orientation_of(exif) == 1


def _turned_voc(root: Path, stated: tuple[int, int]) -> Path:
    """a.jpg has orientation 6 and a box drawn around the same pixels, in the view of size `stated`."""
    write_voc(root)
    path = root / "JPEGImages/a.jpg"
    path.write_bytes(with_orientation(path.read_bytes(), 6))
    box = BOX if stated == STORED else upright_box(BOX, STORED, 6)
    (root / "Annotations/a.xml").write_text(annotation("a", [("cat", *box), ("dog", *box)], stated))
    return root


@pytest.mark.parametrize("stated", [STORED, STORED[::-1]])
def test_both_ways_of_annotating_a_turned_image_give_one_data_set(
    tmp_path: Path, stated: tuple[int, int]
) -> None:
    data = Voc(root=str(_turned_voc(tmp_path / "voc", stated)), cache="none").open()
    example = data.train.examples[0]
    assert (example.width_px, example.height_px) == STORED[::-1] == data.train.read(0).shape[1::-1]
    assert_array_equal(example.boxes_xyxy_px, [upright_box(BOX, STORED, 6)] * 2)
    (fault,) = data.train.faults
    assert Path(fault.file).name == "a.jpg" and "EXIF orientation" in fault.what
    assert ("turned too" in fault.action) == (stated == STORED)


def test_coco_and_yolo_agree_with_voc(tmp_path: Path) -> None:
    voc = _turned_voc(tmp_path / "voc", STORED[::-1])
    images = read_voc(voc)  # OpenCV's size: upright
    yolo = Yolo(root=str(write_yolo(images, tmp_path / "yolo")), cache="none").open()
    names = {"train_json": "annotations/train.json", "val_json": "annotations/val.json"}
    folder = write_coco(images, tmp_path / "coco")
    coco = Coco(root=str(folder), **names, train_images="train", val_images="val", cache="none")
    expected = Voc(root=str(voc), cache="none").open().fingerprint()
    assert yolo.fingerprint() == coco.open().fingerprint() == expected
    path = folder / "annotations/train.json"
    content = json.loads(path.read_text())
    image = next(entry for entry in content["images"] if entry["file_name"] == "a.jpg")
    image.update(width=STORED[0], height=STORED[1])
    for entry in content["annotations"]:
        if entry["image_id"] == image["id"]:
            entry["bbox"] = [BOX[0], BOX[1], BOX[2] - BOX[0], BOX[3] - BOX[1]]
    path.write_text(json.dumps(content))
    assert coco.open().fingerprint() == expected
