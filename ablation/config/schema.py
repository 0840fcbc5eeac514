"""The typed configuration: what every key is, its range and its default.

The fixed groups (train, optim, criterion, assigner, augment, tracking, analysis, halving) are registered
with Hydra, which then refuses an unknown key or a wrong type while it composes. The groups data, model
and loss are open: their YAML names a class, and that class's own fields are the schema, so that a new
loss needs no change here.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from ablation.config.trainer import TrainerConfig
from ablation.data.augment import AugmentConfig
from ablation.data.dataset import DataSource
from ablation.errors import require
from ablation.losses.base import ConfidenceLoss
from ablation.model.base import DetectorConfig
from ablation.objective.assigner import AssignerConfig
from ablation.objective.criterion import CriterionConfig
from ablation.records import KEYED_IF_CHANGED, NOT_IDENTITY
from ablation.tracking.credentials import without_credentials

OPEN_GROUPS: dict[str, type] = {"data": DataSource, "model": DetectorConfig, "loss": ConfidenceLoss}


@dataclass
class OptimConfig:
    """Optimizer and schedule: warm-up, then a cosine or steps; see ablation.training.optim for the equations.

    Attributes:
        name: sgd or adamw.
        lr: peak learning rate.
        reference_batch: null, or N: the peak is lr x batch_size / N, clipped to [lr_low, lr_high].
        lr_low, lr_high: null: not clipped on that side.
        momentum: SGD's momentum, AdamW's beta1.
        nesterov: Nesterov's form of SGD's momentum.
        weight_decay: on convolution kernels only, never on biases or batch norm.
        schedule: what follows the warm-up: cosine, or steps.
        lr_min_share: where the cosine ends, as a share of the peak.
        flat_share: in [0, 1), of the whole training: the cosine ends this much earlier and stays there.
        milestones: in (0, 1), shares of the whole training: `steps` multiplies the rate at each ...
        factor: ... by this, in (0, 1].
        warmup_epochs: may be a fraction of an epoch.
        warmup_share: null, or a further limit: this share of the epochs, though never below one epoch.
        warmup_steps: null, or the warm-up in steps of the optimizer (Darknet's burn_in), which
            replaces both of them.
        warmup_start: in [0, 1], where the warm-up starts from, as a share of the peak.
        warmup_power: > 0, the power by which it rises; 1 is linear, Darknet's is 4.
        clip_norm: the gradient's norm is clipped to this; null: not at all.
    """

    name: str = "sgd"
    lr: float = 0.01
    reference_batch: int | None = None
    lr_low: float | None = None
    lr_high: float | None = None
    momentum: float = 0.937
    nesterov: bool = True
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    lr_min_share: float = 0.01
    flat_share: float = 0.0
    milestones: list[float] = field(default_factory=list)
    factor: float = 0.1
    warmup_epochs: float = 1.0
    warmup_share: float | None = None
    warmup_steps: int | None = None
    warmup_start: float = 0.0
    warmup_power: float = 1.0
    clip_norm: float | None = 10.0

    def __post_init__(self) -> None:
        require(self.name in ("sgd", "adamw"), "name", self.name, "sgd or adamw")
        require(self.lr > 0, "lr", self.lr, "> 0")
        batch = self.reference_batch
        require(batch is None or batch >= 1, "reference_batch", batch, ">= 1, or null")
        for name in ("lr_low", "lr_high", "clip_norm"):
            value = getattr(self, name)
            require(value is None or value > 0, name, value, "> 0, or null")
        if self.lr_low is not None and self.lr_high is not None:
            require(self.lr_low <= self.lr_high, "lr_low", self.lr_low, f"at most lr_high ({self.lr_high:g})")
        require(0 <= self.momentum < 1, "momentum", self.momentum, "in [0, 1)")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, ">= 0")
        require(self.schedule in ("cosine", "steps"), "schedule", self.schedule, "cosine or steps")
        require(0 <= self.lr_min_share <= 1, "lr_min_share", self.lr_min_share, "in [0, 1]")
        require(0 <= self.flat_share < 1, "flat_share", self.flat_share, "in [0, 1)")
        rising = all(a < b for a, b in itertools.pairwise([0.0, *self.milestones, 1.0]))
        require(rising, "milestones", self.milestones, "rising numbers in (0, 1)")
        require(0 < self.factor <= 1, "factor", self.factor, "in (0, 1]")
        require(self.warmup_epochs >= 0, "warmup_epochs", self.warmup_epochs, ">= 0")
        share, steps = self.warmup_share, self.warmup_steps
        require(share is None or 0 <= share <= 1, "warmup_share", share, "in [0, 1], or null")
        require(steps is None or steps >= 0, "warmup_steps", steps, ">= 0, or null")
        require(0 <= self.warmup_start <= 1, "warmup_start", self.warmup_start, "in [0, 1]")
        require(0 < self.warmup_power < float("inf"), "warmup_power", self.warmup_power, "> 0 and finite")


@dataclass
class TrainConfig:
    """Length, size and numerics of a training.

    Attributes:
        epochs, batch_size: the last incomplete batch of an epoch is dropped.
        size_px: side of the square input, a multiple of 32.
        multi_scale: sizes in pixels, multiples of 32, of which each training batch takes one; null:
            always size_px. Evaluation is at size_px, and anchors stay as they are at size_px.
        precision: auto, fp32, bf16 or fp16, of the network; the criterion is float32. auto becomes bf16
            where the machine computes it fast, else fp16 on a GPU that has only that, else fp32, and is
            replaced by what it became before the run's key is made. fp16 has a dynamic loss scale.
        channels_last: memory format of the network; faster on a GPU and, for all but the smallest inputs, on
            a CPU, where batch norm's statistics then come from ablation/model/norm_act.py, right to 1e-6.
        ema_decay: decay of the exponential moving average of the weights (evaluated instead of
            them), reached gradually; null: no average.
        eval_every: epochs between evaluations on val; the last epoch is always evaluated.
        score_threshold, nms_iou, max_detections: of evaluation.
        voc_inclusive: of AP50_voc: corners are pixels that belong to the box (a side is x2 - x1 + 1), as in
            Pascal VOC's kit; false: corners are edges. Changes no other number; false is part of a run's key.
        checkpoint_share: in (0, 1], of the time of a run, that writing checkpoints takes at most: one is
            written at the end of an epoch where the last took at most this share of the time since. A run
            that is killed loses what came after its newest checkpoint. 1: after every epoch.
        checkpoint_every: epochs between checkpoints at least; the last epoch always has one.
        freeze_backbone_epochs: epochs in which the backbone, batch norm statistics included, stays.
        deterministic: ask torch for deterministic kernels. false: a run on a GPU is faster and does not
            repeat to the last bit; cuDNN then times its kernels if all batches have one size.
        device: auto, cpu, cuda, cuda:1, ...
        workers: data loader processes; 0 loads in the training process.
        threads: CPU threads of torch; null: what the launcher or torch chooses.
        diagnostics: keep what ablation/diagnostics measures; changes no weight and no AP.
        stop_after: stop, resumable, once this many epochs are done; null: go on to the end.
    """

    epochs: int = 30
    batch_size: int = 16
    size_px: int = 96
    multi_scale: list[int] | None = None
    precision: str = "auto"
    channels_last: bool = True
    ema_decay: float | None = 0.998
    eval_every: int = 5
    eval_batch_size: int = 32
    score_threshold: float = 0.001
    nms_iou: float = 0.5
    max_detections: int = 100
    voc_inclusive: bool = field(default=True, metadata=KEYED_IF_CHANGED)
    freeze_backbone_epochs: int = 0
    deterministic: bool = True
    checkpoint_share: float = field(default=0.02, metadata=NOT_IDENTITY)
    checkpoint_every: int = field(default=1, metadata=NOT_IDENTITY)
    device: str = field(default="auto", metadata=NOT_IDENTITY)
    workers: int = field(default=0, metadata=NOT_IDENTITY)
    threads: int | None = field(default=None, metadata=NOT_IDENTITY)
    diagnostics: bool = field(default=True, metadata=NOT_IDENTITY)
    stop_after: int | None = field(default=None, metadata=NOT_IDENTITY)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "eval_every", "eval_batch_size"):
            require(getattr(self, name) >= 1, name, getattr(self, name), ">= 1")
        for name in ("checkpoint_every", "max_detections"):
            require(getattr(self, name) >= 1, name, getattr(self, name), ">= 1")
        share = self.checkpoint_share
        require(0 < share <= 1, "checkpoint_share", share, "in (0, 1]")
        require(_fits_strides(self.size_px), "size_px", self.size_px, "a multiple of 32")
        sizes = self.multi_scale
        usable = sizes is None or (len(sizes) > 0 and all(_fits_strides(size_px) for size_px in sizes))
        require(usable, "multi_scale", sizes, "a list of multiples of 32, or null")
        precisions = ("auto", "fp32", "bf16", "fp16")
        require(self.precision in precisions, "precision", self.precision, "auto, fp32, bf16 or fp16")
        decay = self.ema_decay
        require(decay is None or 0 <= decay < 1, "ema_decay", decay, "in [0, 1), or null")
        require(0 <= self.score_threshold < 1, "score_threshold", self.score_threshold, "in [0, 1)")
        require(0 < self.nms_iou <= 1, "nms_iou", self.nms_iou, "in (0, 1]")
        require(self.workers >= 0, "workers", self.workers, ">= 0")
        for name in ("threads", "stop_after"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, value, ">= 1, or null")


def _fits_strides(size_px: int) -> bool:
    """Whether the network's largest stride, 32 px, divides an input's side."""
    return size_px >= 32 and size_px % 32 == 0


@dataclass
class TrackingConfig:
    """Where MLflow keeps what the runs' folders hold.

    Attributes:
        enabled: false: only the run's folder is written (`ablation sync` can log it later).
        uri: null: sqlite in mlflow.db of the working folder; or any MLflow tracking URI.
        artifacts: folder (or URI) of the artifacts of new experiments; null: mlartifacts/ in the
            working folder for SQLite, the server's own choice for a server.
    """

    enabled: bool = True
    uri: str | None = None
    artifacts: str | None = None

    def __post_init__(self) -> None:
        if self.uri is not None:
            self.uri = without_credentials(self.uri)  # before anything can store it
        require(self.uri != "", "uri", "nothing", "the server's address, as in tracking.uri=http://HOST:5000")


@dataclass
class AnalysisConfig:
    """What a study declares about its analysis before it runs; the plan keeps it with its time.

    Attributes:
        metric: what arms are compared by, at the last epoch.
        margin: the smallest difference of the metric that matters to the user, in the metric's own
            units: 0.01 is one point of AP. Arms whose difference lies within it are equivalent.
        level: of every interval.
        family: losses whose arms are tested together; null: every arm whose loss is not BCE.
        looks: rising numbers of pairs at which a verdict is drawn, such as [4,6,8,10]; the error is spread
            over them. null: one verdict, on all the runs there are.
        spending: exponent of the spending function of the looks; 1 spends as much on each pair, 2 late.
        prior_sd, prior_df: standard deviation of a paired difference in other runs, with its degrees of
            freedom, which keeps few pairs that agree by chance from looking certain; `ablation settle` sets
            them.
    """

    metric: str = "val/AP"
    margin: float = 0.01
    level: float = 0.95
    family: list[str] | None = None
    looks: list[int] | None = None
    spending: float = 2.0
    prior_sd: float | None = None
    prior_df: float = 0.0

    def __post_init__(self) -> None:
        require("/" in self.metric, "metric", self.metric, "the name of a logged metric, such as val/AP")
        require(self.margin > 0, "margin", self.margin, "> 0")
        require(0 < self.level < 1, "level", self.level, "in (0, 1)")
        if self.looks is not None:
            rising = all(a < b for a, b in itertools.pairwise([2, *self.looks])) and bool(self.looks)
            require(rising, "looks", self.looks, "rising numbers of pairs from 3 on, such as [4,6,8,10]")
        require(0 < self.spending <= 10, "spending", self.spending, "in (0, 10]")
        require(self.prior_sd is None or self.prior_sd >= 0, "prior_sd", self.prior_sd, ">= 0, or null")
        require(self.prior_df >= 0, "prior_df", self.prior_df, ">= 0")


@dataclass
class HalvingConfig:
    """Successive halving: arms that score lowest stop early. For exploration, no verdict is drawn after it.

    Attributes:
        enabled: off by default.
        rungs: rising numbers of epochs at which arms are ranked by the mean of `analysis.metric` over
            their seeds; train.eval_every must divide each.
        keep_one_in: 2 or 3: of the arms that are left, the best half or third go on, rounded up; BCE arms
            always do.
    """

    enabled: bool = False
    rungs: list[int] = field(default_factory=list)
    keep_one_in: int = 2

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in itertools.pairwise([0, *self.rungs]))
        require(rising, "rungs", self.rungs, "rising numbers of epochs, such as [10,20]")
        enough = not self.enabled or bool(self.rungs)
        require(enough, "rungs", self.rungs, "at least one number of epochs while halving.enabled is true")
        require(self.keep_one_in in (2, 3), "keep_one_in", self.keep_one_in, "2 or 3")


@dataclass
class NotifyConfig:
    """A program of the user's that is told when a study ends, fails or needs attention.

    Attributes:
        command: its words, started without a shell; null: none. `{summary}` in a word becomes one line; the
            environment has it as ABLATION_SUMMARY; a JSON of the same and the runs' states is on its input.
        timeout_s: after so many seconds it is killed.
    """

    command: list[str] | None = None
    timeout_s: float = 30.0

    def __post_init__(self) -> None:
        words = self.command
        right = words is None or bool(words and words[0].strip())
        require(right, "command", words, "a list of words that begins with a program, or null")
        require(0 < self.timeout_s <= 600, "timeout_s", self.timeout_s, "in (0, 600] seconds")


def _is_name(text: str) -> bool:
    return text.isprintable() and len(text) <= 500


@dataclass
class RunConfig:
    """One run. Open groups hold instances of their classes once `typed` has been applied.

    Attributes:
        study: the question this run belongs to; MLflow's experiment.
        arm: the configuration without its seed, as a label; null: made from the loss.
        trainer: who trains; runs of a command have keys of another kind, see identity.command_key.
        seed: everything random derives from it.
        analysis: of the whole study; cannot change a run.
        retry: of a study: failed: runs that failed before are redone; null: they are left alone.
        halving: of a study: early stopping of arms.
        notify: of a study: whom to tell of its end.
        replace: of a study: if the data are other than its runs were made from, these leave its plan;
            false: the launch is refused.
        seeds, arms: of a sweep; not part of a run.
        out: folder that holds the studies' folders.
    """

    data: Any = MISSING
    model: Any = MISSING
    loss: Any = MISSING
    criterion: CriterionConfig = field(default_factory=CriterionConfig)
    assigner: AssignerConfig = field(default_factory=AssignerConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig, metadata=NOT_IDENTITY)
    seed: int = 0
    tracking: TrackingConfig = field(default_factory=TrackingConfig, metadata=NOT_IDENTITY)
    analysis: AnalysisConfig = field(default_factory=AnalysisConfig, metadata=NOT_IDENTITY)
    retry: str | None = field(default=None, metadata=NOT_IDENTITY)
    halving: HalvingConfig = field(default_factory=HalvingConfig, metadata=NOT_IDENTITY)
    notify: NotifyConfig = field(default_factory=NotifyConfig, metadata=NOT_IDENTITY)
    replace: bool = field(default=False, metadata=NOT_IDENTITY)
    study: str = field(default="default", metadata=NOT_IDENTITY)
    arm: str | None = field(default=None, metadata=NOT_IDENTITY)
    description: str = field(default="", metadata=NOT_IDENTITY)
    seeds: list[int] | None = field(default=None, metadata=NOT_IDENTITY)
    arms: list[Any] | None = field(default=None, metadata=NOT_IDENTITY)
    out: str = field(default="runs", metadata=NOT_IDENTITY)

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**63, "seed", self.seed, "in [0, 2^63)")
        name = "a name of at most 500 printable characters"
        require(bool(self.study.strip()) and _is_name(self.study), "study", self.study, name)
        require(self.arm is None or _is_name(self.arm), "arm", self.arm, name)
        require(self.retry in (None, "failed"), "retry", self.retry, "failed, or null")
