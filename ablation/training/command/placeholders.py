"""The placeholders of a command: {seed}, {run.folder}, {settings.X}, any key of the configuration."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import json
import pkgutil
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ablation import losses
from ablation.config import RunConfig, flat, plain
from ablation.errors import UsageError, one_line
from ablation.losses.base import ConfidenceLoss

RUN_FOLDER = "run.folder"
_OF_THE_PLACE = (
    RUN_FOLDER,
    "train.device",
    "train.threads",
    "train.workers",
    "out",
    "study",
    "arm",
    "description",
)
"""Placeholders that change no result: where and under which name a run is executed."""
_HIDDEN = ("tracking.", "trainer.", "notify.")
_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_NEAR = 3


class NoValue(Exception):
    """A placeholder is null, or a setting that this run's loss does not have; carries its name."""


class Placeholders:
    """Placeholder -> text, of one run.

    Args:
        config: the run's.
        run_folder: what {run.folder} stands for; absolute.
    """

    def __init__(self, config: RunConfig, run_folder: Path) -> None:
        values = {key: value for key, value in flat(plain(config)).items() if not key.startswith(_HIDDEN)}
        values = {key: value for key, value in values.items() if not key.endswith("._target_")}
        values |= {f"settings.{key}": value for key, value in config.trainer.settings.items()}
        values |= {"loss.name": type(config.loss).name(), RUN_FOLDER: str(run_folder)}
        self._values: Mapping[str, Any] = values
        self._others = _settings_of_losses() - set(values)

    def filled(self, where: str, text: str) -> str:
        """The text with its placeholders replaced; {{ and }} stand for braces.

        Args:
            where: the key that the text stands in, for messages.

        Raises:
            NoValue: a placeholder has no value in this run.
            UsageError: there is no such placeholder.
        """

        def value(match: re.Match[str]) -> str:
            if match[0] in ("{{", "}}"):
                return match[0][0]
            if match[1] is None:
                raise UsageError(
                    f"{where}: a single {match[0]} in {one_line(text, 80)!r}; write {match[0] * 2}"
                )
            return self._text(where, match[1])

        return _TOKEN.sub(value, text)

    def with_value(self, where: str, text: str) -> str:
        """As `filled`, where a placeholder without a value is an error too."""
        try:
            return self.filled(where, text)
        except NoValue as error:
            advice = 'a list of words, as in [--alpha, "{loss.alpha}"], is left out of the command then'
            raise UsageError(
                f"{where}: {{{error}}} has no value in arm {self._values.get('arm')!r}; {advice}"
            ) from None

    def words(self, where: str, command: list[Any]) -> list[str]:
        """A command's words; a list among them is left out where one of its placeholders has no value."""
        words: list[str] = []
        for index, word in enumerate(command):
            place = f"{where}[{index}]"
            if not isinstance(word, list):
                words.append(self.with_value(place, str(word)))
                continue
            try:
                words += [self.filled(place, str(part)) for part in word]
            except NoValue:
                continue
        return words

    def used(self, texts: Any) -> dict[str, Any]:
        """Placeholder -> value, of those in some texts that can change a result."""
        names = sorted(set(_names(texts)) - set(_OF_THE_PLACE))
        return {name: self._values.get(name) for name in names}

    def _text(self, where: str, name: str) -> str:
        if name in self._others:
            raise NoValue(name)
        if name not in self._values:
            known = [*self._values, *self._others]
            near = difflib.get_close_matches(name, known, n=_NEAR, cutoff=0.6)
            near = near or [key for key in known if key.rpartition(".")[2] == name.rpartition(".")[2]][:_NEAR]
            hint = "there are {seed}, {run.folder}, {settings.X} and every key of the configuration"
            if near:
                hint = f"did you mean {' or '.join(f'{{{key}}}' for key in near)}?"
            raise UsageError(f"{where}: unknown placeholder {{{one_line(name, 60)}}}; {hint}")
        value = self._values[name]
        if value is None:
            raise NoValue(name)
        if isinstance(value, bool):
            return str(value).lower()
        return json.dumps(value) if isinstance(value, list | dict) else str(value)


def _names(value: Any) -> Iterator[str]:
    """The placeholders in a text, or in all texts of a list or mapping."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _names(item)
    elif isinstance(value, str):
        yield from (match[1] for match in _TOKEN.finditer(value) if match[1] is not None)


@functools.cache
def _settings_of_losses() -> frozenset[str]:
    """loss.X of every loss: a setting of another loss is no typing error, it has no value."""
    for module in pkgutil.iter_modules(losses.__path__):
        importlib.import_module(f"{losses.__name__}.{module.name}")
    kinds: list[Any] = [kind for kind in ConfidenceLoss.__subclasses__() if dataclasses.is_dataclass(kind)]
    return frozenset(f"loss.{setting.name}" for kind in kinds for setting in dataclasses.fields(kind))
