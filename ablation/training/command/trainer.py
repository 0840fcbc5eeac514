"""A run's command made ready: its words, its files, its content, and what of it is recorded."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablation.config import RunConfig, flat, plain
from ablation.data.coco_files import read_ground_truth
from ablation.data.dataset import DetectionData, Example, Image, Split
from ablation.errors import DataError, UsageError
from ablation.files import canonical_json
from ablation.training.command.content import code_version, data_fingerprint, file_digest
from ablation.training.command.placeholders import RUN_FOLDER, NoValue, Placeholders
from ablation.training.command.process import environment_of, require_program

_known_truths: dict[tuple[str, str], tuple[dict[str, Any], dict[int, int]]] = {}


@dataclass(frozen=True)
class SplitFiles:
    """What a command leaves of one split.

    Attributes:
        name: val or test.
        ground_truth, detections, metrics: None: not used.
    """

    name: str
    ground_truth: Path | None
    detections: Path | None
    metrics: Path | None


@dataclass(frozen=True)
class CommandTrainer:
    """A command that trains one run.

    Attributes:
        config: of the run.
        folder: where the command is started.
        code: what the trainer's folder holds, see content.code_version.
    """

    config: RunConfig
    folder: Path
    code: dict[str, str]

    @classmethod
    def of(cls, config: RunConfig) -> CommandTrainer:
        """Check everything that can be checked without the run's folder.

        Raises:
            UsageError, DataError: one line.
        """
        trainer = config.trainer
        if config.train.stop_after is not None:
            raise UsageError("train.stop_after: a command cannot be stopped after an epoch; leave it out")
        if config.halving.enabled:
            raise UsageError("halving.enabled: a command cannot be stopped after an epoch; leave it out")
        device = config.train.device
        if not (device in ("auto", "cpu", "cuda") or device.removeprefix("cuda:").isdecimal()):
            raise UsageError(f"train.device: found {device!r}, must be auto, cpu, cuda or cuda:N")
        folder = Path(trainer.folder).expanduser().absolute()
        made = cls(config, folder, code_version(folder, trainer.files))
        nowhere = Path("/run.folder")
        words = made.words(nowhere)
        require_program(words[0], folder, made.environment(nowhere))
        made.words(nowhere, test=True)
        val, test = made.files(nowhere, "val"), made.files(nowhere, "test")
        if val.ground_truth is not None:
            ground_truth(val.ground_truth)
        if test.ground_truth is not None and not test.ground_truth.is_file():
            raise UsageError(f"trainer.test_ground_truth: {test.ground_truth} not found")
        made.epoch_metrics(nowhere)
        made.checkpoint(nowhere)
        return made

    # what is started

    def words(self, run_folder: Path, test: bool = False) -> list[str]:
        """The command with its values."""
        trainer, name = self.config.trainer, "test_command" if test else "command"
        return self._placeholders(run_folder).words(f"trainer.{name}", getattr(trainer, name))

    def environment(self, run_folder: Path) -> dict[str, str]:
        """Every variable that the command gets."""
        placeholders, train = self._placeholders(run_folder), self.config.train
        named: dict[str, str | None] = {}
        for name, value in self.config.trainer.environment.items():
            try:
                filled = (
                    None if value is None else placeholders.filled(f"trainer.environment.{name}", str(value))
                )
            except NoValue:
                continue  # as the words of a list that have no value
            named[name] = filled
        return environment_of(named, train.device, train.threads, os.environ)

    def _placeholders(self, run_folder: Path) -> Placeholders:
        return Placeholders(self.config, run_folder)

    # what it leaves

    def files(self, run_folder: Path, split: str) -> SplitFiles:
        """The files of val or test."""
        prefix, trainer = "" if split == "val" else "test_", self.config.trainer
        truth = getattr(trainer, f"{prefix}ground_truth")
        return SplitFiles(
            split,
            None if truth is None else self.folder / truth,
            self._written(run_folder, f"{prefix}detections", (".json",)),
            self._written(run_folder, f"{prefix}metrics", (".json", ".jsonl", ".csv")),
        )

    def epoch_metrics(self, run_folder: Path) -> Path | None:
        """The file that grows by a line an epoch."""
        return self._written(run_folder, "epoch_metrics", (".jsonl", ".csv"))

    def checkpoint(self, run_folder: Path) -> Path | None:
        """The file from which the command goes on."""
        return self._written(run_folder, "checkpoint", ())

    def _written(self, run_folder: Path, name: str, endings: tuple[str, ...]) -> Path | None:
        text = getattr(self.config.trainer, name)
        if text is None:
            return None
        key = f"trainer.{name}"
        path = self.folder / self._placeholders(run_folder).with_value(key, text)
        if not Path(os.path.normpath(path)).is_relative_to(run_folder):
            raise UsageError(
                f"{key}: {text} is not in the run's folder, and runs would overwrite each other's; let the "
                f"command write below {{{RUN_FOLDER}}}"
            )
        if endings and path.suffix not in endings:
            raise UsageError(f"{key}: {text} must end in {' or '.join(endings)}")
        return path

    @property
    def has_test(self) -> bool:
        """Whether the study says how a run is measured on a test split."""
        return bool(self.config.trainer.test_detections or self.config.trainer.test_metrics)

    # what is recorded

    def identity(self) -> dict[str, Any]:
        """All that decides a run's result but its data: part of its key."""
        trainer, loss = self.config.trainer, self.config.loss
        texts = [trainer.command, trainer.environment, trainer.detections, trainer.metrics]
        return {
            "command": trainer.command,
            "environment": trainer.environment,
            "settings": trainer.settings,
            "results": [trainer.detections, trainer.metrics, trainer.epoch_metrics, trainer.names],
            "values": self._placeholders(Path("/")).used(texts),
            "loss": plain(loss, identity=True),
            "seed": self.config.seed,
            "code": self.code["sha256"],
        }

    def params(self) -> dict[str, str]:
        """What MLflow and the report show: the settings that this command can depend on, and no others."""
        trainer = self.config.trainer
        used = self._placeholders(Path("/")).used([trainer.command, trainer.environment])
        settings = {
            "loss": plain(self.config.loss),
            "seed": self.config.seed,
            "study": self.config.study,
            "arm": self.config.arm,
            "trainer": {
                "name": trainer.name,
                "command": command_text(trainer.command),
                "code": self.code["sha256"][:12],
                "settings": plain(trainer.settings),
                # Whole: MLflow takes few characters in a name.
                "environment": canonical_json(trainer.environment),
                "names": canonical_json(trainer.names),
            },
            "train": {"epochs": self.config.train.epochs},
        }
        texts = {name: str(value) for name, value in flat(settings).items()}
        texts |= {
            name: str(value) for name, value in used.items() if not name.startswith(("settings.", "loss."))
        }
        texts.pop("loss._target_", None)
        return texts | {"loss.name": type(self.config.loss).name()}

    def data(self) -> CommandData:
        """The data set, as far as it is known.

        Raises:
            DataError: a file of it cannot be read.
        """
        trainer = self.config.trainer
        truths = [trainer.ground_truth] if trainer.ground_truth is not None else []
        fingerprint = data_fingerprint(self.folder, [*truths, *trainer.data])
        name = Path((truths or trainer.data)[0]).name
        truth = (
            ground_truth(self.folder / truths[0])[0]
            if truths
            else {"images": [], "annotations": [], "categories": []}
        )
        classes = tuple(str(category["name"]) for category in truth["categories"])
        val = _Unopened(len(truth["images"]), Counter(box["category_id"] - 1 for box in truth["annotations"]))
        return CommandData(name, classes, _Unopened(0, Counter()), val, content=fingerprint)


def command_text(command: list[Any]) -> str:
    """A command for people: python train.py [--alpha {loss.alpha}]."""
    words = [f"[{command_text(word)}]" if isinstance(word, list) else str(word) for word in command]
    return " ".join(words)


def ground_truth(path: Path) -> tuple[dict[str, Any], dict[int, int]]:
    """COCO's ground truth, see read_ground_truth; parsed once a process while its content stays."""
    try:
        key = (str(path), file_digest(path))
    except OSError as error:
        raise DataError(f"{path}: ground truth cannot be read: {error.strerror}") from None
    if key not in _known_truths:
        _known_truths[key] = read_ground_truth(path)
    return _known_truths[key]


class _Unopened(Split):
    """Images that the trainer reads, and this program does not."""

    def __init__(self, images: int, boxes: Counter[int]) -> None:
        self.examples: list[Example] = []
        self.faults = []
        self._images, self._boxes = images, boxes

    def __len__(self) -> int:
        return self._images

    def counts(self) -> Counter[int]:
        return self._boxes

    def read(self, index: int) -> Image:
        raise DataError("images of a trainer of your own are read by that trainer only")

    def fingerprint(self) -> str:
        raise DataError("images of a trainer of your own are read by that trainer only")


@dataclass
class CommandData(DetectionData):
    """The data set of a command: its name, classes and content.

    Attributes:
        content: see content.data_fingerprint.
    """

    content: str = ""

    def fingerprint(self) -> str:
        """Of the files that the study names."""
        return self.content
