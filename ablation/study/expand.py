"""Arms and command line -> the list of jobs: a study is the UNION of its arms' grids, with every seed.

Pure: works on parsed overrides and plain values, knows nothing of Hydra's objects.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablation.errors import UsageError


@dataclass(frozen=True)
class Job:
    """One point of the union.

    Attributes:
        settings: override key -> value as override text, the arm's and the sweep's.
        label: the arm's name where the study gives one.
        varied: the keys that take more than one value in the job's grid.
    """

    settings: tuple[tuple[str, str], ...]
    label: str | None
    varied: tuple[str, ...]

    def overrides(self) -> list[str]:
        """As Hydra reads them."""
        return [f"{key}={value}" for key, value in self.settings]


def expand(
    arms: Sequence[Any] | None,
    sweep: Mapping[str, Sequence[str]],
    fixed: Iterable[str],
    has_field: Callable[[str, str], bool],
) -> list[Job]:
    """The union of the arms' grids, each multiplied by the sweep of the command line.

    Args:
        arms: of the study's file: mappings of key -> value or list of values; None: one empty arm.
        sweep: keys that the command line gives several values, with each value's text.
        fixed: keys that the command line gives one value.
        has_field: (loss, field) -> whether conf/loss/<loss>.yaml has that field. A swept field of
            the loss does not apply to a loss without it: with `loss=bce,focal` and a swept setting
            of focal, BCE runs once and not once per value.

    Raises:
        UsageError: an arm is no mapping, is empty of values, or collides with the command line.
    """
    if arms is not None and not arms:
        raise UsageError("arms: an empty list; give at least one arm, such as {loss: bce}")
    jobs: list[Job] = []
    taken = set(sweep) | set(fixed)
    for number, arm in enumerate(arms if arms is not None else [{}], 1):
        label, grid = _grid(arm, number)
        for key in grid:
            if key in taken:
                raise UsageError(
                    f"{key}: set both by arm {number} of the study and on the command line; "
                    "leave it out of one of them"
                )
        grid |= {key: list(values) for key, values in sweep.items()}
        varied = tuple(key for key, values in grid.items() if len(values) > 1)
        for values in itertools.product(*grid.values()):
            point = dict(zip(grid, values, strict=True))
            point = _applicable(point, set(sweep), has_field)
            job = Job(tuple(point.items()), label, tuple(key for key in varied if key in point))
            if all(job.settings != other.settings or job.label != other.label for other in jobs):
                jobs.append(job)
    return jobs


def _grid(arm: Any, number: int) -> tuple[str | None, dict[str, list[str]]]:
    if not isinstance(arm, Mapping):
        raise UsageError(f"arms[{number}]: found {arm!r}, must be a mapping such as {{loss: bce}}")
    grid: dict[str, list[str]] = {}
    label = None
    for key, value in arm.items():
        if key == "arm":
            label = str(value)
            continue
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise UsageError(f"arms[{number}]: {key!r} is not the name of a setting, such as train.epochs")
        if key.lstrip("+~").partition("/")[0].partition(".")[0] == "hydra":
            raise UsageError(f"arms[{number}].{key}: belongs to the launch; give it on the command line")
        values = list(value) if isinstance(value, list | tuple) else [value]
        if not values:
            raise UsageError(f"arms[{number}].{key}: an empty list; give at least one value")
        grid[str(key)] = [override_text(item) for item in values]
    return label, grid


_KEY = re.compile(r"[+~]*[\w@:-][\w.@/:-]*", re.ASCII)


def _applicable(
    point: dict[str, str], swept: set[str], has_field: Callable[[str, str], bool]
) -> dict[str, str]:
    loss = point.get("loss")
    if loss is None:
        return point
    return {
        key: value
        for key, value in point.items()
        if not (key in swept and key.startswith("loss.") and not has_field(loss, key.removeprefix("loss.")))
    }


_WORDS = ("null", "true", "false", "inf", "nan")


def override_text(value: Any) -> str:
    """A plain value in the grammar of Hydra's overrides."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ",".join(override_text(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{override_text(item)}" for key, item in value.items()) + "}"
    text = str(value)
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./-]*", text) and text.lower() not in _WORDS:
        return text
    # Hydra takes a backslash as it is, except before a quote and at the end.
    return "'" + re.sub(r"(\\*)('|\Z)", lambda end: end[1] * 2 + ("\\'" if end[2] else ""), text) + "'"
