"""What trains a run: this project's own YOLOv4, or a command of the user's."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from ablation.errors import require

YOLOV4, COMMAND = "yolov4", "command"


@dataclass
class TrainerConfig:
    """Who trains; everything but the name is of `command`, see docs/own_trainer.md.

    {NAME} in a text is a placeholder: {seed}, {loss.name}, {run.folder}, {settings.X}, or any key of the
    configuration. Relative paths are relative to `folder`, as the trainer itself sees them.

    Attributes:
        name: yolov4 or command.
        command: words, never given to a shell. A list among them is left out where one of its placeholders
            has no value: [--focal-alpha, "{loss.alpha}"] in an arm of BCE.
        folder: where the command is started; relative to the folder of the launch.
        files: glob patterns of the files whose content is the trainer's; empty: git's tree and the
            difference from it.
        settings: further values that arms may vary, as {settings.X}.
        environment: variable -> its value, or null: as in the environment of the launch.
        data: files and folders whose content is the data set's; the ground truths are always part of it.
        ground_truth, detections: COCO's ground truth, and the results that the command writes.
        metrics: a .json, .jsonl or .csv file with the final metrics; of the latter two the last line counts.
        epoch_metrics: a .jsonl or .csv file that grows by a line an epoch; read while it grows.
        names: name in those files -> name of the metric, such as val/AP.
        checkpoint: the file from which the command goes on by itself; null: a killed run starts anew.
        timeout_h: hours after which the command is killed and the run fails; null: any time.
        test_command, test_ground_truth, test_detections, test_metrics: the same for the test split, which
            `ablation confirm` needs; the command may be empty where the training writes the results.
    """

    name: str = YOLOV4
    command: list[Any] = field(default_factory=list)
    folder: str = "."
    files: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    data: list[str] = field(default_factory=list)
    ground_truth: str | None = None
    detections: str | None = None
    metrics: str | None = None
    epoch_metrics: str | None = None
    names: dict[str, str] = field(default_factory=dict)
    checkpoint: str | None = None
    timeout_h: float | None = None
    test_command: list[Any] = field(default_factory=list)
    test_ground_truth: str | None = None
    test_detections: str | None = None
    test_metrics: str | None = None

    def __post_init__(self) -> None:
        require(self.name in (YOLOV4, COMMAND), "name", self.name, "yolov4 or command")
        limit = self.timeout_h
        require(limit is None or limit > 0, "timeout_h", limit, "> 0, or null")
        for key in ("command", "test_command"):
            for word in getattr(self, key):
                parts = word if isinstance(word, list) else [word]
                plain = all(isinstance(part, str | int | float) for part in parts) and bool(parts)
                require(plain, key, word, "words, or lists of words that are left out together")
        for name, value in self.environment.items():
            usable = bool(name) and "=" not in name and isinstance(value, str | int | float | None)
            require(usable, f"environment.{name}", value, "a text, or null to pass the variable on")
        for name, value in self.settings.items():
            plain_name = re.fullmatch(r"[A-Za-z_]\w*", str(name), re.ASCII) is not None
            must_be = "a value under a plain name, as in {a: 1}"
            require(plain_name and not isinstance(value, dict), f"settings.{name}", value, must_be)
        if self.is_command:
            self._require_command()

    @property
    def is_command(self) -> bool:
        """Whether a command of the user's trains."""
        return self.name == COMMAND

    def _require_command(self) -> None:
        require(bool(self.command), "command", self.command, "a list of words, as in [python, train.py]")
        results = self.detections or self.metrics or self.epoch_metrics
        files = "detections with ground_truth, metrics or epoch_metrics: the file that the command writes"
        require(bool(results), "detections", self.detections, files)
        require(
            bool(self.data or self.ground_truth),
            "data",
            self.data,
            "files of the data set (annotations), so that runs of other data are never compared",
        )
        for detections, truth in (("detections", "ground_truth"), ("test_detections", "test_ground_truth")):
            both = not getattr(self, detections) or bool(getattr(self, truth))
            require(both, truth, getattr(self, truth), f"COCO's ground truth that `{detections}` belongs to")
