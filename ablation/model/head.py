"""What a detector's heads mean: anchors, strides, the order of cells, and how a box is decoded."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BOX = slice(0, 4)
OBJECTNESS = 4
FIRST_CLASS = 5


@dataclass(frozen=True)
class HeadLayout:
    """The heads of a network, in the order in which it returns them (coarsest stride first).

    Attributes:
        anchors_px: every anchor (width, height) in pixels of the network's input.
        masks: for each head, the indices into anchors_px that it serves. An anchor may be served
            by two heads, or by none (YOLOv4-tiny has both).
        strides: for each head, input pixels per cell.
        scale_xy: for each head, Darknet's scale_x_y; 1.0 is the plain sigmoid of the seed method.
        num_classes: classes per anchor.
    """

    anchors_px: tuple[tuple[float, float], ...]
    masks: tuple[tuple[int, ...], ...]
    strides: tuple[int, ...]
    scale_xy: tuple[float, ...]
    num_classes: int

    def __post_init__(self) -> None:
        if not len(self.masks) == len(self.strides) == len(self.scale_xy):
            raise ValueError("masks, strides and scale_xy need one entry per head")
        if any(index >= len(self.anchors_px) for mask in self.masks for index in mask):
            raise ValueError("a mask names an anchor that does not exist")

    @property
    def channels(self) -> tuple[int, ...]:
        """Output channels of each head: anchors x (4 box + 1 objectness + classes)."""
        return tuple(len(mask) * (5 + self.num_classes) for mask in self.masks)

    def shapes(self, height_px: int, width_px: int) -> list[tuple[int, int, int]]:
        """(anchors, rows, columns) of each head for an input of that size."""
        return [
            (len(mask), height_px // stride, width_px // stride)
            for mask, stride in zip(self.masks, self.strides, strict=True)
        ]


@dataclass(frozen=True)
class CellGrid:
    """One entry per cell and anchor of all heads, (cells,) each, ordered head, anchor, row, column.

    Attributes:
        column, row: position in the head's grid.
        stride: input pixels per cell of its head.
        anchor_px: (cells, 2) width and height of its anchor.
        scale_xy: Darknet's scale_x_y of its head.
        shapes: (anchors, rows, columns) of each head; plain numbers.
    """

    column: Tensor
    row: Tensor
    stride: Tensor
    anchor_px: Tensor
    scale_xy: Tensor
    shapes: tuple[tuple[int, int, int], ...]

    @property
    def sizes(self) -> list[int]:
        """Number of cells of each head; they sum to the number of entries."""
        return [anchors * rows * columns for anchors, rows, columns in self.shapes]

    def at(self, cell: Tensor) -> CellGrid:
        """The entries of some cells, an index each: tensors of the shape of `cell` in place of (cells,)."""
        return CellGrid(
            self.column[cell],
            self.row[cell],
            self.stride[cell],
            self.anchor_px[cell],
            self.scale_xy[cell],
            self.shapes,
        )


def cell_grid(layout: HeadLayout, height_px: int, width_px: int, device: torch.device) -> CellGrid:
    """The grid of `layout` for an input of that size. Build it once per size and keep it."""
    column, row, stride, anchor, scale = [], [], [], [], []
    shapes = layout.shapes(height_px, width_px)
    for head, (anchors, rows, columns) in enumerate(shapes):
        cells = anchors * rows * columns
        grid_a, grid_y, grid_x = torch.meshgrid(
            torch.arange(anchors), torch.arange(rows), torch.arange(columns), indexing="ij"
        )
        sizes = torch.tensor([layout.anchors_px[i] for i in layout.masks[head]], dtype=torch.float32)
        column.append(grid_x.flatten().float())
        row.append(grid_y.flatten().float())
        stride.append(torch.full((cells,), float(layout.strides[head])))
        anchor.append(sizes[grid_a.flatten()])
        scale.append(torch.full((cells,), float(layout.scale_xy[head])))
    return CellGrid(
        column=torch.cat(column).to(device),
        row=torch.cat(row).to(device),
        stride=torch.cat(stride).to(device),
        anchor_px=torch.cat(anchor).to(device),
        scale_xy=torch.cat(scale).to(device),
        shapes=tuple(shapes),
    )


class CellGrids:
    """The grids of a network for inputs of several sizes, each built once."""

    def __init__(self, layout: HeadLayout, device: torch.device) -> None:
        self.layout, self.device = layout, device
        self.by_size: dict[tuple[int, int], CellGrid] = {}

    def __call__(self, height: int, width: int) -> CellGrid:
        """The cells for an input of height x width pixels."""
        if (height, width) not in self.by_size:
            self.by_size[height, width] = cell_grid(self.layout, height, width, self.device)
        return self.by_size[height, width]


def flatten_outputs(outputs: list[Tensor], layout: HeadLayout) -> Tensor:
    """Heads (batch, anchors * (5 + classes), rows, columns) -> (batch, cells, 5 + classes), float32.

    float32, because a probability of 1 - 1e-7 does not exist in bf16, and neither loss nor
    decoding may depend on the precision the network ran in.
    """
    fields = 5 + layout.num_classes
    flat = []
    for output, mask in zip(outputs, layout.masks, strict=True):
        batch, _, rows, columns = output.shape
        cells = output.view(batch, len(mask), fields, rows, columns).permute(0, 1, 3, 4, 2)
        flat.append(cells.reshape(batch, -1, fields))
    return torch.cat(flat, dim=1).float()


def decode_boxes(raw: Tensor, grid: CellGrid) -> Tensor:
    """Raw (..., cells, >=4) of the heads -> boxes_cxcywh in input pixels, (..., cells, 4).

        x = (column + s sigmoid(t_x) - (s - 1) / 2) stride,   w = anchor_w exp(t_w)

    with s = scale_xy. exp is capped at exp(10): beyond that a box is wider than any image, and
    exp would make the loss's gradient infinite long before the loss itself is.
    """
    centre = torch.stack([grid.column, grid.row], dim=-1)
    scale = grid.scale_xy[..., None]
    offset = scale * raw[..., 0:2].sigmoid() - (scale - 1) / 2
    size = raw[..., 2:4].clamp(max=10.0).exp() * grid.anchor_px
    return torch.cat([(centre + offset) * grid.stride[..., None], size], dim=-1)
