"""Pascal VOC folders: Annotations/*.xml, JPEGImages/*, ImageSets/Main/*.txt; or XML files in other folders.

Corners are taken as they stand, as continuous coordinates: xmin .. xmax. The original devkit means
1-based pixels including the last one, which would be xmin - 1 .. xmax; labelling tools write either.
The difference is at most one pixel and the same in every arm; nothing in a file tells which it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from ablation.data.dataset import Fault
from ablation.data.decode import SUFFIXES
from ablation.data.file_source import (
    FileSource,
    Reader,
    leaves,
    open_root,
    other_layout,
    there_is,
    use_ignored,
)
from ablation.data.file_split import RawBox, RawExample
from ablation.data.hash_split import SplitName
from ablation.data.reading import MUST_BE_NAME, is_name, read_file, read_lines, shorten
from ablation.data.reading import number as number_of
from ablation.errors import DataError, UsageError, require
from ablation.records import NOT_IDENTITY

_CORNERS = tuple(f"bndbox/{key}" for key in ("xmin", "ymin", "xmax", "ymax"))
_ONCE = ("name", "bndbox", "difficult", *_CORNERS)
_FLAGS = {"0": False, "1": True, "false": False, "true": True}
_LISTS = "ImageSets/Main"
SET = "{set}"
MISSING_ANNOTATION = ("error", "background")


@dataclass(frozen=True)
class Voc(FileSource):
    """A data set in VOC's layout; `root` holds Annotations, JPEGImages and ImageSets/Main.

    Other folders can be named, and no lists are needed: with train_set=null every image of the folder is a
    train image; with `{set}` in `images` each split has a folder of its own, named by its set.

    Attributes:
        train_set, val_set, test_set: names of files in ImageSets/Main, without `.txt`, or what takes the
            place of `{set}`. val_set and test_set may be null: the data set has no such split (see
            val_share and test_share). train_set=null: all images of the folder, no list is read.
        images, annotations: folders of the images and of their XML files, relative to root; may be one.
        missing_annotation: "error" refuses an image of a split that has no XML file; "background" takes it
            as an image without objects.
        classes: class names in the order of their labels; null takes the names found in the train
            and val annotations, sorted.
        use_difficult: train on objects marked difficult. In evaluation they are ignored either way.
    """

    name: ClassVar[str] = "voc"

    train_set: str | None = "train"
    val_set: str | None = "val"
    test_set: str | None = "test"
    images: str = field(default="JPEGImages", metadata=NOT_IDENTITY)
    annotations: str = field(default="Annotations", metadata=NOT_IDENTITY)
    missing_annotation: str = field(default="error", metadata=NOT_IDENTITY)
    classes: list[str] | None = None
    use_difficult: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classes is not None:
            unique = len(set(self.classes)) == len(self.classes) > 0
            usable = unique and all(is_name(name) for name in self.classes)
            require(usable, "classes", list(self.classes), "null or a list of different names")
        known = ", ".join(MISSING_ANNOTATION)
        require(
            self.missing_annotation in MISSING_ANNOTATION,
            "missing_annotation",
            self.missing_annotation,
            f"one of {known}",
        )
        for key in ("images", "annotations"):
            folder = getattr(self, key)
            inside = folder != "" and not leaves(folder)
            require(inside, key, folder, "a folder inside data.root, relative to it")
        for key in ("train_set", "val_set", "test_set"):
            value = getattr(self, key)
            if value is None:
                continue
            plain = re.fullmatch(r"[^/\\]+", value) is not None and not value.startswith(".")
            require(plain, key, value, f"the name of a file in {_LISTS}, without folder and .txt")
        by_folder = SET in self.images
        if by_folder and self.train_set is None:
            raise ValueError(f"train_set: found null, must be what {SET} in images stands for")
        if self.train_set is None and (self.val_set or self.test_set):
            raise ValueError(
                "train_set: null takes every image into train, so val_set and test_set must be null too; "
                "draw them with val_share and test_share"
            )
        if SET in self.annotations and not by_folder:
            raise ValueError(f"annotations: found {self.annotations}, but images has no {SET}")

    def reader(self) -> Reader:
        folders = self.folders()
        root = open_root(self.root, f"must be the folder that holds {', '.join(folders)}")
        missing = [name for name in folders if not (root / name).is_dir()]
        if missing:
            inside = sorted(path.parent.parent.name for path in root.glob(f"*/{_LISTS}"))
            hint = f"did you mean {root / inside[0]}?" if inside else f"there is: {there_is(root)}"
            hint += "" if inside else other_layout(root, self.name)
            raise UsageError(f"data.root: {root} has no {', '.join(missing)}; {hint}")
        return _VocReader(self, root)

    @property
    def lists(self) -> bool:
        """Whether files in ImageSets/Main say which images a split has."""
        return self.train_set is not None and SET not in self.images

    def folders(self) -> list[str]:
        """The folders that must be there, each once."""
        names = [self.annotations, self.images]
        if self.train_set is not None:
            names = [name.replace(SET, self.train_set) for name in names]
        return list(dict.fromkeys([*names, *([_LISTS] if self.lists else [])]))


class _VocReader(Reader):
    def __init__(self, source: Voc, root: Path) -> None:
        super().__init__()
        self.source, self.root = source, root
        self.classes_are_derived = source.classes is None

    def has(self, split: SplitName) -> bool:
        return split == "train" or self._set(split) is not None

    def setting(self, split: SplitName) -> str | None:
        return f"data.{split}_set"

    def is_there(self, split: SplitName) -> bool:
        place = self.root / self.listing(split)
        return self.has(split) and (place.is_file() if self.source.lists else place.is_dir())

    def listing(self, split: SplitName) -> str:
        if self.source.lists:
            return f"{_LISTS}/{self._set(split) or self.source.train_set}.txt"
        return self._folder(self.source.images, split)

    def lists_nothing(self, split: SplitName) -> bool:
        path = self.root / self.listing(split)
        if not self.source.lists:
            return not _images(path, f"data.{split}_set")
        return not path.read_text(encoding="utf-8", errors="replace").strip()

    def read(self, split: SplitName) -> list[RawExample]:
        images = _images(self.root / self._folder(self.source.images, split), f"data.{split}_set")
        annotations = self.root / self._folder(self.source.annotations, split)
        if self.source.lists:
            stems = _stems(self.root, f"{split}_set", str(self._set(split)))
        else:
            stems = sorted({*images, *(path.stem for path in annotations.glob("*.xml"))})
        if not stems:
            raise UsageError(f"data.images: {self.listing(split)}/ in {self.root} holds no image")
        raws = [self._example(annotations / f"{stem}.xml", images.get(stem, [])) for stem in stems]
        self._note_missing(split, raws)
        return raws

    def for_training(self, raws: list[RawExample]) -> list[RawExample]:
        return use_ignored(raws) if self.source.use_difficult else raws

    def classes(self, seen: Sequence[RawExample]) -> tuple[str, ...]:
        if self.source.classes is not None:
            return tuple(self.source.classes)
        names = {box.label for raw in seen for box in raw.boxes if box.label}
        if not names:
            raise DataError(f"{self.root}: no object in the annotations of train and val, so no classes")
        return tuple(sorted(names))

    def _example(self, annotation: Path, images: Sequence[Path]) -> RawExample:
        if self.source.missing_annotation == "background" and len(images) == 1 and not annotation.exists():
            return RawExample(name=annotation.stem, image=images[0], annotation=annotation)
        return _read_annotation(annotation, images, self.source.images)

    def _note_missing(self, split: SplitName, raws: Sequence[RawExample]) -> None:
        """One line for all images that are taken as background because they have no annotation."""
        if self.source.missing_annotation != "background":
            return
        missing = [raw.annotation for raw in raws if raw.damage is None and not raw.annotation.exists()]
        if len(missing) == len(raws):
            raise DataError(f"{missing[0]}: not found, and none of the {len(raws)} images has an annotation")
        self.faults[split] = []
        if missing:
            what = f"{len(missing)} of {len(raws)} images have no annotation, this is the first"
            self.faults[split].append(Fault(str(missing[0]), what, "taken as images without objects"))

    def _set(self, split: SplitName) -> str | None:
        name: str | None = getattr(self.source, f"{split}_set")
        return name

    def _folder(self, name: str, split: SplitName) -> str:
        return name.replace(SET, self._set(split) or str(self.source.train_set))


def _images(folder: Path, setting: str) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise UsageError(f"{setting}: no folder {folder}; there is: {there_is(folder.parent)}")
    paths: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES:
            paths.setdefault(path.stem, []).append(path)
    return paths


def _stems(root: Path, key: str, name: str) -> list[str]:
    path = root / _LISTS / f"{name}.txt"
    try:
        lines = read_lines(path, "a list of image names")
    except FileNotFoundError:
        available = ", ".join(sorted(listed.stem for listed in path.parent.glob("*.txt"))) or "nothing"
        hint = "" if key == "train_set" else f"; where there is no such split, set data.{key}=null"
        raise UsageError(f"data.{key}: no file {path}; there is: {available}{hint}") from None
    stems: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        stem = line.strip()
        if Path(stem).suffix.lower() in SUFFIXES:
            stem = stem[: -len(Path(stem).suffix)]
        if not stem:
            continue
        if not is_name(stem):
            raise DataError(f"{path}: line {number}: {shorten(stem)!r} must be {MUST_BE_NAME}")
        if leaves(stem):
            raise DataError(f"{path}: line {number}: {stem!r} leads out of the data set")
        if stem in stems:
            first = stems[stem]
            raise DataError(f"{path}: line {number}: {stem!r} is in line {first} too; list an image once")
        stems[stem] = number
    if not stems:
        raise UsageError(f"data.{key}: {path} lists no image")
    return list(stems)


def _read_annotation(path: Path, images: Sequence[Path], folder: str) -> RawExample:
    stem = path.stem
    image = images[0] if len(images) == 1 else None

    def damaged(why: str) -> RawExample:
        return RawExample(name=stem, image=image, annotation=path, damage=why)

    try:
        tree: Element = fromstring(read_file(path))
    except FileNotFoundError:
        return damaged(
            "is missing; every image of a set needs its annotation (data.missing_annotation=background takes "
            "such images as images without objects)"
        )
    except DataError as error:
        return damaged(str(error).split(": ", 1)[1])
    except DefusedXmlException as error:
        return damaged(f"is refused: it declares XML entities ({type(error).__name__})")
    except (ParseError, ValueError, LookupError) as error:
        return damaged(f"is not well-formed XML: {error}")
    if tree.tag != "annotation":
        return damaged(f"is <{shorten(tree.tag)}>, must be <annotation>")
    strays = {element.tag for element in tree.iter() if element.find("bndbox") is not None}
    if strays - {"object", "part"}:
        return damaged(f"has a bndbox in <{shorten(min(strays - {'object', 'part'}))}>, must be in <object>")
    filename = (tree.findtext("filename") or "").strip()
    if leaves(filename) and filename:
        return damaged(f"names the image {filename!r}, which leads out of the data set")
    if not images:
        candidates = "/".join(f"{stem}{suffix}" for suffix in SUFFIXES)
        return damaged(f"has no image: {folder} holds none of {candidates}")
    if len(images) > 1:
        return damaged(f"has {len(images)} images: {', '.join(image.name for image in images)}; keep one")
    boxes = [_read_object(element, number) for number, element in enumerate(tree.findall("object"), start=1)]
    return RawExample(name=stem, image=image, annotation=path, boxes=boxes, stated_px=_stated(tree))


def _read_object(element: Element, number: int) -> RawBox:
    label = (element.findtext("name") or "").strip()
    corners = [number_of(element.findtext(path)) for path in _CORNERS]
    difficult = (element.findtext("difficult") or "0").strip().lower() or "0"
    wrong = None if difficult in _FLAGS else f"difficult is {shorten(difficult)!r}, must be 0 or 1"
    repeated = [name for name in _ONCE if len(element.findall(name)) > 1]
    if repeated:
        wrong = f"{repeated[0]} is there more than once"
    if label and not is_name(label):
        label, wrong = "", f"name {shorten(label)!r} must be {MUST_BE_NAME}"
    return RawBox(
        where=f"object {number} ({shorten(label)})",
        label=label,
        corners_xyxy=(corners[0], corners[1], corners[2], corners[3]),
        ignored=_FLAGS.get(difficult, False),
        wrong=wrong,
    )


def _stated(tree: Element) -> tuple[int, int] | None:
    width, height = (number_of(tree.findtext(f"size/{key}")) for key in ("width", "height"))
    # Some tools write 0 x 0 for "not known".
    return (int(width), int(height)) if width and height and width < 1e9 and height < 1e9 else None
