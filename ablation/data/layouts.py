"""Recognise how a folder of images and annotations is laid out, and which settings read it.

A layout is recognised from names of folders and files and from the beginning of one annotation; whether every
file is right is for the format's reader to say.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ablation.data.coco import Coco
from ablation.data.decode import SUFFIXES
from ablation.data.file_source import FileSource, open_root, there_is
from ablation.data.voc import SET, Voc
from ablation.data.yolo import Yolo
from ablation.data.yolo_file import load
from ablation.errors import DataError, UsageError

DEPTH = 3
"""Folders are looked at so many levels below root."""
SHARE = 0.2
"""val_share where a data set brings no val split."""

_TRAIN, _VAL, _TEST = ("train", "training", "trainval"), ("val", "valid", "validation"), ("test", "testing")
_IMAGE_FOLDERS = {"jpegimages", "images", "image", "imgs", "img"}
_LARGEST_JSON = 64 * 2**20
_MOST_JSON = 20
"""A folder with more .json files holds one for each image, which is not COCO's format."""
_READ_AS = (
    "VOC (images with an XML file each), COCO (a .json with images, annotations, categories) and YOLO "
    "(data.yaml, obj.data or classes.txt) are read"
)


@dataclass(frozen=True)
class Layout:
    """A layout that a folder has.

    Attributes:
        title: in words: "VOC annotations without lists of splits".
        source: the data set with the settings that read it.
    """

    title: str
    source: FileSource

    def settings(self) -> dict[str, Any]:
        """Those of the source's settings that are not the defaults of its format, without root."""
        plain = {field.name: getattr(self.source, field.name) for field in dataclasses.fields(self.source)}
        usual = {field.name: field.default for field in dataclasses.fields(self.source)}
        return {name: value for name, value in plain.items() if name != "root" and value != usual[name]}


def recognise(root: str) -> Layout:
    """The layout of the folder `root`.

    Raises:
        UsageError: it has none that is known, or several.
    """
    folder = open_root(root, "must be the folder of the data set")
    return _recognised(folder, folder.stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _recognised(folder: Path, _changed_ns: int) -> Layout:
    """Remembered, since every run of a study asks; anew where root has other entries than before."""
    layouts = list(layouts_of(folder))
    if not layouts:
        raise UsageError(
            f"data.root: {folder} has no layout that is known; it holds: {there_is(folder)}. {_READ_AS}"
        )
    if len(layouts) > 1:
        lines = "; or ".join(f"data={layout.source.name} ({layout.title})" for layout in layouts)
        raise UsageError(f"data.root: {folder} can be read in {len(layouts)} ways: {lines}. Say which one")
    return layouts[0]


def layouts_of(root: Path) -> Iterator[Layout]:
    """Every layout that the folder has, at most one of each format."""
    tree = _Folders(root)
    for format in (_voc, _coco, _yolo):
        layout = format(tree)
        if layout is not None:
            yield layout


class _Folders:
    """The folders below root, to a depth, each with its file names by ending."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: dict[str, list[str]] = {}
        for path, folders, names in os.walk(root):
            relative = Path(path).relative_to(root)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            if len(relative.parts) >= DEPTH:
                folders.clear()
            self.files[relative.as_posix()] = sorted(names)

    def with_ending(self, *endings: str) -> dict[str, list[str]]:
        """Folder -> its files with one of the endings, where there are any."""
        chosen = {
            folder: [name for name in names if name.lower().endswith(endings)]
            for folder, names in self.files.items()
        }
        return {folder: names for folder, names in chosen.items() if names}


def _voc(tree: _Folders) -> Layout | None:
    root = str(tree.root)
    annotations = {
        folder: names
        for folder, names in tree.with_ending(".xml").items()
        if _is_annotation(tree.root / folder / names[0])
    }
    images = _folders_of(annotations, tree.with_ending(*SUFFIXES))
    if not images:
        return None
    lists = {Path(name).stem for name in tree.files.get("ImageSets/Main", []) if name.endswith(".txt")}
    train = _first(_TRAIN, lists)
    if train is not None and "Annotations" in annotations and "JPEGImages" in images:
        val, test = _first(_VAL, lists), _first(_TEST, lists)
        source = Voc(root=root, train_set=train, val_set=val, test_set=test, val_share=_share(val))
        return Layout("VOC", source)
    if len(annotations) == 1 and len(images) == 1:
        (folder,), (pictures,) = annotations, images
        source = Voc(
            root=root, train_set=None, val_set=None, test_set=None, images=pictures, annotations=folder,
            val_share=SHARE,
        )  # fmt: skip
        return Layout("VOC annotations without lists of splits", source)
    return _voc_by_folder(root, annotations, images)


def _folders_of(annotations: Mapping[str, list[str]], images: Mapping[str, list[str]]) -> list[str]:
    """The folders that hold images of the annotations; masks of the same names lie elsewhere as a rule."""
    stems = {Path(name).stem for names in annotations.values() for name in names}
    folders = [folder for folder, names in images.items() if stems & {Path(name).stem for name in names}]
    usual = [folder for folder in folders if {part.lower() for part in folder.split("/")} & _IMAGE_FOLDERS]
    return usual or folders


def _voc_by_folder(root: str, annotations: Iterable[str], images: Iterable[str]) -> Layout | None:
    """A folder for each split: train/, valid/, or images/train/ beside annotations/train/."""
    pictures, boxes = _per_split(images), _per_split(annotations)
    if pictures is None or boxes is None or boxes.names != pictures.names or boxes.names[0] is None:
        return None
    train, val, test = pictures.names
    source = Voc(
        root=root, train_set=train, val_set=val, test_set=test, images=pictures.pattern,
        annotations=boxes.pattern, val_share=_share(val),
    )  # fmt: skip
    return Layout("VOC annotations, a folder for each split", source)


@dataclass(frozen=True)
class _PerSplit:
    """Folders that differ in the name of their split alone.

    Attributes:
        pattern: the folder with {set} for the name.
        names: those of train, val and test; None where there is no such folder.
    """

    pattern: str
    names: tuple[str | None, str | None, str | None]


def _per_split(folders: Iterable[str]) -> _PerSplit | None:
    patterns: dict[str, set[str]] = {}
    for folder in folders:
        parts = folder.split("/")
        places = [index for index, part in enumerate(parts) if part.lower() in (*_TRAIN, *_VAL, *_TEST)]
        if len(places) != 1:
            return None
        (place,) = places
        pattern = "/".join([*parts[:place], SET, *parts[place + 1 :]])
        patterns.setdefault(pattern, set()).add(parts[place])
    if len(patterns) != 1:
        return None
    ((pattern, names),) = patterns.items()
    return _PerSplit(pattern, (_first(_TRAIN, names), _first(_VAL, names), _first(_TEST, names)))


def _coco(tree: _Folders) -> Layout | None:
    files = [
        (f"{folder}/{name}" if folder != "." else name)
        for folder, names in tree.with_ending(".json").items()
        for name in names
        if len(names) <= _MOST_JSON
    ]
    heads = {file: head for file in files if (head := _coco_head(tree.root / file)) is not None}
    if len(heads) > 1:  # COCO's own folder also has keypoints and captions
        heads = {file: head for file, head in heads.items() if "instances" in file} or heads
    splits = {"train": list(heads)} if len(heads) == 1 else _by_split(heads)
    if not splits.get("train") or any(len(names) > 1 for names in splits.values()):
        return None
    settings: dict[str, Any] = {}
    for split in ("train", "val", "test"):
        file = splits[split][0] if split in splits else None
        settings[f"{split}_json"] = file
        if file is not None:
            folder = _folder_of_images(tree, file, heads[file])
            if folder is None:
                return None
            settings[f"{split}_images"] = folder
    source = Coco(root=str(tree.root), **settings, val_share=_share(settings["val_json"]))
    return Layout("COCO" if settings["val_json"] else "one COCO file without splits", source)


def _by_split(files: Iterable[str]) -> dict[str, list[str]]:
    """Files by the split that their path names; one that names none is left out."""
    splits: dict[str, list[str]] = {}
    for file in files:
        words = "".join(letter if letter.isalpha() else " " for letter in file.lower()).split()
        for split, names in (("test", _TEST), ("val", _VAL), ("train", _TRAIN)):
            if set(words) & set(names):
                splits.setdefault(split, []).append(file)
                break
    return splits


def _coco_head(path: Path) -> list[str] | None:
    """The file names of its first images, or None if it is no COCO file of boxes."""
    try:
        if path.stat().st_size > _LARGEST_JSON and "instances" not in path.name:
            return None
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    lists = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(name), list) for name in lists):
        return None
    names = [image.get("file_name") for image in content["images"][:3] if isinstance(image, dict)]
    return [name for name in names if isinstance(name, str) and name] or None


def _folder_of_images(tree: _Folders, file: str, names: list[str]) -> str | None:
    """The folder in which an annotation file's images lie; beside the file before anywhere else."""
    beside = Path(file).parent.as_posix()
    for folder in [beside, *(folder for folder in tree.files if folder != beside)]:
        if all(os.path.isfile(tree.root / folder / name) for name in names):  # noqa: PTH113
            return folder
    return None


def _yolo(tree: _Folders) -> Layout | None:
    top = tree.files["."]
    candidates = [name for name in top if name.endswith((".yaml", ".yml", ".data"))] + [
        name for name in ("classes.txt", "obj.names") if name in top
    ]
    for name in candidates:
        try:
            content = load(tree.root / name, tree.root)
        except (DataError, UsageError):
            continue
        texts = sum(len(names) for names in tree.with_ending(".txt").values())
        if name.endswith((".txt", ".names")) and texts <= name.endswith(".txt"):
            continue  # a list of classes, and no label file anywhere
        val = content.get("val") or None
        title = "YOLO without splits" if val is None else "YOLO"
        return Layout(title, Yolo(root=str(tree.root), file=name, val_share=_share(val)))
    return None


def _is_annotation(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return b"<annotation" in file.read(1000)
    except OSError:
        return False


def _first(names: Iterable[str], present: Iterable[str]) -> str | None:
    """The first of `names` that is present, in whatever case it is written there."""
    written = {name.lower(): name for name in present}
    return next((written[name] for name in names if name in written), None)


def _share(val: object) -> float:
    return SHARE if val is None else 0.0
