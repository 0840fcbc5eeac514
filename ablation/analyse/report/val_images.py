"""The validation images of a study, found again through what its runs wrote about their data."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ablation.data.dataset import DataSource, Image, Split
from ablation.errors import AblationError, one_line


class ImagesMissing(Exception):
    """Why the images cannot be shown, as half a sentence for people."""


class ValImages:
    """Images of the validation split, by their ids in the ground truth. The test split is not opened."""

    def __init__(self, split: Split) -> None:
        self._split = split

    def read(self, image_id: int) -> Image:
        """(height, width, 3) RGB. Raises ImagesMissing where the file is damaged or gone."""
        try:
            return self._split.read(image_id - 1)
        except (AblationError, OSError) as error:
            raise ImagesMissing(one_line(error, 200)) from None


def open_val(data: Mapping[str, Any], ground_truth: Mapping[str, Any]) -> ValImages:
    """Open the data set that a run was evaluated on, and check that it is still the same images.

    Args:
        data: the `data` of a run's run.json: the class that reads it and its settings.
        ground_truth: what the run was evaluated with, in COCO's format; image k + 1 is example k.

    Raises:
        ImagesMissing: the data set is not where it was, or no longer the same.
    """
    try:
        split = _source(data).open().val
    except (AblationError, OSError) as error:
        raise ImagesMissing(f"the data set cannot be opened here ({one_line(error, 200)})") from None
    now = [(example.name, example.width_px, example.height_px) for example in split.examples]
    then = [(image["file_name"], image["width"], image["height"]) for image in ground_truth["images"]]
    if now != then:
        raise ImagesMissing(
            f"the validation images have changed since: {len(then)} then, {len(now)} now"
            + (f", the first that differs is {_first_difference(then, now)}" if len(then) == len(now) else "")
        )
    return ValImages(split)


def _source(data: Mapping[str, Any]) -> DataSource:
    """The reader, built from its own class only: what a file names is not trusted further."""
    module, _, name = str(data.get("_target_", "")).rpartition(".")
    if not module.startswith("ablation.data."):
        raise ImagesMissing(f"their reader {module}.{name} is not one of this package")
    try:
        made = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        raise ImagesMissing(f"this version has no reader {module}.{name}") from None
    if not (isinstance(made, type) and issubclass(made, DataSource) and dataclasses.is_dataclass(made)):
        raise ImagesMissing(f"{module}.{name} does not read data sets")
    known = {field.name for field in dataclasses.fields(made)}
    settings = {key: value for key, value in data.items() if key in known}
    # A report reads what is cached already, and writes no cache where there is none.
    if "cache" in known and not Path(str(settings.get("cache_dir", ""))).expanduser().is_dir():
        settings["cache"] = "none"
    try:
        return made(**settings)
    except (TypeError, ValueError) as error:
        raise ImagesMissing(f"its settings do not fit this version ({one_line(error, 120)})") from None


def _first_difference(then: Sequence[tuple[Any, ...]], now: Sequence[tuple[Any, ...]]) -> str:
    return str(next(a[0] for a, b in zip(then, now, strict=True) if a != b))
