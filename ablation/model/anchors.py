"""`model.anchors=auto`: anchors made from the train split, before a run gets its key.

What a run keeps are the numbers: in its typed configuration, its config.yaml and its key. The word
does not stay, so that a run does not change its meaning when the data set does.
"""

from __future__ import annotations

from dataclasses import replace

from ablation.data.anchors import letterboxed_sizes, spread_over_heads
from ablation.data.dataset import DetectionData
from ablation.errors import DataError
from ablation.model.base import AUTO, DetectorConfig

_made: dict[tuple[str, int, int, tuple[int, ...]], list[float]] = {}


def resolve_anchors(model: DetectorConfig, data: DetectionData, size_px: int) -> DetectorConfig:
    """`model` with anchors for the boxes of the train split where it asks for `auto`, else `model`.

    The anchors are a function of the train split's boxes, `size_px` and the heads' masks alone, so
    that every arm and seed of a study has the same. They are in pixels of an input of size_px.

    Raises:
        DataError: the train split has no boxes to make anchors from.
    """
    if model.anchors != AUTO:
        return model
    served = tuple(sorted({index for mask in model.masks for index in mask}))
    key = (data.fingerprint(), size_px, model.num_anchors, served)
    if key not in _made:
        sizes = letterboxed_sizes(data.train, size_px)
        if len(sizes) == 0:
            raise DataError(
                "model.anchors=auto: the train split has no boxes to make anchors from; "
                "leave it out to keep model.anchors_px"
            )
        _made[key] = spread_over_heads(sizes, model.num_anchors, served)
    return replace(model, anchors=None, anchors_px=list(_made[key]), anchors_at_px=size_px)
