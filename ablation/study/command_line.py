"""The overrides of a command line: made ready for Hydra's grammar, and refused in one line."""

from __future__ import annotations

import dataclasses
import difflib
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.errors import OverrideParseException
from omegaconf import DictConfig

from ablation.config import OPEN_GROUPS, RunConfig
from ablation.errors import AblationError, UsageError, one_line
from ablation.study.expand import override_text
from ablation.study.whole_numbers import whole_numbers
from ablation.yaml_files import load_yaml

TEXT_KEYS = frozenset(
    {
        "study",
        "arm",
        "description",
        "out",
        "data.root",
        "data.cache_dir",
        "model.weights",
        "tracking.uri",
        "tracking.artifacts",
    }
)
"""Keys whose value is a text whatever it looks like: study=007 is not study=7."""

_NUMBER_LIKE = re.compile(r"[-+]?[0-9][\w.+-]*|[-+]?\.[0-9]\w*|[-+]?(inf|nan)|true|false", re.IGNORECASE)
_SEVERAL_NUMBERS = re.compile(r"\[?\s*\d+\s*([-,]\s*\d+\s*)+\]?")


def config_root() -> Path:
    """The folder that holds conf/ and sweeps/: the checkout, or the installed package's copy."""
    package = Path(__file__).resolve().parent.parent
    for root in (package.parent, package / "_config"):
        if (root / "conf" / "train.yaml").is_file():
            return root
    raise UsageError(f"conf/train.yaml not found beside {package}: the installation is incomplete")


def prepared(arguments: Sequence[str], multirun: bool) -> list[str]:
    """The arguments as Hydra takes them: `~` expanded, ranges of seeds written out, texts quoted.

    Args:
        multirun: whether several runs are asked for, with -m or by `ablation plan`.

    Raises:
        UsageError: several seeds without -m.
    """
    keys = {argument.partition("=")[0] for argument in arguments}
    ready = []
    for argument in arguments:
        key, sign, value = argument.partition("=")
        if not sign or argument.startswith(("-", "~")):
            ready.append(argument)
        elif key in ("seed", "seeds"):
            ready.append(_seeds(key, value, multirun, "seed" in keys))
        elif value == "~" or value.startswith("~/"):
            ready.append(f"{key}={override_text(str(Path(value).expanduser()))}")
        elif key in TEXT_KEYS and _NUMBER_LIKE.fullmatch(value):
            ready.append(f"{key}='{value}'")
        else:
            ready.append(argument)
    return ready


def _seeds(key: str, value: str, multirun: bool, one_seed: bool) -> str:
    """seed=0-4 -> seed=0,1,2,3,4 and seeds=0-4 -> seeds=[0,1,2,3,4], both for -m only."""
    argument = f"{key}={value}"
    several = _SEVERAL_NUMBERS.fullmatch(value) is not None
    is_list = key == "seeds" and value != "null" and not one_seed
    if not multirun and (several or is_list) and not (key == "seeds" and one_seed):
        raise UsageError(
            f"{argument}: several seeds are several runs; add -m first: ablation train -m {argument} ..."
        )
    if not several:
        return argument if key == "seed" or not value.isdecimal() else f"seeds=[{value}]"
    numbers = ",".join(map(str, whole_numbers(key, value)))
    return f"seed={numbers}" if key == "seed" else f"seeds=[{numbers}]"


def explain(error: BaseException) -> str:
    """Hydra's error over many lines -> one that names the key, what was found, what would be right."""
    if isinstance(error.__cause__, AblationError):  # ours, on the way through Hydra's instantiate
        return str(error.__cause__)
    if isinstance(error, RecursionError):
        return "defaults: the list of a file leads back to that file; a sweep must not name itself"
    text = str(error)
    override = getattr(error, "override", None)
    missing = re.search(r"Could not find '([^']+)/([^'/]+)'", text)
    if missing:
        return _no_such_choice(missing[1], missing[2], text)
    unknown = re.match(r"Could not override '([^']+)'", text)
    if unknown:
        return _no_such_key(unknown[1], getattr(error.__cause__, "parent_node", None))
    ambiguous = re.match(r"Ambiguous value for argument '(.+)'$", text.partition("\n")[0])
    if ambiguous:
        return _several_values(ambiguous[1])
    if isinstance(error, OverrideParseException) and override:
        return _unreadable(str(override))
    composing = re.match(r"In '([^']+)': \w+ raised while composing config", text)
    if composing:
        return _wrong_in_file(composing[1], text)
    lines = [line.strip() for line in text.removeprefix("Error merging override ").splitlines()]
    lines = [line for line in lines if line and not line.startswith(_NOISE)]
    cause = str(error.__cause__ or "").partition("\n")[0].strip()
    if cause and cause not in text:
        lines.append(cause)
    return one_line(": ".join([str(override), *lines] if override else lines))


_NOISE = (
    "Set the environment variable",
    "Config search path",
    "provider=",
    "object_type=",
    "full_key:",
    "reference_type=",
    "To append to your config use",
    "See https",
)
"""Beginnings of lines of Hydra's messages that tell a user of this program nothing."""


def quoted(key: str, value: str) -> str:
    """key=value as it has to be typed into a shell for the value to arrive as this text."""
    text = f"{key}={override_text(value)}"
    # Between double quotes a shell leaves a backslash before ' alone.
    special = set(text.replace("\\'", "")) & set('"$`\\!')
    return shlex.quote(text) if special else f'"{text}"'


def _wrong_in_file(file: str, text: str) -> str:
    """A value of a configuration file that the schema refuses."""
    key = re.search(r"full_key: (\S+)", text)
    lines = [line.strip() for line in text.splitlines()[1:]]
    reasons = [line for line in lines if line and not line.startswith(_NOISE)]
    if key and key[1] == "sweeps":
        return f"{file}.yaml: its first line must be `# @package _global_`, as in every sweep file"
    place = f"{key[1]}: " if key else ""
    return one_line(f"{file}.yaml: {place}{reasons[0] if reasons else 'cannot be used'}", 400)


def _no_such_choice(group: str, name: str, text: str) -> str:
    options = [line.strip() for line in text.partition("Available options")[2].splitlines()[1:]]
    options = [option for option in options if re.fullmatch(r"[\w.-]+", option)]
    text = f"{group}={name}: no such file {group}/{name}.yaml; {_nearest(name, options, options)}"
    return one_line(text)


def _nearest(name: str, candidates: Sequence[str], listed: Sequence[str]) -> str:
    """What was probably meant, else what there is."""
    near = difflib.get_close_matches(name, candidates, n=1, cutoff=0.7)
    return f"did you mean {near[0]}?" if near else f"there are: {', '.join(listed)}"


def _no_such_key(key: str, parent: Any) -> str:
    group, _, name = key.partition(".")
    siblings = [str(k) for k in parent] if isinstance(parent, DictConfig) else []
    siblings = [sibling for sibling in siblings if sibling not in ("_target_", "hydra")]
    if group in OPEN_GROUPS and "." not in name and isinstance(parent, DictConfig):
        chosen, others = _choices_with(group, name, str(parent.get("_target_")))
        if others:
            add = " or ".join(f"{group}={option}" for option in others)
            return f"{key}: the {group} is {chosen}, which has no {name}; add {add}"
    prefix = key.rpartition(".")[0]
    known = [f"{prefix}.{sibling}" if prefix else sibling for sibling in siblings]
    elsewhere = [other for other in _spine_keys() if other.rpartition(".")[2] == key.rpartition(".")[2]]
    if key in elsewhere:  # a mapping that is open to entries, such as trainer.settings
        return f"{key}: an entry is added with a + before it, as in +{key}.NAME=VALUE"
    if prefix in _spine_keys():
        return f"{key}: no such entry; {prefix} has {', '.join(siblings) or 'none'}. +{key}=VALUE adds it"
    if elsewhere:
        return f"{key}: no such key; did you mean {' or '.join(elsewhere)}?"
    return f"{key}: no such key; {_nearest(key, [*known, *_spine_keys()], siblings)}"


def _spine_keys() -> list[str]:
    """Dotted keys of the fixed groups."""
    keys: list[str] = []
    for field in dataclasses.fields(RunConfig):
        factory = field.default_factory
        if isinstance(factory, type) and dataclasses.is_dataclass(factory):
            keys += [f"{field.name}.{inner.name}" for inner in dataclasses.fields(factory)]
    return keys


def _choices_with(group: str, field: str, target: str) -> tuple[str, list[str]]:
    """The choice of a group that builds the class `target`, and those whose file has the field."""
    chosen, others = target.rpartition(".")[2], []
    for folder in (config_root() / "conf" / group, Path.cwd() / group):
        for path in sorted(folder.glob("*.yaml")):
            try:
                content = load_yaml(path, UsageError)
            except (UsageError, FileNotFoundError):
                continue
            if not isinstance(content, dict):
                continue
            if content.get("_target_") == target:
                chosen = path.stem
            elif field in content:
                others.append(path.stem)
    return chosen, others


def _several_values(argument: str) -> str:
    key, _, value = argument.partition("=")
    if key in TEXT_KEYS:
        return f"{key}: a text with a comma needs quotes: {quoted(key, value)}"
    add = f"{argument}: several values are several runs; add -m first: ablation train -m {argument} ..."
    numbers = all(_NUMBER_LIKE.fullmatch(part.strip()) for part in value.split(","))
    return add if numbers else f"{add}; a text with a comma is quoted: {quoted(key, value)}"


def _unreadable(argument: str) -> str:
    """An override that Hydra's grammar does not take."""
    key, sign, value = argument.partition("=")
    if argument.startswith("-"):
        return f"{argument}: no such option; settings are written KEY=VALUE, as in loss=focal"
    if not sign:
        return f"{argument}: found no value, must be KEY=VALUE, as in loss=focal"
    if not re.fullmatch(r"[+~]*[\w.@/:-]+", key, re.ASCII):
        return f"{argument}: {key!r} is not the name of a setting; settings are written KEY=VALUE"
    if "${" in value:
        return f"{argument}: the value has an incomplete ${{...}}"
    return f"{argument}: the value has characters that need quotes: {quoted(key, value)}"
