"""The one dataset type that every format is read into."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
"""(height, width, 3), RGB."""


@dataclass(frozen=True)
class Example:
    """One annotated image, as the annotation says it, before any resizing.

    Attributes:
        name: unique in the data set and stable (a file name without folder and ending).
        width_px, height_px: size of the image.
        boxes_xyxy_px: (n, 4) float32, 0 <= x1 < x2 <= width_px, likewise y.
        labels: (n,) int64, indices into the data set's classes.
        ignored: (n,) bool: objects that are neither to be found nor counted as false positives
            (VOC's difficult, COCO's crowd). They are not trained on.
    """

    name: str
    width_px: int
    height_px: int
    boxes_xyxy_px: NDArray[np.float32]
    labels: NDArray[np.int64]
    ignored: NDArray[np.bool_]


@dataclass(frozen=True)
class Fault:
    """Something wrong in the data, and what was done about it."""

    file: str
    what: str
    action: str


class Split(ABC):
    """The images of one split, in a fixed order."""

    examples: list[Example]
    faults: list[Fault]

    @abstractmethod
    def read(self, index: int) -> Image:
        """Decode image `index`. Raises DataError, naming the file, if it cannot be."""

    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 over the content of images and annotations, whatever folder they lie in."""

    def __len__(self) -> int:
        return len(self.examples)

    def counts(self) -> Counter[int]:
        """Boxes per label."""
        labels: Counter[int] = Counter()
        for example in self.examples:
            labels.update(example.labels.tolist())
        return labels


@dataclass
class DetectionData:
    """A data set: its classes and its splits. The test split is opened only when it is asked for."""

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    faults: list[Fault] = field(default_factory=list)

    def fingerprint(self) -> str:
        """SHA-256 over classes, train and val: what a training run can see."""
        from ablation.files import canonical_json, sha256_text

        parts = [list(self.classes), self.train.fingerprint(), self.val.fingerprint()]
        return sha256_text(canonical_json(parts))


class DataSource(ABC):
    """Base of the `data` group: a frozen dataclass whose fields are the group's settings."""

    name: ClassVar[str]

    @abstractmethod
    def open(self) -> DetectionData:
        """Read the annotations of train and val. Raises UsageError or DataError with one line."""

    def resolved(self) -> DataSource:
        """The source as it is recorded: itself, or what it stands for (auto.py)."""
        return self

    def has_test(self) -> bool:
        """Whether a test split has images, which `ablation confirm` needs; opens none of them."""
        return True

    @abstractmethod
    def open_test(self) -> Split:
        """Read the test split: only for confirming a study that has been decided on val."""
