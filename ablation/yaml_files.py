"""YAML files that somebody else wrote: read within limits, or refused in one line with line and column."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import yaml

from ablation.errors import AblationError, DataError, one_line

MOST_BYTES = 4 * 2**20
MOST_DEPTH = 64
MOST_VALUES = 200_000
"""Values of a file, with those of every alias counted again wherever it stands."""
LARGEST_INT = 2**63 - 1
"""Of a whole number, either sign: what fits into 64 bits."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_TAG = "tag:yaml.org,2002:"
_TAGS = {f"{_TAG}{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map")} | {"!"}

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(
    r"[-+]?([0-9]+\.[0-9]*([eE][-+]?[0-9]+)?|\.[0-9]+([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)


def load_yaml(path: Path, refusal: type[AblationError] = DataError) -> Any:
    """The plain values of a YAML file: dicts, lists, texts, numbers, truth values and None.

    Read as YAML 1.2: yes, no, on and off are texts, and so are dates, 1:30, 010 and 1_000, since a
    name should stay as it is written. A key that stands twice in a mapping is refused.

    Args:
        path: one document in UTF-8.
        refusal: what is raised; UsageError for a configuration.

    Raises:
        FileNotFoundError: there is no such file.
        AblationError: of class `refusal`; the line names file, line, column and what is wrong.
    """
    return _construct(path, checked_text(path, refusal), refusal)


def checked_text(path: Path, refusal: type[AblationError] = DataError) -> str:
    """The text of a YAML file that is within the limits, for another reader of YAML. Raises as load_yaml."""
    text = _text(path, refusal)
    try:
        _check(path, text, refusal)
    except yaml.YAMLError as error:
        raise refusal(_syntax(path, text, error)) from None
    return text


def _text(path: Path, refusal: type[AblationError]) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise refusal(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > MOST_BYTES:
        raise refusal(
            f"{path}: larger than {MOST_BYTES // 2**20} MiB, which is more than a YAML file may have"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line, column = before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1
        what = f"the byte 0x{content[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise refusal(f"{path}:{line}:{column}: {what}") from None


def _syntax(path: Path, text: str, error: yaml.YAMLError) -> str:
    """PyYAML's error as one line."""
    mark = getattr(error, "problem_mark", None)
    problem = str(getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be parsed")
    position = getattr(error, "position", None)
    if mark is not None:
        where = f"{mark.line + 1}:{mark.column + 1}"
    elif isinstance(position, int):
        before = text[:position]
        where = f"{before.count(chr(10)) + 1}:{position - before.rfind(chr(10))}"
    else:
        where = "1:1"
    return one_line(f"{path}:{where}: not YAML: {problem}", 400)


def _check(path: Path, text: str, refusal: type[AblationError]) -> None:
    """Depth, number of values and numbers, event by event: nothing is built yet."""

    def refuse(event: Any, what: str) -> AblationError:
        mark = event.start_mark
        return refusal(f"{path}:{mark.line + 1}:{mark.column + 1}: {what}")

    sizes: dict[str, int] = {}  # values of each anchor
    open_collections: list[tuple[str | None, int]] = []  # anchor, number of values before it
    count = documents = 0
    for event in _events(text):
        tag = getattr(event, "tag", None)
        if tag is not None and tag not in _TAGS:
            raise refuse(event, f"the tag {tag[:60]} is not allowed; only plain values are")
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise refuse(event, "a second document begins; only one is read")
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in (anchor for anchor, _ in open_collections):
                raise refuse(event, f"*{event.anchor} stands for what it is a part of")
            count += sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
            _check_number(event, refuse)
        elif isinstance(event, yaml.CollectionStartEvent):
            open_collections.append((event.anchor, count))
            count += 1
            if len(open_collections) > MOST_DEPTH:
                raise refuse(event, f"nested more than {MOST_DEPTH} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_collections.pop()
            if anchor is not None:
                sizes[anchor] = count - before
        if count > MOST_VALUES:
            raise refuse(event, f"more than {MOST_VALUES:,} values, aliases counted in full")


def _events(text: str) -> Iterator[Any]:
    return iter(yaml.parse(text, Loader=_Loader))


def _check_number(event: Any, refuse: Any) -> None:
    value = event.value
    if not event.implicit[0]:
        return
    digits = len(value.lstrip("+-"))
    if _INT.fullmatch(value) and (digits > 19 or abs(int(value)) > LARGEST_INT):
        raise refuse(event, f"a number of {digits} digits; at most {LARGEST_INT} can be read")
    if _FLOAT.fullmatch(value) and not abs(_float(value)) < float("inf"):
        raise refuse(event, f"{value[:20]} is not a finite number; as a text it needs quotes")


def _float(value: str) -> float:
    return float(value.lower().replace(".inf", "inf").replace(".nan", "nan"))


class _PlainLoader(_Loader):  # type: ignore[misc]
    """A safe loader that refuses a key that stands twice, and resolves scalars as YAML 1.2 does."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        if isinstance(node, yaml.MappingNode):
            seen: set[Any] = set()
            for key_node, _ in node.value:
                if key_node.tag == f"{_TAG}merge" or not isinstance(key_node, yaml.ScalarNode):
                    continue
                if key_node.value in seen:
                    what = f"the key {key_node.value[:40]!r} stands twice"
                    raise yaml.constructor.ConstructorError(None, None, what, key_node.start_mark)
                seen.add(key_node.value)
        return dict(super().construct_mapping(node, deep))


_PlainLoader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", _NULL, ["~", "n", "N", ""]),
    ("bool", _BOOL, list("tTfF")),
    ("int", _INT, list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
    ("merge", re.compile("<<"), ["<"]),
):
    _whole = re.compile(f"(?:{_pattern.pattern})$")
    _PlainLoader.add_implicit_resolver(f"{_TAG}{_tag}", _whole, _first)


def _construct(path: Path, text: str, refusal: type[AblationError]) -> Any:
    loader = _PlainLoader(text)
    try:
        return loader.get_single_data()
    except yaml.YAMLError as error:
        raise refusal(_syntax(path, text, error)) from None
    except ValueError as error:  # !!int abc
        raise refusal(f"{path}: not YAML: {one_line(error, 200)}") from None
    finally:
        loader.dispose()
