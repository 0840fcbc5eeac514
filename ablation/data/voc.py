"""Pascal VOC folders: Annotations/*.xml, JPEGImages/*, ImageSets/Main/*.txt.

Corners are taken as they stand, as continuous coordinates: xmin .. xmax. The original devkit means
1-based pixels including the last one, which would be xmin - 1 .. xmax; labelling tools write either.
The difference is at most one pixel and the same in every arm; nothing in a file tells which it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from ablation.data.cache import MODES, cached
from ablation.data.dataset import DataSource, DetectionData, Fault, Split
from ablation.data.files_split import BAD_BOXES, RawBox, RawExample, build_split
from ablation.data.images import SUFFIXES
from ablation.errors import DataError, UsageError, require

_FOLDERS = ("Annotations", "JPEGImages", "ImageSets/Main")
_ELSEWHERE: dict[str, Any] = {"identity": False}


@dataclass(frozen=True)
class Voc(DataSource):
    """A data set in VOC's layout.

    Attributes:
        root: the folder that holds Annotations, JPEGImages and ImageSets/Main.
        train_set, val_set, test_set: names of files in ImageSets/Main, without `.txt`.
        classes: class names in the order of their labels; null takes the names found in the train
            and val annotations, sorted.
        use_difficult: train on objects marked difficult. In evaluation they are ignored either way.
        skip_damaged: leave out (and count) images that, or whose annotations, cannot be read.
        bad_boxes: "error", or "drop" to leave out (and count) boxes without area, outside the image,
            or of an unknown class.
        cache: where decoded images are kept: "disk", "ram" or "none".
        cache_dir: folder for them and for the memory of checked files.
    """

    name: ClassVar[str] = "voc"

    root: str = field(default="", metadata=_ELSEWHERE)
    train_set: str = "train"
    val_set: str = "val"
    test_set: str = "test"
    classes: list[str] | None = None
    use_difficult: bool = True
    skip_damaged: bool = False
    bad_boxes: str = "error"
    cache: str = field(default="disk", metadata=_ELSEWHERE)
    cache_dir: str = field(default=".cache/data", metadata=_ELSEWHERE)

    def __post_init__(self) -> None:
        require(self.bad_boxes in BAD_BOXES, "bad_boxes", self.bad_boxes, f"one of {', '.join(BAD_BOXES)}")
        require(self.cache in MODES, "cache", self.cache, f"one of {', '.join(MODES)}")
        if self.classes is not None:
            unique = len(set(self.classes)) == len(self.classes) > 0
            require(unique, "classes", list(self.classes), "null or a list of different names")
        for key in ("train_set", "val_set", "test_set"):
            value = getattr(self, key)
            plain = re.fullmatch(r"[^/\\]+", value) is not None and not value.startswith(".")
            require(plain, key, value, "the name of a file in ImageSets/Main, without folder and .txt")

    def open(self) -> DetectionData:
        root = self._root()
        parsed = {key: self._parse(root, key) for key in ("train_set", "val_set")}
        classes = self._classes(parsed.values())
        return DetectionData(
            name=self.name,
            classes=classes,
            train=self._split(parsed["train_set"], classes),
            val=self._split(parsed["val_set"], classes),
            faults=_shared(parsed["train_set"], parsed["val_set"], self.train_set, self.val_set),
        )

    def open_test(self) -> Split:
        root = self._root()
        seen = {key: self._parse(root, key) for key in ("train_set", "val_set")}
        test = self._parse(root, "test_set")
        split = self._split(test, self._classes(seen.values()))
        for key in ("train_set", "val_set"):
            split.faults.extend(_shared(seen[key], test, getattr(self, key), self.test_set))
        return split

    def _root(self) -> Path:
        needs = f"must be the folder that holds {', '.join(_FOLDERS)}"
        if not self.root:
            raise UsageError(f"data.root: not set, {needs}")
        root = Path(self.root).expanduser()
        if not root.is_dir():
            raise UsageError(f"data.root: found {self.root}, which is not a folder; {needs}")
        missing = [name for name in _FOLDERS if not (root / name).is_dir()]
        if missing:
            inside = sorted(path.parent.parent.name for path in root.glob("*/ImageSets/Main"))
            there = sorted(path.name for path in root.iterdir())[:8]
            hint = f"there is: {', '.join(there) or 'nothing'}"
            if inside:
                hint = f"did you mean {root / inside[0]}?"
            raise UsageError(f"data.root: {root} has no {', '.join(missing)}; {hint}")
        return root

    def _parse(self, root: Path, key: str) -> list[RawExample]:
        images = _images(root / "JPEGImages")
        ignore = key != "train_set" or not self.use_difficult
        return [
            _read_annotation(root, stem, images.get(stem, []), ignore_difficult=ignore)
            for stem in _stems(root, key, getattr(self, key))
        ]

    def _classes(self, splits: Iterable[Sequence[RawExample]]) -> tuple[str, ...]:
        if self.classes is not None:
            return tuple(self.classes)
        names = {box.label for raws in splits for raw in raws for box in raw.boxes if box.label}
        if not names:
            raise DataError(f"{self.root}: no object in the annotations of train and val, so no classes")
        return tuple(sorted(names))

    def _split(self, raws: Sequence[RawExample], classes: tuple[str, ...]) -> Split:
        folder = Path(self.cache_dir).expanduser()
        memory = None if self.cache == "none" else folder
        split = build_split(
            raws, classes, skip_damaged=self.skip_damaged, bad_boxes=self.bad_boxes, memory=memory
        )
        return cached(split, mode=self.cache, folder=folder, key=split.pixels_key())


def _shared(a: Sequence[RawExample], b: Sequence[RawExample], a_set: str, b_set: str) -> list[Fault]:
    both = sorted({raw.name for raw in a} & {raw.name for raw in b})
    if not both:
        return []
    what = f"{len(both)} images are also in {a_set}.txt (first: {both[0]}), so scores on them mean little"
    return [Fault(f"ImageSets/Main/{b_set}.txt", what, "kept")]


def _images(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES:
            found.setdefault(path.stem, []).append(path)
    return found


def _stems(root: Path, key: str, name: str) -> list[str]:
    path = root / "ImageSets" / "Main" / f"{name}.txt"
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        there = ", ".join(sorted(other.stem for other in path.parent.glob("*.txt"))) or "nothing"
        raise UsageError(f"data.{key}: no file {path}; there is: {there}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a list of image names: {error}") from error
    stems: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        stem = line.strip()
        if Path(stem).suffix.lower() in SUFFIXES:
            stem = stem[: -len(Path(stem).suffix)]
        if not stem:
            continue
        if _leaves(stem):
            raise DataError(f"{path}: line {number}: {stem!r} leads out of the data set")
        if stem in stems:
            first = stems[stem]
            raise DataError(f"{path}: line {number}: {stem!r} is in line {first} too; list an image once")
        stems[stem] = number
    if not stems:
        raise UsageError(f"data.{key}: {path} lists no image")
    return list(stems)


def _leaves(name: str) -> bool:
    parts = re.split(r"[/\\]", name)
    return ".." in parts or parts[0] == "" or ":" in parts[0] or "\0" in name


def _read_annotation(root: Path, stem: str, images: Sequence[Path], *, ignore_difficult: bool) -> RawExample:
    path = root / "Annotations" / f"{stem}.xml"
    image = images[0] if len(images) == 1 else None

    def damaged(why: str) -> RawExample:
        return RawExample(name=stem, image=image, annotation=path, damage=why)

    try:
        tree: Element = fromstring(path.read_bytes())
    except FileNotFoundError:
        return damaged("is missing; every image of a set needs its annotation")
    except OSError as error:
        return damaged(f"cannot be read: {error.strerror}")
    except DefusedXmlException as error:
        return damaged(f"is refused: it declares XML entities ({type(error).__name__})")
    except (ParseError, ValueError, LookupError) as error:
        return damaged(f"is not well-formed XML: {error}")
    filename = (tree.findtext("filename") or "").strip()
    if _leaves(filename) and filename:
        return damaged(f"names the image {filename!r}, which leads out of the data set")
    if not images:
        wanted = "/".join(f"{stem}{suffix}" for suffix in SUFFIXES)
        return damaged(f"has no image: JPEGImages holds none of {wanted}")
    if len(images) > 1:
        return damaged(f"has {len(images)} images: {', '.join(other.name for other in images)}; keep one")
    boxes = [
        _read_object(element, number, ignore_difficult)
        for number, element in enumerate(tree.findall("object"), start=1)
    ]
    return RawExample(name=stem, image=image, annotation=path, boxes=boxes, stated_px=_stated(tree))


def _read_object(element: Element, number: int, ignore_difficult: bool) -> RawBox:
    label = (element.findtext("name") or "").strip()
    corners = [_number(element.findtext(f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax")]
    difficult = (element.findtext("difficult") or "0").strip() not in ("0", "")
    return RawBox(
        where=f"object {number} ({label})",
        label=label,
        corners_xyxy_px=(corners[0], corners[1], corners[2], corners[3]),
        ignored=difficult and ignore_difficult,
    )


def _stated(tree: Element) -> tuple[int, int] | None:
    width, height = (_number(tree.findtext(f"size/{key}")) for key in ("width", "height"))
    # Some tools write 0 x 0 for "not known".
    return (int(width), int(height)) if width and height and width < 1e9 and height < 1e9 else None


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
