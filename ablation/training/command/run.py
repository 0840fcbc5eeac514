"""One run that a command trains: started, followed, evaluated."""

from __future__ import annotations

import logging
import math
import re
import shlex
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from ablation.data.coco_files import read_results
from ablation.errors import AblationError, DataError, Diverged, OutOfMemory, one_line
from ablation.tracking.run_folder import OWN_FOLDER, RunFolder
from ablation.training.command.metrics_file import EpochFile, final_metrics
from ablation.training.command.process import CommandProcess, exit_text, last_lines
from ablation.training.command.trainer import CommandTrainer, SplitFiles, ground_truth
from ablation.training.evaluate import coco_metrics

log = logging.getLogger(__name__)

POLL_S = 0.5
_OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|not enough memory", re.I
)

AfterEpoch = Callable[[int, dict[str, float]], None]


class CommandRun:
    """A run and its command.

    Args:
        folder: of the run; the command's own files go into its subfolder `trainer`.
        output: the run's log, to which what the command prints is appended.
        after_epoch: called with (epoch, metrics) for each line of the command's file of metrics.
    """

    def __init__(
        self, trainer: CommandTrainer, folder: RunFolder, output: Path, after_epoch: AfterEpoch
    ) -> None:
        self.trainer, self.folder, self.output, self.after_epoch = trainer, folder, output, after_epoch
        self.own = folder.path.absolute() / OWN_FOLDER
        self.checkpoint = trainer.checkpoint(self.own)
        path = trainer.epoch_metrics(self.own)
        self.epochs = None if path is None else EpochFile(path, trainer.config.trainer.names)
        self._last = 0
        self._lines: dict[int, dict[str, float]] = {}
        self._since = 0.0
        self._checkpoint_ns = self._checkpoint_time()
        self._warned = False

    def fit(self) -> str:
        """Run the command to its end and evaluate what it wrote.

        Returns:
            FINISHED.

        Raises:
            Diverged: the study's metric is not finite.
            AblationError: one line: it failed, hung, or wrote nothing that can be used.
            OutOfMemory: it failed for want of memory, as its log says.
        """
        self.make_ready()
        self._since = time.monotonic()
        began = time.monotonic()
        self._run(self.trainer.words(self.own))
        self._follow(ended=True)
        metrics = self._results(self.trainer.files(self.own, "val"))
        if self.epochs is None:
            metrics["time/train_s"] = (time.monotonic() - began) / self.trainer.config.train.epochs
        self._enter(metrics)
        return "FINISHED"

    def make_ready(self) -> None:
        """Keep what the command goes on from; without a checkpoint nothing of a former start stays."""
        resumes = self.checkpoint is not None and self.checkpoint.exists()
        if not resumes:
            shutil.rmtree(self.own, ignore_errors=True)
            self._note_checkpoint(0)
        self.own.mkdir(parents=True, exist_ok=True)
        self.folder.truncate_metrics(self.folder.checkpoint_epoch)
        self._lines = {line["epoch"]: line["metrics"] for line in self.folder.metrics()}
        self._last = max(self._lines, default=0)
        for split in ("val", "test"):
            files = self.trainer.files(self.own, split)
            for path in (files.detections, files.metrics):
                if path is not None and (self.epochs is None or path != self.epochs.path):
                    path.unlink(missing_ok=True)  # else an old result could pass for a new one
        if resumes:
            log.info("%s: the command goes on from %s", self.folder.path, self.checkpoint)

    def test(self) -> None:
        """Measure the trained run on the test split.

        Raises:
            AblationError, DataError: one line.
        """
        words = self.trainer.words(self.own, test=True)
        if words:
            self._run(words, follow=False)
        metrics = self._results(self.trainer.files(self.own, "test"))
        self.folder.append_metrics(self.folder.metrics()[-1]["epoch"], metrics)

    # the process

    def _run(self, words: list[str], follow: bool = True) -> None:
        trainer, limit_h = self.trainer, self.trainer.config.trainer.timeout_h
        began = time.monotonic()
        start = self.output.stat().st_size if self.output.exists() else 0
        log.info("in %s: %s", trainer.folder, one_line(shlex.join(words), 2000))
        try:
            with CommandProcess(words, trainer.folder, trainer.environment(self.own), self.output) as process:
                while (code := process.wait(POLL_S)) is None:
                    if follow:
                        self._follow()
                    if limit_h is not None and time.monotonic() - began > limit_h * 3600:
                        limit = f"trainer.timeout_h={limit_h:g}"
                        raise AblationError(f"the trainer ran longer than {limit} and was killed")
        finally:
            if follow:
                self._follow()  # what it wrote last, however it ended
        if code:
            self._failed(code, start)

    def _failed(self, code: int, start: int) -> None:
        lines = last_lines(self.output, 20, start)
        last = f"; its last line: {one_line(lines[-1], 160)}" if lines else ""
        message = f"the trainer {exit_text(code)}{last}"
        if any(_OUT_OF_MEMORY.search(line) for line in lines):
            raise OutOfMemory(message)
        raise AblationError(message)

    # epochs

    def _follow(self, ended: bool = False) -> None:
        """Take over the epochs that the command has written since the last time."""
        changed_ns, known = self._checkpoint_time(), self._last
        new = self._new_lines(ended)
        seconds = (time.monotonic() - self._since) / max(1, len(new))
        for epoch, metrics in new:
            self._add(epoch, metrics, seconds)
        if new:
            self._since = time.monotonic()
        if changed_ns != self._checkpoint_ns:
            # What was known before the checkpoint changed is in it; one less, as it may be written slowly.
            self._checkpoint_ns = changed_ns
            self._note_checkpoint(max(known - 1, self.folder.checkpoint_epoch))

    def _note_checkpoint(self, epoch: int) -> None:
        file = "" if self.checkpoint is None else str(self.checkpoint.relative_to(self.own))
        self.folder.write_json("checkpoint.json", {"epoch": epoch, "file": file})

    def _new_lines(self, ended: bool) -> list[tuple[int, dict[str, float]]]:
        new: list[tuple[int, dict[str, float]]] = []
        while self.epochs is not None:
            try:
                for line in self.epochs.lines(ended):
                    new.append(line)
                break
            except DataError as error:
                if not self._warned:
                    log.warning("%s; such lines are passed over", error)
                self._warned = True
        return new

    def _add(self, epoch: int, metrics: dict[str, float], seconds: float) -> None:
        former = self._lines.get(epoch)
        if former is not None and {name: former.get(name) for name in metrics} == metrics:
            return  # a file that was written anew
        line = metrics | {"time/train_s": seconds}
        if former is not None and epoch == self._last and not former.keys() & metrics.keys():
            line = former | metrics  # training and validation of an epoch in lines of their own
        if epoch <= self._last:  # trained again
            self.folder.truncate_metrics(epoch - 1)
            self._lines = {number: line for number, line in self._lines.items() if number < epoch}
        self.folder.append_metrics(epoch, line)
        self._lines[epoch], self._last = line, epoch
        self.after_epoch(epoch, line)

    def _checkpoint_time(self) -> int:
        if self.checkpoint is None:
            return 0
        try:
            return self.checkpoint.stat().st_mtime_ns
        except OSError:
            return 0

    # results

    def _results(self, files: SplitFiles) -> dict[str, float]:
        """The metrics of a split from what the command wrote; detections are kept for the analysis."""
        metrics: dict[str, float] = {}
        if files.metrics is not None:
            names = self.trainer.config.trainer.names
            metrics |= final_metrics(files.metrics, names)
            if files.name == "test":
                metrics = {_of_test(name): value for name, value in metrics.items()}
        if files.detections is not None and files.ground_truth is not None:
            metrics |= self._evaluated(files.name, files.ground_truth, files.detections)
        return metrics

    def _evaluated(self, split: str, truth_path: Path, path: Path) -> dict[str, float]:
        if not path.exists():
            raise DataError(f"{path}: not written: the command ended well, but its detections are not there")
        if not path.stat().st_size:
            raise DataError(f"{path}: empty; the command must write COCO's results there, [] for none at all")
        truth, new_ids = ground_truth(truth_path)
        results = read_results(path, truth, new_ids)
        if not results:
            log.warning("%s: no detections at all, so AP is 0", path)
        names = [category["name"] for category in truth["categories"]]
        evaluation = coco_metrics(
            truth, results, names, voc_inclusive=self.trainer.config.train.voc_inclusive
        )
        before = "" if split == "val" else "test_"
        self.folder.write_json(f"detections/{before}ground_truth.json", truth)
        self.folder.write_json(f"detections/{split}.json", results)
        return {f"{split}/{name}": value for name, value in evaluation.metrics.items()}

    def _enter(self, metrics: dict[str, float]) -> None:
        """The final metrics belong to the last epoch; the study's own must be among them."""
        epoch = self._last or self.trainer.config.train.epochs
        line = self._lines.get(epoch, {}) | metrics
        compared = self.trainer.config.analysis.metric
        # A confirmation compares by test/..., which is measured when all of its runs have ended.
        self._require(line, compared.replace("test/", "val/"))
        self.folder.truncate_metrics(epoch - 1)
        self.folder.append_metrics(epoch, line)
        if metrics:  # else it has been told already
            self.after_epoch(epoch, line)

    def _require(self, line: dict[str, float], metric: str) -> None:
        if metric not in line:
            known = ", ".join(sorted(line)) or "none at all"
            raise DataError(
                f"the command's results have no {metric} (analysis.metric), but {one_line(known, 200)}; "
                "trainer.names renames, as in trainer.names={mAP: val/AP}"
            )
        if not math.isfinite(line[metric]):
            raise Diverged(f"the end: {metric} is {line[metric]}")


def _of_test(name: str) -> str:
    return f"test/{name.removeprefix('val/')}" if name.startswith("val/") else name
