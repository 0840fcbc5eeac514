"""COCO files: what is right is read, what is wrong is named with its annotation; equal to VOC's copy."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from helpers.format_copies import read_voc, write_coco, write_yolo
from helpers.voc_folder import encode, picture, write_voc
from numpy.testing import assert_array_equal
from omegaconf import OmegaConf

from ablation.data.coco import Coco
from ablation.data.dataset import DataSource, Split
from ablation.data.voc import Voc
from ablation.data.yolo import Yolo
from ablation.errors import AblationError, DataError, UsageError

SPLITS = ("train", "val", "test")
NAMES = {f"{split}_json": f"annotations/{split}.json" for split in SPLITS}
NAMES |= {f"{split}_images": split for split in SPLITS}


def coco(folder: Path, **settings: object) -> Coco:
    return Coco(root=str(folder), **(NAMES | {"cache": "none"} | settings))  # type: ignore[arg-type]


def refusal(kind: type[AblationError], action: Callable[[], object]) -> str:
    with pytest.raises(kind) as raised:
        action()
    text = str(raised.value)
    assert "\n" not in text
    return text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_coco(read_voc(write_voc(tmp_path / "voc")), tmp_path / "coco")


def change(folder: Path, action: Callable[[dict[str, Any]], object], split: str = "train") -> None:
    path = folder / "annotations" / f"{split}.json"
    content = json.loads(path.read_text())
    action(content)
    path.write_text(json.dumps(content))


def same(a: Split, b: Split) -> None:
    assert len(a) == len(b)
    for left, right in zip(a.examples, b.examples, strict=True):
        assert (left.name, left.width_px, left.height_px) == (right.name, right.width_px, right.height_px)
        assert_array_equal(left.boxes_xyxy_px, right.boxes_xyxy_px)
        assert_array_equal(left.labels, right.labels)
        assert_array_equal(left.ignored, right.ignored)


def all_the_same(sources: list[DataSource]) -> None:
    first, *others = [source.open() for source in sources]
    for other in others:
        assert other.classes == first.classes
        same(other.train, first.train)
        same(other.val, first.val)
        assert other.fingerprint() == first.fingerprint()
    for source in sources[1:]:
        same(source.open_test(), sources[0].open_test())
        assert source.open_test().fingerprint() == sources[0].open_test().fingerprint()


def test_voc_coco_and_yolo_copies_are_one_data_set(folder: Path, tmp_path: Path) -> None:
    voc = tmp_path / "voc"
    yolo = write_yolo(read_voc(voc), tmp_path / "yolo")
    all_the_same([Voc(root=str(voc), cache="none"), coco(folder), Yolo(root=str(yolo), cache="none")])


def test_bccd_in_three_formats_is_one_data_set(bccd: Path, tmp_path: Path) -> None:
    images = read_voc(bccd)
    write_coco(images, tmp_path / "coco", link=True)
    write_yolo(images, tmp_path / "yolo", link=True)
    settings: dict[str, Any] = {"bad_boxes": "drop", "cache_dir": str(tmp_path / "cache")}
    sources = [
        Voc(root=str(bccd), **settings),
        Coco(root=str(tmp_path / "coco"), **NAMES, **settings),
        Yolo(root=str(tmp_path / "yolo"), **settings),
    ]
    all_the_same(sources)
    for source in sources:
        data = source.open()
        assert len(data.train.faults) == len(data.val.faults) == 1
        assert "has no area" in data.train.faults[0].what


def test_categories_of_any_ids_are_matched_by_name_between_files(folder: Path) -> None:
    def renumber(content: dict[str, Any]) -> None:
        ids = {3: 900, 10: -4}
        for entry in content["categories"]:
            entry["id"] = ids[entry["id"]]
        for entry in content["annotations"]:
            entry["category_id"] = ids[entry["category_id"]]

    before = coco(folder).open()
    change(folder, renumber, "val")
    after = coco(folder).open()
    assert after.classes == before.classes == ("cat", "dog")
    assert after.fingerprint() == before.fingerprint()
    change(folder, renumber, "train")  # now dog comes first, by id
    assert coco(folder).open().classes == ("dog", "cat")


def test_crowds_are_ignored_and_images_without_annotations_kept(folder: Path) -> None:
    change(folder, lambda content: content["annotations"][0].update(iscrowd=1))
    change(folder, lambda content: content.update(annotations=content["annotations"][:2]))
    first, second = coco(folder).open().train.examples
    assert first.ignored.tolist() == [True, False] and first.labels.tolist() == [1, 0]
    assert second.boxes_xyxy_px.shape == (0, 4)


def _set(**values: object) -> Callable[[dict[str, Any]], None]:
    def action(content: dict[str, Any]) -> None:
        annotation = content["annotations"][2]
        annotation.update(values)
        for key in [key for key, value in values.items() if value == "absent"]:
            del annotation[key]

    return action


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (_set(bbox=[1, 1, 0, 5]), "annotation 3 (dog): box 1, 1, 1, 6 has no area"),
        (_set(bbox=[1, 1, -3, 5]), "annotation 3 (dog): box 1, 1, -2, 6 has no area"),
        (_set(bbox=[99, 1, 3, 5]), "annotation 3 (dog): box 99, 1, 102, 6 lies outside"),
        (_set(bbox=[1, 1, 3]), "annotation 3 (dog): bbox [1, 1, 3] must be four numbers"),
        (_set(bbox=[1, 1, float("nan"), 3]), "annotation 3 (dog): bbox [1, 1, nan, 3] must be four numbers"),
        (_set(bbox=["1", 1, 3, 3]), "annotation 3 (dog): bbox ['1', 1, 3, 3] must be four numbers"),
        (_set(bbox="absent"), "annotation 3 (dog): bbox None must be four numbers"),
        (_set(category_id=77), "annotation 3: category_id 77 is not one of 3 (cat), 10 (dog)"),
        (_set(category_id="absent"), "annotation 3: category_id None is not one of"),
        (_set(image_id=5), "annotation 3: image_id 5 is not among the images"),
        (
            _set(bbox="absent", segmentation=[[1, 1, 9, 1, 9, 9]]),
            "annotation 3: has a segmentation but no bbox",
        ),
    ],
)
def test_bad_annotations_are_named_by_id_or_dropped_and_counted(
    folder: Path, action: Callable[[dict[str, Any]], None], expected: str
) -> None:
    change(folder, action)
    text = refusal(DataError, lambda: coco(folder).open())
    assert text.startswith(str(folder / "annotations/train.json")) and expected in text
    assert "data.bad_boxes=drop" in text
    data = coco(folder, bad_boxes="drop").open()
    assert [len(example.labels) for example in data.train.examples] == [2, 1]
    (fault,) = data.train.faults
    assert expected in fault.what and fault.action == "box left out" and data.val.faults == []


def test_segmentations_without_boxes_are_counted_once(folder: Path) -> None:
    def strip(content: dict[str, Any]) -> None:
        for annotation in content["annotations"][1:]:
            del annotation["bbox"]
            annotation["segmentation"] = {"counts": "abc", "size": [30, 40]}

    change(folder, strip)
    assert "annotation 2: has a segmentation" in refusal(DataError, lambda: coco(folder).open())
    data = coco(folder, bad_boxes="drop").open()
    (fault,) = data.train.faults
    assert "3 annotations" in fault.what and data.train.counts().total() == 1


def _images(**values: object) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["images"][1].update(values)


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (lambda content: content.pop("images"), "has no list 'images'"),
        (lambda content: content.update(images=[]), "lists no image"),
        (lambda content: content.update(categories=[]), "lists no category"),
        (lambda content: content["annotations"].append(7), "annotations[4] is 7"),
        (lambda content: content["categories"][0].update(id="x"), "categories[0] has id 'x'"),
        (lambda content: content["categories"][0].update(name="cat"), "is there twice"),
        (_images(id=1000), "image id 1000 is there twice (a.jpg, b.jpg)"),
        (_images(file_name="a.png"), "images a.jpg and a.png have one name"),
        (_images(file_name="../../etc/passwd.jpg"), "leads out of the data set"),
        (_images(file_name="/etc/passwd.jpg"), "leads out of the data set"),
        (_images(file_name=None), "images[1] has id 998 and file_name None"),
    ],
)
def test_broken_files_are_refused(
    folder: Path, action: Callable[[dict[str, Any]], None], expected: str
) -> None:
    change(folder, action)
    text = refusal(DataError, lambda: coco(folder, bad_boxes="drop", skip_damaged=True).open())
    assert "train.json" in text and expected in text


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "\x00", "[" * 100_000])
def test_a_file_that_is_not_json_is_refused(folder: Path, content: str) -> None:
    (folder / "annotations/train.json").write_text(content)
    assert "train.json: " in refusal(DataError, lambda: coco(folder).open())


def test_damaged_images_are_named_or_skipped(folder: Path) -> None:
    (folder / "train/a.jpg").unlink()
    (folder / "train/b.jpg").write_bytes(encode(picture())[:-30])
    text = refusal(DataError, lambda: coco(folder).open())
    assert "a.jpg: cannot be read" in text and "b.jpg: is a truncated JPEG" in text
    (folder / "train/a.jpg").write_bytes(encode(picture()))
    data = coco(folder, skip_damaged=True).open()
    assert [example.name for example in data.train.examples] == ["a"] and len(data.train.faults) == 1


def test_images_in_subfolders_are_named_by_their_path(folder: Path) -> None:
    (folder / "train/deep").mkdir()
    (folder / "train/b.jpg").rename(folder / "train/deep/a.jpg")
    change(folder, _images(file_name="deep/a.jpg"))
    assert [example.name for example in coco(folder).open().train.examples] == ["a", "deep/a"]


def test_images_in_two_splits_are_reported(folder: Path) -> None:
    change(folder, _images(file_name="a.jpg"), "val")
    (folder / "val/a.jpg").write_bytes(encode(picture(seed=3)))
    assert coco(folder).open().faults == []  # another folder, another image
    (fault,) = coco(folder, val_json="annotations/train.json", val_images="train").open().faults
    assert "2 images are also in train.json" in fault.what


def test_wrong_settings_say_what_is_there(folder: Path) -> None:
    assert "data.root: not set" in refusal(UsageError, lambda: Coco().open())
    text = refusal(UsageError, lambda: coco(folder, train_json="train.json").open())
    assert text.startswith("data.train_json: no file") and "annotations/train.json" in text
    text = refusal(UsageError, lambda: coco(folder, val_images="images").open())
    assert text.startswith("data.val_images: ") and "annotations, test, train, val" in text
    assert "data.test_share" in refusal(UsageError, lambda: coco(folder, test_json=None).open_test())
    assert "data.val_share" in refusal(UsageError, lambda: coco(folder, val_json=None).open())


@pytest.mark.parametrize(
    ("key", "value"),
    [("train_json", ""), ("val_images", "a\0"), ("val_share", 1.0), ("bad_boxes", "x"), ("max_pixels", 0)],
)
def test_a_value_out_of_range_is_named(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{key}: found .*, must be "):
        Coco(**{key: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "name"), [(Coco, "coco"), (Yolo, "yolo")])
def test_the_yaml_states_the_defaults(root: Path, kind: type, name: str) -> None:
    stated = OmegaConf.to_container(OmegaConf.load(root / "conf" / "data" / f"{name}.yaml"))
    assert isinstance(stated, dict)
    assert stated.pop("_target_") == f"ablation.data.{name}.{kind.__name__}"
    assert stated == {f.name: f.default for f in fields(kind)}
