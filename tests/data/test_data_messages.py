"""What a user reads who names the wrong folder, split or file: the remedy is in the line."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest
from helpers.format_copies import read_voc, write_coco, write_yolo
from helpers.voc_folder import write_voc

from ablation.analyse.tables.held_fixed import is_free
from ablation.data.coco import Coco
from ablation.data.file_source import FileSource
from ablation.data.voc import Voc
from ablation.data.yolo import Yolo
from ablation.errors import AblationError, UsageError

JSONS = {"train_json": "annotations/train.json", "val_json": "annotations/val.json"}


def refusal(source: FileSource) -> str:
    with pytest.raises(UsageError) as raised:
        source.open()
    message = str(raised.value)
    assert "\n" not in message and len(message) < 700
    return message


def test_a_share_where_the_split_is_named_but_not_there(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "voc")
    (root / "ImageSets/Main/val.txt").unlink()
    assert "data.val_set=null" in refusal(Voc(root=str(root), cache="none"))
    message = refusal(Voc(root=str(root), cache="none", val_share=0.5))
    assert "val.txt, which does not exist" in message and "add data.val_set=null" in message
    assert Voc(root=str(root), cache="none", val_share=0.5, val_set=None).open().val
    coco = write_coco(read_voc(write_voc(tmp_path / "other")), tmp_path / "coco")
    train = {"train_json": "annotations/train.json", "train_images": "train"}
    assert "add data.val_json=null" in refusal(Coco(root=str(coco), **train, val_share=0.5))


def test_absolute_paths_of_coco_files_are_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_coco(read_voc(write_voc(tmp_path / "voc")), tmp_path / "coco")
    relative = Coco(root=str(folder), **JSONS, train_images="train", val_images="val", cache="none")
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(folder / "annotations", elsewhere)
    monkeypatch.setenv("HOME", str(tmp_path))
    absolute = Coco(
        root=str(folder),
        train_json=str(elsewhere / "train.json"),
        val_json="~/elsewhere/val.json",
        train_images=str(folder / "train"),
        val_images="val",
        cache="none",
    )
    assert absolute.open().fingerprint() == relative.open().fingerprint()


def test_another_formats_folder_is_recognised(tmp_path: Path) -> None:
    voc = write_voc(tmp_path / "voc")
    coco, yolo = (write(read_voc(voc), tmp_path / write.__name__) for write in (write_coco, write_yolo))
    assert "data=yolo" in refusal(Voc(root=str(yolo))) and "data=coco" in refusal(Voc(root=str(coco)))
    assert "data=voc" in refusal(Yolo(root=str(voc))) and "data=voc" in refusal(Coco(root=str(voc)))
    (tmp_path / "empty").mkdir()
    assert "looks like" not in refusal(Voc(root=str(tmp_path / "empty")))


@pytest.mark.parametrize("root", ["x" * 5000, "~nobody-of-this-name/x", "a\0b", "/dev/null"])
def test_odd_roots(root: str) -> None:
    for source in (Voc(root=root), Coco(root=root), Yolo(root=root)):
        assert refusal(source).startswith("data.root: found ")


def test_a_cache_folder_of_nobody_is_named(tmp_path: Path) -> None:
    source = Voc(root=str(write_voc(tmp_path / "voc")), cache_dir="~nobody-of-this-name/x")
    assert refusal(source).startswith("data.cache_dir: found ~nobody")


@pytest.mark.parametrize("name", ["ImageSets/Main/train.txt", "Annotations/a.xml", "JPEGImages/a.jpg"])
def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    root = write_voc(tmp_path / "voc")
    (root / name).unlink()
    os.mkfifo(root / name)
    with pytest.raises(AblationError, match="is not a file"):
        Voc(root=str(root), cache="none").open()


def test_whether_there_is_a_test_split(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "voc")
    assert Voc(root=str(root)).has_test()
    assert Yolo(root=str(write_yolo(read_voc(root), tmp_path / "yolo"))).has_test()
    for nothing in ("", "\n \n"):
        (root / "ImageSets/Main/test.txt").write_text(nothing)
        assert not Voc(root=str(root)).has_test()
    (root / "ImageSets/Main/test.txt").unlink()
    assert not Voc(root=str(root)).has_test()
    assert Voc(root=str(root), test_set=None, test_share=0.2).has_test()
    coco = write_coco(read_voc(write_voc(tmp_path / "full")), tmp_path / "coco")
    assert not Coco(root=str(coco), **JSONS).has_test()
    with_test = Coco(root=str(coco), **JSONS, test_json="annotations/test.json")
    assert with_test.has_test()
    content = json.loads((coco / "annotations/test.json").read_text())
    (coco / "annotations/test.json").write_text(json.dumps(content | {"images": [], "annotations": []}))
    assert not with_test.has_test()
    yolo = write_yolo(read_voc(write_voc(tmp_path / "again")), tmp_path / "empty")
    for image in (yolo / "images/test").iterdir():
        image.unlink()
    assert not Yolo(root=str(yolo)).has_test()


def test_where_the_annotations_lie_is_no_part_of_a_key_and_of_no_comparison() -> None:
    for kind in (Voc, Coco, Yolo):
        fields = {field.name: field for field in dataclasses.fields(kind)}
        outside = {name for name, field in fields.items() if field.metadata.get("identity") is False}
        assert {f"data.{name}" for name in outside if not is_free(f"data.{name}")} == set()
        assert "max_pixels" in outside
