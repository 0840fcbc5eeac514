"""`ablation check`: what a data set is, and what a model's assigner would make of it.

The positives are exactly those of a training without augmentation. Which cells are ignored depends
on what the network predicts; here it predicts nothing yet (all raw outputs zero), which decodes to
the anchors themselves at the centre of each cell.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch

from ablation.commands.check.audit import Audit, HeadCells, SplitCells, audit
from ablation.config import RunConfig
from ablation.data.dataset import DataSource, DetectionData, Split
from ablation.data.letterbox import Letterbox
from ablation.data.loader import letterboxed_ground_truth
from ablation.errors import DataError
from ablation.model.anchors import resolve_anchors
from ablation.model.head import HeadLayout, cell_grid, decode_boxes
from ablation.objective.assigner import Assigner, AssignerConfig
from ablation.rng import generator

MOST_IMAGES = 2000
_BATCH = 8


@dataclass(frozen=True)
class Checked:
    """The outcome of a check.

    Attributes:
        audit: of the data; with lenient settings where it cannot be used as it is.
        refusal: why a training would refuse the data, or None.
    """

    audit: Audit
    refusal: DataError | None


def check(config: RunConfig, *, test: bool = False, most_images: int = MOST_IMAGES) -> Checked:
    """Audit the data set of a configuration, for its model, assigner and input size.

    Args:
        test: look at the annotations of the test split too.
        most_images: images of each split whose cells are counted; of more, a random part.

    Raises:
        UsageError, DataError: the data cannot even be listed.
    """
    source: DataSource = config.data
    refusal = None
    try:
        data, held_out = _open(source, test)
    except DataError as error:
        refusal, lenient = error, _lenient(source)
        if lenient is None:
            raise
        try:
            data, held_out = _open(lenient, test)
        except DataError:
            raise error from None
    size_px = config.train.size_px
    model = resolve_anchors(config.model, data, size_px)
    layout: HeadLayout = model.head_layout(len(data.classes), size_px)
    counted = audit(data, size_px=size_px, anchors_px=layout.anchors_px, masks=layout.masks, test=held_out)
    splits = {"train": data.train, "val": data.val} | ({} if held_out is None else {"test": held_out})
    cells = {
        name: count_cells(split, layout, config.assigner, size_px, most_images)
        for name, split in splits.items()
    }
    return Checked(dataclasses.replace(counted, cells=cells, has_test=source.has_test()), refusal)


def _open(source: DataSource, test: bool) -> tuple[DetectionData, Split | None]:
    data = source.open()
    return data, source.open_test() if test else None


def _lenient(source: DataSource) -> DataSource | None:
    """The same source, leaving out what is damaged, so that a check can list all of it; or None."""
    has = {f.name for f in dataclasses.fields(source)}  # type: ignore[arg-type]
    if not {"bad_boxes", "skip_damaged"} <= has:
        return None
    return dataclasses.replace(source, bad_boxes="drop", skip_damaged=True)  # type: ignore[type-var]


def count_cells(
    split: Split, layout: HeadLayout, config: AssignerConfig, size_px: int, most_images: int = MOST_IMAGES
) -> SplitCells:
    """Positives, ignored and negatives of each head over a split, letterboxed and not augmented."""
    device = torch.device("cpu")
    grid = cell_grid(layout, size_px, size_px, device)
    assigner = Assigner(config, layout, device)
    anchors = decode_boxes(torch.zeros(len(grid.column), 4), grid)
    indices = np.arange(len(split))
    if len(indices) > most_images:
        indices = np.sort(generator(0, "check").choice(indices, most_images, replace=False))
    positives, ignored = torch.zeros(2, len(grid.sizes), dtype=torch.int64)
    boxes = matches_lost = boxes_lost = 0
    for start in range(0, len(indices), _BATCH):
        batch = indices[start : start + _BATCH].tolist()
        examples = [split.examples[index] for index in batch]
        geometries = [Letterbox.fit(example.width_px, example.height_px, size_px) for example in examples]
        truth = letterboxed_ground_truth(examples, geometries)
        predicted = anchors.expand(len(batch), -1, -1)
        assigned = assigner(truth.boxes_cxcywh_px, truth.labels, truth.present, predicted, grid)
        for head, cells in enumerate(torch.arange(len(grid.column)).split_with_sizes(grid.sizes)):
            positives[head] += assigned.positive[:, cells].sum()
            ignored[head] += assigned.ignored[:, cells].sum()
        placed = assigned.matched.view(*truth.labels.shape, -1).any(-1)
        boxes += int(truth.present.sum())
        matches_lost += int(assigned.lost)
        boxes_lost += int((truth.present & ~placed).sum())
    heads = [
        HeadCells(stride, int(yes), int(unsure), len(indices) * size - int(yes) - int(unsure))
        for stride, yes, unsure, size in zip(layout.strides, positives, ignored, grid.sizes, strict=True)
    ]
    return SplitCells(len(indices), boxes, heads, matches_lost, boxes_lost)
