"""One training run: the only place where data, model, criterion and optimizer meet."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ablation.config import RunConfig
from ablation.data.dataset import DetectionData
from ablation.data.loader import Batch, TrainLoader, batches_per_epoch
from ablation.data.visualise import batch_picture, write_png
from ablation.errors import StoreError, UsageError, one_line
from ablation.machine import autocast_dtype, describe, resolve_device, resolve_precision
from ablation.model.base import Detector
from ablation.model.head import CellGrids
from ablation.model.weights import LoadReport, load_weights
from ablation.objective.assigner import Assigner
from ablation.objective.criterion import CalibrationBatch, Criterion, LossParts
from ablation.tracking.run_folder import RunFolder
from ablation.training import checkpoint
from ablation.training.calibration import calibration_batches, first_batches
from ablation.training.diagnostics.cells import CellCollector
from ablation.training.diagnostics.inversion import recalibrated
from ablation.training.diagnostics.recorder import PROBE_BATCHES, Recorder
from ablation.training.evaluate import Evaluation, EvaluationSettings, coco_metrics, evaluate
from ablation.training.moving_average import MovingAverage
from ablation.training.optim import (
    build_optimizer,
    gradient_norm,
    learning_rate,
    scaled_to_batch,
    set_learning_rate,
)
from ablation.training.precision import LossScale, StepGuard
from ablation.training.running_means import RunningMeans

log = logging.getLogger(__name__)


class Run:
    """Everything that one training consists of.

    Args:
        config: typed, with the precision resolved.
        data: opened; shared by all runs of a process.
        folder: where it is written.
        after_epoch: called with (epoch, metrics) at the end of each epoch.
    """

    def __init__(
        self,
        config: RunConfig,
        data: DetectionData,
        folder: RunFolder,
        after_epoch: Callable[[int, dict[str, float]], None],
    ) -> None:
        self.config, self.data, self.folder, self.after_epoch = config, data, folder, after_epoch
        train = config.train
        self.device = resolve_device(train.device)
        if train.precision != resolve_precision(train.precision, self.device):
            raise UsageError("train.precision: auto must be resolved before a run is built")
        self.steps_per_epoch = batches_per_epoch(data.train, train.batch_size)
        self.model, self.loaded = _built(config, len(data.classes), self.device)
        self.average = None if train.ema_decay is None else MovingAverage(self.model, train.ema_decay)
        layout = self.model.layout
        assigner = Assigner(config.assigner, layout, self.device)
        self.criterion = Criterion(config.criterion, config.loss, layout, assigner)
        self.optim = scaled_to_batch(config.optim, train.batch_size)
        self.optimizer = build_optimizer(self.model, self.optim)
        scale = LossScale(self.device) if train.precision == "fp16" else None
        self.guard = StepGuard(self.optimizer, scale, deferred=self.device.type == "cuda")
        self.recorder = Recorder(folder, self.criterion)
        self.grids = CellGrids(layout, self.device)
        self.checkpoints = checkpoint.Schedule(train.checkpoint_share)
        self._probe: list[Batch] = []

    def loss(self, batch: Batch) -> LossParts:
        """Forward and criterion for a batch that is on the device."""
        height, width = batch.images.shape[-2:]
        outputs, grid = self.outputs(batch.images), self.grids(height, width)
        return self.criterion(outputs, batch.boxes_cxcywh_px, batch.labels, batch.present, grid)

    def evaluation(self, observe: CellCollector | None = None) -> Evaluation:
        """COCO AP of the averaged weights on val."""
        return evaluate(self.network, self.data.val, self.data.classes, self.evaluation_settings, observe)

    def outputs(self, images: Tensor) -> list[Tensor]:
        """The heads for (batch, 3, height, width) uint8 images."""
        pixels = images.to(torch.float32).div_(255)
        if self.config.train.channels_last:
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        with self.autocast():
            return list(self.model(pixels))

    @property
    def evaluation_settings(self) -> EvaluationSettings:
        """How the run's network is evaluated."""
        return EvaluationSettings.of(self.config.train, self.device)

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """bfloat16 or float16, or None for full precision."""
        return autocast_dtype(self.config.train.precision)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The precision of the network; the criterion is always float32."""
        if self.autocast_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.autocast_dtype)

    # the run

    def train_loader(self) -> TrainLoader:
        """The training batches of every epoch; to be closed."""
        train = self.config.train
        return TrainLoader(
            self.data.train,
            seed=self.config.seed,
            epochs=train.epochs,
            batch_size=train.batch_size,
            size_px=train.size_px,
            augment=self.config.augment,
            workers=train.workers,
            multi_scale=train.multi_scale,
            pin_memory=self.device.type == "cuda",
        )

    def fit(self) -> str:
        """Train from the newest checkpoint, or from the start, to the end.

        Returns:
            FINISHED, or STOPPED where train.stop_after ended it.

        Raises:
            Diverged: a non-finite gradient; everything up to the last epoch is kept.
        """
        train = self.config.train
        first = self.resume()
        with contextlib.closing(self.train_loader()) as loader:
            if first == 0:
                self.prepare()
            for epoch in range(first, train.epochs):
                metrics = self.epoch(loader, epoch)
                done = epoch + 1
                if done % train.eval_every == 0 or done == train.epochs:
                    metrics |= self.validate(done, final=done == train.epochs)
                self.folder.append_metrics(done, metrics)
                last = done in (train.epochs, train.stop_after)
                if last or (done % train.checkpoint_every == 0 and self.checkpoints.due):
                    self.save(done)
                self.after_epoch(done, metrics)
                if done == train.stop_after and done < train.epochs:
                    return "STOPPED"
        checkpoint.save_weights(self.folder.file("weights.pt"), self.network, list(self.data.classes))
        return "FINISHED"

    @property
    def network(self) -> Detector:
        """The weights that are evaluated and kept: the average where there is one."""
        return self.model if self.average is None else cast(Detector, self.average.module)

    def prepare(self) -> None:
        """What is measured once, at the initial weights: the gain, and what the run stands on."""
        train = self.config.train
        if self.config.criterion.match_bce:
            batches = first_batches(self.config, self.data.train, self.config.criterion.calibration_batches)
            self.criterion.calibrate(self._calibration(batches), self.grids(train.size_px, train.size_px))
        if self.loaded is not None:
            log.info("%s", self.loaded.summary())
            self.folder.note(weights=self.loaded.summary())
        self.folder.note(
            confidence_gain=self.criterion.gain,
            machine=describe(self.device),
            precision=self.config.train.precision,
            parameters=sum(p.numel() for p in self.model.parameters()),
        )
        self.diagnose(0)

    def _calibration(self, batches: list[Batch]) -> Iterator[CalibrationBatch]:
        return calibration_batches(self.model, self.outputs, batches, self.device)

    def epoch(self, loader: TrainLoader, epoch: int) -> dict[str, float]:
        """Train one epoch (0-based) and return its metrics."""
        self.model.freeze_backbone(epoch < self.config.train.freeze_backbone_epochs)
        self.model.train()
        running, started = RunningMeans(), time.perf_counter()
        rate = 0.0
        for index, batch in enumerate(loader.epoch(epoch)):
            self._record(batch, epoch, index)
            step = epoch * self.steps_per_epoch + index
            rate = learning_rate(self.optim, step, self.steps_per_epoch, self.config.train.epochs)
            set_learning_rate(self.optimizer, rate)
            values = self.step(batch.to(self.device), epoch, index)
            running.add(values, self.guard.taken if self.guard.scale is not None else None)
        self.guard.finish()
        seconds = time.perf_counter() - started
        images = self.steps_per_epoch * self.config.train.batch_size
        return {f"train/{name}": value for name, value in running.means().items()} | {
            "train/lr": rate,
            "time/train_s": seconds,
            "time/images_per_s": images / seconds,
        }

    def step(self, batch: Batch, epoch: int, index: int) -> dict[str, Tensor]:
        """One step of the optimizer; see StepGuard for what becomes of one that is not finite."""
        self.optimizer.zero_grad(set_to_none=True)
        parts = self.loss(batch)
        self.guard.backward(parts.total)
        norm = gradient_norm(self.model, self.config.optim.clip_norm)
        # The gradient, not the loss: exp() in a box's size can have the one infinite and not the other.
        self.guard.step(parts.total.detach(), norm, epoch, index)
        if self.average is not None:
            self.average.update_parameters(self.model, self.guard.taken)
        size = batch.images.shape[0]
        values = {
            "loss": parts.total,
            "loss_box": parts.box,
            "loss_class": parts.classes,
            "loss_confidence": parts.confidence,
            "positives_per_image": parts.positives / size,
            "ignored_per_image": parts.ignored / size,
            "lost_boxes_per_image": parts.lost / size,
            "grad_norm": norm,
        }
        return values if self.guard.scale is None else values | {"loss_scale": self.guard.scale.scale}

    def _record(self, batch: Batch, epoch: int, index: int) -> None:
        """Keep the hash of the first and of the last batch: arms with one seed must agree on both.

        The first is also drawn, for a person to see what the network is trained on.
        """
        if epoch == 0 and index == 0:
            self.folder.note(first_batch=batch.digest())
            picture = batch_picture(
                batch.images.numpy(),
                batch.boxes_cxcywh_px.numpy(),
                batch.labels.numpy(),
                batch.present.numpy(),
                self.data.classes,
            )
            write_png(self.folder.file("batch.png"), picture)
        if epoch == self.config.train.epochs - 1 and index == self.steps_per_epoch - 1:
            self.folder.note(last_batch=batch.digest())

    def validate(self, done: int, final: bool) -> dict[str, float]:
        """Evaluate on val after `done` epochs; the last time, keep the detections for the analysis.

        The final AP_recalibrated and AP50_recalibrated are those of the kept detections with what the
        loss does to the objectness undone.
        """
        train = self.config.train
        started = time.perf_counter()
        collector = None
        if final and train.diagnostics:
            grid = self.grids(train.size_px, train.size_px)
            collector = CellCollector(self.criterion, self.data.val, grid)
        evaluation = self.evaluation(collector)
        metrics = {f"val/{name}": value for name, value in evaluation.metrics.items()}
        if final:
            self.folder.write_json("detections/ground_truth.json", evaluation.ground_truth)
            self.folder.write_json("detections/val.json", evaluation.results)
            results = recalibrated(evaluation.results, self.config.loss)
            again = coco_metrics(evaluation.ground_truth, results, self.data.classes, all_sizes=False).metrics
            metrics |= {f"val/{name}_recalibrated": again[name] for name in ("AP", "AP50")}
        metrics["time/eval_s"] = time.perf_counter() - started
        return metrics | self.diagnose(done, collector)

    def diagnose(self, done: int, collector: CellCollector | None = None) -> dict[str, float]:
        """Measure the gradients after `done` epochs; with a collector, the final model as well."""
        train = self.config.train
        if not train.diagnostics:
            return {}
        started = time.perf_counter()
        if not self._probe:
            self._probe = first_batches(self.config, self.data.train, PROBE_BATCHES)
        batches, grid = list(self._calibration(self._probe)), self.grids(train.size_px, train.size_px)
        self.recorder.gradients(done, batches, grid)
        if collector is not None:
            self.recorder.final(batches, grid, collector.cells())
        return {"time/diagnostics_s": time.perf_counter() - started}

    # checkpoints

    def save(self, done: int) -> None:
        """Write everything that the next epoch depends on."""
        started = time.perf_counter()
        checkpoint.save(
            self.folder.path,
            done,
            {
                "model": self.model.state_dict(),
                "average": None if self.average is None else self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "loss_scale": None if self.guard.scale is None else self.guard.scale.state(),
                "calibration": self.criterion.calibration,
                "classes": list(self.data.classes),
            },
        )
        self.checkpoints.written(time.perf_counter() - started)

    def resume(self) -> int:
        """Load the newest whole checkpoint; returns the number of finished epochs."""
        newest = checkpoint.load_newest(self.folder.path, self.device)
        if newest is None:
            self.folder.truncate_metrics(0)
            return 0
        done, state = newest
        try:
            self._restore(state)
        except Exception as error:  # whole, but of something else: torch raises almost anything
            raise StoreError(
                f"{self.folder.path}: the checkpoint of epoch {done} does not fit this run: "
                f"{one_line(error, 200)}; delete it to use the one before"
            ) from error
        self.folder.truncate_metrics(done)
        log.info("%s: resumed after epoch %d", self.folder.path, done)
        return done

    def _restore(self, state: dict[str, Any]) -> None:
        if list(state["classes"]) != list(self.data.classes):
            raise ValueError(f"its classes are {state['classes']}")
        _load(self.model, state["model"])
        if self.average is not None:
            _load(self.average, state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.guard.scale is not None:
            self.guard.scale.load(state["loss_scale"])
        self.criterion.calibration = float(state["calibration"])


def _load(module: torch.nn.Module, state: dict[str, Tensor]) -> None:
    """load_state_dict, which would convert tensors of another type in silence."""
    for name, value in module.state_dict().items():
        if name in state and state[name].dtype != value.dtype:
            raise ValueError(f"{name} is {state[name].dtype}, must be {value.dtype}")
    module.load_state_dict(state)


def _built(config: RunConfig, num_classes: int, device: torch.device) -> tuple[Detector, LoadReport | None]:
    """The network at its initial weights on `device`, and what was loaded from a weights file."""
    model = config.model.build(num_classes, config.train.size_px, config.seed)
    loaded = None
    if config.model.weights is not None:
        loaded = load_weights(model, Path(config.model.weights), config.model.load_heads)
    model = model.to(device)
    if config.train.channels_last and device.type != "cpu":  # a CPU reorders kernels whatever their format is
        model = model.to(memory_format=torch.channels_last)
    return model, loaded
