"""Batches for training and evaluation. The only file of `data` that imports torch."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ablation.data.augment import AugmentConfig, augment
from ablation.data.cache import CachedSplit
from ablation.data.dataset import Example, Split
from ablation.data.letterbox import Letterbox, letterbox
from ablation.errors import AblationError, UsageError, counted
from ablation.rng import generator


@dataclass
class Batch:
    """Training images and their objects.

    Attributes:
        images: (batch, 3, size_px, size_px) uint8, RGB.
        boxes_cxcywh_px: (batch, objects, 4) float32 in pixels of the input, zero where there is none.
            objects is the largest number in this batch, at least 1.
        labels: (batch, objects) int64, zero where there is none.
        present: (batch, objects) bool: which of them exist.
        indices: (batch,) int64 positions in the split.
    """

    images: Tensor
    boxes_cxcywh_px: Tensor
    labels: Tensor
    present: Tensor
    indices: Tensor

    def _each(self, change: Any) -> Batch:
        tensors = (self.images, self.boxes_cxcywh_px, self.labels, self.present, self.indices)
        return Batch(*(change(tensor) for tensor in tensors))

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on `device`; does not wait for the copy if the batch is pinned."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, from which a GPU copies by itself."""
        return self._each(lambda tensor: tensor.pin_memory())

    def digest(self) -> str:
        """SHA-256 over images, boxes and labels: equal digests, equal batches."""
        digest = hashlib.sha256()
        for tensor in (self.images, self.boxes_cxcywh_px, self.labels):
            digest.update(repr(tuple(tensor.shape)).encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class GroundTruth:
    """The objects of some images, padded to one number for all.

    Attributes:
        boxes_cxcywh_px: (images, objects, 4) float32 in pixels of the input, zero in the padding.
            objects is the largest number of an image, at least 1.
        labels: (images, objects) int64, zero in the padding.
        present: (images, objects) bool, false in the padding.
    """

    boxes_cxcywh_px: Tensor
    labels: Tensor
    present: Tensor


def padded_ground_truth(
    objects: Sequence[tuple[NDArray[np.float32], NDArray[np.int64]]],
) -> GroundTruth:
    """Pad boxes_xyxy_px (n, 4) and labels (n,) of each image to one number of objects."""
    most = max([1, *(len(labels) for _, labels in objects)])
    boxes_cxcywh = np.zeros((len(objects), most, 4), np.float32)
    padded_labels = np.zeros((len(objects), most), np.int64)
    present = np.zeros((len(objects), most), np.bool_)
    for row, (boxes_xyxy, labels) in enumerate(objects):
        count = len(labels)
        boxes_cxcywh[row, :count, :2] = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
        boxes_cxcywh[row, :count, 2:] = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
        padded_labels[row, :count] = labels
        present[row, :count] = True
    return GroundTruth(*(torch.from_numpy(array) for array in (boxes_cxcywh, padded_labels, present)))


def letterboxed_ground_truth(examples: Iterable[Example], geometries: Iterable[Letterbox]) -> GroundTruth:
    """The objects of images that are not augmented, without the ignored, as training would see them."""
    objects = []
    for example, geometry in zip(examples, geometries, strict=True):
        trained = ~example.ignored
        objects.append((geometry.to_input(example.boxes_xyxy_px[trained]), example.labels[trained]))
    return padded_ground_truth(objects)


@dataclass
class ValBatch:
    """Images to evaluate, letterboxed.

    Attributes:
        images: (batch, 3, size_px, size_px) uint8, RGB.
        indices: (batch,) int64 positions in the split.
        geometries: how each was fitted; `to_original` takes detections back to the image's pixels.
    """

    images: Tensor
    indices: Tensor
    geometries: list[Letterbox]


def batches_per_epoch(split: Split, batch_size: int) -> int:
    """Whole batches; the images left over wait for another epoch's order. Raises UsageError if none."""
    if batch_size < 1:
        raise UsageError(f"train.batch_size: found {batch_size}, must be 1 or more")
    if len(split) < batch_size:
        raise UsageError(
            f"train.batch_size: {batch_size}, but the train split has {counted(len(split), 'image')}; "
            f"set train.batch_size={max(1, len(split))} or less"
        )
    return len(split) // batch_size


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch takes the images: a permutation of 0 .. count - 1."""
    return generator(seed, "order", epoch).permutation(count)


_Job = tuple[int, int, tuple[int, ...]]
"""epoch, size_px, image indices: all that a worker needs to know of a batch."""


class _Batches(Dataset[Batch | AblationError]):
    def __init__(self, split: Split, seed: int, epochs: int, config: AugmentConfig) -> None:
        self.split, self.seed, self.epochs, self.config = split, seed, epochs, config

    def __getitem__(self, job: _Job) -> Batch | AblationError:
        epoch, size_px, indices = job
        try:
            samples = [
                augment(
                    self.split,
                    index,
                    size_px=size_px,
                    config=self.config,
                    seed=self.seed,
                    epoch=epoch,
                    epochs=self.epochs,
                )
                for index in indices
            ]
        except AblationError as error:
            return error  # raised in a worker it would arrive as a traceback, not as one line
        return _collate(samples, indices, size_px)


class _Jobs(Sampler[_Job]):
    """The jobs of the current epoch; lives in the parent, so that workers outlast an epoch."""

    def __init__(self) -> None:
        self.jobs: list[_Job] = []

    def __iter__(self) -> Iterator[_Job]:
        return iter(self.jobs)

    def __len__(self) -> int:
        return len(self.jobs)


class TrainLoader:
    """Augmented batches, the same for any number of workers.

    Workers start by `forkserver`: a fork of this process could hang, because threads of torch hold
    locks that nobody releases in the child, and `spawn` would import everything once per worker.
    They live until `close`, over all epochs. They must not be asked for by a daemonic process.

    Args:
        split: the images; brought into the cache here, before workers start.
        seed, epochs: of the run; the last epochs go without mosaic (see AugmentConfig).
        batch_size, size_px: of every batch.
        augment: how images are varied.
        workers: processes; 0 prepares each batch when it is asked for.
        multi_scale: sizes in pixels of which each batch takes one, instead of size_px.
        pin_memory: hand out batches in page-locked memory (for a GPU).

    Raises:
        UsageError: the split has fewer images than a batch.
    """

    def __init__(
        self,
        split: Split,
        *,
        seed: int,
        epochs: int,
        batch_size: int,
        size_px: int,
        augment: AugmentConfig,
        workers: int = 0,
        multi_scale: Sequence[int] | None = None,
        pin_memory: bool = False,
    ) -> None:
        self.batches = batches_per_epoch(split, batch_size)
        self._split, self._seed, self._batch_size = split, seed, batch_size
        self._sizes = tuple(multi_scale) if multi_scale else (size_px,)
        self._pin = pin_memory
        if isinstance(split, CachedSplit):
            split.prepare()
        self._data = _Batches(split, seed, epochs, augment)
        self._jobs = _Jobs()
        self._loader: DataLoader[Any] | None = None
        if workers > 0:
            self._loader = DataLoader(
                self._data,
                batch_size=None,
                sampler=self._jobs,
                num_workers=workers,
                persistent_workers=True,
                pin_memory=pin_memory,
                multiprocessing_context=multiprocessing.get_context("forkserver"),
            )

    def __len__(self) -> int:
        return self.batches

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of epoch `epoch`, from 0. May be left before its end."""
        jobs = self._plan(epoch)
        if self._loader is None:
            for job in jobs:
                batch = _checked(self._data[job])
                yield batch.pin_memory() if self._pin else batch
        else:
            self._jobs.jobs = jobs
            for result in self._loader:
                yield _checked(result)

    def _plan(self, epoch: int) -> list[_Job]:
        order = epoch_order(len(self._split), self._seed, epoch)
        sizes = generator(self._seed, "multi_scale", epoch).choice(self._sizes, self.batches)
        taken = order[: self.batches * self._batch_size].reshape(self.batches, self._batch_size)
        return [(epoch, int(size), tuple(row.tolist())) for size, row in zip(sizes, taken, strict=True)]

    def close(self) -> None:
        """End the workers. The loader cannot be used afterwards."""
        self._loader = None

    def __enter__(self) -> TrainLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def train_batches(
    split: Split,
    *,
    seed: int,
    epoch: int,
    epochs: int,
    batch_size: int,
    size_px: int,
    augment: AugmentConfig,
    workers: int = 0,
    multi_scale: Sequence[int] | None = None,
) -> Iterator[Batch]:
    """The batches of one epoch. For several epochs use TrainLoader, which keeps its workers."""
    with TrainLoader(
        split,
        seed=seed,
        epochs=epochs,
        batch_size=batch_size,
        size_px=size_px,
        augment=augment,
        workers=workers,
        multi_scale=multi_scale,
    ) as loader:
        yield from loader.epoch(epoch)


def val_batches(split: Split, *, batch_size: int, size_px: int) -> Iterator[ValBatch]:
    """Every image once, in the split's order, letterboxed; the last batch may be smaller."""
    for start in range(0, len(split), batch_size):
        indices = range(start, min(start + batch_size, len(split)))
        images = np.empty((len(indices), 3, size_px, size_px), np.uint8)
        geometries = []
        for row, index in enumerate(indices):
            square, geometry = letterbox(split.read(index), size_px)
            images[row] = square.transpose(2, 0, 1)
            geometries.append(geometry)
        yield ValBatch(torch.from_numpy(images), torch.tensor(list(indices)), geometries)


def _checked(result: Batch | AblationError) -> Batch:
    if isinstance(result, AblationError):
        raise result
    return result


def _collate(samples: Sequence[tuple[Any, Any, Any]], indices: Sequence[int], size_px: int) -> Batch:
    images = np.empty((len(samples), 3, size_px, size_px), np.uint8)
    for row, (image, _, _) in enumerate(samples):
        images[row] = image.transpose(2, 0, 1)
    truth = padded_ground_truth([(boxes, labels) for _, boxes, labels in samples])
    return Batch(
        torch.from_numpy(images),
        truth.boxes_cxcywh_px,
        truth.labels,
        truth.present,
        torch.tensor(list(indices), dtype=torch.int64),
    )
