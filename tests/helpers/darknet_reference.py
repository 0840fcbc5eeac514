"""A reader of Darknet's own network descriptions: the oracle for what our networks compute.

The layers are written down as in yolov4.cfg and yolov4-tiny.cfg (routes by relative or absolute
layer number), and run one after another on numbers that are taken from a weights file in order.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Layer = tuple[Any, ...]


def conv(filters: int, size: int = 1, stride: int = 1, act: str = "leaky", bn: bool = True) -> Layer:
    return ("conv", filters, size, stride, act, bn)


def stage(residuals: int, filters: int, path: int, hidden: int) -> list[Layer]:
    layers = [conv(filters, 3, 2, "mish"), conv(path, act="mish"), ("route", -2), conv(path, act="mish")]
    for _ in range(residuals):
        layers += [conv(hidden, act="mish"), conv(path, 3, act="mish"), ("shortcut", -3)]
    return [*layers, conv(path, act="mish"), ("route", -1, -(3 * residuals + 4)), conv(filters, act="mish")]


def yolov4(fields: int) -> list[Layer]:
    head = [conv(3 * fields, act="linear", bn=False), ("yolo",)]
    return [
        conv(32, 3, 1, "mish"),
        *stage(1, 64, 64, 32),
        *stage(2, 128, 64, 64),
        *stage(8, 256, 128, 128),
        *stage(8, 512, 256, 256),
        *stage(4, 1024, 512, 512),
        *(conv(512), conv(1024, 3), conv(512)),
        *(("max", 5, 1), ("route", -2), ("max", 9, 1), ("route", -4), ("max", 13, 1)),
        ("route", -1, -3, -5, -6),
        *(conv(512), conv(1024, 3), conv(512)),
        *(conv(256), ("up",), ("route", 85), conv(256), ("route", -1, -3)),
        *(conv(256), conv(512, 3), conv(256), conv(512, 3), conv(256)),
        *(conv(128), ("up",), ("route", 54), conv(128), ("route", -1, -3)),
        *(conv(128), conv(256, 3), conv(128), conv(256, 3), conv(128)),
        *(conv(256, 3), *head),
        *(("route", -4), conv(256, 3, 2), ("route", -1, -16)),
        *(conv(256), conv(512, 3), conv(256), conv(512, 3), conv(256), conv(512, 3), *head),
        *(("route", -4), conv(512, 3, 2), ("route", -1, -37)),
        *(conv(512), conv(1024, 3), conv(512), conv(1024, 3), conv(512), conv(1024, 3), *head),
    ]


def yolov4_tiny(fields: int) -> list[Layer]:
    layers = [conv(32, 3, 2), conv(64, 3, 2)]
    for c in (64, 128, 256):
        layers += [conv(c, 3), ("half", -1), conv(c // 2, 3), conv(c // 2, 3), ("route", -1, -2)]
        layers += [conv(c), ("route", -6, -1), ("max", 2, 2)]
    head = [conv(3 * fields, act="linear", bn=False), ("yolo",)]
    return [
        *layers,
        *(conv(512, 3), conv(256), conv(512, 3), *head),
        *(("route", -4), conv(128), ("up",), ("route", -1, 23), conv(256, 3), *head),
    ]


def conv_numbers(layers: list[Layer]) -> list[int]:
    return [number for number, layer in enumerate(layers) if layer[0] == "conv"]


def narrow(layers: list[Layer], divisor: int) -> list[Layer]:
    """The same layers with fewer filters; the heads' last ones keep theirs."""
    return [
        ("conv", layer[1] // divisor, *layer[2:]) if layer[0] == "conv" and layer[5] else layer
        for layer in layers
    ]


def run(layers: list[Layer], path: Path, images: Tensor, train: bool) -> list[Tensor]:
    """Inputs of the yolo layers, in file order. The whole file must be used up."""
    numbers = np.fromfile(path, "<f4", offset=20)
    used = 0

    def take(*shape: int) -> Tensor:
        nonlocal used
        amount = int(np.prod(shape))
        used += amount
        return torch.from_numpy(numbers[used - amount : used].copy()).reshape(shape).to(images.dtype)

    outputs: list[Tensor] = []
    heads = []
    x = images
    for number, layer in enumerate(layers):
        kind = layer[0]
        sources = [outputs[i if i >= 0 else number + i] for i in layer[1:]] if kind in (
            "route", "half", "shortcut") else []  # fmt: skip
        if kind == "conv":
            _, filters, size, stride, act, bn = layer
            bias = take(filters)
            if bn:
                weight, mean, variance = take(filters), take(filters), take(filters)
            y = F.conv2d(x, take(filters, x.shape[1], size, size), None, stride, size // 2)
            if bn and train:
                mean, variance = y.mean((0, 2, 3)), y.var((0, 2, 3), unbiased=False)
            if bn:
                y = (y - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
                y = y * weight[:, None, None]
            y = y + bias[:, None, None]
            if act == "mish":
                y = y * torch.tanh(torch.log1p(torch.exp(-y.abs())) + y.clamp(min=0))
            elif act == "leaky":
                y = torch.where(y > 0, y, 0.1 * y)
            x = y
        elif kind == "route":
            x = torch.cat(sources, 1)
        elif kind == "half":
            x = sources[0].chunk(2, 1)[1]
        elif kind == "shortcut":
            x = x + sources[0]
        elif kind == "max":
            _, size, stride = layer
            x = F.max_pool2d(x, size, stride, size // 2 if stride == 1 else 0)
        elif kind == "up":
            x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        else:
            heads.append(x)
        outputs.append(x)
    assert used == len(numbers)
    return heads
