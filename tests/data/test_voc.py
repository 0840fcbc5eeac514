"""VOC folders: what is right is read, what is wrong is named in one line."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from helpers.voc_folder import Box, annotation, encode, picture, write_voc
from numpy.testing import assert_array_equal
from omegaconf import OmegaConf

from ablation.data.voc import Voc
from ablation.errors import AblationError, DataError, UsageError

BOMB = (
    '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">'
    '<!ENTITY c "&b;&b;&b;&b;">]><annotation><filename>&c;</filename></annotation>'
)
EXTERNAL = (
    '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">]>'
    "<annotation><filename>&e;</filename></annotation>"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_voc(tmp_path / "data")


def voc(folder: Path, **settings: object) -> Voc:
    return Voc(root=str(folder), **({"cache": "none"} | settings))  # type: ignore[arg-type]


def refusal(kind: type[AblationError], action: Callable[[], object]) -> str:
    """The message of the error, which must be one line."""
    with pytest.raises(kind) as raised:
        action()
    text = str(raised.value)
    assert "\n" not in text
    return text


def test_a_plain_folder_is_read(folder: Path) -> None:
    data = voc(folder).open()
    assert data.classes == ("cat", "dog") and data.faults == data.train.faults == []
    assert [example.name for example in data.train.examples] == ["a", "b"]
    example = data.val.examples[1]
    assert (example.name, example.width_px, example.height_px) == ("d", 40, 30)
    assert_array_equal(example.boxes_xyxy_px, [[2, 3, 12, 13], [20, 10, 40, 30]])
    assert_array_equal(example.labels, [1, 0])
    assert not example.ignored.any()
    assert data.val.read(1).shape == (30, 40, 3)
    assert [example.name for example in voc(folder).open_test().examples] == ["e", "f"]


def test_training_never_opens_the_test_split(folder: Path) -> None:
    for stem in "ef":
        (folder / "Annotations" / f"{stem}.xml").unlink()
        (folder / "JPEGImages" / f"{stem}.jpg").unlink()
    (folder / "ImageSets/Main/test.txt").unlink()
    assert len(voc(folder).open().train) == 2


def test_the_fingerprint_is_of_content_not_of_place(folder: Path, tmp_path: Path) -> None:
    first = voc(folder).open().fingerprint()
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(folder, elsewhere)
    (elsewhere / "ImageSets/Main/train.txt").write_text("b.jpg\r\n\r\na\r\n")
    assert voc(elsewhere, cache="ram").open().fingerprint() == first
    (elsewhere / "Annotations" / "a.xml").write_text(annotation("a", [("dog", 2, 3, 12, 14)]))
    second = voc(elsewhere).open().fingerprint()
    (elsewhere / "JPEGImages" / "b.jpg").write_bytes(encode(picture(seed=99)))
    assert len({first, second, voc(elsewhere).open().fingerprint()}) == 3


def test_difficult_objects(folder: Path) -> None:
    for stem in "ac":
        boxes = [("dog", 2, 3, 12, 13)]
        (folder / "Annotations" / f"{stem}.xml").write_text(
            annotation(stem, boxes, extra="<difficult>1</difficult>")
        )
    used, unused = voc(folder).open(), voc(folder, use_difficult=False).open()
    assert [d.train.examples[0].ignored.tolist() for d in (used, unused)] == [[False], [True]]
    assert [d.val.examples[0].ignored.tolist() for d in (used, unused)] == [[True], [True]]


def test_classes_given_fix_labels_and_refuse_others(folder: Path) -> None:
    assert voc(folder, classes=["dog", "cat"]).open().train.examples[0].labels.tolist() == [0, 1]
    text = refusal(DataError, lambda: voc(folder, classes=["dog"]).open())
    assert "a.xml" in text and "object 2 (cat)" in text and "data.bad_boxes=drop" in text
    data = voc(folder, classes=["dog"], bad_boxes="drop").open()
    assert [example.labels.tolist() for example in data.train.examples] == [[0], [0]]
    assert len(data.train.faults) == 2


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        (("dog", 5, 5, 5, 9), "no area"),
        (("dog", 9, 5, 5, 9), "no area"),
        (("dog", 5, "nan", 9, 9), "four finite numbers"),
        (("dog", "inf", 1, "inf", 9), "four finite numbers"),
        (("dog", 5, "five", 9, 9), "four finite numbers"),
        (("dog", 50, 5, 60, 9), "lies outside"),
        (("dog", -9, 5, -2, 9), "lies outside"),
        (("", 1, 5, 9, 9), "class ''"),
    ],
)
def test_bad_boxes_are_named_or_dropped_and_counted(folder: Path, box: Box, expected: str) -> None:
    (folder / "Annotations" / "a.xml").write_text(annotation("a", [("cat", 1, 1, 9, 9), box, box]))
    text = refusal(DataError, lambda: voc(folder).open())
    assert "a.xml: object 2" in text and expected in text and "and one more" in text
    assert "data.bad_boxes=drop" in text
    data = voc(folder, bad_boxes="drop").open()
    assert_array_equal(data.train.examples[0].boxes_xyxy_px, [[1, 1, 9, 9]])
    assert [fault.action for fault in data.train.faults] == ["box left out"] * 2
    assert data.val.faults == []


def test_a_box_may_stick_out_by_one_pixel(folder: Path) -> None:
    (folder / "Annotations" / "a.xml").write_text(annotation("a", [("dog", -1, 0, 41, 31)]))
    data = voc(folder).open()
    assert_array_equal(data.train.examples[0].boxes_xyxy_px, [[0, 0, 40, 30]])
    assert data.train.faults == []
    (folder / "Annotations" / "a.xml").write_text(annotation("a", [("dog", -1.5, 0, 40, 30)]))
    assert "1.5 px out of the image" in refusal(DataError, lambda: voc(folder).open())
    data = voc(folder, bad_boxes="drop").open()
    assert_array_equal(data.train.examples[0].boxes_xyxy_px, [[0, 0, 40, 30]])
    assert [fault.action for fault in data.train.faults] == ["clipped to the image"]


def test_parts_of_an_object_are_not_objects(folder: Path) -> None:
    corners = "<xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax>"
    part = f"<part><name>head</name><bndbox>{corners}</bndbox></part>"
    (folder / "Annotations" / "a.xml").write_text(annotation("a", [("dog", 3, 4, 12, 13)], extra=part))
    data = voc(folder).open()
    assert data.classes == ("cat", "dog")
    assert_array_equal(data.train.examples[0].boxes_xyxy_px, [[3, 4, 12, 13]])


def test_an_image_without_objects_is_kept(folder: Path) -> None:
    (folder / "Annotations" / "a.xml").write_text(annotation("a", []))
    assert voc(folder).open().train.examples[0].boxes_xyxy_px.shape == (0, 4)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "has no image"),
        (b"", "is empty"),
        (encode(picture())[:-40], "truncated"),
        (b"hello, I am a text", "is not a JPEG or PNG"),
        (encode(picture(), ".png")[:-4], "truncated"),
    ],
)
@pytest.mark.parametrize("cache", ["none", "disk"])
def test_damaged_images_are_noticed_when_opened(
    folder: Path, tmp_path: Path, content: bytes | None, expected: str, cache: str
) -> None:
    path = folder / "JPEGImages" / "b.jpg"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    settings = {"cache": cache, "cache_dir": str(tmp_path / "cache")}
    for _ in range(2):
        text = refusal(DataError, lambda: voc(folder, **settings).open())
        assert expected in text and "b." in text and "data.skip_damaged=true" in text
    data = voc(folder, skip_damaged=True, **settings).open()
    assert [example.name for example in data.train.examples] == ["a"]
    assert [fault.action for fault in data.train.faults] == ["image left out"]


@pytest.mark.parametrize(
    ("image", "suffix", "kind"),
    [
        (picture()[:, :, 0], ".jpg", "grey"),
        (picture()[:, :, 0], ".png", "grey"),
        (np.dstack([picture(), picture()[:, :, 0]]), ".png", "RGBA"),
        (picture().astype(np.uint16) * 257, ".png", "16-bit"),
    ],
)
@pytest.mark.parametrize("cache", ["none", "disk"])
def test_grey_rgba_and_16_bit_become_rgb_and_are_counted(
    folder: Path, tmp_path: Path, image: np.ndarray, suffix: str, kind: str, cache: str
) -> None:
    (folder / "JPEGImages" / "a.jpg").unlink()
    (folder / "JPEGImages" / f"a{suffix.upper()}").write_bytes(encode(image, suffix))
    for _ in range(2):  # decoded, then remembered
        data = voc(folder, cache=cache, cache_dir=str(tmp_path / "cache")).open()
        assert data.train.read(0).shape == (30, 40, 3)
        assert [fault.what for fault in data.train.faults] == [f"1 image is {kind}, this is the first"]
        assert data.train.faults[0].file.endswith(f"a{suffix.upper()}")


@pytest.mark.parametrize(
    ("xml", "expected"),
    [
        (BOMB, "declares XML entities"),
        (EXTERNAL, "declares XML entities"),
        ("<annotation><object>", "not well-formed"),
        ("", "not well-formed"),
        (annotation("../../etc/passwd", [("dog", 1, 1, 9, 9)]), "leads out of the data set"),
        (annotation("/etc/passwd", [("dog", 1, 1, 9, 9)]), "leads out of the data set"),
        (annotation("C:\\pictures\\a", [("dog", 1, 1, 9, 9)]), "leads out of the data set"),
        (None, "is missing"),
    ],
)
def test_broken_and_hostile_annotations(folder: Path, xml: str | None, expected: str) -> None:
    path = folder / "Annotations" / "a.xml"
    if xml is None:
        path.unlink()
    else:
        path.write_text(xml)
    text = refusal(DataError, lambda: voc(folder).open())
    assert "a.xml" in text and expected in text
    data = voc(folder, skip_damaged=True).open()
    assert len(data.train) == 1 and len(data.train.faults) == 1


@pytest.mark.parametrize("line", ["../a", "/etc/passwd", "sub/../../a", "..\\a", "C:\\a"])
def test_an_image_set_cannot_lead_out_of_the_folder(folder: Path, line: str) -> None:
    (folder / "ImageSets/Main/train.txt").write_text(f"a\n{line}\n")
    text = refusal(DataError, lambda: voc(folder, skip_damaged=True).open())
    assert "train.txt: line 2" in text and "leads out" in text


def test_an_image_listed_twice_is_refused(folder: Path) -> None:
    (folder / "ImageSets/Main/train.txt").write_text("a\nb\na.jpg\n")
    assert "line 3: 'a' is in line 1 too" in refusal(DataError, lambda: voc(folder).open())


def test_two_images_of_one_name_are_refused(folder: Path) -> None:
    (folder / "JPEGImages" / "a.png").write_bytes(encode(picture(), ".png"))
    assert "2 images: a.jpg, a.png" in refusal(DataError, lambda: voc(folder).open())


def test_a_split_without_a_usable_image_is_refused_even_when_skipping(folder: Path) -> None:
    for stem in "ab":
        (folder / "JPEGImages" / f"{stem}.jpg").write_bytes(b"")
    assert "no image of this split" in refusal(DataError, lambda: voc(folder, skip_damaged=True).open())


def test_the_images_own_size_counts(folder: Path) -> None:
    (folder / "Annotations" / "a.xml").write_text(annotation("a", [("dog", 1, 1, 9, 9)], size=(80, 60)))
    data = voc(folder).open()
    assert (data.train.examples[0].width_px, data.train.examples[0].height_px) == (40, 30)
    (fault,) = data.train.faults
    assert "80 x 60 px, it is 40 x 30 px" in fault.what and fault.action.startswith("kept")
    (folder / "Annotations" / "a.xml").write_text(annotation("a", [("dog", 1, 1, 9, 9)], size=(0, 0)))
    assert voc(folder).open().train.faults == []


def test_images_shared_by_splits_are_reported(folder: Path) -> None:
    (folder / "ImageSets/Main/val.txt").write_text("c\nb\n")
    (fault,) = voc(folder).open().faults
    assert fault.file.endswith("val.txt") and "1 image is also in train.txt (first: b)" in fault.what
    (folder / "ImageSets/Main/test.txt").write_text("e\nc\n")
    assert ["also in val.txt" in fault.what for fault in voc(folder).open_test().faults] == [True]


def test_wrong_settings_list_what_is_there(folder: Path, tmp_path: Path) -> None:
    assert "data.root: not set" in refusal(UsageError, lambda: Voc().open())
    missing = refusal(UsageError, lambda: voc(tmp_path / "nowhere").open())
    assert "nowhere" in missing and "Annotations, JPEGImages, ImageSets/Main" in missing
    assert f"did you mean {folder}?" in refusal(UsageError, lambda: voc(tmp_path).open())
    text = refusal(UsageError, lambda: voc(folder, train_set="training").open())
    assert text.startswith("data.train_set: no file") and text.endswith("there is: test, train, val")
    (folder / "ImageSets/Main/val.txt").write_text("\n")
    assert "lists no image" in refusal(UsageError, lambda: voc(folder).open())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("bad_boxes", "ignore"),
        ("cache", "tape"),
        ("classes", []),
        ("classes", ["a", "a"]),
        ("train_set", "../x"),
    ],
)
def test_a_value_out_of_range_is_named(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{key}: found .*, must be "):
        Voc(**{key: value})  # type: ignore[arg-type]


def test_the_yaml_states_the_defaults(root: Path) -> None:
    stated = OmegaConf.to_container(OmegaConf.load(root / "conf" / "data" / "voc.yaml"))
    assert isinstance(stated, dict)
    assert stated.pop("_target_") == "ablation.data.voc.Voc"
    assert stated == {f.name: f.default for f in fields(Voc)}


def test_bccd_is_refused_as_it_is(bccd: Path) -> None:
    text = refusal(DataError, lambda: voc(bccd).open())
    assert "BloodImage_00343.xml: object 4 (RBC): box 181, 329, 181, 329" in text


def test_bccd_without_its_degenerate_boxes(bccd: Path) -> None:
    source = voc(bccd, bad_boxes="drop")
    data, test = source.open(), source.open_test()
    splits = (data.train, data.val, test)
    assert data.classes == ("Platelets", "RBC", "WBC")
    assert [len(split) for split in splits] == [205, 87, 72]
    counts: Counter[int] = sum((split.counts() for split in splits), Counter())
    assert counts == {0: 361, 1: 4153, 2: 372} and counts.total() == 4886
    names = sorted(Path(fault.file).stem for split in splits for fault in split.faults)
    assert names == ["BloodImage_00338", "BloodImage_00343"]
