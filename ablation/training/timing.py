"""Time a few real steps and evaluated images of a run that is built and prepared."""

from __future__ import annotations

import time

from torch import Tensor

from ablation.data.dataset import Image, Split
from ablation.training.evaluate import evaluate
from ablation.training.run import Run

WARM_UP = 2
LEAST_STEPS, MOST_STEPS, ENOUGH_S = 3, 30, 10.0
"""After the warm-up: steps until ENOUGH_S have passed, in multiples of the least number, up to the most."""


def evaluated_image_s(run: Run) -> float:
    """Seconds for one val image, on the first batch of them."""
    part = FirstImages(run.data.val, run.config.train.eval_batch_size)
    began = time.perf_counter()
    evaluate(run.network, part, run.data.classes, run.evaluation_settings)
    return (time.perf_counter() - began) / len(part)


def training_image_s(run: Run) -> float:
    """Seconds for one training image, loading included: a few real steps, which change the network."""
    train, loader = run.config.train, run.train_loader()
    run.model.freeze_backbone(train.freeze_backbone_epochs > 0)
    run.model.train()
    done, start = 0, time.perf_counter()
    began = start
    metrics: dict[str, Tensor] = {}
    with loader:
        for epoch in range(train.epochs):
            for index, batch in enumerate(loader.epoch(epoch)):
                metrics = run.step(batch.to(run.device), epoch, index)
                done += 1
                steps = done - WARM_UP
                if steps == 0:
                    began = _now(metrics)
                elif steps > 0 and steps % LEAST_STEPS == 0:
                    seconds = _now(metrics) - began
                    if steps >= MOST_STEPS or seconds > ENOUGH_S:
                        return seconds / steps / train.batch_size
    if done > WARM_UP:
        return (_now(metrics) - began) / (done - WARM_UP) / train.batch_size
    return (_now(metrics) - start) / done / train.batch_size


def _now(metrics: dict[str, Tensor]) -> float:
    """The time when the device has come to the end of this step; it is asked seldom, since asking waits."""
    float(metrics["loss"].detach())
    return time.perf_counter()


class FirstImages(Split):
    """The first images of a split, but enough of them to have an object."""

    def __init__(self, split: Split, count: int) -> None:
        with_objects = (i for i, example in enumerate(split.examples) if not example.ignored.all())
        first = next(with_objects, len(split) - 1)
        self._split = split
        self.examples = split.examples[: max(count, first + 1)]
        self.faults = []

    def read(self, index: int) -> Image:
        """Of the split itself."""
        return self._split.read(index)

    def fingerprint(self) -> str:
        """Of the split itself."""
        return self._split.fingerprint()
