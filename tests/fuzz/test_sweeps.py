"""Damaged sweep files: refused in one line, or exactly the runs that the YAML names."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from helpers.command import TINY
from helpers.fuzz import Reader, Result
from helpers.mutations import Damage

from ablation.study.app import study_runs

Fuzz = Callable[[Reader, int], Result]

HEAD = "# @package _global_\n"
SWEEP: dict[str, Any] = {
    "study": "little",
    "description": "Two losses",
    "seeds": [0, 1],
    "arms": [
        {"loss": "bce"},
        {"arm": "strong", "loss": "focal", "loss.alpha": 0.75, "loss.gamma": 3},
        {"loss": "focal", "loss.alpha": None, "loss.gamma": [0, 0.5, 2]},
    ],
    "optim": {"lr": 0.003},
    "analysis": {"margin": 0.02, "metric": "val/AP50"},
}


def path_in(folder: Path) -> Path:
    return folder / "sweeps" / "little.yaml"


def write(folder: Path) -> None:
    path_in(folder).parent.mkdir()
    path_in(folder).write_text(HEAD + yaml.safe_dump(SWEEP, sort_keys=False))


def damage(folder: Path, damage: Damage) -> None:
    """The tree of the YAML, or its text."""
    path = path_in(folder)
    if damage.random.random() < 0.6:
        path.write_text(HEAD + yaml.safe_dump(damage.tree(SWEEP), sort_keys=False), encoding="utf-8")
    else:
        damage.text_file(path)


def read(folder: Path) -> list[dict[str, Any]]:
    os.chdir(folder)
    runs, _ = study_runs(["sweeps=little", *TINY, "out=runs"])
    return [
        {
            "study": run.config.study,
            "description": run.config.description,
            "seed": run.config.seed,
            "lr": run.config.optim.lr,
            "analysis": (run.config.analysis.margin, run.config.analysis.metric, run.config.analysis.level),
            "loss": tuple(sorted((k, v) for k, v in run.planned.params.items() if k.startswith("loss."))),
        }
        for run in runs
    ]


DEFAULTS = {
    "bce": {"loss.pos_weight": None},
    "focal": {"loss.alpha": 0.25, "loss.gamma": 2.0},
}


def expected_losses(arms: list[dict[str, Any]]) -> list[tuple[tuple[str, str], ...]]:
    """Each arm's grid by the plain reading: loss settings as the parameters of a run write them."""
    losses = []
    for arm in arms:
        grid = {
            key: value if isinstance(value, list) else [value] for key, value in arm.items() if key != "arm"
        }
        for values in itertools.product(*grid.values()):
            point = dict(zip(grid, values, strict=True))
            name = point.pop("loss", "bce")
            settings = DEFAULTS[str(name)] | point
            params = {key: "None" if value is None else str(float(value)) for key, value in settings.items()}
            losses.append(tuple(sorted((params | {"loss.name": str(name)}).items())))
    return list(dict.fromkeys(losses))


def wrong(folder: Path, value: list[dict[str, Any]], undamaged: Any) -> str | None:
    """The union of the grids with every seed, and the settings, from PyYAML's reading of the file."""
    content = path_in(folder).read_bytes()
    try:
        sweep = yaml.safe_load(content)
    except (yaml.YAMLError, UnicodeError, ValueError) as error:
        return f"was accepted, though it is no YAML: {error}"
    if sweep is None:
        return None if len(value) == 1 else "a file of comments made several runs"
    unknown = set(sweep) - {*SWEEP, "defaults"}
    if unknown:
        return f"keys without a meaning were accepted: {unknown}"
    try:
        losses = expected_losses(sweep.get("arms") or [{}])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return f"arms that mean nothing were accepted: {sweep.get('arms')!r}: {error!r}"
    seeds = sweep.get("seeds")
    seeds = list(dict.fromkeys(int(seed) for seed in seeds)) if seeds is not None else [0]
    expected = Counter((loss, seed) for loss in losses for seed in seeds)
    runs = Counter((run["loss"], run["seed"]) for run in value)
    if runs != expected:
        return f"runs {runs - expected}, but the file says {expected - runs}"
    for run in value:
        settings = {
            "study": str(sweep.get("study", "default")),
            "description": str(sweep.get("description", "")),
            "lr": float((sweep.get("optim") or {}).get("lr", run["lr"])),
        }
        if differing := {key: run[key] for key in settings if run[key] != settings[key]}:
            return f"read as {differing}, the file says {settings}"
    return None


def with_text(text: str | bytes) -> Callable[[Path], None]:
    def special(folder: Path) -> None:
        path_in(folder).write_bytes(text if isinstance(text, bytes) else text.encode())

    return special


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)
SPECIAL = {
    "open bracket": with_text(HEAD + "study: [\n"),
    "two colons": with_text(HEAD + "foo bar: baz: x\n"),
    "Latin-1": with_text(HEAD.encode() + "description: größer\n".encode("latin-1")),
    "alias bomb": with_text(HEAD + BOMB + "study: x\n"),
    "deep": with_text(HEAD + "study: " + "[" * 3000),
    "a list": with_text(HEAD + "- a\n- b\n"),
    "a number": with_text(HEAD + "3\n"),
    "twice": with_text(HEAD + "seeds: [0]\nseeds: [1, 2]\narms: [{loss: bce}]\n"),
    "typo": with_text(HEAD + "study: x\narm: [{loss: bce}]\nseeds: [0, 1]\n"),
    "tab": with_text(HEAD + "study:\tx\n\tseeds: [0]\n"),
    "NUL": with_text(HEAD + "study: x\0y\n"),
    "UTF-16": with_text((HEAD + "study: x\n").encode("utf-16")),
    "python object": with_text(HEAD + "study: !!python/object/apply:os.system ['true']\n"),
    "interpolation": with_text(HEAD + "study: ${oc.env:HOME}\n"),
    "no such interpolation": with_text(HEAD + "study: ${nothing}\n"),
}

SWEEPS = Reader("sweep YAML", write, damage, read, wrong, SPECIAL, kept=(74, 121, 310))


def test_sweep_files(fuzz: Fuzz, mutations: int) -> None:
    assert fuzz(SWEEPS, mutations).failures == []
