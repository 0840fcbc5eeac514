"""Generated images: shapes on a plain background, with the difficulties of real data as knobs.

An image and its boxes are a pure function of the settings, the split and the index. Places, looks,
clutter and label faults are drawn from streams of their own, so that changing one knob leaves the
rest of every image as it was: a study over `contrast` or `missing_share` sees the same scenes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ablation.data.cache import MODES, cached
from ablation.data.dataset import DataSource, DetectionData, Example, Fault, Image, Split
from ablation.data.reading import user_path
from ablation.data.shapes_drawing import NAMES, Scene, compose, draw
from ablation.errors import require
from ablation.files import canonical_json, sha256_text
from ablation.records import NOT_IDENTITY
from ablation.rng import generator

DISTRIBUTIONS = ("uniform", "log_uniform")
_RENDERING = 1
_PROBED = 4
_CANDIDATES = 8
_LABEL_FAULTS = ("missing_share", "spurious_share", "jitter_share", "jitter_amount")

Boxes = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Shapes(DataSource):
    """Settings of the generated data set. Shares are in [0, 1].

    Attributes:
        data_seed: apart from the run's seed, so that every arm and seed shares one data set.
        train_images, val_images, test_images: >= 1.
        size_px: side of the square images, 32 to 4096.
        num_classes: the first so many of circle, square, triangle, cross, star.
        objects_min, objects_max: objects in an image that is not background. A crowded image holds
            fewer where no place is left.
        background_share: share of images without any object.
        size_min, size_max: longer side of an object as a share of the image's side.
        size_distribution: "uniform" or "log_uniform" between them.
        max_overlap: largest intersection of two objects' boxes over the smaller one's area.
        clutter: 0 plain; 1 many lines under the objects and strong noise over everything.
        hard_negatives: outlined or bitten shapes in each image, which are of no class.
        contrast: (0, 1], of objects to background; 1 as drawn.
        missing_share: share of the train objects whose box is left out.
        spurious_share: boxes around nothing, as a share of the train objects.
        jitter_share: share of the train boxes whose edges are displaced.
        jitter_amount: largest displacement of an edge as a share of the box's side.
        cache, cache_dir: where decoded images are kept: "disk", "ram" or "none".
    """

    name: ClassVar[str] = "shapes"

    data_seed: int = 0
    train_images: int = 400
    val_images: int = 100
    test_images: int = 100
    size_px: int = 96
    num_classes: int = 3
    objects_min: int = 1
    objects_max: int = 5
    background_share: float = 0.1
    size_min: float = 0.12
    size_max: float = 0.5
    size_distribution: str = "log_uniform"
    max_overlap: float = 0.1
    clutter: float = 0.2
    hard_negatives: int = 1
    contrast: float = 1.0
    missing_share: float = 0.0
    spurious_share: float = 0.0
    jitter_share: float = 0.0
    jitter_amount: float = 0.2
    cache: str = field(default="disk", metadata=NOT_IDENTITY)
    cache_dir: str = field(default=".cache/data", metadata=NOT_IDENTITY)

    def __post_init__(self) -> None:
        require(0 <= self.data_seed < 2**63, "data_seed", self.data_seed, "0 or more, below 2**63")
        for key in ("train_images", "val_images", "test_images"):
            require(getattr(self, key) >= 1, key, getattr(self, key), "1 or more")
        require(32 <= self.size_px <= 4096, "size_px", self.size_px, "32 to 4096")
        require(1 <= self.num_classes <= len(NAMES), "num_classes", self.num_classes, f"1 to {len(NAMES)}")
        require(self.objects_min >= 0, "objects_min", self.objects_min, "0 or more")
        fewest, most = self.objects_min, self.objects_max
        require(fewest <= most <= 500, "objects_max", most, f"objects_min ({fewest}) to 500")
        for key in ("background_share", "max_overlap", "clutter", *_LABEL_FAULTS[:3]):
            require(0 <= getattr(self, key) <= 1, key, getattr(self, key), "0 to 1")
        smallest = 4 / self.size_px
        need = f"{smallest:.3g} (4 px) to size_max ({self.size_max:g}) and at most 1"
        require(smallest <= self.size_min <= self.size_max, "size_min", self.size_min, need)
        require(self.size_max <= 1, "size_max", self.size_max, "at most 1")
        known = self.size_distribution in DISTRIBUTIONS
        require(known, "size_distribution", self.size_distribution, f"one of {', '.join(DISTRIBUTIONS)}")
        require(0 <= self.hard_negatives <= 100, "hard_negatives", self.hard_negatives, "0 to 100")
        require(0 < self.contrast <= 1, "contrast", self.contrast, "above 0, at most 1")
        # An edge that moves by less than half its side cannot pass the opposite one.
        require(0 <= self.jitter_amount < 0.5, "jitter_amount", self.jitter_amount, "0 to below 0.5")
        require(self.cache in MODES, "cache", self.cache, f"one of {', '.join(MODES)}")

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of their labels."""
        return NAMES[: self.num_classes]

    def open(self) -> DetectionData:
        train, val = self._split("train", self.train_images), self._split("val", self.val_images)
        return DetectionData(name=self.name, classes=self.classes, train=train, val=val)

    def open_test(self) -> Split:
        return self._split("test", self.test_images)

    def _split(self, name: str, count: int) -> Split:
        split = ShapesSplit(self, name, count)
        folder = user_path("data.cache_dir", self.cache_dir)
        return cached(split, mode=self.cache, folder=folder, key=split.pixels_key())


class ShapesSplit(Split):
    """One split of a Shapes data set. Label faults are in `train` only."""

    def __init__(self, settings: Shapes, name: str, count: int) -> None:
        self.settings, self.name = settings, name
        self.faults = []
        self.examples = []
        self.true_boxes = 0
        for index in range(count):
            self.examples.append(self._example(index))

    def scene(self, index: int) -> Scene:
        """What image `index` shows: the objects with their masks and true boxes."""
        s = self.settings
        return compose(
            generator(s.data_seed, f"shapes/{self.name}/objects", 0, index),
            generator(s.data_seed, f"shapes/{self.name}/negatives", 0, index),
            size_px=s.size_px,
            num_classes=s.num_classes,
            objects=(s.objects_min, s.objects_max),
            background_share=s.background_share,
            sizes_px=(s.size_min * s.size_px, s.size_max * s.size_px),
            log_uniform=s.size_distribution == "log_uniform",
            max_overlap=s.max_overlap,
            hard_negatives=s.hard_negatives,
        )

    def read(self, index: int) -> Image:
        s = self.settings
        return draw(
            self.scene(index),
            generator(s.data_seed, f"shapes/{self.name}/colours", 0, index),
            generator(s.data_seed, f"shapes/{self.name}/clutter", 0, index),
            size_px=s.size_px,
            clutter=s.clutter,
            contrast=s.contrast,
        )

    def pixels_key(self) -> str:
        """Names the images: label faults do not change them."""
        return self._hash_of_settings(without=_LABEL_FAULTS)

    def fingerprint(self) -> str:
        """Over the settings, the annotations, and the pixels of the first images.

        The settings determine every pixel as long as OpenCV draws alike; the first images show
        whether it does, without drawing them all.
        """
        annotations = [[e.boxes_xyxy_px.tolist(), e.labels.tolist()] for e in self.examples]
        return sha256_text(canonical_json([self._hash_of_settings(without=()), annotations]))

    def _hash_of_settings(self, without: tuple[str, ...]) -> str:
        unseen = {"cache", "cache_dir", "train_images", "val_images", "test_images", *without}
        settings = {f.name: getattr(self.settings, f.name) for f in fields(Shapes) if f.name not in unseen}
        probes = [self.read(index).tobytes().hex() for index in range(min(_PROBED, len(self)))]
        pixels = sha256_text("".join(probes))
        return sha256_text(canonical_json([_RENDERING, self.name, len(self), settings, pixels]))

    def _example(self, index: int) -> Example:
        scene = self.scene(index)
        name = f"{self.name}-{index:06d}"
        boxes = np.array([thing.box_xyxy_px for thing in scene.objects], np.float32).reshape(-1, 4)
        labels = np.array([thing.label for thing in scene.objects], np.int64)
        self.true_boxes += len(boxes)
        if self.name == "train" and len(boxes):
            boxes, labels = self._with_faults(index, name, boxes, labels)
        size = self.settings.size_px
        return Example(name, size, size, boxes, labels, np.zeros(len(labels), np.bool_))

    def _empty_places(self, rng: np.random.Generator, boxes: Boxes) -> Boxes:
        """As many boxes as there are objects, each where, of some places, it covers them least."""
        s = self.settings
        u = rng.random((len(boxes), _CANDIDATES, 4))
        size = s.size_px * (s.size_min + u[..., 2:] * (s.size_max - s.size_min))
        corner = u[..., :2] * (s.size_px - size)
        places = np.concatenate([corner, corner + size], axis=-1)
        low = np.maximum(places[:, :, None, :2], boxes[:, :2])
        high = np.minimum(places[:, :, None, 2:], boxes[:, 2:])
        covered = (high - low).clip(0).prod(axis=-1).sum(axis=-1)
        best = places[np.arange(len(boxes)), covered.argmin(axis=1)]
        return np.asarray(best, np.float32)

    def _with_faults(self, index: int, name: str, boxes: Boxes, labels: Labels) -> tuple[Boxes, Labels]:
        """Label faults. A larger share adds faults to those of a smaller one and moves none."""
        s = self.settings
        rng = generator(s.data_seed, "shapes/label faults", 0, index)
        drawn = rng.random((len(boxes), 3))
        edges = rng.uniform(-1, 1, (len(boxes), 4))
        drawn_labels = rng.integers(0, s.num_classes, len(boxes))
        extra = self._empty_places(rng, boxes)
        missing, spurious, moved = (drawn < (s.missing_share, s.spurious_share, s.jitter_share)).T
        moved &= ~missing
        sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        jittered = np.clip(boxes + edges * s.jitter_amount * sides, 0, s.size_px)
        kinds = (("label missing", missing), ("label spurious", spurious), ("label displaced", moved))
        for what, flags in kinds:
            self.faults.extend(Fault(name, what, "injected") for _ in range(int(flags.sum())))
        remaining = np.where(moved[:, None], jittered, boxes)[~missing]
        return (
            np.concatenate([remaining, extra[spurious]]).astype(np.float32),
            np.concatenate([labels[~missing], drawn_labels[spurious]]).astype(np.int64),
        )
