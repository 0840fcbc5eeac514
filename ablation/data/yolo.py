"""YOLO folders: a file of splits and names, images, and one label file per image: lines `class cx cy w h`.

The numbers are shares of the image's width and height. The label file of images/a/b.jpg is
labels/a/b.txt: the last folder named `images` becomes `labels`; without such a folder the label
file lies beside its image. An image without label file is an image without objects.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from ablation.data.dataset import Fault
from ablation.data.decode import SUFFIXES
from ablation.data.file_source import FileSource, Reader, leaves, open_root, there_is
from ablation.data.file_split import RawBox, RawExample
from ablation.data.hash_split import SplitName
from ablation.data.reading import is_name, literal, read_lines, shorten
from ablation.data.reading import number as number_of
from ablation.data.yolo_file import class_names, load, without_data_folder
from ablation.errors import AblationError, DataError, require

_UNREAD_SUFFIXES = (".bmp", ".dng", ".gif", ".heic", ".jp2", ".mpo", ".tif", ".tiff", ".webp")
_LARGEST_SHARE = 2.0
_Corners = tuple[float | None, float | None, float | None, float | None]
_NO_CORNERS: _Corners = (None, None, None, None)


@dataclass(frozen=True)
class Yolo(FileSource):
    """A data set in YOLO's layout.

    `train`, `val` and `test` of the file are each a folder, a .txt file that lists images, or a list
    of these, relative to the file's `path` or to root. Nothing outside root is read: a `path`
    or an entry that leads out of it is tried below root instead (exported files have entries such
    as ../train/images that mean train/images), and refused where nothing is there.

    Attributes:
        file: name of the file with `train`, `val`, `test`, `names`, relative to root: a .yaml; a .data file
            of Darknet; or a .txt or .names file with one class name a line, which makes the folder images/
            (else root itself) the train images. See yolo_file.py.
    """

    name: ClassVar[str] = "yolo"

    file: str = "data.yaml"

    def __post_init__(self) -> None:
        super().__post_init__()
        inside = self.file != "" and not leaves(self.file)
        require(inside, "file", self.file, "a path inside data.root, relative to it")

    def reader(self) -> Reader:
        root = open_root(self.root, f"must be the folder that holds {self.file}")
        return _YoloReader(root, root / self.file)


class _YoloReader(Reader):
    def __init__(self, root: Path, path: Path) -> None:
        super().__init__()
        # Lexically absolute: a symbolic link inside root may well lead elsewhere, that is the user's own.
        self.root = Path(os.path.abspath(root))  # noqa: PTH100
        self.path = path
        self.content = load(path, root)
        self.names = class_names(path, self.content)

    def has(self, split: SplitName) -> bool:
        return split == "train" or self.content.get(split) not in (None, "", [])

    def listing(self, split: SplitName) -> str:
        return f"{self.path.name}: {split if self.has(split) else 'train'}"

    def classes(self, seen: Sequence[RawExample]) -> tuple[str, ...]:
        return self.names

    def lists_nothing(self, split: SplitName) -> bool:
        try:
            return not self._listed(split, [])
        except AblationError:
            return False

    def read(self, split: SplitName) -> list[RawExample]:
        faults = self.faults[split] = []
        images = self._listed(split, faults)
        if not images:
            value = literal(self.content.get(split))
            raise DataError(f"{self.path}: {split}: no image ({', '.join(SUFFIXES)}) in {value}")
        return self._annotated(images, faults)

    def _listed(self, split: SplitName, faults: list[Fault]) -> dict[str, Path]:
        """Name -> file of a split's images."""
        value = self.content.get(split)
        entries = value if isinstance(value, list) else [value]
        images: dict[str, Path] = {}
        for entry in entries:
            if not is_name(entry):
                must = "a folder, a .txt file, or a list of these"
                raise DataError(f"{self.path}: {split}: found {literal(value)}, must be {must}")
            place = self._find(entry, split)
            if os.path.isdir(place):  # noqa: PTH112
                files = _in_folder(place, faults)
            elif place.suffix == ".txt":
                files = self._in_list(place)
            else:
                raise DataError(f"{self.path}: {split}: {place} is neither a folder nor a .txt file")
            for name, path in files:
                if name in images and images[name] == path:
                    raise DataError(f"{self.path}: {split}: {path} is there twice; list an image once")
                if name in images:
                    raise DataError(
                        f"{self.path}: {split}: {images[name]} and {path} have one name ({name}); names must "
                        "differ within a split: rename one, or name the folder above both instead"
                    )
                images[name] = path
        return images

    def _annotated(self, images: dict[str, Path], faults: list[Fault]) -> list[RawExample]:
        raws, missing = [], []
        for name, image in images.items():
            label = self._label(image)
            raw = _read_labels(name, image, label, self.names)
            if raw is None:
                missing.append(label)
                raw = RawExample(name=name, image=image, annotation=label, normalised=True)
            raws.append(raw)
        if len(missing) == len(raws):
            raise DataError(f"{missing[0]}: not found, and none of the {len(raws)} images has a label file")
        if missing:
            what = f"{len(missing)} of {len(raws)} images have no label file, this is the first"
            faults.append(Fault(str(missing[0]), what, "taken as images without objects"))
        return raws

    def _label(self, image: Path) -> Path:
        parts = list(image.relative_to(self.root).parts)
        folders = [index for index, part in enumerate(parts[:-1]) if part == "images"]
        if folders:
            parts[folders[-1]] = "labels"
        return self.root.joinpath(*parts).with_suffix(".txt")

    def _find(self, entry: str, split: SplitName) -> Path:
        """The folder or list that an entry names: the first of its readings that is inside root and there."""
        base = self.content.get("path") or "."
        if not is_name(base):
            raise DataError(f"{self.path}: path: found {literal(base)}, must be a folder")
        here = self.path.parent
        tried = [self.root / base / entry, here / base / entry, here / entry, self.root / entry]
        below = [part for part in PurePosixPath(entry).parts if part not in ("..", "/")]
        tried += [self.root.joinpath(*below), self.root / without_data_folder(entry)]
        inside = [path for path in map(self._inside, tried) if path is not None]
        for path in inside:
            if os.path.exists(path):  # noqa: PTH110
                return path
        if self._inside(tried[0]) is None:
            raise DataError(
                f"{self.path}: {split}: {literal(entry)} (path {literal(base)}) leads out of {self.root}, "
                "and nothing is read there; set data.root to the folder that holds everything"
            )
        raise DataError(
            f"{self.path}: {split}: {shorten(str(inside[0]), 200)} not found; {self.root} holds: "
            f"{there_is(self.root)}"
        )

    def _inside(self, path: Path) -> Path | None:
        """The path without `..`, or None if it is not below root."""
        plain = Path(os.path.abspath(path))  # noqa: PTH100
        return plain if plain.is_relative_to(self.root) else None

    def _in_list(self, path: Path) -> list[tuple[str, Path]]:
        """The images of a .txt file; a line is relative to the file, to `path`, or to root."""
        lines = read_lines(path, "a list of images")
        base = self.root / str(self.content.get("path") or ".")
        images = []
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            text = line.strip().replace("\\", "/")
            if PurePosixPath(text).suffix.lower() not in SUFFIXES or not is_name(text):
                raise DataError(f"{path}: line {number}: {literal(text)} is none of {', '.join(SUFFIXES)}")
            below = without_data_folder(text)
            places = [path.parent / text, base / text, self.root / text, self.root / below]
            tried = [self._inside(place) for place in places]
            inside = [image for image in tried if image is not None]
            if not inside:
                raise DataError(f"{path}: line {number}: {text!r} leads out of the data set ({self.root})")
            # A file that is nowhere is reported as a missing image, which skip_damaged may leave out.
            image = next((image for image in inside if os.path.exists(image)), inside[0])  # noqa: PTH110
            images.append((image.stem, image))
        return images


def _in_folder(folder: Path, faults: list[Fault]) -> list[tuple[str, Path]]:
    """Images below a folder, each named by its path from there without ending."""
    files = sorted(path for path in folder.rglob("*") if os.path.isfile(path))  # noqa: PTH113
    unread = [path for path in files if path.suffix.lower() in _UNREAD_SUFFIXES]
    if unread:
        what = f"{len(unread)} files are images of a kind that is not read (this is the first)"
        faults.append(Fault(str(unread[0]), what, f"left out; {', '.join(SUFFIXES)} are read"))
    return [
        (path.relative_to(folder).with_suffix("").as_posix(), path)
        for path in files
        if path.suffix.lower() in SUFFIXES
    ]


def _read_labels(name: str, image: Path, label: Path, names: Sequence[str]) -> RawExample | None:
    """The image with its boxes, or None if it has no label file."""
    try:
        lines = read_lines(label, "boxes")
    except FileNotFoundError:
        return None
    except DataError as error:
        damage = str(error).split(": ", 1)[1]
        return RawExample(name=name, image=image, annotation=label, damage=damage)
    boxes = [_box(line, number, names) for number, line in enumerate(lines, start=1) if line.strip()]
    return RawExample(name=name, image=image, annotation=label, boxes=boxes, normalised=True)


def _box(line: str, number: int, names: Sequence[str]) -> RawBox:
    words = line.split()
    where = f"line {number}"
    values = [value for value in map(number_of, words) if value is not None]
    if len(values) < len(words):
        return _wrong(where, f"{literal(line.strip())} must be five numbers: class cx cy w h")
    if len(values) != 5:
        polygon = " (a polygon? only boxes are read)" if len(values) >= 7 and len(values) % 2 else ""
        return _wrong(where, f"has {len(values)} numbers{polygon}, must have five: class cx cy w h")
    kind, cx, cy, width, height = values
    if not kind.is_integer() or not 0 <= kind < len(names):
        return _wrong(
            where, f"class {shorten(words[0])} is not one of 0 .. {len(names) - 1}, the names of data.yaml"
        )
    label = names[int(kind)]
    if max(abs(value) for value in values[1:]) > _LARGEST_SHARE:
        text = shorten(" ".join(words[1:]))
        return _wrong(where, f"box {text} must be shares of the image's width and height, 0 to 1, not pixels")
    corners = (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
    return RawBox(where=f"{where} ({label})", label=label, corners_xyxy=corners)


def _wrong(where: str, what: str) -> RawBox:
    return RawBox(where=where, label="", corners_xyxy=_NO_CORNERS, wrong=what)
