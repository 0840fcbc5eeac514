"""What runs of a shape cost in time and disk: known from earlier runs' folders, or computed.

A shape is everything that decides how fast a run is and how large its files are: network, input size,
batch, precision, device and threads. Not the loss: that is a few operations on the heads' outputs.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ablation.config import RunConfig
from ablation.data.dataset import DetectionData
from ablation.errors import StoreError, one_line
from ablation.machine import describe, resolve_device
from ablation.study.pace import pace_of
from ablation.tracking.run_folder import OWN_FOLDER, RunFolder
from ablation.training.checkpoint import KEEP

MOST_RUNS = 8
"""Of the earlier runs of a shape, the newest that are looked at."""

_TRAIN = (
    *("size_px", "multi_scale", "batch_size", "eval_batch_size"),
    *("precision", "channels_last", "deterministic", "workers"),
)
_NOT_SHAPE = ("model.weights", "model.load_heads", "model.prior")
OWN_TRAINER = "a trainer of your own"
"""Device of a command's shape: what it computes on is not known."""
_RESULT_BYTES = 130
"""Of one detection in val.json, about."""


@dataclass(frozen=True)
class Shape:
    """Settings as texts, and the machine; equal shapes cost the same."""

    settings: tuple[tuple[str, str], ...]
    device: str
    threads: str

    @classmethod
    def of(cls, params: Mapping[str, str], device: str, threads: int | str | None) -> Shape:
        """From a run's parameters.

        Args:
            params: as PlannedRun has them.
            device: as machine.describe names it.
            threads: CPU threads of torch; ignored on a GPU.
        """
        if "trainer.command" in params:
            settings = [(key, params[key]) for key in sorted(params) if key.startswith("trainer.")]
            return cls(tuple(settings), OWN_TRAINER, "")
        keys = [key for key in sorted(params) if key.startswith("model.") and key not in _NOT_SHAPE]
        keys += [f"train.{name}" for name in _TRAIN] + ["optim.name"]
        settings = [(key, params.get(key, "")) for key in keys]
        settings.append(("average", str(params.get("train.ema_decay") != "None")))
        return cls(tuple(settings), device, str(threads) if device.startswith("cpu") else "")


def device_of(config: RunConfig) -> str:
    """The device that a run of this configuration would get here, as earlier runs have noted theirs."""
    if config.trainer.is_command:
        return OWN_TRAINER
    return describe(resolve_device(config.train.device))["device"]


@dataclass(frozen=True)
class Cost:
    """Of one run of a shape.

    Attributes:
        train_s: of one image, loading and augmentation included; of a command, of one epoch.
        eval_s: of one val image.
        other_s: of one epoch: checkpoint, logging.
        start_s: of a run, until its first epoch begins.
        source: where the numbers come from, for people.
    """

    train_s: float
    eval_s: float
    other_s: float
    start_s: float
    source: str

    def left_s(self, config: RunConfig, data: DetectionData, epoch: int) -> float:
        """Seconds of a run that has `epoch` epochs already."""
        train = config.train
        epochs = train.epochs
        if config.trainer.is_command:
            return self.start_s + (epochs - epoch) * (self.train_s + self.other_s)
        images = len(data.train) // train.batch_size * train.batch_size
        evaluations = epochs // train.eval_every - epoch // train.eval_every + (epochs % train.eval_every > 0)
        return (
            self.start_s
            + (epochs - epoch) * (images * self.train_s + self.other_s)
            + evaluations * len(data.val) * self.eval_s
        )


@dataclass(frozen=True)
class Bytes:
    """Of one run's files.

    Attributes:
        checkpoint: one of the KEEP that a run keeps.
        rest: weights, detections and pictures, written at the end.
        source: where the numbers come from, for people.
    """

    checkpoint: int
    rest: int
    source: str


def earlier(out: Path, shapes: set[Shape]) -> tuple[dict[Shape, Cost], dict[Shape, Bytes]]:
    """Costs of those shapes that runs below `out` have had already."""
    folders_of: dict[Shape, list[RunFolder]] = {shape: [] for shape in shapes}
    newest_first = sorted(out.glob("*/*/*/run.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    settings = {shape.settings for shape in shapes}
    for path in newest_first:
        folder = RunFolder(path.parent)
        try:
            params = folder.read_json("run.json").get("params", {})
            if Shape.of(params, "", None).settings not in settings:
                continue
            machine = folder.read_json("notes.json").get("machine", {})
        except (StoreError, OSError):
            continue
        shape = Shape.of(params, str(machine.get("device", "")), machine.get("threads"))
        if shape in folders_of and len(folders_of[shape]) < MOST_RUNS:
            folders_of[shape].append(folder)
        if all(len(folders) == MOST_RUNS for folders in folders_of.values()):
            break
    costs, sizes = {}, {}
    for shape, folders in folders_of.items():
        known = [cost for cost in map(_cost, folders) if cost is not None]
        if known:
            source = f"{len(known)} earlier run{'s' * (len(known) > 1)} of this shape"
            train, evaluation, other, start = (statistics.median(v) for v in zip(*known, strict=True))
            costs[shape] = Cost(train, evaluation, other, start, source)
        whole = [size for size in map(_bytes, folders) if size is not None]
        if whole:
            sizes[shape] = Bytes(max(c for c, _ in whole), max(r for _, r in whole), "earlier runs")
    return costs, sizes


def _cost(folder: RunFolder) -> tuple[float, float, float, float] | None:
    """(train_s, eval_s, other_s, start_s) of one run, or None where it has too little to tell."""
    try:
        lines, facts = folder.metrics(), folder.read_json("run.json")
        started_ms = folder.read_json("state.json").get("started_ms", 0)
    except (StoreError, OSError):
        return None
    pace = pace_of(lines)
    if pace is not None and "trainer.command" in facts.get("params", {}):
        began = folder.read_json("state.json").get("started_ms", 0)
        start_s = (lines[-1]["time_ms"] - began) / 1000 - len(lines) * pace.train_s
        # Outside these limits it was interrupted, or tells only its end.
        return pace.train_s, 0.0, 0.0, start_s if 0 <= start_s < 600 else 0.0
    if pace is None or not pace.eval_s:
        return None
    profile, batch = facts["data_profile"], int(facts["params"]["train.batch_size"])
    first = lines[0]
    busy_s = first["metrics"].get("time/train_s", 0.0) + first["metrics"].get("time/eval_s", 0.0)
    start_s = (first["time_ms"] - started_ms) / 1000 - busy_s
    if not 0 <= start_s < 600:  # an epoch that was trained again after an interruption
        start_s = 0.0
    images = profile["train_images"] // batch * batch
    return pace.train_s / images, pace.eval_s / profile["val_images"], pace.other_s, start_s


def _bytes(folder: RunFolder) -> tuple[int, int] | None:
    if (own := folder.file(OWN_FOLDER)).is_dir():
        return 0, sum(path.stat().st_size for path in own.rglob("*") if path.is_file())
    checkpoints = [path.stat().st_size for path in folder.path.glob("checkpoint-*-*.pt")]
    weights = folder.file("weights.pt")
    if not checkpoints or not weights.exists():
        return None
    total = sum(path.stat().st_size for path in folder.path.rglob("*") if path.is_file())
    return max(checkpoints), total - sum(checkpoints)


def computed_bytes(config: RunConfig, data: DetectionData) -> Bytes:
    """From the network's number of parameters, and at most max_detections on each val image."""
    train = config.train
    if config.trainer.is_command:
        return Bytes(0, 0, "nothing: what a trainer of your own writes is known after its first run")
    network = config.model.build(len(data.classes), train.size_px, config.seed)
    weights = sum(t.numel() * t.element_size() for t in network.state_dict().values())
    parameters = sum(p.numel() * p.element_size() for p in network.parameters())
    moments = 2 if config.optim.name == "adamw" else int(config.optim.momentum > 0)
    average = 0 if train.ema_decay is None else weights
    detections = len(data.val) * train.max_detections * _RESULT_BYTES
    return Bytes(weights + average + moments * parameters, weights + detections, "the number of parameters")


def needed_bytes(size: Bytes, checkpoints: int, copied: bool) -> int:
    """What a run will still add to the disk.

    Args:
        checkpoints: how many it has already.
        copied: MLflow's artifacts are on this disk too, and get weights and detections once more.
    """
    return max(0, KEEP - checkpoints) * size.checkpoint + (2 if copied else 1) * size.rest


def as_text(shape: Shape) -> str:
    """A shape as one line for people: what differs between shapes most often."""
    known = dict(shape.settings)
    if "trainer.command" in known:
        return f"{OWN_TRAINER}, {one_line(known['trainer.command'], 60)}"
    parts = [
        known.get("model.name", ""),
        f"{known.get('train.size_px')} px",
        f"batch {known.get('train.batch_size')}",
        str(known.get("train.precision")),
        shape.device,
    ]
    if shape.threads:
        parts.append(f"{shape.threads} thread" + "s" * (shape.threads != "1"))
    return ", ".join(part for part in parts if part)
