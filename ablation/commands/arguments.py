"""The `key=value` arguments of a command: checked against those it declares, and read with their types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ablation.errors import UsageError
from ablation.study.whole_numbers import whole_numbers

if TYPE_CHECKING:
    from ablation.tracking.store import Store

STORE: Mapping[str, str] = {"uri": "", "artifacts": ""}
"""Arguments of every command that reads or writes the tracking store; see Arguments.store."""


@dataclass(frozen=True)
class Arguments:
    """A command's arguments.

    Attributes:
        values: every declared key with its text, defaults included.
        overrides: the other arguments, of a command that also takes what `ablation train` takes.
    """

    values: dict[str, str]
    overrides: list[str]

    @classmethod
    def parse(
        cls, command: str, arguments: list[str], defaults: Mapping[str, str | None], overrides: bool = False
    ) -> Arguments:
        """Check and split a command line.

        Args:
            defaults: the keys that the command knows; None marks a required one.
            overrides: whether arguments with other keys are passed on to Hydra, not refused.

        Raises:
            UsageError: an unknown argument, or a required one is missing.
        """
        values = {key: value for key, value in defaults.items() if value is not None}
        others: list[str] = []
        for argument in arguments:
            key, sign, value = argument.partition("=")
            if sign and key in defaults:
                values[key] = value
            elif overrides:
                others.append(argument)
            else:
                known = ", ".join(f"{name}=..." for name in defaults)
                raise UsageError(f"ablation {command} {argument}: unknown argument; it takes {known}")
        for key, default in defaults.items():
            if default is None and not values.get(key):
                raise UsageError(f"ablation {command}: {key}=... is missing")
        return cls(values, others)

    def text(self, key: str) -> str:
        """The value as it was written."""
        return self.values[key]

    def flag(self, key: str) -> bool:
        """true or false."""
        if self.values[key] not in ("true", "false"):
            raise UsageError(f"{key}={self.values[key]}: must be true or false")
        return self.values[key] == "true"

    def path(self, key: str) -> Path:
        """A path that has a default or is required."""
        return Path(self.values[key]).expanduser()

    def optional_path(self, key: str) -> Path | None:
        """A path; None where it is empty."""
        return self.path(key) if self.values[key] else None

    def optional_number(self, key: str) -> float | None:
        """A number; None where it is empty."""
        try:
            return float(self.values[key]) if self.values[key] else None
        except ValueError:
            raise UsageError(f"{key}={self.values[key]}: must be a number") from None

    def whole_numbers(self, key: str) -> list[int]:
        """'3,4,7' or '[3,4,7]' or '3-7' as numbers."""
        return whole_numbers(key, self.values[key])

    def store(self) -> Store:
        """The tracking store that uri= and artifacts= name, or the default one."""
        from ablation.tracking.store import Store  # loads mlflow, which takes a second

        return Store.of(self.values["uri"] or None, self.values["artifacts"] or None)
