"""What a GPU has to show: agreement with the CPU, steps without waiting, full YOLOv4, several runs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.profiler import ProfilerActivity, profile

from ablation.commands.doctor.lines import Line, Settings
from ablation.commands.doctor.speed import peak, training_flop
from ablation.commands.doctor.together import step_speed, together
from ablation.commands.doctor.training import images_per_second, relative, small_run, synthetic_batch, wait
from ablation.errors import one_line
from ablation.files import size_text
from ablation.training.run import Run

SMALL = ("model=yolov4_tiny_small", "train.size_px=64", "train.batch_size=8", "data.size_px=64")
FULL = ("model=yolov4", "train=full", "train.workers=0", "train.size_px=416")
EPOCH_TOLERANCE = 2e-2
"""Relative, of the mean loss of an epoch in float32: rounding differs, and every step adds to it."""


def agreement(settings: Settings) -> Iterator[Line]:
    """One epoch of a small network on the CPU and on this device, from the same seed."""
    losses = []
    for device in ("cpu", settings.device):
        data = ["data.train_images=64", "data.val_images=2", "train.precision=fp32", "train.epochs=1"]
        with small_run([*SMALL, *data], device) as run, run.train_loader() as loader:
            losses.append(run.epoch(loader, 0)["train/loss"])
    gap = relative(losses[1], losses[0])
    text = f"mean loss {losses[1]:.5f}, on the CPU {losses[0]:.5f}: {gap:.1g} off (limit {EPOCH_TOLERANCE:g})"
    if gap <= EPOCH_TOLERANCE:
        yield Line("epoch against the CPU", "ok", text)
    else:
        remedy = "the GPU's numbers are wrong: update torch and the driver, or train with train.device=cpu"
        yield Line("epoch against the CPU", "failed", text, remedy)


def no_waiting(settings: Settings) -> Iterator[Line]:
    """Training steps in which torch raises wherever the host would wait for the device."""
    for optim, precision in (("adamw", "auto"), ("sgd", "auto"), ("adamw", "fp16")):
        overrides = [f"optim={optim}", f"train.precision={precision}", "data.train_images=16"]
        with small_run([*SMALL, *overrides], settings.device) as run:
            yield _no_waiting(run, f"{optim} {run.config.train.precision}")


def _no_waiting(run: Run, case: str) -> Line:
    run.model.train()
    batch = synthetic_batch(run).pin_memory() if run.device.type == "cuda" else synthetic_batch(run)
    for index in range(3):
        run.step(batch.to(run.device), 0, index)
    wait(run.device)
    name = f"no waiting, {case}"
    try:
        if run.device.type == "cuda":
            torch.cuda.set_sync_debug_mode("error")
        for index in range(3, 6):
            run.step(batch.to(run.device), 0, index)
    except RuntimeError as error:
        remedy = "training works and is slower than it need be: send this line to the project's issues"
        return Line(name, "failed", f"a step waits for the GPU: {one_line(error, 200)}", remedy)
    finally:
        if run.device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    return Line(name, "ok", "three steps without a synchronisation")


def full_network(settings: Settings) -> Iterator[Line]:
    """YOLOv4 at 416 px with batches of 16 and 64: speed, share of the measured peak, where the time goes."""
    for batch in (16, 64):
        yield from network_speed(
            f"yolov4 416 px batch {batch}", [*FULL, f"train.batch_size={batch}"], settings
        )


def network_speed(name: str, overrides: list[str], settings: Settings) -> Iterator[Line]:
    """One line for the speed of a configuration and one for its profile."""
    try:
        with small_run([*overrides, "data.train_images=64", "data.val_images=2"], settings.device) as run:
            speed = images_per_second(run, 8.0, warm_up=3)
            flop, precision = training_flop(run), run.config.train.precision
            best = peak(settings, precision)
            share = speed * flop / 1e9 / best
            memory = torch.cuda.max_memory_allocated(run.device) if settings.on_gpu else 0
            text = f"{speed:,.1f} images/s in {precision}, {share:.0%} of the peak of {best:,.0f} GFLOP/s"
            text += f", {size_text(memory)} of GPU memory" if memory else ""
            values = {
                "images_per_s": speed,
                "precision": precision,
                "share_of_peak": share,
                "memory_bytes": memory,
            }
            yield Line(name, "ok", text, values=values)
            shares = profiled(run)
            shown = ", ".join(f"{key} {value:.0%}" for key, value in list(shares.items())[:8])
            yield Line("  its time goes to", "info", shown, values=shares)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        yield Line(
            name, "info", "does not fit into the GPU's memory", "train with a smaller train.batch_size"
        )


def profiled(run: Run, steps: int = 3) -> dict[str, float]:
    """Share of a step's time on the device by operator, largest first."""
    activities = [ProfilerActivity.CPU]
    activities += [ProfilerActivity.CUDA] if run.device.type == "cuda" else []
    batch = synthetic_batch(run).to(run.device)
    with profile(activities=activities) as seen:
        for index in range(steps):
            run.step(batch, 0, index)
        wait(run.device)
    times: dict[str, float] = {}
    for event in seen.key_averages():
        if run.device.type == "cuda" and str(event.device_type).endswith("CUDA"):
            continue  # a kernel: its time is its operator's as well
        of_device = event.self_device_time_total if run.device.type == "cuda" else event.self_cpu_time_total
        name = event.key.removeprefix("aten::")
        times[name] = times.get(name, 0.0) + float(of_device)
    whole = sum(times.values()) or 1.0
    shares = {name: time / whole for name, time in times.items() if time / whole >= 0.005}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def side_by_side(settings: Settings) -> Iterator[Line]:
    """1, 4 and 8 small runs on one GPU; on a CPU with quick=true one and two."""
    alone = 0.0
    for copies in (1, 4, 8) if settings.on_gpu else (1, 2):
        threads = [] if settings.on_gpu else ["train.threads=1"]
        speeds = together(copies, step_speed, [*SMALL, *threads], settings.device, 4.0)
        total = sum(speeds)
        alone = alone or total
        text = f"{total:,.0f} images/s in all, {total / alone:.2f} x one run"
        values = {"copies": copies, "images_per_s": total}
        yield Line(f"{copies} small run{'s' * (copies > 1)}", "ok", text, values=values)
