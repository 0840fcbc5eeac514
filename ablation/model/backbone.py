"""CSPDarknet53, YOLOv4's backbone (arXiv 2004.10934)."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from ablation.model.blocks import ConvBNAct, ConvSlot, CSPStage, scaled_channels, scaled_count

STEM = 32
STAGES = ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4))
"""(channels, residuals) of each stage."""


class CSPDarknet53(nn.Module):
    """Images (B, 3, H, W) -> features at strides 8, 16, 32, with `channels` channels.

    Args:
        width: factor on every number of channels (256, 512, 1024 at 1), rounded to multiples of 8.
        depth: factor on every number of residuals (1, 2, 8, 8, 4 at 1), at least 1 each.
    """

    channels: tuple[int, int, int]

    def __init__(self, width: float = 1.0, depth: float = 1.0) -> None:
        super().__init__()
        inputs = scaled_channels(STEM, width)
        self.stem = ConvBNAct(3, inputs, 3)
        stages = []
        for position, (base, residuals) in enumerate(STAGES):
            outputs = scaled_channels(base, width)
            path = outputs if position == 0 else scaled_channels(base // 2, width)
            hidden = scaled_channels(base // 2, width)
            stages.append(CSPStage(inputs, outputs, path, hidden, scaled_count(residuals, depth)))
            inputs = outputs
        self.stages = nn.ModuleList(stages)
        small, medium, large = (scaled_channels(base, width) for base, _ in STAGES[2:])
        self.channels = (small, medium, large)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.stem(images)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features[2], features[3], features[4]

    def slots(self, key: str) -> Iterator[ConvSlot]:
        """Its convolutions in file order."""
        yield ConvSlot(f"{key}.conv1", self.stem)
        for position, stage in enumerate(self.stages):
            assert isinstance(stage, CSPStage)
            yield from stage.slots(f"{key}.stages.{position}")
