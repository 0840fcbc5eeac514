"""Steps that are not finite: on the host and on the device, with and without a loss scale."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.command import TINY, ablation, metrics, run_folders
from torch import Tensor, nn

from ablation import machine
from ablation.commands.doctor.training import small_run
from ablation.config import OptimConfig
from ablation.data.loader import Batch
from ablation.errors import Diverged
from ablation.losses.focal import Focal
from ablation.model.head import cell_grid
from ablation.model.yolov4_tiny import YOLOv4Tiny
from ablation.objective.assigner import Assigner, AssignerConfig
from ablation.objective.criterion import Criterion, CriterionConfig, LossParts
from ablation.training import checkpoint, precision
from ablation.training.moving_average import MovingAverage
from ablation.training.optim import build_optimizer, gradient_norm
from ablation.training.precision import LEAST_SCALE, LossScale, StepGuard
from ablation.training.run import Run
from ablation.training.running_means import RunningMeans

CPU = torch.device("cpu")
OPTIMIZERS = [OptimConfig(name="adamw", lr=0.1), OptimConfig(name="sgd", lr=0.1, momentum=0.9)]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))


class Trial:
    """A network, its guard and its average, trained on fixed batches; some steps get a bad gradient."""

    def __init__(self, config: OptimConfig, deferred: bool, fp16: bool = False) -> None:
        self.model = network()
        self.optimizer = build_optimizer(self.model, config)
        self.guard = StepGuard(self.optimizer, LossScale(CPU) if fp16 else None, deferred)
        self.average = MovingAverage(self.model, 0.9)

    def step(self, index: int, factor: float = 1.0, gradient: float = 1.0) -> None:
        """Train on batch `index`; the loss is multiplied by `factor`, its gradient by `gradient`."""
        generator = torch.Generator().manual_seed(index)
        inputs = torch.randn(16, 4, generator=generator)
        if factor != factor:
            inputs = inputs * factor
        loss = (self.model(inputs) - 1).square().mean()
        if gradient != 1.0:
            loss.register_hook(lambda g: g * gradient)
        self.optimizer.zero_grad(set_to_none=True)
        self.guard.backward(loss)
        norm = gradient_norm(self.model, 10.0)
        self.guard.step(loss.detach(), norm, 0, index)
        self.average.update_parameters(self.model, self.guard.taken)

    def state(self) -> dict[str, Tensor]:
        """Everything that lasts."""
        return copy.deepcopy(self.model.state_dict() | self.average.state_dict())


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("config", OPTIMIZERS, ids=lambda c: c.name)
def test_the_device_decides_as_the_host_does_where_all_is_finite(config: OptimConfig) -> None:
    host, device = Trial(config, deferred=False), Trial(config, deferred=True)
    for index in range(6):
        host.step(index)
        device.step(index)
    device.guard.finish()
    assert same(host.state(), device.state())


@pytest.mark.parametrize("config", OPTIMIZERS, ids=lambda c: c.name)
@pytest.mark.parametrize("bad", [0, 3])
@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_the_host_names_the_step_later_and_nothing_of_it_or_of_the_next_enters(
    config: OptimConfig, bad: int, kind: str
) -> None:
    """The weights stay; the average still moves towards them, and its statistics stay as well."""
    trial = Trial(config, deferred=True)
    for index in range(bad):
        trial.step(index)
    before = trial.state()
    fault = {"factor": float("nan")} if kind == "loss" else {"gradient": float("inf")}
    trial.step(bad, **fault)
    with pytest.raises(Diverged, match=f"^epoch 1, step {bad + 1}: loss .*, gradient norm (nan|inf)$"):
        trial.step(bad + 1)
    after = trial.state()
    weights = {name: before[name] for name, _ in trial.model.named_parameters()}
    assert same(weights, after)
    averages = {name: value for name, value in after.items() if name.startswith("module.")}
    assert all(torch.isfinite(value).all() for value in averages.values())
    assert same({name: before[name] for name in averages if "running" in name}, after)


def test_a_divergence_in_the_last_step_of_an_epoch_is_read_at_its_end() -> None:
    trial = Trial(OPTIMIZERS[0], deferred=True)
    trial.step(0, gradient=float("nan"))
    with pytest.raises(Diverged, match="step 1"):
        trial.guard.finish()


@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize("config", OPTIMIZERS, ids=lambda c: c.name)
def test_fp16_leaves_a_step_out_halves_its_scale_and_goes_on(config: OptimConfig, deferred: bool) -> None:
    """As if the bad batches, the first among them, had never been there, except for the scale."""
    trial, without = Trial(config, deferred, fp16=True), Trial(config, deferred, fp16=True)
    for index in range(6):
        if index in (0, 4):
            weights = {name: value.clone() for name, value in trial.model.named_parameters()}
            trial.step(index, gradient=float("inf"))
            assert not trial.guard.taken
            assert same(weights, dict(trial.model.named_parameters()))
        else:
            trial.step(index)
            without.step(index)
    trial.guard.finish()
    assert trial.guard.scale is not None
    assert trial.guard.scale.state() == {"scale": 2.0**14, "finite_steps": 1}
    # A power of two divides out: the scale leaves no trace in the weights.
    assert same(dict(without.model.named_parameters()), dict(trial.model.named_parameters()))


@pytest.mark.parametrize("deferred", [False, True])
def test_fp16_diverges_at_a_loss_that_is_not_finite_and_at_the_least_scale(deferred: bool) -> None:
    trial = Trial(OPTIMIZERS[0], deferred, fp16=True)
    with pytest.raises(Diverged, match="step 1: loss nan"):
        trial.step(0, factor=float("nan"))
        trial.guard.finish()
    trial = Trial(OPTIMIZERS[0], deferred, fp16=True)
    assert trial.guard.scale is not None
    trial.guard.scale.load({"scale": LEAST_SCALE * 2, "finite_steps": 0})
    trial.step(0, gradient=float("inf"))
    with pytest.raises(Diverged, match=r"step 2: loss [\d.]+, gradient norm (inf|nan)"):
        trial.step(1, gradient=float("inf"))
        trial.guard.finish()


def test_the_scale_grows_after_enough_finite_steps_and_stays_in_its_range(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precision, "GROW_AFTER", 3)
    scale, yes, no = LossScale(CPU), torch.tensor(True), torch.tensor(False)
    seen = []
    for finite in (yes, yes, no, yes, yes, yes, yes):
        scale.update(finite)
        seen.append((float(scale.scale), int(scale.finite_steps)))
    half, whole = 2.0**15, 2.0**16
    assert seen == [(whole, 1), (whole, 2), (half, 0), (half, 1), (half, 2), (whole, 0), (whole, 1)]
    for _ in range(100):
        scale.update(no)
    assert float(scale.scale) == LEAST_SCALE
    for _ in range(300):
        scale.update(yes)
    assert float(scale.scale) == precision.LARGEST_SCALE
    for state in ({"scale": 0.0, "finite_steps": 0}, {"scale": 1.0, "finite_steps": -1}):
        with pytest.raises(ValueError, match="loss scale"):
            scale.load(state)


def test_steps_left_out_are_in_no_mean() -> None:
    means = RunningMeans()
    for value, taken in ((1.0, True), (float("inf"), False), (3.0, True), (float("nan"), False)):
        means.add({"loss": torch.tensor(value)}, torch.tensor(taken))
    assert means.means() == {"loss": 2.0, "skipped_steps": 0.5}


def test_an_epoch_without_a_step_has_no_mean() -> None:
    means = RunningMeans()
    means.add({"loss": torch.tensor(float("inf"))}, torch.tensor(False))
    assert means.means() == {"skipped_steps": 1.0}


@pytest.fixture
def deferred_run(tmp_path: Path) -> Iterator[Run]:
    """A run as on a GPU: what becomes of a step is decided by the device."""
    with small_run([*TINY, "train.epochs=1", "train.ema_decay=0.9"], "cpu", tmp_path) as run:
        run.prepare()
        run.guard = StepGuard(run.optimizer, None, deferred=True)
        yield run


def spoil(run: Run, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of this step is NaN."""
    real, steps = run.loss, iter(range(1000))

    def loss(batch: Batch) -> LossParts:
        parts = real(batch)
        return parts._replace(total=parts.total * float("nan")) if next(steps) == at else parts

    monkeypatch.setattr(run, "loss", loss)


def test_a_run_reads_its_last_step_at_the_end_of_the_epoch(
    deferred_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = deferred_run
    spoil(run, run.steps_per_epoch - 1, monkeypatch)
    with run.train_loader() as loader, pytest.raises(Diverged, match=f"step {run.steps_per_epoch}: loss nan"):
        run.epoch(loader, 0)


def test_nothing_of_a_step_that_was_left_out_enters_the_average(
    deferred_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = deferred_run
    assert run.average is not None
    spoil(run, 1, monkeypatch)
    with run.train_loader() as loader:
        batches = loader.epoch(0)
        run.step(next(batches), 0, 0)
        before = {name: value.clone() for name, value in run.average.state_dict().items()}
        run.step(next(batches), 0, 1)
    after = run.average.state_dict()
    assert run.guard.taken is not None and not run.guard.taken
    statistics = {name: value for name, value in before.items() if "running" in name}
    assert statistics and same(statistics, after)


def test_a_loaded_average_counts_on_the_host() -> None:
    """Asking the device at every step would be waiting for it at every step."""
    trial = Trial(OPTIMIZERS[0], deferred=True)
    trial.step(0)
    average = MovingAverage(trial.model, 0.9)
    average.load_state_dict(trial.average.state_dict())
    average.update_parameters(trial.model)
    average.n_averaged.fill_(1000)  # what the device says is not asked again
    trial.average.update_parameters(trial.model)
    before = copy.deepcopy(average.state_dict())
    trial.step(1)
    average.update_parameters(trial.model)
    trial.guard.finish()
    moved = [name for name, value in average.state_dict().items() if not torch.equal(value, before[name])]
    assert moved and same(
        {name: value for name, value in trial.average.state_dict().items() if name.startswith("module.")},
        average.state_dict(),
    )


def test_sgd_goes_on_when_a_frozen_backbone_thaws(tmp_path: Path) -> None:
    """torch's fused SGD refuses parameters of which only some have a momentum."""
    settings = ["optim=sgd", "train.freeze_backbone_epochs=1", "train.epochs=2", "tracking=none"]
    ablation(tmp_path, "train", *TINY, *settings)
    (run,) = run_folders(tmp_path)
    assert (run / "DONE").read_text() == "FINISHED\n"


@pytest.mark.parametrize(
    ("deterministic", "fixed", "timed"), [(True, True, False), (False, True, True), (False, False, False)]
)
def test_kernels_are_timed_only_where_sizes_repeat_and_bits_need_not(
    deterministic: bool, fixed: bool, timed: bool
) -> None:
    machine.set_up_torch(None, deterministic, fixed)
    try:
        assert torch.backends.cudnn.benchmark == timed and not torch.backends.cudnn.allow_tf32
    finally:
        machine.set_up_torch(None, True)


def test_a_step_on_a_gpu_asks_the_device_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors on "meta" have shapes and no values: an .item() anywhere in the step would raise.

    All but torch's own kernels of the optimizer and of the foreach norm, which do not exist for them.
    """
    monkeypatch.setattr(StepGuard, "finish", lambda self: None)
    meta = torch.device("meta")
    config = YOLOv4Tiny(width=0.0625)
    layout = config.head_layout(3, 64)
    criterion = Criterion(CriterionConfig(), Focal(), layout, Assigner(AssignerConfig(), layout, meta))
    model, grid, means = config.build(3, 64, 0).to(meta), cell_grid(layout, 64, 64, meta), RunningMeans()
    for optim in OPTIMIZERS:
        optimizer = build_optimizer(model, optim)
        monkeypatch.setattr(optimizer, "step", lambda: None)
        guard, average = StepGuard(optimizer, LossScale(meta), True), MovingAverage(model, 0.9)
        for index in range(2):
            optimizer.zero_grad(set_to_none=True)
            outputs = list(model(torch.rand(2, 3, 64, 64, device=meta)))
            boxes, labels = torch.rand(2, 4, 4, device=meta), torch.zeros(2, 4, device=meta).long()
            parts = criterion(outputs, boxes, labels, labels == 0, grid)
            guard.backward(parts.total)
            norm = nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            guard.step(parts.total.detach(), norm, 0, index)
            average.update_parameters(model, guard.taken)
            means.add({"loss": parts.total, "norm": norm}, guard.taken)
    assert guard.taken is not None and guard.taken.device == meta
    with pytest.raises(RuntimeError, match="meta"):
        bool(guard.taken)


FP16 = [*TINY, "train.precision=fp16", "train.epochs=2", "tracking=none"]


def test_fp16_trains_on_a_cpu_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    """The scale is of the checkpoint: without it the resumed run would start again at 65536."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    ablation(whole, "train", *FP16)
    ablation(parts, "train", *FP16, "train.stop_after=1")
    ablation(parts, "train", *FP16)
    (first,), (second,) = run_folders(whole), run_folders(parts)
    assert first.name == second.name
    assert metrics(first) == metrics(second)
    weights = [torch.load(run / "weights.pt", weights_only=True)["model"] for run in (first, second)]
    assert same(*weights)
    saved = [torch.load(checkpoint.checkpoints(run)[0], weights_only=True) for run in (first, second)]
    assert saved[0]["loss_scale"] == saved[1]["loss_scale"]
    assert saved[0]["loss_scale"]["finite_steps"] > 0
    last = metrics(first)[-1]
    assert last["train/loss_scale"] > 0 and 0 <= last["train/skipped_steps"] < 1
    assert json.loads((first / "notes.json").read_text())["precision"] == "fp16"


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ((6, 1), "fp32"),
        ((7, 0), "fp16"),
        ((7, 5), "fp16"),
        ((8, 0), "bf16"),
        ((9, 0), "bf16"),
        ((12, 0), "bf16"),
    ],
)
def test_a_gpu_gets_the_fastest_precision_that_it_has(
    capability: tuple[int, int], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    cuda = torch.device("cuda")
    assert machine.resolve_precision("auto", cuda) == expected
    assert machine.resolve_precision("fp32", cuda) == "fp32"
    assert f"{capability[0]}.{capability[1]}" in machine.precision_for(cuda)[1]
