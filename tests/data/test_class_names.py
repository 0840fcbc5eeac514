"""Classes that only val has: a slip is refused with the nearest name, a rare class is reported."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.format_copies import read_voc, write_coco, write_yolo
from helpers.voc_folder import annotation, write_voc

from ablation.data.coco import Coco
from ablation.data.reading import nearest
from ablation.data.voc import Voc
from ablation.data.yolo import Yolo
from ablation.errors import DataError

JSONS = {"train_json": "annotations/train.json", "val_json": "annotations/val.json"}


def _voc(root: Path, name: str) -> Path:
    """c.xml, in val, has a box of class `name`."""
    write_voc(root)
    (root / "Annotations/c.xml").write_text(annotation("c", [("dog", 2, 3, 12, 13), (name, 1, 1, 9, 9)]))
    return root


@pytest.mark.parametrize(("name", "meant"), [("Cat", "cat"), ("dogs", "dog"), ("d_o_g", "dog")])
def test_a_mistyped_class_of_val_is_refused_with_the_nearest_name(
    tmp_path: Path, name: str, meant: str
) -> None:
    with pytest.raises(DataError) as raised:
        Voc(root=str(_voc(tmp_path / "voc", name)), cache="none").open()
    message = str(raised.value)
    assert "c.xml" in message and repr(name) in message and f"did you mean {meant!r}?" in message
    assert "data.classes" in message


def test_a_class_of_val_only_that_is_listed_is_reported(tmp_path: Path) -> None:
    root = _voc(tmp_path / "voc", "giraffe")
    with pytest.raises(DataError, match=r"'giraffe'.*never in train"):
        Voc(root=str(root), cache="none").open()
    data = Voc(root=str(root), cache="none", classes=["cat", "dog", "giraffe"]).open()
    (fault,) = data.faults
    assert "'giraffe'" in fault.what and "c.xml" in fault.file
    slip = _voc(tmp_path / "slip", "Cat")
    with pytest.raises(DataError, match="did you mean 'cat'"):
        Voc(root=str(slip), cache="none", classes=["cat", "dog", "Cat"]).open()


def test_coco_and_yolo_list_their_classes(tmp_path: Path) -> None:
    images = read_voc(_voc(tmp_path / "rare", "giraffe"))
    yolo = Yolo(root=str(write_yolo(images, tmp_path / "yolo")), cache="none").open()
    coco_folder = write_coco(images, tmp_path / "coco")
    coco = Coco(root=str(coco_folder), **JSONS, train_images="train", val_images="val", cache="none").open()
    assert all("'giraffe'" in data.faults[0].what for data in (yolo, coco))
    slip = read_voc(_voc(tmp_path / "slip", "CAT"))
    with pytest.raises(DataError, match="did you mean 'cat'"):
        Yolo(root=str(write_yolo(slip, tmp_path / "yolo slip")), cache="none").open()


def test_two_spellings_in_train_are_reported(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "voc")
    (root / "Annotations/a.xml").write_text(annotation("a", [("Dog", 2, 3, 12, 13)]))
    (fault,) = Voc(root=str(root), cache="none").open().faults
    assert "'Dog'" in fault.what and "'dog'" in fault.what


def test_a_box_of_an_unknown_class_names_the_nearest(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "voc")
    (root / "Annotations/e.xml").write_text(annotation("e", [("dgo", 2, 3, 12, 13)]))
    with pytest.raises(DataError, match="did you mean 'dog'"):
        Voc(root=str(root), cache="none").open_test()


def test_nearest() -> None:
    assert nearest("Red-Blood cell", ["white blood cell", "red_blood_cell"]) == "red_blood_cell"
    assert nearest("bus", ["cat", "dog"]) is None
