"""What the doctor has to say: one line for each thing that was looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

STATUSES = ("ok", "info", "warn", "failed", "skipped")


@dataclass(frozen=True)
class Line:
    """One thing that was looked at.

    Attributes:
        name: what it is.
        status: of STATUSES; only `failed` says that the machine is not ready.
        text: what was measured, for people.
        remedy: what to do about it; every failed line has one.
        values: what was measured, for machines.
    """

    name: str
    status: str
    text: str
    remedy: str = ""
    values: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.status in STATUSES and (self.status != "failed" or self.remedy)

    def as_text(self) -> str:
        """For a terminal."""
        shown = f"  {self.status:<8}{self.name:<26} {self.text}"
        return f"{shown}\n{'':<37}-> {self.remedy}" if self.remedy else shown


@dataclass(frozen=True)
class Settings:
    """What was asked for.

    Attributes:
        device: cpu, cuda or cuda:N.
        sweep: name of a study's file, or "".
        overrides: of the configuration, for the sweep and the places that are looked at.
        quick: only what takes seconds.
    """

    device: str
    sweep: str
    overrides: tuple[str, ...]
    quick: bool

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.startswith("cuda")


@dataclass(frozen=True)
class Section:
    """Lines that are made in one process, which may take limit_s seconds."""

    name: str
    look: Callable[[Settings], Iterator[Line]]
    limit_s: float


def as_dict(section: str, line: Line) -> dict[str, Any]:
    """For JSON."""
    return {"section": section} | asdict(line)
