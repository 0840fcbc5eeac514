"""YAML that somebody else wrote: plain values, or one line that names the place."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablation.errors import DataError, UsageError
from ablation.yaml_files import MOST_BYTES, MOST_DEPTH, checked_text, load_yaml


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "data.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def bomb(key: str = "") -> str:
    """Nine levels of nine aliases each: 9^9 values."""
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 9)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: 1\nb: [x, 2.5, true, null, 1e-3]", {"a": 1, "b": ["x", 2.5, True, None, 0.001]}),
        ("names: [2024-01-01, yes, no, on, 1:30, 010, 1_000, 0x1F]", None),
        ("base: &b {x: 1}\nmore: {<<: *b, y: 2}", {"base": {"x": 1}, "more": {"x": 1, "y": 2}}),
        ("\ufeffa: ünï", {"a": "ünï"}),
        ("a: '.inf'", {"a": ".inf"}),
        ("0: cat\n1: dog", {0: "cat", 1: "dog"}),
        ("a: !!str 1", {"a": "1"}),
        (f"a: [{2**63 - 1}, {1 - 2**63}]", {"a": [2**63 - 1, 1 - 2**63]}),
    ],
)
def test_plain_values(tmp_path: Path, text: str, value: Any) -> None:
    loaded = load_yaml(written(tmp_path, text))
    if text.startswith("names"):
        assert loaded == {"names": ["2024-01-01", "yes", "no", "on", "1:30", "010", "1_000", "0x1F"]}
    else:
        assert loaded == value


@pytest.mark.parametrize(
    ("content", "place", "word"),
    [
        ("study: [", "", "YAML"),
        ("study: x\nfoo bar: baz: x", "2:", "YAML"),
        (b"a: 1\nb: caf\xe9\n", "2:7", "UTF-8"),
        ("a: .inf", "1:4", "finite"),
        ("a: 1\nb: [-.inf]", "2:5", "finite"),
        ("a: .NaN", "1:4", "finite"),
        ("a: 1e999", "1:4", "finite"),
        ("a: " + "9" * 5000, "1:4", "digits"),
        (f"a: -{2**63}", "1:4", "digits"),
        (f"a: {2**63}", "1:4", "digits"),
        ("a: 1\na: 2", "2:1", "twice"),
        ("a:\n  - b: 1\n    b: 2", "3:5", "twice"),
        ("[" * (MOST_DEPTH + 1) + "]" * (MOST_DEPTH + 1), f"1:{MOST_DEPTH + 1}", "levels"),
        ("[" * 100_000, f"1:{MOST_DEPTH + 1}", "levels"),
        ("{a: " * 100_000, "1:", "levels"),
        ("a: &a [*a]", "1:8", "part of"),
        ("a: *b", "1:4", "alias"),
        ("a: 1\n---\nb: 2", "2:1", "document"),
        ("a: !!python/object/apply:os.system ['true']", "1:4", "tag"),
        ("a: !!timestamp 2024-01-01", "1:4", "tag"),
        ("a: !!binary aGk=", "1:4", "tag"),
        ("a: 1\nb: \x01", "2:4", "YAML"),
        ("? [a, b]\n: 1", "1:", "YAML"),
        ("a: !!int abc", "", "abc"),
        (bomb(), "", "values"),
        ("a: &a [x, y]\nb:\n" + "  - *a\n" * 100_000, "", "values"),
        ("- a\n" * 300_000, "", "values"),
        ("#" * (MOST_BYTES + 1), "", "MiB"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_the_rest_is_one_line_with_the_place(
    tmp_path: Path, content: str | bytes, place: str, word: str
) -> None:
    path = written(tmp_path, content)
    started = time.process_time()
    for refusal in (DataError, UsageError):
        with pytest.raises(refusal) as error:
            load_yaml(path, refusal)
        text = str(error.value)
        assert text.startswith(f"{path}:{place}") and word in text and "\n" not in text and len(text) < 600
    assert time.process_time() - started < 10


def test_a_missing_file_is_left_to_the_caller(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_yaml(tmp_path / "absent.yaml")
    with pytest.raises(DataError, match="cannot be read"):
        load_yaml(tmp_path)


def test_another_reader_gets_the_text_that_was_checked(tmp_path: Path) -> None:
    assert checked_text(written(tmp_path, "a: ${b}\n")) == "a: ${b}\n"


@given(st.binary(max_size=60) | st.text(alphabet="ab:&*[]{}-'\"!#|>?,%@ \n\t0.e<~", max_size=60))
def test_whatever_the_file_holds(tmp_path_factory: pytest.TempPathFactory, content: str | bytes) -> None:
    """Plain finite values or a DataError, nothing else."""
    path = written(tmp_path_factory.mktemp("yaml"), content)
    try:
        value = load_yaml(path)
    except DataError as error:
        assert "\n" not in str(error) and str(path) in str(error)
        return
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending += [*item, *item.values()]
        elif isinstance(item, list | tuple):
            pending += item
        else:
            assert item is None or (
                isinstance(item, str | int | float) and (not isinstance(item, float) or math.isfinite(item))
            )
