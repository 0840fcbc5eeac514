"""A sweep file that is wrong: one line that names the file or the setting. tests/fuzz has many more."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.command import TINY

from ablation.errors import UsageError
from ablation.study.app import study_runs

HEAD = b"# @package _global_\n"
BOMB = b"a: &a [x,x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (name + 1, name + 1, b",".join([b"*%c" % name] * 10)) for name in b"abcdefg"
)


def planned(folder: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> int:
    """The number of runs of a sweep file."""
    (folder / "sweeps").mkdir()
    (folder / "sweeps" / "mine.yaml").write_bytes(HEAD + content)
    monkeypatch.chdir(folder)
    runs, _ = study_runs(["sweeps=mine", *TINY, "tracking=none"])
    return len(runs)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"study: [", r"mine\.yaml:\d:1: not YAML"),
        (b"foo bar: baz: x", r"mine\.yaml:2:13: not YAML"),
        (b"study: s\ndescription: caf\xe9", r"mine\.yaml:3:17: the byte 0xe9"),
        (b"defaults:\n  - /sweeps: mine\nstudy: s", r"defaults: .* leads back"),
        (BOMB, r"mine\.yaml:\d:\d+: more than 200,000 values"),
        (b"study: a\nstudy: b", r"mine\.yaml:3:1: .*twice"),
        (b"- a", r"mine\.yaml:1:1: found a list"),
        (b"seeds: abc", r"sweeps/mine\.yaml: seeds: "),
        (b"seeds: [a]", r"sweeps/mine\.yaml: seeds"),
        (b"arms: 3", r"sweeps/mine\.yaml: arms: "),
        (b"arms: []", r"arms: an empty list"),
        (b"arms: [{'': 1}]", r"arms\[1\]: '' is not the name"),
        (b"arms: [{3: 1}]", r"arms\[1\]: 3 is not the name"),
        (b"arms: [{hydra.launcher.slots: 1}]", r"arms\[1\]\.hydra\.launcher\.slots: belongs to the launch"),
        (b"arms: [{loss: null}]", r"composed"),
        (b"analysis: {margin: x}", r"sweeps/mine\.yaml: analysis\.margin: "),
        (b"defaults: 3", r"mine"),
        (b'study: "a\\0b"', r"study: found 'a\\x00b'"),
        (b"arms: [{arm: " + b"x" * 5000 + b", loss: bce}]", r"arm: found"),
    ],
)
def test_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, names: str) -> None:
    with pytest.raises(UsageError, match=names) as refused:
        planned(tmp_path, content, monkeypatch)
    assert "\n" not in str(refused.value)


def test_what_is_right_stays_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = b"study: s\nseeds: [0, 1]\n"
    assert planned(tmp_path, sweep + b"arms:\n- {loss: focal, loss.gamma: [0, 2]}\n", monkeypatch) == 4
