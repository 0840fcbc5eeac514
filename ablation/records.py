"""The plain data that passes from the tracking store to the analysis; neither side knows the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

STATES = ("FINISHED", "DIVERGED", "FAILED", "KILLED", "RUNNING", "STOPPED", "PRUNED", "SUPERSEDED")
"""What became of a run. Only FINISHED runs are data.

STOPPED: interrupted, and can be resumed. PRUNED: ended early by successive halving, because its arm
stood low; resumable, but a study with pruned arms gets no verdict. SUPERSEDED: the plan now has
another configuration for its arm and seed.
"""


def empty_history() -> pd.DataFrame:
    """A history without rows, with its columns and their types."""
    import pandas as pd

    return pd.DataFrame(
        {
            "epoch": pd.Series(dtype="int64"),
            "metric": pd.Series(dtype="str"),
            "value": pd.Series(dtype="float64"),
        }
    )


@dataclass(frozen=True)
class RunRecord:
    """One recorded training.

    Attributes:
        run_id: the tracking store's identifier.
        study, arm, seed: the question, the configuration without its seed, the seed.
        key: SHA-256 of everything that decides the result; equal keys are one run.
        state: one of STATES.
        params: the flattened typed configuration as text: 'loss.name': 'focal', 'loss.alpha': 'None'.
        metrics: the last value of each metric: 'val/AP', 'val/AP_class/RBC', 'time/images_per_s'.
        history: columns epoch (int), metric (str), value (float), one row per logged point.
        folder: the run's own folder, as it can be opened now; "" where it cannot be found.
        fingerprint: of its data set, the first 32 hexadecimal digits; '' where the store does not have it.
        reason: one line, why it failed or diverged; else empty.
    """

    run_id: str
    study: str
    arm: str
    seed: int
    key: str
    state: str
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    history: pd.DataFrame = field(default_factory=empty_history)
    folder: str = ""
    reason: str = ""
    fingerprint: str = ""

    def __post_init__(self) -> None:
        if self.state not in STATES:
            raise ValueError(f"state of run {self.run_id} is {self.state!r}; it must be one of {STATES}")


@dataclass(frozen=True)
class PlannedRun:
    """One run that the study asked for, with the command that makes it.

    Attributes:
        params: as in RunRecord, where the planner knows them. Without them, an arm that has no
            record at all is placed by the loss overrides in its command.
    """

    arm: str
    seed: int
    key: str
    command: str
    params: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, row: dict[str, Any]) -> PlannedRun:
        """From a row of plan.json.

        Raises:
            TypeError: it is not a planned run.
        """
        run = cls(**row)
        for name, kind in {"arm": str, "seed": int, "key": str, "command": str, "params": dict}.items():
            _typed(getattr(run, name), kind, name)
        for name, value in run.params.items():
            _typed(value, str, name)
        return run


def _typed(value: Any, kind: type | tuple[type, ...], name: str) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r:.60}")
    return value


NOT_IDENTITY: dict[str, Any] = {"identity": False}
"""Metadata of a setting that is no part of a run's key: it changes no result, or the fingerprint has it."""

KEYED_IF_CHANGED: dict[str, Any] = {"keyed_if_changed": True}
"""Metadata of a setting that is part of a run's key only where it has another value than its default.

For settings that were added when runs existed: runs that do not know it keep their keys.
"""

DEFAULT_METRIC, DEFAULT_LEVEL = "val/AP", 0.95
"""What a study compares by, and the level of its intervals, where it declared nothing."""


@dataclass(frozen=True)
class Declaration:
    """What a study said about its own analysis, and when.

    Attributes:
        metric: what is compared, such as val/AP.
        margin: the smallest difference of the metric that matters, in the metric's own units.
        level: of every interval, in (0, 1).
        family: losses whose arms are tested together; None: every arm that is no BCE.
        time_ms: when it was declared, since 1970.
        runs_done: how many runs of the study had ended by then. 0: declared before it ran.
        looks: numbers of pairs at which verdicts are drawn; None: once, on all the runs there are.
        spending: exponent of the spending function of the looks.
        prior_sd, prior_df: standard deviation of a paired difference in other runs, and the degrees of
            freedom of its square; None: nothing is known beforehand.
    """

    metric: str
    margin: float
    level: float
    family: tuple[str, ...] | None = None
    time_ms: int = 0
    runs_done: int = 0
    looks: tuple[int, ...] | None = None
    spending: float = 2.0
    prior_sd: float | None = None
    prior_df: float = 0.0

    @property
    def content(self) -> tuple[object, ...]:
        """What is declared, without when."""
        prior = (self.prior_sd, self.prior_df)
        return (self.metric, self.margin, self.level, self.family, self.looks, self.spending, prior)

    @classmethod
    def read(cls, row: dict[str, Any]) -> Declaration:
        """From a row of plan.json, where the family is a list.

        Raises:
            TypeError, ValueError: it is not a declaration.
        """
        family = row.get("family")
        names = None if family is None else tuple(_typed(name, str, "family") for name in family)
        looks = row.get("looks")
        pairs = None if looks is None else tuple(_typed(look, int, "looks") for look in looks)
        declaration = cls(**{**row, "family": names, "looks": pairs})
        _typed(declaration.metric, str, "metric")
        numbers = {name: getattr(declaration, name) for name in ("margin", "level", "spending", "prior_df")}
        if declaration.prior_sd is not None:
            numbers["prior_sd"] = declaration.prior_sd
        for name, value in numbers.items():
            _typed(value, (int, float), name)
        if not (0 < declaration.margin < math.inf and 0 < declaration.level < 1):
            raise ValueError("margin must be above 0 and level in (0, 1)")
        for name in ("time_ms", "runs_done"):
            _typed(getattr(declaration, name), int, name)
        return declaration


@dataclass(frozen=True)
class StudyData:
    """The data set that every run of a study is trained and evaluated on.

    Attributes:
        fingerprint: of the images and annotations of its train and val splits.
        source: the setting that names it, such as data.root=DIR; it may differ for equal fingerprints.
        train_images, val_images: how many each split has.
    """

    fingerprint: str
    source: str
    train_images: int = 0
    val_images: int = 0

    def __str__(self) -> str:
        """For messages: data.root=DIR (24 train and 8 val images, fingerprint 1a2b3c4d)."""
        counts = f"{self.train_images} train and {self.val_images} val images, "
        if not self.train_images:  # of an own trainer, which alone reads them
            counts = f"{self.val_images} val images, "
        known = counts if self.train_images + self.val_images else ""
        return f"{self.source} ({known}fingerprint {self.fingerprint[:8]})"


@dataclass(frozen=True)
class Plan:
    """What a study consists of: the content of plan.json, in the study's folder and at its MLflow run.

    Attributes:
        declared: what the study said about its analysis, oldest first.
        description: of the study; only at the MLflow run.
        data: that its runs share; None in plans of older versions.
        left_out: keys of runs that left the plan because they are of other data.
    """

    runs: list[PlannedRun] = field(default_factory=list)
    declared: list[Declaration] = field(default_factory=list)
    description: str = ""
    data: StudyData | None = None
    left_out: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain values; what is empty is left out, but not runs and declarations."""
        content: dict[str, Any] = {"description": self.description} if self.description else {}
        runs, declared = [vars(run) for run in self.runs], [vars(entry) for entry in self.declared]
        content |= {"runs": runs, "declared": declared}
        content |= {} if self.data is None else {"data": vars(self.data)}
        return content | ({"left_out": self.left_out} if self.left_out else {})

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Plan:
        """What to_json made. Plans of older versions declare nothing.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is not a plan.
        """
        data = content.get("data")
        return cls(
            [PlannedRun.read(row) for row in content["runs"]],
            [Declaration.read(row) for row in content.get("declared", [])],
            _typed(content.get("description", ""), str, "description"),
            None if data is None else StudyData(**data),
            [_typed(key, str, "left_out") for key in content.get("left_out", [])],
        )


def declaration_that_counts(declared: Sequence[Declaration]) -> Declaration | None:
    """The first one: what was declared before the results were seen; None where nobody declared anything."""
    return declared[0] if declared else None


def metric_and_level(declared: Sequence[Declaration]) -> tuple[str, float]:
    """What a study compares its arms by, and the level of its intervals: as declared, or the default."""
    declaration = declaration_that_counts(declared)
    return (DEFAULT_METRIC, DEFAULT_LEVEL) if declaration is None else (declaration.metric, declaration.level)


@dataclass(frozen=True)
class TakenLook:
    """A report that drew verdicts on a study.

    Attributes:
        time_ms: when, since 1970.
        user: who asked for it.
        metric: what it compared.
        seeds: of the study's plan at that time.
        pairs: most pairs of seeds behind a comparison.
    """

    time_ms: int
    user: str
    metric: str
    seeds: tuple[int, ...]
    pairs: int

    @classmethod
    def read(cls, row: dict[str, Any]) -> TakenLook:
        """From JSON.

        Raises:
            KeyError, TypeError, ValueError: it is not a look.
        """
        seeds = tuple(_typed(seed, int, "seeds") for seed in row["seeds"])
        user, metric = (_typed(row[name], str, name) for name in ("user", "metric"))
        time_ms, pairs = (_typed(row[name], int, name) for name in ("time_ms", "pairs"))
        return cls(time_ms, user, metric, seeds, pairs)


@dataclass(frozen=True)
class StudyRecord:
    """A study: what was planned (empty where nobody wrote a plan) and what was recorded.

    Attributes:
        declared: oldest first. The first is the one that counts; later ones are shown as changes.
        missing: a line for everything that the store names and that is nowhere to be found, such as the
            plan or the files of a run. No verdict may rest on it.
        looks: reports that drew verdicts, oldest first.
    """

    name: str
    runs: list[RunRecord]
    planned: list[PlannedRun] = field(default_factory=list)
    description: str = ""
    declared: tuple[Declaration, ...] = ()
    missing: tuple[str, ...] = ()
    looks: tuple[TakenLook, ...] = ()
