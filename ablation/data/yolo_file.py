"""The file that says which splits and classes a YOLO folder has: data.yaml, obj.data, or a list of names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ablation.data.file_source import other_layout, there_is
from ablation.data.reading import MUST_BE_NAME, is_name, is_whole, literal, read_lines
from ablation.errors import DataError, UsageError
from ablation.yaml_files import load_yaml

_DARKNET_KEYS = ("classes", "train", "valid", "test", "names")


def load(path: Path, root: Path) -> dict[str, Any]:
    """`train`, `val`, `test`, `names`, `nc` and `path`, as data.yaml has them.

    Raises:
        UsageError: there is no such file.
        DataError: it does not hold them.
    """
    try:
        if path.suffix in (".txt", ".names"):
            return {"train": "images" if (root / "images").is_dir() else ".", "names": _listed_names(path)}
        content = _darknet(path) if path.suffix == ".data" else load_yaml(path)
    except FileNotFoundError:
        candidates = ", ".join(sorted(yaml_file.name for yaml_file in root.glob("*.y*ml"))) or there_is(root)
        hint = other_layout(root, "yolo")
        raise UsageError(f"data.file: no file {path}; there is: {candidates}{hint}") from None
    if not isinstance(content, dict) or "train" not in content or "names" not in content:
        raise DataError(f"{path}: must have the keys train, val and names")
    return content


def class_names(path: Path, content: dict[str, Any]) -> tuple[str, ...]:
    """The class names in the order of their labels. Raises DataError."""
    stated, count = content["names"], content.get("nc")
    must = "must be a list of different texts, or a mapping of 0, 1, ... to them"
    names = stated
    if isinstance(stated, dict):
        keyed = {key: name for key, name in stated.items() if is_whole(key)}
        keyed |= {int(key): name for key, name in stated.items() if isinstance(key, str) and key.isdecimal()}
        if sorted(keyed) != list(range(len(stated))):
            raise DataError(f"{path}: names: found the keys {literal(list(stated))}; {must}")
        names = [keyed[index] for index in range(len(keyed))]
    if not isinstance(names, list) or not names:
        raise DataError(f"{path}: names: found {literal(stated)}; {must}")
    texts = tuple(_class_name(path, index, name) for index, name in enumerate(names))
    if len(set(texts)) != len(texts):
        raise DataError(f"{path}: names: found {literal(stated)}; {must}")
    if count is not None and (not is_whole(count) or count != len(texts)):
        raise DataError(f"{path}: nc: found {literal(count)}, must be {len(texts)}, the number of names")
    return texts


def _class_name(path: Path, index: int, name: object) -> str:
    """The name of class `index`; one called 1 is a number in YAML and need not be in quotes."""
    text = str(name).strip() if is_whole(name) else name.strip() if isinstance(name, str) else None
    if not is_name(text):
        must = f"{MUST_BE_NAME}; a number with a point, true, false and null need quotes"
        raise DataError(f"{path}: names: class {index} is {literal(name)}, must be {must}")
    return text


def without_data_folder(entry: str) -> str:
    """data/obj_train_data/a.jpg -> obj_train_data/a.jpg: tools that write Darknet's files (CVAT) put data/
    before every path, and do not make that folder."""
    return entry.removeprefix("data/")


def _darknet(path: Path) -> dict[str, Any]:
    """Darknet's lines `key = value`: classes, train, valid, test (lists of images), and names, a file."""
    values: dict[str, str] = {}
    for number, line in enumerate(read_lines(path, "Darknet's .data file"), start=1):
        key, sign, value = (part.strip() for part in line.partition("="))
        if not key or key.startswith("#"):
            continue
        if not sign or not value:
            raise DataError(f"{path}: line {number}: {literal(line.strip())} must be key = value")
        if key in values:
            raise DataError(f"{path}: line {number}: {literal(key)} is there twice")
        values[key] = value
    if "train" not in values or "names" not in values:
        raise DataError(f"{path}: must have the keys {', '.join(_DARKNET_KEYS)}; at least train and names")
    names = path.parent / Path(values["names"]).name
    content: dict[str, Any] = {"names": _listed_names(names), "train": values["train"]}
    content |= {"val": values["valid"]} if "valid" in values else {}
    content |= {"test": values["test"]} if "test" in values else {}
    return content | ({"nc": int(values["classes"])} if values.get("classes", "").isdecimal() else {})


def _listed_names(path: Path) -> list[str]:
    lines = [line.strip() for line in read_lines(path, "a list of class names")]
    return [line for line in lines if line]
