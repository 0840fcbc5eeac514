"""YOLO folders: every usual form of data.yaml is read, nothing outside is, and faults have a line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.format_copies import read_voc, write_yolo
from helpers.voc_folder import encode, picture, write_voc
from numpy.testing import assert_allclose

from ablation.data.yolo import Yolo
from ablation.errors import AblationError, DataError, UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_yolo(read_voc(write_voc(tmp_path / "voc")), tmp_path / "yolo")


def yolo(folder: Path, **settings: object) -> Yolo:
    return Yolo(root=str(folder), **({"cache": "none"} | settings))  # type: ignore[arg-type]


def refusal(kind: type[AblationError], action: Callable[[], object]) -> str:
    with pytest.raises(kind) as raised:
        action()
    text = str(raised.value)
    assert "\n" not in text
    return text


def state(folder: Path, **values: Any) -> None:
    """Change data.yaml; None removes a key."""
    path = folder / "data.yaml"
    content = yaml.safe_load(path.read_text()) | values
    path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))


def test_a_line_is_centre_and_size_in_shares(folder: Path) -> None:
    (folder / "labels/train/a.txt").write_text("1 0.5 0.5 0.25 0.2\n\n0 0.1 0.5 0.2 1.0\r\n")
    example = yolo(folder).open().train.examples[0]
    # 40 x 30 px: centre 20, 15, sides 10, 6; and a box along the left border.
    assert_allclose(example.boxes_xyxy_px, [[15, 12, 25, 18], [0, 0, 8, 30]], atol=1e-5)
    assert example.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    "kind", ["list", "absolute", "exported", "path", "foreign path", "file", "file of root"]
)
def test_every_usual_form_is_one_data_set(folder: Path, kind: str) -> None:
    expected = yolo(folder).open().fingerprint()
    changes: dict[str, dict[str, Any]] = {
        "list": {"train": ["images/train"], "names": {0: "cat", 1: "dog"}},
        "absolute": {"train": str((folder / "images/train").resolve())},
        "exported": {"train": "../images/train", "val": "../images/val"},
        "path": {"path": "images", "train": "train", "val": "val"},
        "foreign path": {"path": "../datasets/cats"},
        "file": {"train": "lists/train.txt"},
        "file of root": {"train": "lists/root.txt", "nc": None},
    }
    (folder / "lists").mkdir()
    (folder / "lists/train.txt").write_text("../images/train/b.jpg\n\n../images/train/a.jpg\n")
    (folder / "lists/root.txt").write_text("./images/train/a.jpg\nimages/train/b.jpg\n")
    state(folder, **changes[kind])
    assert yolo(folder).open().fingerprint() == expected


def test_an_image_without_label_file_has_no_objects(folder: Path) -> None:
    (folder / "labels/train/a.txt").unlink()
    (folder / "labels/train/b.txt").write_text("")
    data = yolo(folder).open()
    assert [len(example.labels) for example in data.train.examples] == [0, 0]
    (fault,) = data.train.faults
    assert fault.file.endswith("labels/train/a.txt") and "1 of 2 images" in fault.what
    (folder / "labels/train/b.txt").unlink()
    text = refusal(DataError, lambda: yolo(folder, skip_damaged=True).open())
    assert "labels/train/a.txt: not found, and none of the 2 images has a label file" in text


def test_labels_beside_the_images_and_nested_folders(folder: Path) -> None:
    (folder / "flat/images/deep/images/x").mkdir(parents=True)
    (folder / "flat/images/deep/labels/x").mkdir(parents=True)
    (folder / "flat/images/deep/images/x/p.jpg").write_bytes(encode(picture()))
    (folder / "flat/images/deep/labels/x/p.txt").write_text("0 0.5 0.5 0.5 0.5")
    (folder / "beside").mkdir()
    (folder / "beside/q.jpg").write_bytes(encode(picture()))
    (folder / "beside/q.txt").write_text("1 0.5 0.5 0.5 0.5")
    state(folder, train=["flat/images", "beside"])
    examples = yolo(folder).open().train.examples
    assert [(example.name, example.labels.tolist()) for example in examples] == [
        ("deep/images/x/p", [0]),
        ("q", [1]),
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("1 0.5 0.5 0 0.5", "line 2 (dog): box 20, 7.5, 20, 22.5 has no area"),
        ("1 0.5 0.5 -0.1 0.5", "line 2 (dog): box 22, 7.5, 18, 22.5 has no area"),
        ("1 1.5 0.5 0.1 0.1", "line 2 (dog): box 58, 13.5, 62, 16.5 lies outside"),
        ("1 nan 0.5 0.1 0.1", "line 2: '1 nan 0.5 0.1 0.1' must be five numbers"),
        ("1 20 15 8 8", "line 2: box 20 15 8 8 must be shares"),
        ("2 0.5 0.5 0.1 0.1", "line 2: class 2 is not one of 0 .. 1"),
        ("-1 0.5 0.5 0.1 0.1", "line 2: class -1 is not one of"),
        ("0.5 0.5 0.5 0.1 0.1", "line 2: class 0.5 is not one of"),
        ("0 1_0 0.5 0.1 0.1", "line 2: '0 1_0 0.5 0.1 0.1' must be five numbers"),
        ("0 1e999 0.5 0.1 0.1", "line 2: box 1e999 0.5 0.1 0.1 must be shares"),
        ("0 0.5 0.5 0.1", "line 2: has 4 numbers, must have five"),
        ("0 0.1 0.1 0.5 0.1 0.5 0.5", "line 2: has 7 numbers (a polygon? only boxes are read)"),
        ("cat 0.5 0.5 0.1 0.1", "line 2: 'cat 0.5 0.5 0.1 0.1' must be five numbers"),
    ],
)
def test_bad_lines_are_named_or_dropped_and_counted(folder: Path, line: str, expected: str) -> None:
    (folder / "labels/train/a.txt").write_text(f"0 0.5 0.5 0.5 0.5\n{line}\n")
    text = refusal(DataError, lambda: yolo(folder).open())
    assert f"labels/train/a.txt: {expected}" in text and "data.bad_boxes=drop" in text
    data = yolo(folder, bad_boxes="drop").open()
    assert data.train.examples[0].labels.tolist() == [0]
    (fault,) = data.train.faults
    assert expected in fault.what and fault.action == "box left out"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"names": None}, "must have the keys train, val and names"),
        ({"train": None}, "must have the keys train, val and names"),
        ({"names": []}, "names: found []"),
        ({"names": ["a", "a"], "nc": None}, "names: found ['a', 'a']"),
        ({"names": {0: "a", 2: "b"}}, "names: found the keys [0, 2]"),
        ({"nc": 5}, "nc: found 5, must be 2"),
        ({"train": 7}, "train: found 7, must be a folder"),
        ({"train": "images/nowhere"}, "train: "),
        ({"train": "data.yaml"}, "is neither a folder nor a .txt file"),
        ({"train": "labels/train"}, "train: no image"),
        ({"train": ["images/train", "images/train"]}, "is there twice"),
        ({"train": "/etc"}, "leads out of"),
        ({"train": "../voc/JPEGImages"}, "leads out of"),
        ({"path": "/etc", "train": "ssl"}, "leads out of"),
        ({"path": 3}, "path: found 3"),
    ],
)
def test_a_broken_yaml_is_refused(folder: Path, values: dict[str, Any], expected: str) -> None:
    state(folder, **values)
    text = refusal(DataError, lambda: yolo(folder, skip_damaged=True, bad_boxes="drop").open())
    assert "data.yaml: " in text and expected in text


@pytest.mark.parametrize("text", ["a: [", "- 1", "!!python/object/apply:os.system [ls]", ""])
def test_a_file_that_is_not_such_yaml_is_refused(folder: Path, text: str) -> None:
    (folder / "data.yaml").write_text(text)
    assert "data.yaml:" in refusal(DataError, lambda: yolo(folder).open())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("../../voc/JPEGImages/a.jpg", "leads out of the data set"),
        ("/etc/a.jpg", "leads out of the data set"),
        ("images/train/a.gif", "is none of .jpg"),
    ],
)
def test_a_list_of_images_names_its_line(folder: Path, line: str, expected: str) -> None:
    (folder / "train.txt").write_text(f"images/train/a.jpg\n{line}\n")
    state(folder, train="train.txt")
    text = refusal(DataError, lambda: yolo(folder, skip_damaged=True).open())
    assert "train.txt: line 2: " in text and expected in text


def test_a_listed_image_that_is_missing_is_damage(folder: Path) -> None:
    (folder / "train.txt").write_text("images/train/a.jpg\nimages/train/nowhere.jpg\n")
    state(folder, train="train.txt")
    assert "nowhere.jpg: cannot be read" in refusal(DataError, lambda: yolo(folder).open())
    assert len(yolo(folder, skip_damaged=True).open().train) == 1


def test_names_must_differ_within_a_split_and_other_formats_are_reported(folder: Path) -> None:
    (folder / "images/train/c.webp").write_bytes(b"x")
    (fault,) = yolo(folder).open().train.faults
    assert "c.webp" in fault.file and fault.action.startswith("left out")
    (folder / "images/train/a.png").write_bytes(encode(picture(), ".png"))
    assert "have one name (a)" in refusal(DataError, lambda: yolo(folder).open())


def test_splits_that_are_not_there(folder: Path) -> None:
    state(folder, test=None)
    assert "data.test_share" in refusal(UsageError, lambda: yolo(folder).open_test())
    state(folder, val=None)
    assert "data.val_share" in refusal(UsageError, lambda: yolo(folder).open())
    text = refusal(UsageError, lambda: yolo(folder, file="coco.yaml").open())
    assert text.startswith("data.file: no file") and "data.yaml" in text


def test_one_image_in_two_splits_is_reported_equal_names_are_not(folder: Path) -> None:
    (folder / "images/val/a.jpg").write_bytes(encode(picture(seed=7)))
    assert all("also in" not in fault.what for fault in yolo(folder).open().faults)
    state(folder, val=["images/val", "images/train/"])
    (folder / "images/val/a.jpg").unlink()
    (fault,) = yolo(folder).open().faults
    assert "2 images are also in data.yaml: train (first: a)" in fault.what
