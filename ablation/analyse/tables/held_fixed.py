"""What the runs of a study share, and what differs between them besides the loss.

A paired difference answers a question about the loss only if everything else was the same in both runs.
So the settings, and the fingerprint of the data, are read from the records of the valid runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath

import pandas as pd

from ablation.analyse.tables.settings import GAIN, LOSS, parse_setting
from ablation.errors import counted
from ablation.records import RunRecord, StudyRecord

DATA = "data set"
"""Name of the difference between runs whose data sets have different fingerprints."""

FREE = (
    # Names, folders and where a run is executed.
    "tracking.",
    "hydra.",
    "seed",
    "study",
    "arm",
    "description",
    "key",
    "out",
    "folder",
    "train.device",
    "train.workers",
    "train.threads",
    "train.stop_after",
    "train.checkpoint_every",
    "train.checkpoint_share",
    "train.diagnostics",
    "train.eval_batch_size",
    # Where the data lies; what it is, its fingerprint says.
    "data.root",
    "data.train_json",
    "data.val_json",
    "data.val_share",
    "data.test_share",
    "data.images",
    "data.annotations",
    "data.missing_annotation",
    "data.max_pixels",
    "data.cache",
    "data.cache_dir",
    "model.anchors",  # the numbers are in model.anchors_px
)
"""Settings that change no result; a name with a dot at its end stands for a whole group."""

MEASUREMENT = (
    "data.",
    "train.score_threshold",
    "train.nms_iou",
    "train.max_detections",
    "train.voc_inclusive",
)
"""Settings that decide what AP is measured on and how: runs that differ in them are never compared."""

_NAMED = 3
"""So many arms are named for each value of a setting."""


@dataclass(frozen=True)
class Difference:
    """A setting, or the data set, that has several values in the valid runs of a study.

    Attributes:
        name: of the setting, such as train.epochs; DATA for the data set.
        values: run_id -> value, for people. Runs that do not record it are left out.
        varied: the study varies it: two arms differ in it and not in their loss. Then it is a property
            of the arms, and a comparison names it; else runs that differ in it are not compared.
    """

    name: str
    values: Mapping[str, str]
    varied: bool

    def within(self, run_ids: Iterable[str]) -> bool:
        """Whether these runs differ in it."""
        return len({self.values[run_id] for run_id in run_ids if run_id in self.values}) > 1


@dataclass(frozen=True)
class HeldFixed:
    """What differs between the valid runs of a study, and what is not known of them.

    Attributes:
        differences: the data set first, then settings by name.
        runs: run_id -> (arm, seed) of the valid runs.
        unknown_data: how many of them do not record which data they were trained on.
        imported: runs were trained by another program, so that only the settings in its table are known.
        command_text: command and environment of runs that a command of the user's trained
            (trainer=command), whose own random numbers are not known; "" where there are none.
    """

    differences: tuple[Difference, ...]
    runs: Mapping[str, tuple[str, int]]
    unknown_data: int
    imported: bool
    command_text: str = ""

    @property
    def command(self) -> bool:
        """Whether a command of the user's trained runs of the study."""
        return bool(self.command_text)

    @property
    def names(self) -> tuple[str, ...]:
        """Everything besides the loss that differs."""
        return tuple(difference.name for difference in self.differences)

    def not_comparable(self, run_ids: Iterable[str]) -> list[Difference]:
        """What differs between these runs although the study does not vary it."""
        ids = list(run_ids)
        return [entry for entry in self.differences if not entry.varied and entry.within(ids)]

    def varied(self, run_ids: Iterable[str]) -> list[Difference]:
        """What differs between these runs and is varied by the study."""
        ids = list(run_ids)
        return [entry for entry in self.differences if entry.varied and entry.within(ids)]

    @property
    def refusal(self) -> str:
        """Why runs of the study cannot be compared, between which runs, and what to do; or ''."""
        differences = self.not_comparable(self.runs)
        if not differences:
            return ""
        texts = "; ".join(self.describe(entry, self.runs) for entry in differences[:3])
        more = (
            f"; and {counted(len(differences) - 3, 'more setting differs', 'more settings differ')}"
            if len(differences) > 3
            else ""
        )
        if differences[0].name == DATA:
            remedy = "train each data set as a study with a name of its own (study=NAME)"
        else:
            remedy = "train all arms with one value, or vary it in the BCE arms as well"
        return f"{texts}{more}: such runs are not compared; {remedy}"

    def describe(self, difference: Difference, run_ids: Iterable[str]) -> str:
        """'train.epochs differs: 2 in bce (seeds 0, 1); 4 in focal (seeds 0, 1)'."""
        by_value: dict[str, dict[str, list[int]]] = {}
        for run_id in run_ids:
            if run_id in difference.values:
                arm, seed = self.runs[run_id]
                by_value.setdefault(difference.values[run_id], {}).setdefault(arm, []).append(seed)
        groups = [f"{value} in {_arms_text(arms)}" for value, arms in sorted(by_value.items())]
        count = f"{len(groups)} data sets" if difference.name == DATA else f"{difference.name} differs"
        return f"{count}: {'; '.join(groups)}"

    def text(self, several_gains: bool) -> str:
        """What the arms share and what they do not, as one or two sentences."""
        gains = " and the gain of its term" if several_gains else ""
        if self.differences:
            return f"NOT held fixed besides the loss{gains}: {', '.join(self.names)}."
        if self.imported:
            return (
                f"Runs of another program: of the settings in its table, everything but the loss{gains} is "
                "the same; nothing else is known to be held fixed."
            )
        if self.command:
            return (
                "Trained by the study's own command: command, code and data are the same, everything but the "
                f"loss{gains}; arms with one seed share that number, and weights and batches as far as the "
                "trainer sees to it."
            )
        if self.unknown_data:
            return (
                f"Held fixed: every recorded setting but the loss{gains}; {self.unknown_data} of "
                f"{len(self.runs)} runs do not record which data they were trained on."
            )
        return (
            f"Held fixed: everything but the loss{gains}; arms with one seed share weights, images and "
            "their order."
        )


def held_fixed(study: StudyRecord, runs: pd.DataFrame) -> HeldFixed:
    """Compare the settings and the data of the valid runs of a study.

    The loss may differ between arms, and so may the gain of the confidence term, which the arms' labels
    show; within an arm neither may. A setting that a record lacks, because an older version wrote it, is
    not known and counts as no difference.

    Args:
        runs: see table.runs_table.
    """
    valid = runs[runs["valid"]] if len(runs) else runs
    label = dict(zip(valid["run_id"], valid["setting"], strict=True)) if len(valid) else {}
    records = [run for run in study.runs if run.run_id in label]
    differences = _of_data(records)
    for name in sorted({name for run in records for name in run.params if not is_free(name)}):
        if differences and differences[0].name == DATA and name.startswith("data."):
            continue  # the fingerprints say it already
        differences += _of_setting(name, records, label)
    return HeldFixed(
        differences=tuple(differences),
        runs={run.run_id: (run.arm, run.seed) for run in records},
        unknown_data=sum(not run.fingerprint for run in records),
        imported=any(run.params.get("source") == "import" for run in records),
        command_text=next((_command_text(run) for run in records if "trainer.command" in run.params), ""),
    )


def _command_text(run: RunRecord) -> str:
    return f"{run.params['trainer.command']} {run.params.get('trainer.environment', '')}"


def is_free(name: str) -> bool:
    """Whether a setting may differ between runs without changing any result."""
    return any(name == free or (free.endswith(".") and name.startswith(free)) for free in FREE)


def _of_data(records: list[RunRecord]) -> list[Difference]:
    known = [run for run in records if run.fingerprint]
    # The first digits of the fingerprint; the folder helps to recognise the data.
    values = {run.run_id: _data_text(run) for run in known}
    several = len({run.fingerprint for run in known}) > 1
    return [Difference(DATA, values, varied=False)] if several else []


def _data_text(run: RunRecord) -> str:
    root = run.params.get("data.root", "")
    return f"{run.fingerprint[:8]} (data.root={root})" if root else run.fingerprint[:8]


def _of_setting(name: str, records: list[RunRecord], label: Mapping[str, str]) -> list[Difference]:
    values = {run.run_id: _value(name, run.params[name]) for run in records if name in run.params}
    arms = {run.run_id: run.arm for run in records}
    mixed = {arm for arm, texts in _grouped(values, arms).items() if len(texts) > 1}
    if name == GAIN or name.startswith(LOSS):
        values = {run_id: text for run_id, text in values.items() if arms[run_id] in mixed}
    if len(set(values.values())) < 2:
        return []
    never = any(name == fixed or (fixed.endswith(".") and name.startswith(fixed)) for fixed in MEASUREMENT)
    # Crossed with the loss: each arm has one value, and some loss has arms with different values.
    crossed = not mixed and any(len(texts) > 1 for texts in _grouped(values, label).values())
    return [Difference(name, values, varied=crossed and not never)]


def _grouped(values: Mapping[str, str], groups: Mapping[str, str]) -> dict[str, set[str]]:
    """The values that occur in each group; both arguments by run_id."""
    result: dict[str, set[str]] = {}
    for run_id, text in values.items():
        result.setdefault(groups[run_id], set()).add(text)
    return result


def _value(name: str, text: str) -> str:
    """A setting's value for people, equal for equal values: '20' and '20.0' are 20."""
    value = parse_setting(text)
    if name == "model.weights" and isinstance(value, str):
        return PurePath(value).name  # the folder may differ between machines
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _arms_text(arms: Mapping[str, list[int]]) -> str:
    """'bce (seeds 0, 1), focal (seed 0)'."""
    texts = [
        f"{arm} ({'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, sorted(seeds)))})"
        for arm, seeds in sorted(arms.items())
    ]
    more = f" and {counted(len(texts) - _NAMED, 'more arm')}" if len(texts) > _NAMED else ""
    return ", ".join(texts[:_NAMED]) + more
