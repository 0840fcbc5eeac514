"""What the data sets that are files have in common: settings, splits, cache, and checks across splits.

A format derives from `FileSource` and gives a `Reader`, which lists the images and their boxes as
they are written; everything else happens here, so that it happens in the same way for every format.
"""

from __future__ import annotations

import dataclasses
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ablation.data.cache import MODES, cached
from ablation.data.class_names import check_classes
from ablation.data.dataset import DataSource, DetectionData, Fault, Split
from ablation.data.decode import MAX_PIXELS
from ablation.data.file_split import BAD_BOXES, RawExample, build_split
from ablation.data.hash_split import SplitName, take
from ablation.data.reading import shorten, user_path
from ablation.errors import UsageError, counted, require
from ablation.records import NOT_IDENTITY


class Reader(ABC):
    """One data set of one format, opened once.

    Attributes:
        faults: those that belong to no image, for each split that was read.
    """

    def __init__(self) -> None:
        self.faults: dict[SplitName, list[Fault]] = {"train": [], "val": [], "test": []}

    classes_are_derived = False
    """Whether the class names are those that occur in the annotations, and stand in no list."""

    @abstractmethod
    def has(self, split: SplitName) -> bool:
        """Whether the settings name such a split of the data set's own. True for train."""

    def is_there(self, split: SplitName) -> bool:
        """Whether it has one, and what lists its images exists."""
        return self.has(split)

    def setting(self, split: SplitName) -> str | None:
        """The setting that names the split, "data.val_set"; None: a file of the data set does."""
        return None

    @abstractmethod
    def lists_nothing(self, split: SplitName) -> bool:
        """Whether what lists its images can be read and names none; no annotation is looked at."""

    @abstractmethod
    def read(self, split: SplitName) -> list[RawExample]:
        """Its images. `ignored` marks what a training may leave out and an evaluation must."""

    @abstractmethod
    def classes(self, seen: Sequence[RawExample]) -> tuple[str, ...]:
        """Class names in the order of their labels; `seen` are the images of train and val."""

    @abstractmethod
    def listing(self, split: SplitName) -> str:
        """What lists the images of a split, for messages: "ImageSets/Main/val.txt"."""

    def for_training(self, raws: list[RawExample]) -> list[RawExample]:
        """The train images as they are trained on."""
        return raws


@dataclass(frozen=True)
class FileSource(DataSource):
    """Base of the formats.

    Attributes:
        root: folder of the data set.
        val_share, test_share: where the data set has no such split, this share of the train images
            becomes it, by a hash of the file's name (see hash_split.py); 0: none. test_share is a share
            of all train images, val_share of those that test has left. No part of a run's identity
            by themselves: which images they leave is in the data set's fingerprint.
        skip_damaged: leave out (and count) images that, or whose annotations, cannot be read.
        bad_boxes: "error", or "drop" to leave out (and count) boxes without area, outside the image,
            or of an unknown class.
        max_pixels: width x height of the largest image that is read; a larger one is refused by its header,
            like one that is damaged. No part of a run's identity: which images are used is in the
            fingerprint.
        cache: where decoded images are kept: "disk", "ram" or "none".
        cache_dir: folder for them and for the memory of checked files.
    """

    root: str = field(default="", metadata=NOT_IDENTITY)
    val_share: float = field(default=0.0, metadata=NOT_IDENTITY)
    test_share: float = field(default=0.0, metadata=NOT_IDENTITY)
    skip_damaged: bool = False
    bad_boxes: str = "error"
    max_pixels: int = field(default=MAX_PIXELS, metadata=NOT_IDENTITY)
    cache: str = field(default="disk", metadata=NOT_IDENTITY)
    cache_dir: str = field(default=".cache/data", metadata=NOT_IDENTITY)

    def __post_init__(self) -> None:
        require(self.bad_boxes in BAD_BOXES, "bad_boxes", self.bad_boxes, f"one of {', '.join(BAD_BOXES)}")
        require(self.cache in MODES, "cache", self.cache, f"one of {', '.join(MODES)}")
        require(1 <= self.max_pixels <= 2**30, "max_pixels", self.max_pixels, f"1 to {2**30}")
        for key in ("val_share", "test_share"):
            require(0 <= getattr(self, key) < 1, key, getattr(self, key), "in [0, 1)")

    @abstractmethod
    def reader(self) -> Reader:
        """Open the data set. Raises UsageError where `root` is not one."""

    def open(self) -> DetectionData:
        reader = self.reader()
        parts = self._parts(reader, ("train", "val"))
        classes = reader.classes([*parts["train"], *parts["val"]])
        faults = check_classes(classes, parts["train"], parts["val"], derived=reader.classes_are_derived)
        return DetectionData(
            name=self.name,
            classes=classes,
            train=self._build(reader, "train", parts["train"], classes),
            val=self._build(reader, "val", parts["val"], classes),
            faults=[*_shared(reader, parts, "train", "val"), *faults],
        )

    def has_test(self) -> bool:
        if self.test_share > 0:
            return True
        reader = self.reader()
        return reader.is_there("test") and not reader.lists_nothing("test")

    def open_test(self) -> Split:
        reader = self.reader()
        if not reader.has("test") and not self.test_share:
            raise UsageError(
                f"data: {self.root} has no test split; name one, or set data.test_share=0.2 (before "
                "training: those images then leave train)"
            )
        parts = self._parts(reader, ("train", "val", "test"))
        classes = reader.classes([*parts["train"], *parts["val"]])
        split = self._build(reader, "test", parts["test"], classes)
        for other in ("train", "val"):
            split.faults.extend(_shared(reader, parts, other, "test"))
        return split

    def _parts(self, reader: Reader, splits: Sequence[SplitName]) -> dict[SplitName, list[RawExample]]:
        """The images of each split in `splits`: the data set's own, or drawn from train."""
        shares: dict[SplitName, float] = {"val": self.val_share, "test": self.test_share}
        for split, share in shares.items():
            setting, listing = reader.setting(split), reader.listing(split)
            if share and reader.is_there(split):
                other = "" if setting is None else f"; to leave it unused, set {setting}=null"
                raise UsageError(
                    f"data.{split}_share: found {share:g}, must be 0: the data set has its own {split} "
                    f"split ({listing}){other}"
                )
            if share and reader.has(split):
                raise UsageError(
                    f"{setting}: names {listing}, which does not exist; to draw {split} from train by "
                    f"data.{split}_share={share:g}, add {setting}=null"
                )
        if not reader.has("val") and not self.val_share:
            raise UsageError(
                f"data: {self.root} has no val split; name one, or set data.val_share=0.2 to take a fifth "
                "of the train images"
            )
        train = reader.read("train")
        parts: dict[SplitName, list[RawExample]] = {}
        for split in splits:
            has_split = split != "train" and reader.has(split)
            parts[split] = (
                reader.read(split) if has_split else take(train, split, self.val_share, self.test_share)
            )
        parts["train"] = reader.for_training(parts["train"])
        return parts

    def _build(
        self, reader: Reader, name: SplitName, raws: Sequence[RawExample], classes: tuple[str, ...]
    ) -> Split:
        folder = user_path("data.cache_dir", self.cache_dir)
        memory = None if self.cache == "none" else folder
        split = build_split(
            raws,
            classes,
            skip_damaged=self.skip_damaged,
            bad_boxes=self.bad_boxes,
            memory=memory,
            max_pixels=self.max_pixels,
        )
        split.faults.extend(reader.faults[name])
        return cached(split, mode=self.cache, folder=folder, key=split.pixels_key())


def open_root(text: str, needs: str) -> Path:
    """The folder that data.root names. Raises UsageError saying what it `needs` to be."""
    if not text:
        raise UsageError(f"data.root: not set, {needs}")
    root = user_path("data.root", text)
    if not os.path.isdir(root):  # noqa: PTH112  (False for any path that cannot be looked up)
        raise UsageError(f"data.root: found {shorten(text, 200)}, which is not a folder; {needs}")
    try:
        next(root.iterdir(), None)
    except OSError as error:
        raise UsageError(f"data.root: {root} cannot be listed: {error.strerror}; {needs}") from None
    return root


def other_layout(root: Path, name: str) -> str:
    """A hint for a folder that is not laid out as `name` wants."""
    looks = {
        "voc": (root / "ImageSets").is_dir() or (root / "Annotations").is_dir(),
        "yolo": any(root.glob("data.y*ml")) or (root / "labels").is_dir(),
        "coco": any(root.glob("annotations/*.json")) or any(root.glob("*coco*.json")),
    }
    others = [f"data={key}" for key, likely in looks.items() if likely and key != name]
    looks_like = f"it looks like the layout of {' or '.join(others)}; " if others else ""
    return f"; {looks_like}data=auto recognises the usual layouts"


def there_is(folder: Path) -> str:
    """The first names in a folder, for messages."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        return f"nothing that can be listed ({error.strerror})"
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "nothing"


def leaves(name: str) -> bool:
    """Whether a path from a data file could lead out of the folder it is relative to."""
    parts = re.split(r"[/\\]", name)
    return ".." in parts or parts[0] == "" or ":" in parts[0] or "\0" in name


def use_ignored(raws: Sequence[RawExample]) -> list[RawExample]:
    """The same images with no box ignored."""
    return [
        dataclasses.replace(raw, boxes=[dataclasses.replace(box, ignored=False) for box in raw.boxes])
        for raw in raws
    ]


def _shared(
    reader: Reader, parts: dict[SplitName, list[RawExample]], a: SplitName, b: SplitName
) -> list[Fault]:
    """Images that are in both splits: one fault, or none."""
    first, second = ({_file(raw): raw.name for raw in parts[split]} for split in (a, b))
    both = sorted(first[file] for file in first.keys() & second.keys())
    if not both:
        return []
    listed = Path(reader.listing(a)).name
    images = counted(len(both), "image is", "images are")
    what = f"{images} also in {listed} (first: {both[0]}), so scores on them mean little"
    return [Fault(reader.listing(b), what, "kept")]


def _file(raw: RawExample) -> str:
    return raw.name if raw.image is None else str(raw.image)
