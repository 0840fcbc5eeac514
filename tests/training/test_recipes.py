"""The recipes of the originals: schedules by hand, and trainings of several input sizes."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from ablation.config import OptimConfig, RunConfig, TrainConfig
from ablation.config.typed import filled
from ablation.data.shapes import Shapes
from ablation.losses.focal import Focal
from ablation.machine import set_up_torch
from ablation.model.yolov4_tiny import YOLOv4Tiny
from ablation.objective.criterion import CriterionConfig
from ablation.tracking.run_folder import RunFolder
from ablation.training.optim import build_optimizer, learning_rate, scaled_to_batch
from ablation.training.run import Run

ROOT = Path(__file__).resolve().parents[2]


def preset(name: str) -> OptimConfig:
    values = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "optim" / f"{name}.yaml"))
    preset: OptimConfig = filled("optim", OptimConfig, values)
    return preset


def former_rate(config: OptimConfig, step: int, steps_per_epoch: int, epochs: int) -> float:
    """Linear warm-up and cosine alone: what sgd and adamw must go on to be, bit for bit."""
    warmup = min(round(config.warmup_epochs * steps_per_epoch), epochs * steps_per_epoch - 1)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    share = (step - warmup) / max(epochs * steps_per_epoch - warmup - 1, 1)
    low = config.lr * config.lr_min_share
    return low + (config.lr - low) * (1 + math.cos(math.pi * share)) / 2


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("warmup", [0.0, 0.3, 1.0, 2.5, 100.0])
@pytest.mark.parametrize(("steps", "epochs"), [(7, 6), (1, 1), (25, 3)])
def test_the_plain_presets_are_warm_up_and_cosine_bit_for_bit(
    name: str, warmup: float, steps: int, epochs: int
) -> None:
    config = scaled_to_batch(replace(preset(name), warmup_epochs=warmup), 8)
    assert config.lr == preset(name).lr
    rates = [learning_rate(config, step, steps, epochs) for step in range(steps * epochs)]
    assert rates == [former_rate(config, step, steps, epochs) for step in range(steps * epochs)]


@pytest.mark.parametrize(
    ("batch", "rate"), [(64, 0.01), (16, 0.0025), (2, 0.0005), (1, 0.0005), (320, 0.05), (1000, 0.05)]
)
def test_the_seed_methods_rate_follows_the_batch_within_its_range(batch: int, rate: float) -> None:
    """.01 x batch / 64: at 16 it is .0025; at 2 it would be .0003125, below .0005; at 1000 .156."""
    assert scaled_to_batch(preset("blog"), batch).lr == pytest.approx(rate, rel=1e-12)


def test_the_seed_methods_schedule_by_hand() -> None:
    """300 epochs of 10 steps: 30 steps of warm-up (3 epochs), the last 150 (15 epochs) flat at 1 %.

    Warm-up: .001 + .009 (n / 30)^2. The cosine has 2820 steps, 30 to 2849; its middle is .00505.
    """
    config = scaled_to_batch(preset("blog"), 64)
    rates = [learning_rate(config, step, 10, 300) for step in range(3000)]
    assert rates[0] == pytest.approx(0.001 + 0.009 / 900)
    assert rates[14] == pytest.approx(0.001 + 0.009 / 4)
    assert rates[29] == pytest.approx(0.01)
    assert rates[30] == pytest.approx(0.01)
    assert (rates[1439] + rates[1440]) / 2 == pytest.approx(0.00505)
    assert rates[2848] > rates[2849] == pytest.approx(0.0001)
    assert set(rates[2849:]) == {rates[2849]}


@pytest.mark.parametrize(("epochs", "warmup"), [(10, 1), (20, 1), (40, 2), (60, 3), (300, 3)])
def test_the_seed_methods_warm_up_is_5_percent_and_between_1_and_3_epochs(epochs: int, warmup: int) -> None:
    config = preset("blog")
    rates = [learning_rate(config, step, 100, epochs) for step in range(epochs * 100)]
    assert rates.index(max(rates)) == warmup * 100 - 1


def test_darknets_schedule_by_hand() -> None:
    """100 epochs of 100 steps. (500 / 1000)^4 = 1/16; x .1 from step 8000, x .01 from step 9000."""
    config = preset("darknet")
    rates = [learning_rate(config, step, 100, 100) for step in range(10_000)]
    assert rates[0] == pytest.approx(0.0013e-12)
    assert rates[499] == pytest.approx(0.0013 / 16)
    assert rates[999] == pytest.approx(0.0013)
    assert set(rates[1000:8000]) == {0.0013}
    assert rates[8000:9000] == pytest.approx([0.00013] * 1000)
    assert rates[9000:] == pytest.approx([0.000013] * 1000)


def test_a_burn_in_longer_than_the_training_still_reaches_the_peak() -> None:
    rates = [learning_rate(preset("darknet"), step, 5, 4) for step in range(20)]
    assert all(a < b for a, b in pairwise(rates[:19]))
    assert rates[18] == pytest.approx(0.0013)


def test_darknets_momentum_is_not_nesterovs_and_the_seed_methods_is() -> None:
    model = nn.Linear(2, 2)
    groups = {name: build_optimizer(model, preset(name)).param_groups[0] for name in ("blog", "darknet")}
    assert (groups["blog"]["nesterov"], groups["blog"]["momentum"]) == (True, 0.937)
    assert (groups["darknet"]["nesterov"], groups["darknet"]["momentum"]) == (False, 0.949)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"schedule": "exponential"}, "schedule"),
        ({"milestones": [0.9, 0.8]}, "milestones"),
        ({"milestones": [0.5, 1.0]}, "milestones"),
        ({"milestones": [float("nan")]}, "milestones"),
        ({"factor": 0.0}, "factor"),
        ({"lr_low": 0.1, "lr_high": 0.01}, "lr_low"),
        ({"reference_batch": 0}, "reference_batch"),
        ({"warmup_power": 0.0}, "warmup_power"),
        ({"warmup_start": 1.5}, "warmup_start"),
        ({"flat_share": 1.0}, "flat_share"),
    ],
)
def test_schedules_out_of_range_are_refused_by_name(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(ValueError, match=f"^{key}: found .*, must be"):
        OptimConfig(**changes)


def small_run(folder: Path, **train: Any) -> Run:
    data = Shapes(train_images=16, val_images=4, test_images=4, size_px=64, cache="none")
    config = RunConfig(
        data=data,
        model=YOLOv4Tiny(width=0.125, anchors_at_px=416),
        loss=Focal(),
        criterion=CriterionConfig(match_bce=True, calibration_batches=2),
        train=TrainConfig(epochs=3, batch_size=4, size_px=64, precision="fp32", device="cpu", **train),
    )
    return Run(config, data.open(), RunFolder(folder), lambda epoch, metrics: None)


def test_a_training_of_several_sizes_sees_them_all_and_is_calibrated_at_one(tmp_path: Path) -> None:
    """Anchors and calibration belong to size_px; the batches, and their grids, take every size."""
    several = small_run(tmp_path / "several", multi_scale=[32, 64, 96])
    assert several.fit() == "FINISHED"
    assert set(several.grids.by_size) == {(32, 32), (64, 64), (96, 96)}
    single = small_run(tmp_path / "single")
    single.prepare()
    assert several.criterion.calibration == single.criterion.calibration != 1.0
    assert several.model.layout == single.model.layout
    assert several.folder.read_json("notes.json")["confidence_gain"] == several.criterion.gain
    assert (tmp_path / "several" / "batch.png") in several.folder.artifacts()


@pytest.mark.parametrize("sizes", [[], [64, 100], [0], [-32]])
def test_sizes_that_are_no_multiples_of_32_are_refused(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match=r"^multi_scale: found .*, must be a list of multiples of 32"):
        TrainConfig(multi_scale=sizes)


def test_no_code_reads_a_tensor_before_it_is_written(tmp_path: Path) -> None:
    """Deterministic mode can fill new tensors with NaN, which training switches off: equal weights."""
    weights = []
    for fill in (True, False):
        set_up_torch(1, True)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        run = small_run(tmp_path / str(fill))
        try:
            assert run.fit() == "FINISHED"
        finally:
            set_up_torch(1, False)
        weights.append(torch.cat([tensor.flatten().double() for tensor in run.network.state_dict().values()]))
    assert torch.equal(*weights) and torch.isfinite(weights[0]).all()
