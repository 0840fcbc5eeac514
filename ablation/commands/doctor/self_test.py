"""A short test of training on this device: a step of each network, resuming, evaluation."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from ablation.commands.doctor import reference
from ablation.commands.doctor.lines import Line, Settings
from ablation.commands.doctor.training import run_of, small_run
from ablation.machine import precision_for
from ablation.training.evaluate import coco_ground_truth, coco_metrics
from ablation.training.run import Run

TINY = (
    *("model=yolov4_tiny_small", "model.width=0.0625", "data.train_images=16", "data.val_images=8"),
    *("data.size_px=64", "train.size_px=64", "train.batch_size=8", "train.epochs=2", "train.eval_every=2"),
    "train.threads=1",
)
WRONG = "the numbers of this device are wrong: update torch and the driver, or look with device=cpu"


def look(settings: Settings) -> Iterator[Line]:
    """One line for each test."""
    for model in reference.MODELS[:1] if settings.quick else reference.MODELS:
        yield _step(model, settings)
    yield _resume(settings)
    yield _detection(settings)


def _step(model: str, settings: Settings) -> Line:
    """A training step against the stored one, in float32 and in the precision of this device."""
    expected, texts, fine = reference.stored()[model], [], True
    automatic = precision_for(torch.device(settings.device))[0]
    differences = {}
    for precision in dict.fromkeys(["fp32", automatic]):
        measured = reference.training_steps(model, precision, settings.device)
        fits, text = reference.compare(measured, expected, precision)
        fine, differences[precision] = fine and fits, measured
        texts.append(f"{precision}: {text}")
    name, text = f"step of {model}", "; ".join(texts)
    if fine:
        return Line(name, "ok", text, values=differences)
    return Line(name, "failed", text, WRONG, differences)


def _resume(settings: Settings) -> Line:
    """Two epochs in one go, and in two."""
    networks = []
    for parts in (False, True):
        with small_run(list(TINY), settings.device) as run, tempfile.TemporaryDirectory() as folder:
            if parts:
                stopped = replace(run.config, train=replace(run.config.train, stop_after=1))
                run_of(stopped, Path(folder)).fit()
            whole = run_of(run.config, Path(folder))
            whole.fit()
            networks.append([value.cpu().double() for value in whole.network.state_dict().values()])
    pairs = list(zip(*networks, strict=True))
    if all(torch.equal(a, b) for a, b in pairs):
        return Line(
            "resume",
            "ok",
            "a run that was stopped ends with the weights of one that was not, to the last bit",
        )
    largest = max(float((a - b).abs().max()) for a, b in pairs)
    text = f"the weights of a resumed run differ by up to {largest:.1g}"
    if settings.on_gpu and largest < 1e-2:
        return Line("resume", "ok", f"{text}: a GPU does not repeat to the last bit")
    return Line("resume", "failed", text, WRONG)


def _detection(settings: Settings) -> Line:
    """Perfect detections have AP 1; an untrained network has the AP that it has on the CPU."""
    with small_run([*TINY, "train.precision=fp32"], settings.device) as run:
        perfect, measured = _perfect(run), run.evaluation()
    on_cpu = measured
    if settings.on_gpu:
        with small_run([*TINY, "train.precision=fp32"], "cpu") as run:
            on_cpu = run.evaluation()
    gap = abs(measured.metrics["AP50"] - on_cpu.metrics["AP50"])
    text = (
        f"AP of perfect detections {perfect:.3f}, {len(measured.results)} detections of an untrained network"
    )
    if settings.on_gpu:
        text += f", whose AP50 is {gap:.1g} from the CPU's"
    if math.isclose(perfect, 1.0) and measured.results and gap < 0.01:
        return Line("detection", "ok", text)
    return Line("detection", "failed", text, WRONG)


def _perfect(run: Run) -> float:
    truth = coco_ground_truth(run.data.val, run.data.classes)
    names = ("image_id", "category_id", "bbox")
    results = [
        {name: a[name] for name in names} | {"score": 1.0} for a in truth["annotations"] if not a["iscrowd"]
    ]
    return coco_metrics(truth, results, run.data.classes).metrics["AP"]
