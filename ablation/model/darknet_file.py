"""Darknet's binary weights file: header, then every convolution's numbers in network order.

Header: int32 major, minor, revision, then the number of images seen, int64 where
major * 10 + minor >= 2 and int32 before. Then, float32 little-endian, per convolution: with batch
norm its bias, weight, running mean and running variance, then the kernel (out, in, k, k);
without, the bias and the kernel.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ablation.errors import DataError
from ablation.files import write_atomic
from ablation.model.base import Detector
from ablation.model.blocks import ConvSlot
from ablation.model.head import FIRST_CLASS

MAX_CLASSES = 100_000


def stored_tensors(slot: ConvSlot) -> list[tuple[str, Tensor]]:
    """(state dict key, live tensor) of what a file holds for one convolution, in its order."""
    live = dict(slot.tensors())
    if slot.ends_head:
        names = ["bias", "weight"]
    else:
        names = ["bn.bias", "bn.weight", "bn.running_mean", "bn.running_var", "conv.weight"]
    return [(f"{slot.key}.{name}", live[f"{slot.key}.{name}"]) for name in names]


def looks_like_darknet(start: bytes) -> bool:
    """Whether a file's first 12 bytes are a plausible version: three small numbers."""
    if len(start) < 12:
        return False
    major, minor, revision = np.frombuffer(start, "<i4", 3).tolist()
    return all(0 <= number < 1000 for number in (major, minor, revision))


def read_darknet(detector: Detector, path: Path) -> dict[str, Tensor]:
    """The tensors of a file by state dict key; those of heads in the shape of the file's classes.

    The file is that of the whole network, with any number of classes, or the published partial
    one, which ends after `detector.darknet_partial_convs` convolutions.

    Raises:
        DataError: a length that belongs to neither.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(12)
    if not looks_like_darknet(start):
        raise DataError(f"{path}: not a Darknet weights file: no version at its start")
    major, minor, _ = np.frombuffer(start, "<i4", 3).tolist()
    header = 12 + (8 if major * 10 + minor >= 2 else 4)
    slots = detector.darknet_convs()
    classes, count = _layout(detector, slots, path, size, header)
    numbers = np.memmap(path, "<f4", "r", header)
    tensors, position = {}, 0
    for slot in slots[:count]:
        for key, live in stored_tensors(slot):
            shape = list(live.shape)
            if slot.ends_head:
                shape[0] = shape[0] // _fields(detector) * (FIRST_CLASS + classes)
            amount = int(np.prod(shape))
            part = np.array(numbers[position : position + amount], dtype=np.float32)
            tensors[key] = torch.from_numpy(part).reshape(shape)
            position += amount
    return tensors


def _fields(detector: Detector) -> int:
    return FIRST_CLASS + detector.layout.num_classes


def _layout(detector: Detector, slots: list[ConvSlot], path: Path, size: int, header: int) -> tuple[int, int]:
    """(classes, convolutions) of a file of that size: everything follows from its length.

    Its length is linear in the number of classes, so at most one number fits.
    """
    sizes = [sum(live.numel() for _, live in stored_tensors(slot)) for slot in slots]
    heads = sum(count for slot, count in zip(slots, sizes, strict=True) if slot.ends_head)
    per_field = heads // _fields(detector)
    body = sum(sizes) - heads
    partial = sum(sizes[: detector.darknet_partial_convs])
    numbers, rest = divmod(size - header, 4)
    if rest == 0 and numbers == partial:
        return detector.layout.num_classes, detector.darknet_partial_convs
    classes, uneven = divmod(numbers - body - FIRST_CLASS * per_field, per_field)
    if rest == 0 and uneven == 0 and 1 <= classes <= MAX_CLASSES:
        return classes, len(slots)
    whole = header + 4 * (body + per_field * _fields(detector))
    raise DataError(
        f"{path}: has {size:,} bytes; this network has {whole:,} with {detector.layout.num_classes} classes "
        f"({4 * per_field:,} more or less for each other class), or {header + 4 * partial:,} in the partial "
        "file: the file is cut off, too long, or of another architecture"
    )


def write_darknet(detector: Detector, path: Path, seen: int = 0) -> None:
    """Write the whole network, version 0.2.5, `seen` images (>= 0) in the header."""
    arrays = [
        live.detach().cpu().contiguous().numpy().astype("<f4", copy=False)
        for slot in detector.darknet_convs()
        for _, live in stored_tensors(slot)
    ]

    def write(file: object) -> None:
        put = file.write  # type: ignore[attr-defined]
        put(np.array([0, 2, 5], "<i4").tobytes())
        put(np.array([seen], "<i8").tobytes())
        for array in arrays:
            put(array.tobytes())

    write_atomic(path, write)
