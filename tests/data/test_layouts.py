"""Data as labelling tools leave it: recognised, read, and the same data set as in VOC's own layout."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.command import in_this_process
from helpers.format_copies import SPLITS, read_voc, write_coco, write_yolo
from helpers.voc_folder import encode, picture, write_voc

from ablation.data.auto import Auto
from ablation.data.dataset import DetectionData
from ablation.data.hash_split import part_of
from ablation.data.voc import Voc
from ablation.errors import DataError, UsageError


def auto(root: Path, **settings: Any) -> DetectionData:
    return Auto(root=str(root), cache="none", **settings).open()


def settings_of(root: Path) -> tuple[str, dict[str, Any]]:
    source = Auto(root=str(root)).resolved()
    names = (
        "train_set",
        "val_set",
        "images",
        "annotations",
        "val_share",
        "file",
        "train_json",
        "train_images",
    )
    return type(source).name, {name: getattr(source, name) for name in names if hasattr(source, name)}


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    return write_voc(tmp_path / "devkit")


def flat(devkit: Path, root: Path, images: str, annotations: str) -> Path:
    """The devkit's files in two folders (or one), without lists of splits."""
    for folder, source in ((images, "JPEGImages"), (annotations, "Annotations")):
        shutil.copytree(devkit / source, root / folder, dirs_exist_ok=True)
    return root


def same_images(data: DetectionData, devkit: Path) -> bool:
    """Whether train and val together have the pixels, boxes and classes of the devkit's six images."""
    whole = Voc(root=str(devkit), cache="none")
    reference = whole.open()
    expected = content_of(reference.train, reference.val, whole.open_test())
    return data.classes == reference.classes and content_of(data.train, data.val) == expected


def content_of(*splits: Any) -> dict[str, Any]:
    """Image name -> hash of its file, boxes, labels."""
    return {
        example.name: (digest, example.boxes_xyxy_px.tolist(), example.labels.tolist())
        for split in splits
        for example, digest in zip(split.examples, split.hashes, strict=True)
    }


def test_the_devkit_itself(devkit: Path) -> None:
    assert auto(devkit).fingerprint() == Voc(root=str(devkit), cache="none").open().fingerprint()


@pytest.mark.parametrize(
    ("images", "annotations"), [("images", "annotations"), ("data/img", "data/xml"), (".", ".")]
)
def test_voc_without_lists(devkit: Path, tmp_path: Path, images: str, annotations: str) -> None:
    root = flat(devkit, tmp_path / "flat", images, annotations)
    assert settings_of(root) == (
        "voc",
        {"train_set": None, "val_set": None, "images": images, "annotations": annotations, "val_share": 0.2},
    )
    data = auto(root, val_share=0.5)
    assert same_images(data, devkit)
    assert {example.name for example in data.val.examples} == {
        name for name in "abcdef" if part_of(name, 0.5, 0) == "val"
    }


def test_masks_of_the_same_names_are_no_images(devkit: Path, tmp_path: Path) -> None:
    root = flat(devkit, tmp_path / "flat", "images", "annotations")
    shutil.copytree(root / "images", root / "masks")
    assert settings_of(root)[1]["images"] == "images"


@pytest.mark.parametrize("beside", [True, False])
def test_voc_with_a_folder_for_each_split(devkit: Path, tmp_path: Path, beside: bool) -> None:
    root = tmp_path / "roboflow"
    for split, name in zip(SPLITS, ("train", "valid", "test"), strict=True):
        images, labels = (
            (root / name, root / name) if beside else (root / "images" / name, root / "xml" / name)
        )
        for stem in (devkit / f"ImageSets/Main/{split}.txt").read_text().split():
            for folder, source in ((images, f"JPEGImages/{stem}.jpg"), (labels, f"Annotations/{stem}.xml")):
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy(devkit / source, folder)
    assert settings_of(root)[1]["val_set"] == "valid"
    source = Auto(root=str(root), cache="none")
    reference = Voc(root=str(devkit), cache="none")
    assert source.open().fingerprint() == reference.open().fingerprint()
    assert source.has_test() and source.open_test().fingerprint() == reference.open_test().fingerprint()


def test_an_image_without_annotation_is_named_or_background(devkit: Path, tmp_path: Path) -> None:
    root = flat(devkit, tmp_path / "flat", "images", "annotations")
    (root / "images" / "lone.jpg").write_bytes(encode(picture()))
    with pytest.raises(DataError, match=r"lone\.xml: is missing.*data\.missing_annotation=background"):
        auto(root, val_share=0.5)
    data = auto(root, val_share=0.5, missing_annotation="background")
    examples = {example.name: example for split in (data.train, data.val) for example in split.examples}
    assert len(examples) == 7 and examples["lone"].boxes_xyxy_px.shape == (0, 4)
    notes = [fault.what for fault in (*data.train.faults, *data.val.faults)]
    assert any("1 of 7 images" in note for note in notes)


def test_all_annotations_missing_is_a_wrong_folder(devkit: Path, tmp_path: Path) -> None:
    root = flat(devkit, tmp_path / "flat", "images", "annotations")
    for path in (root / "annotations").iterdir():
        path.unlink()
    folders = {"images": "images", "annotations": "annotations", "missing_annotation": "background"}
    source = Voc(root=str(root), train_set=None, val_set=None, test_set=None, val_share=0.5, **folders)
    with pytest.raises(DataError, match="none of the 6 images has an annotation"):
        source.open()


def test_one_coco_file_without_splits(devkit: Path, tmp_path: Path) -> None:
    root = write_coco(read_voc(devkit), tmp_path / "coco")
    merged: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": []}
    (root / "images").mkdir()
    for number, split in enumerate(SPLITS):
        content = json.loads((root / f"annotations/{split}.json").read_text())
        merged["categories"] = content["categories"]
        for image in content["images"]:
            merged["images"].append(image | {"id": image["id"] + 10_000 * number})
            shutil.move(root / split / image["file_name"], root / "images")
        for note in content["annotations"]:
            identity = {"id": note["id"] + 10_000 * number, "image_id": note["image_id"] + 10_000 * number}
            merged["annotations"].append(note | identity)
        (root / f"annotations/{split}.json").unlink()
    (root / "result.json").write_text(json.dumps(merged))
    expected = {"train_json": "result.json", "train_images": "images", "val_share": 0.2}
    assert settings_of(root) == ("coco", expected)
    assert same_images(auto(root, val_share=0.5), devkit)


@pytest.mark.parametrize("name", ["annotations/instances_{}.json", "{}/_annotations.coco.json"])
def test_coco_with_splits(devkit: Path, tmp_path: Path, name: str) -> None:
    root = write_coco(read_voc(devkit), tmp_path / "coco")
    for split in SPLITS:
        (root / f"annotations/{split}.json").rename(root / name.format(split))
    assert settings_of(root)[1]["train_json"] == name.format("train")
    assert auto(root).fingerprint() == Voc(root=str(devkit), cache="none").open().fingerprint()


def yolo(devkit: Path, tmp_path: Path) -> Path:
    return write_yolo(read_voc(devkit), tmp_path / "yolo")


def test_yolo_with_data_yaml(devkit: Path, tmp_path: Path) -> None:
    root = yolo(devkit, tmp_path)
    (root / "data.yaml").rename(root / "dataset.yml")
    assert settings_of(root)[1]["file"] == "dataset.yml"
    data = auto(root)
    assert [len(data.train), len(data.val)] == [2, 2]


def test_label_studio_has_a_list_of_classes_and_no_splits(devkit: Path, tmp_path: Path) -> None:
    root = yolo(devkit, tmp_path)
    names = yaml.safe_load((root / "data.yaml").read_text())["names"]
    (root / "data.yaml").unlink()
    (root / "classes.txt").write_text("\n".join(names) + "\n")
    (root / "notes.json").write_text(json.dumps({"categories": [], "info": {}}))
    assert settings_of(root) == ("yolo", {"file": "classes.txt", "val_share": 0.2})
    data = auto(root, val_share=0.5)
    assert data.classes == ("cat", "dog") and len(data.train) + len(data.val) == 6


def test_cvat_has_darknets_files(devkit: Path, tmp_path: Path) -> None:
    source, root = yolo(devkit, tmp_path), tmp_path / "cvat"
    (root / "obj_train_data").mkdir(parents=True)
    for path in (*source.rglob("*.jpg"), *source.rglob("labels/*/*.txt")):
        shutil.copy(path, root / "obj_train_data")
    (root / "obj.names").write_text("cat\ndog\n")
    (root / "obj.data").write_text(
        "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n"
    )
    lines = [f"data/obj_train_data/{stem}.jpg\n" for stem in "abcdef"]
    (root / "train.txt").write_text("".join(lines))
    assert settings_of(root) == ("yolo", {"file": "obj.data", "val_share": 0.2})
    data = auto(root, val_share=0.5)
    assert len(data.train) + len(data.val) == 6
    assert sum(sum(split.counts().values()) for split in (data.train, data.val)) == 12


def test_what_has_no_layout_and_what_has_two(devkit: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "a.jpg").write_bytes(encode(picture()))
    with pytest.raises(UsageError, match=r"no layout that is known; it holds: a\.jpg"):
        auto(tmp_path / "plain")
    root = flat(devkit, tmp_path / "both", "images", "annotations")
    (root / "labels").mkdir()
    for stem in "abcdef":
        (root / "labels" / f"{stem}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (root / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(UsageError, match=r"2 ways: data=voc .*data=yolo"):
        auto(root)


def test_check_prints_the_overrides_and_they_read_the_same(devkit: Path, tmp_path: Path) -> None:
    root = flat(devkit, tmp_path / "my images", "images", "annotations")
    printed = in_this_process(tmp_path, "check", "data=auto", f"data.root='{root}'", "data.val_share=0.5")
    line = next(line for line in printed.stdout.splitlines() if line.startswith("as overrides: "))
    pasted = in_this_process(tmp_path, "check", *shlex.split(line.removeprefix("as overrides: ")))
    assert _fingerprint(printed.stdout) == _fingerprint(pasted.stdout)


def _fingerprint(text: str) -> str:
    return next(line for line in text.splitlines() if "fingerprint" in line)


def test_an_empty_folder_is_no_test_split(devkit: Path, tmp_path: Path) -> None:
    root = tmp_path / "split"
    for name in ("train", "val", "test"):
        shutil.copytree(devkit / "JPEGImages", root / name / "images")
        shutil.copytree(devkit / "Annotations", root / name / "xml")
    source = Voc(root=str(root), images="{set}/images", annotations="{set}/xml", cache="none")
    assert source.has_test()
    for path in (root / "test/images").iterdir():
        path.unlink()
    assert not source.has_test()
