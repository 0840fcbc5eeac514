"""How fast: the peak of matrix products and convolutions, then training steps of the presets."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import torch
from torch.utils.flop_counter import FlopCounterMode

from ablation.commands.doctor.lines import Line, Settings
from ablation.commands.doctor.training import images_per_second, small_run, synthetic_batch, wait
from ablation.machine import autocast_dtype, precision_for
from ablation.training.run import Run

PRESETS = {
    "demo (tiny_small 64 px)": ("model=yolov4_tiny_small", "train.size_px=64", "train.batch_size=8"),
    "small 96 px": ("model=yolov4_small", "train.size_px=96", "train.batch_size=8"),
    "tiny_small 256 px": ("model=yolov4_tiny_small", "train.size_px=256", "train.batch_size=8"),
    "tiny 416 px": ("model=yolov4_tiny", "train.size_px=416", "train.batch_size=8"),
    "yolov4 416 px batch 4": ("model=yolov4", "train=full", "train.workers=0", "train.batch_size=4"),
}


def look(settings: Settings) -> Iterator[Line]:
    """Peaks, then images/s."""
    threads = torch.get_num_threads()
    if not settings.on_gpu and not settings.quick:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    yield peaks(settings)
    for name, overrides in list(PRESETS.items())[: 1 if settings.quick else None]:
        yield _preset(name, list(overrides), settings)
    torch.set_num_threads(threads)


def peaks(settings: Settings) -> Line:
    """GFLOP/s of a square matrix product and of a 3x3 convolution as in YOLOv4, best of a second each."""
    device, precision = torch.device(settings.device), precision_for(torch.device(settings.device))[0]
    torch.backends.cudnn.allow_tf32 = False  # as in training: fp32 is float32
    values = {}
    for name in dict.fromkeys(["fp32", precision]):
        dtype = autocast_dtype(name) or torch.float32
        values[f"gemm_{name}"] = _gemm(device, dtype, settings)
        values[f"conv_{name}"] = _convolution(device, dtype, settings)
    text = ", ".join(f"{name.replace('_', ' ')} {value:,.0f}" for name, value in values.items())
    return Line("peak GFLOP/s", "ok", text, values=values)


def peak(settings: Settings, precision: str) -> float:
    """The better of the two in that precision, GFLOP/s."""
    device, dtype = torch.device(settings.device), autocast_dtype(precision) or torch.float32
    return max(_gemm(device, dtype, settings), _convolution(device, dtype, settings))


def _gemm(device: torch.device, dtype: torch.dtype, settings: Settings) -> float:
    side = 8192 if settings.on_gpu else 512 if settings.quick else 2048
    a = torch.randn(side, side, device=device).to(dtype)
    return 2 * side**3 / _best_s(lambda: a @ a, device, settings) / 1e9


def _convolution(device: torch.device, dtype: torch.dtype, settings: Settings) -> float:
    images, channels, side = (32, 256, 52) if settings.on_gpu else (2, 64 if settings.quick else 256, 52)
    pixels = torch.randn(images, channels, side, side, device=device).to(dtype)
    kernel = torch.randn(channels, channels, 3, 3, device=device).to(dtype)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    kernel = kernel.contiguous(memory_format=torch.channels_last)
    flop = 2 * images * side**2 * channels**2 * 9
    return flop / _best_s(lambda: torch.conv2d(pixels, kernel, padding=1), device, settings) / 1e9


def _best_s(call: Callable[[], torch.Tensor], device: torch.device, settings: Settings) -> float:
    """Seconds of one call; on a GPU ten are queued before the clock is read."""
    at_once = 10 if settings.on_gpu else 1
    with torch.no_grad():
        call()
        wait(device)
        best, began = float("inf"), time.perf_counter()
        while time.perf_counter() - began < (0.1 if settings.quick else 1.0):
            start = time.perf_counter()
            for _ in range(at_once):
                call()
            wait(device)
            best = min(best, (time.perf_counter() - start) / at_once)
    return best


def _preset(name: str, overrides: list[str], settings: Settings) -> Line:
    limit_s = 0.5 if settings.quick else 3.0
    with small_run([*overrides, "data.train_images=16", "data.val_images=2"], settings.device) as run:
        speed = images_per_second(run, limit_s, warm_up=1 if run.config.train.size_px > 300 else 5)
        precision, flop = run.config.train.precision, training_flop(run) if not settings.quick else 0.0
    values = {"images_per_s": speed, "precision": precision, "gflop_per_image": flop / 1e9}
    rate = f", {speed * flop / 1e9:,.0f} GFLOP/s" if flop else ""
    return Line(
        name, "ok", f"{speed:,.1f} images/s in {precision}{rate}; steps alone, without loading", values=values
    )


def training_flop(run: Run) -> float:
    """Floating-point operations of a training step for each image: convolutions and products."""
    batch = synthetic_batch(run).to(run.device)
    run.optimizer.zero_grad(set_to_none=True)
    with FlopCounterMode(display=False) as counter:
        run.loss(batch).total.backward()  # type: ignore[no-untyped-call]
    run.optimizer.zero_grad(set_to_none=True)
    return float(counter.get_total_flops()) / len(batch.images)
