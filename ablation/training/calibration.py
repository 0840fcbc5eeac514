"""What is measured on the first batches of a training without moving the network: gain and gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor

from ablation.config import RunConfig
from ablation.data.dataset import Split
from ablation.data.loader import Batch, train_batches
from ablation.model.base import Detector
from ablation.objective.criterion import CalibrationBatch


def first_batches(config: RunConfig, split: Split, count: int) -> list[Batch]:
    """The first batches of the training, though all of size_px: the same for every arm of a seed."""
    train = config.train
    batches = train_batches(
        split,
        seed=config.seed,
        epoch=0,
        epochs=train.epochs,
        batch_size=train.batch_size,
        size_px=train.size_px,
        augment=config.augment,
    )
    return list(islice(batches, count))


def calibration_batches(
    model: Detector,
    forward: Callable[[Tensor], list[Tensor]],
    batches: Sequence[Batch],
    device: torch.device,
) -> Iterator[CalibrationBatch]:
    """The heads' outputs and the objects of each batch.

    Batch norm uses the statistics of the batch, as in training; the network's running statistics are
    restored after the last batch.

    Args:
        model: left in training mode.
        forward: (batch, 3, height, width) uint8 images on `device` -> the model's outputs.
    """
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    former = [{name: buffer.clone() for name, buffer in module.named_buffers()} for module in norms]
    model.train()
    for batch in batches:
        batch = batch.to(device)
        with torch.no_grad():
            outputs = forward(batch.images)
        yield outputs, batch.boxes_cxcywh_px, batch.labels, batch.present
    for module, buffers in zip(norms, former, strict=True):
        for name, buffer in module.named_buffers():
            buffer.copy_(buffers[name])
