"""The parts YOLOv4 is made of: convolution block, residual, cross-stage stage, spatial pyramid, head."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablation.model.norm_act import convolved, norm_act, takes

Activation = Literal["mish", "leaky"]

BN_EPS = 1e-5
BN_MOMENTUM = 0.1
LEAKY_SLOPE = 0.1


def scaled_channels(channels: int, width: float) -> int:
    """`channels` times `width`, rounded to the nearest multiple of 8 (halves go up), at least 8."""
    return max(8, int(channels * width / 8 + 0.5) * 8)


def scaled_count(count: int, depth: float) -> int:
    """Repeated blocks: `count` times `depth`, rounded to the nearest (halves go up), at least 1."""
    return max(1, int(count * depth + 0.5))


class ConvBNAct(nn.Module):
    """act(BN(conv(x))): (B, in, H, W) -> (B, out, ceil(H / stride), ceil(W / stride)).

    The convolution has no bias and pads with kernel // 2. BN: eps 1e-5, momentum 0.1.
    Activation: Mish, x tanh(softplus(x)) (arXiv 1908.08681), or LeakyReLU with slope 0.1.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, activation: Activation = "mish"
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=BN_EPS, momentum=BN_MOMENTUM)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        x = convolved(self.conv, x)
        if takes(x, self.bn):
            return norm_act(x, self.bn, None if self.activation == "mish" else LEAKY_SLOPE)
        x = self.bn(x)
        if self.activation == "mish":
            return F.mish(x)
        # In place: neither BN's nor LeakyReLU's gradient needs what is overwritten (Mish's does).
        return F.leaky_relu(x, LEAKY_SLOPE, inplace=True)


@dataclass(frozen=True)
class ConvSlot:
    """One convolution with its place in the files that others write.

    Attributes:
        key: prefix of its tensors in the seed implementation's state dict.
        block: the convolution block, or the plain convolution that ends a head.
    """

    key: str
    block: ConvBNAct | nn.Conv2d

    @property
    def conv(self) -> nn.Conv2d:
        """The convolution itself."""
        return self.block.conv if isinstance(self.block, ConvBNAct) else self.block

    @property
    def norm(self) -> nn.BatchNorm2d | None:
        """Its batch norm; None for the last convolution of a head, which has a bias instead."""
        return self.block.bn if isinstance(self.block, ConvBNAct) else None

    @property
    def ends_head(self) -> bool:
        """Whether its outputs are the raw predictions, so that their number depends on the classes."""
        return self.norm is None

    def tensors(self) -> list[tuple[str, Tensor]]:
        """(state dict key, live tensor), in the state dict's order; num_batches_tracked included."""
        norm = self.norm
        if norm is None:
            assert self.conv.bias is not None
            return [(f"{self.key}.weight", self.conv.weight), (f"{self.key}.bias", self.conv.bias)]
        assert norm.running_mean is not None and norm.running_var is not None
        assert norm.num_batches_tracked is not None
        return [
            (f"{self.key}.conv.weight", self.conv.weight),
            (f"{self.key}.bn.weight", norm.weight),
            (f"{self.key}.bn.bias", norm.bias),
            (f"{self.key}.bn.running_mean", norm.running_mean),
            (f"{self.key}.bn.running_var", norm.running_var),
            (f"{self.key}.bn.num_batches_tracked", norm.num_batches_tracked),
        ]


def chain_slots(chain: nn.Sequential, key: str) -> Iterator[ConvSlot]:
    """The convolution blocks of a Sequential, keyed by their position in it."""
    for position, block in enumerate(chain):
        assert isinstance(block, ConvBNAct)
        yield ConvSlot(f"{key}.{position}", block)


def bottleneck_chain(inputs: int, narrow: int, wide: int, count: int) -> nn.Sequential:
    """`count` LeakyReLU blocks in a row: 1x1 to `narrow`, 3x3 to `wide`, 1x1 to `narrow`, ..."""
    blocks = []
    for position in range(count):
        outputs, kernel = (narrow, 1) if position % 2 == 0 else (wide, 3)
        blocks.append(ConvBNAct(inputs, outputs, kernel, activation="leaky"))
        inputs = outputs
    return nn.Sequential(*blocks)


class Residual(nn.Module):
    """x + conv3x3(conv1x1(x)), with `hidden` channels in between."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.squeeze = ConvBNAct(channels, hidden, 1)
        self.expand = ConvBNAct(hidden, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = x + self.expand(self.squeeze(x))
        return total

    def slots(self, key: str) -> Iterator[ConvSlot]:
        """Its convolutions in file order."""
        yield ConvSlot(f"{key}.block.0", self.squeeze)
        yield ConvSlot(f"{key}.block.1", self.expand)


class CSPStage(nn.Module):
    """A cross-stage partial stage (arXiv 1911.11929) that halves the resolution.

        y = down(x),   out = merge([leave(residuals(enter(y))), shortcut(y)])

    (B, in, H, W) -> (B, out, H / 2, W / 2). Both paths have half the channels, except in the
    first stage, where they have all and only the residuals' inner layer has half.
    """

    def __init__(self, inputs: int, outputs: int, path: int, hidden: int, residuals: int) -> None:
        super().__init__()
        self.down = ConvBNAct(inputs, outputs, 3, 2)
        self.shortcut = ConvBNAct(outputs, path, 1)
        self.enter = ConvBNAct(outputs, path, 1)
        self.residuals = nn.Sequential(*(Residual(path, hidden) for _ in range(residuals)))
        self.leave = ConvBNAct(path, path, 1)
        self.merge = ConvBNAct(2 * path, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        deep = self.leave(self.residuals(self.enter(x)))
        merged: Tensor = self.merge(torch.cat([deep, self.shortcut(x)], dim=1))
        return merged

    def slots(self, key: str) -> Iterator[ConvSlot]:
        """Its convolutions in file order."""
        yield ConvSlot(f"{key}.downsample_conv", self.down)
        yield ConvSlot(f"{key}.split_conv0", self.shortcut)
        yield ConvSlot(f"{key}.split_conv1", self.enter)
        for position, residual in enumerate(self.residuals):
            assert isinstance(residual, Residual)
            yield from residual.slots(f"{key}.blocks_conv.{position}")
        yield ConvSlot(f"{key}.blocks_conv.{len(self.residuals)}", self.leave)
        yield ConvSlot(f"{key}.concat_conv", self.merge)


class SpatialPyramid(nn.Module):
    """Spatial pyramid pooling: (B, C, H, W) -> (B, 4 C, H, W), [pool13, pool9, pool5, x].

    Max pooling with stride 1, so that resolution stays. Pools of 9 and 13 are pools of 5 of the
    one before: the maximum of maxima over windows is the maximum over their union, exactly.
    """

    def forward(self, x: Tensor) -> Tensor:
        pool5 = F.max_pool2d(x, 5, 1, 2)
        pool9 = F.max_pool2d(pool5, 5, 1, 2)
        pool13 = F.max_pool2d(pool9, 5, 1, 2)
        return torch.cat([pool13, pool9, pool5, x], dim=1)


def upsample(x: Tensor) -> Tensor:
    """Twice the resolution, each cell repeated: (B, C, H, W) -> (B, C, 2 H, 2 W)."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class Head(nn.Module):
    """conv1x1(block3x3(x)): features -> raw predictions (B, anchors (5 + classes), H, W)."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.mix = ConvBNAct(inputs, hidden, 3, activation="leaky")
        self.predict = nn.Conv2d(hidden, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        predictions: Tensor = self.predict(self.mix(x))
        return predictions

    def slots(self, key: str) -> Iterator[ConvSlot]:
        """Its convolutions in file order."""
        yield ConvSlot(f"{key}.0", self.mix)
        yield ConvSlot(f"{key}.1", self.predict)
