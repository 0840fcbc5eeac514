"""Splits by a hash of the name: of the right size, and moved by nothing but the share."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from helpers.format_copies import read_voc, write_coco, write_yolo
from helpers.voc_folder import annotation, encode, picture, write_voc

from ablation.data.coco import Coco
from ablation.data.file_source import FileSource
from ablation.data.hash_split import part_of, position
from ablation.data.voc import Voc
from ablation.data.yolo import Yolo
from ablation.errors import UsageError

NAMES = [f"IMG_{number:05d}" for number in range(20_000)]


def test_the_shares_are_kept_to_within_chance() -> None:
    parts = [part_of(name, 0.2, 0.1) for name in NAMES]
    # Five standard deviations of a binomial count.
    assert abs(parts.count("test") - 2000) < 5 * (20_000 * 0.1 * 0.9) ** 0.5
    assert abs(parts.count("val") - 0.2 * 18_000) < 5 * (18_000 * 0.2 * 0.8) ** 0.5


def test_a_larger_share_only_adds_and_another_split_does_not_matter() -> None:
    small = {name for name in NAMES if part_of(name, 0.2, 0.1) == "test"}
    large = {name for name in NAMES if part_of(name, 0.0, 0.3) == "test"}
    assert small < large
    with_test = {name for name in NAMES if part_of(name, 0.2, 0.1) == "val"}
    without = {name for name in NAMES if part_of(name, 0.2, 0.0) == "val"}
    assert with_test == without - small
    assert {part_of(name, 0, 0) for name in NAMES} == {"train"}


def test_the_hash_is_what_it_was() -> None:
    # Another hash would move the images of every data set that was split by it.
    assert position("BloodImage_00001", "test") == 0.6958282184193224


def _grown(root: Path, stems: list[str]) -> Path:
    write_voc(root)
    for stem in stems:
        (root / "JPEGImages" / f"{stem}.jpg").write_bytes(encode(picture(seed=len(stem))))
        (root / "Annotations" / f"{stem}.xml").write_text(
            annotation(stem, [("dog", 2, 3, 12, 13), ("cat", 1, 1, 9, 9)])
        )
    (root / "ImageSets/Main/train.txt").write_text("\n".join(stems))
    return root


def _sources(root: Path, stems: list[str]) -> list[FileSource]:
    """The same images, all in train, in three formats; val and test are to be drawn."""
    voc = _grown(root / "voc", stems)
    images = read_voc(voc)
    coco = write_coco(images, root / "coco")
    yolo = write_yolo(images, root / "yolo")
    (yolo / "data.yaml").write_text("{train: images/train, names: [cat, dog]}")
    shares = {"val_share": 0.3, "test_share": 0.2, "cache": "none"}
    return [
        Voc(root=str(voc), val_set=None, test_set=None, **shares),  # type: ignore[arg-type]
        Coco(
            root=str(coco), train_json="annotations/train.json", train_images="train", val_json=None, **shares
        ),  # type: ignore[arg-type]
        Yolo(root=str(yolo), **shares),  # type: ignore[arg-type]
    ]


def _members(source: FileSource) -> dict[str, set[str]]:
    data = source.open()
    splits = {"train": data.train, "val": data.val, "test": source.open_test()}
    return {key: {example.name for example in split.examples} for key, split in splits.items()}


def test_adding_images_moves_none_and_formats_agree(tmp_path: Path) -> None:
    few = [f"n{number}" for number in range(30)]
    many = [f"m{number}" for number in range(30)] + few
    before = [_members(source) for source in _sources(tmp_path / "few", few)]
    after = [_members(source) for source in _sources(tmp_path / "many", many)]
    assert before[0] == before[1] == before[2] and after[0] == after[1] == after[2]
    for key, names in before[0].items():
        assert names and names < after[0][key]
    assert sum(map(len, after[0].values())) == 60 == len(set.union(*after[0].values()))


def test_a_share_is_refused_where_the_data_set_has_the_split(tmp_path: Path) -> None:
    source = Voc(root=str(write_voc(tmp_path / "voc")), cache="none", test_share=0.2)
    with pytest.raises(UsageError, match=r"data.test_share: found 0.2, must be 0: .*ImageSets/Main/test.txt"):
        source.open()


def test_a_share_that_leaves_a_split_empty_is_refused(tmp_path: Path) -> None:
    source = Voc(root=str(write_voc(tmp_path / "voc")), cache="none", val_set=None, val_share=1e-9)
    with pytest.raises(UsageError, match="leave none for val"):
        source.open()


def test_difficult_objects_are_ignored_in_a_drawn_val_split_only(tmp_path: Path) -> None:
    stems = [f"n{number}" for number in range(12)]
    root = _grown(tmp_path / "voc", stems)
    for stem in stems:
        (root / "Annotations" / f"{stem}.xml").write_text(
            annotation(stem, [("dog", 2, 3, 12, 13)], extra="<difficult>1</difficult>")
        )
    source = Voc(root=str(root), cache="none", val_set=None, val_share=0.4)
    data = source.open()
    assert not any(example.ignored.any() for example in data.train.examples)
    assert all(example.ignored.all() for example in data.val.examples)
    strict = dataclasses.replace(source, use_difficult=False).open()
    assert all(example.ignored.all() for example in strict.train.examples)
