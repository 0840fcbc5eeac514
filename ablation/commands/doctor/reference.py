"""Two training steps of every network, in numbers that any machine must reproduce within a tolerance.

Stored in reference.json, made on a CPU in float32 by

    python -m ablation.commands.doctor.reference

It is made anew when a change of the networks, the criterion or the optimizer is meant to move them.
"""

from __future__ import annotations

import json
from pathlib import Path

from ablation.commands.doctor.training import largest_difference, small_run, synthetic_batch
from ablation.files import write_text

FILE = Path(__file__).with_name("reference.json")
MODELS = ("yolov4_tiny_small", "yolov4_small", "yolov4_tiny", "yolov4")
TERMS = ("loss_box", "loss_class", "loss_confidence")
TERM_TOLERANCE, GRADIENT_TOLERANCE, HALF_TOLERANCE = 1e-3, 1e-2, 3e-2
"""Largest relative differences in float32, of the terms of the loss and of what the gradient decides; and
of the terms in bf16 and fp16. One CPU with 1 and 2 threads, without oneDNN and in bf16 and fp16 stayed below
half of the last two: 4e-3 for the gradient, 1.3e-2 for the terms.
"""
_STEP = (
    *("train.size_px=128", "train.batch_size=4", "optim=sgd", "optim.lr=0.001", "optim.warmup_epochs=0"),
    *("loss=focal", "data.train_images=8", "data.val_images=2", "data.size_px=64"),
)


def training_steps(model: str, precision: str, device: str) -> dict[str, float]:
    """The terms of the loss and its gradient's norm at the initial weights, and the loss after a step."""
    overrides = [*_STEP, f"model={model}", f"train.precision={precision}"]
    with small_run(overrides, device) as run:
        run.model.train()
        batch = synthetic_batch(run).to(run.device)
        first, second = run.step(batch, 0, 0), run.step(batch, 0, 1)
        run.guard.finish()
    values = {name: float(first[name]) for name in (*TERMS, "grad_norm")}
    return values | {"loss_after_a_step": float(second["loss"].detach())}


def compare(measured: dict[str, float], expected: dict[str, float], precision: str) -> tuple[bool, str]:
    """Whether the numbers agree within the tolerance of the precision, and by how much, for people."""
    gradient = {name: value for name, value in expected.items() if name not in TERMS}
    terms, which = largest_difference(measured, {name: expected[name] for name in TERMS})
    if precision != "fp32":
        return terms <= HALF_TOLERANCE, f"{which} {terms:.1g} off (limit {HALF_TOLERANCE:g})"
    other, name = largest_difference(measured, gradient)
    fits = terms <= TERM_TOLERANCE and other <= GRADIENT_TOLERANCE
    limits = f"limits {TERM_TOLERANCE:g} and {GRADIENT_TOLERANCE:g}"
    return fits, f"{which} {terms:.1g}, {name} {other:.1g} off ({limits})"


def stored() -> dict[str, dict[str, float]]:
    """The numbers of the file, by model."""
    content: dict[str, dict[str, float]] = json.loads(FILE.read_text(encoding="utf-8"))
    return content


if __name__ == "__main__":
    numbers = {model: training_steps(model, "fp32", "cpu") for model in MODELS}
    write_text(FILE, json.dumps(numbers, indent=1) + "\n")
    print(f"{FILE}: {', '.join(numbers)}")
