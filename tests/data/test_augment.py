"""Augmentation: what is drawn stays inside its box, and every choice is a function of its place."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example as tried
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from omegaconf import OmegaConf

from ablation.data.augment import AugmentConfig, augment, clip_boxes
from ablation.data.dataset import Example, Image, Split
from ablation.data.letterbox import letterbox
from ablation.data.placement import Placement, fit_region
from ablation.rng import generator

PRESETS = ("none", "light", "yolov4", "darknet")


def preset(root: Path, name: str) -> AugmentConfig:
    """The preset through the same typing as a run's configuration."""
    stated = OmegaConf.load(root / "conf" / "augment" / f"{name}.yaml")
    made = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(AugmentConfig), stated))
    assert isinstance(made, AugmentConfig)
    return made


class Planted(Split):
    """Black images of odd sizes, each with coloured rectangles in known places."""

    def __init__(self, count: int = 12) -> None:
        self.faults = []
        self.examples = []
        for index in range(count):
            rng = generator(7, "planted", 0, index)
            width, height = (int(value) for value in rng.integers(60, 200, 2))
            low = rng.integers(0, (width // 2, height // 2), (1 + index % 3, 2))
            size = rng.integers(15, (width // 2, height // 2), low.shape)
            boxes = np.concatenate([low, low + size], axis=1).astype(np.float32)
            labels = np.arange(len(boxes), dtype=np.int64)
            self.examples.append(
                Example(f"{index}", width, height, boxes, labels, np.zeros(len(boxes), np.bool_))
            )

    def read(self, index: int) -> Image:
        example = self.examples[index]
        image = np.zeros((example.height_px, example.width_px, 3), np.uint8)
        colour = [(220, 30, 30), (30, 220, 30), (30, 30, 220)][index % 3]
        for x1, y1, x2, y2 in example.boxes_xyxy_px.astype(int).tolist():
            image[y1:y2, x1:x2] = colour
        return image

    def fingerprint(self) -> str:
        return "planted"


def coloured(image: Image) -> np.ndarray:
    """Where a rectangle is: black and grey stay without colour under every change."""
    return np.asarray(image.max(axis=2).astype(int) - image.min(axis=2) > 3)


def mask_of(boxes: np.ndarray, size: int, margin: float) -> np.ndarray:
    """Pixels inside any of the boxes, grown (or, negative, shrunk) by `margin`."""
    inside = np.zeros((size, size), bool)
    for x1, y1, x2, y2 in boxes:
        left, top = max(0, int(np.floor(x1 - margin))), max(0, int(np.floor(y1 - margin)))
        inside[top : max(0, int(np.ceil(y2 + margin))), left : max(0, int(np.ceil(x2 + margin)))] = True
    return inside


@pytest.mark.parametrize("size", [96, 160])
@pytest.mark.parametrize("name", PRESETS)
def test_rectangles_stay_inside_their_boxes_and_fill_them(root: Path, name: str, size: int) -> None:
    split = Planted()
    config = replace(preset(root, name), min_visible=0.0, min_side_px=0.0, close_share=0.0)
    visible = 0
    for epoch in range(6):
        for index in range(len(split)):
            image, boxes, labels = augment(
                split, index, size_px=size, config=config, seed=3, epoch=epoch, epochs=6
            )
            assert image.shape == (size, size, 3) and image.dtype == np.uint8
            assert boxes.dtype == np.float32 and labels.dtype == np.int64 and len(boxes) == len(labels)
            assert (boxes >= 0).all() and (boxes <= size).all() and (boxes[:, 2:] > boxes[:, :2]).all()
            coloured_px = coloured(image)
            # Enlarging by up to four blurs an edge by two pixels.
            assert not (coloured_px & ~mask_of(boxes, size, 2)).any()
            for x1, y1, x2, y2 in boxes:
                rows = slice(int(np.ceil(y1)) + 2, max(0, int(y2) - 2))
                inner = coloured_px[rows, int(np.ceil(x1)) + 2 : max(0, int(x2) - 2)]
                assert inner.all()
                visible += inner.size > 0
    assert visible > 50


def test_none_is_the_letterbox(root: Path) -> None:
    split = Planted()
    for index, example in enumerate(split.examples):
        image, boxes, labels = augment(
            split, index, size_px=96, config=preset(root, "none"), seed=1, epoch=0, epochs=3
        )
        square, geometry = letterbox(split.read(index), 96)
        assert_array_equal(image, square)
        assert_allclose(boxes, geometry.to_input(example.boxes_xyxy_px), atol=1e-4)
        assert_array_equal(labels, example.labels)


def draw(
    split: Split, config: AugmentConfig, seed: int = 0, epoch: int = 0, index: int = 0, epochs: int = 10
) -> bytes:
    """Image and boxes as bytes."""
    image, boxes, labels = augment(
        split, index, size_px=96, config=config, seed=seed, epoch=epoch, epochs=epochs
    )
    return image.tobytes() + boxes.tobytes() + labels.tobytes()


def test_equal_places_are_equal_and_different_places_differ(root: Path) -> None:
    split, config = Planted(), preset(root, "yolov4")
    assert draw(split, config) == draw(split, config)
    assert draw(split, config) != draw(split, config, seed=1)
    drawn = {draw(split, config, epoch=epoch, index=index) for epoch in range(6) for index in range(12)}
    assert len(drawn) == 72


def test_no_two_places_share_their_random_numbers() -> None:
    places = [(epoch, index) for epoch in range(20) for index in range(100)]
    drawn = np.array([generator(5, "augment", *place).random(4) for place in places])
    assert len(np.unique(drawn)) == drawn.size


def test_mosaic_and_mixup_end_with_close_share(root: Path) -> None:
    config = preset(root, "yolov4")
    assert [config.mosaic_open(epoch, 10) for epoch in range(10)] == [True] * 7 + [False] * 3
    split = Planted()
    always = replace(AugmentConfig(), mosaic=1.0, close_share=0.3)
    assert draw(split, always, epoch=6) != draw(split, AugmentConfig(), epoch=6)
    assert draw(split, always, epoch=7) == draw(split, AugmentConfig(), epoch=7)


def test_the_share_of_mosaics_is_what_it_says() -> None:
    """Without any other change an image that is not a mosaic is its letterbox."""
    split, config = Planted(), AugmentConfig(mosaic=0.5, close_share=0.0)
    plain = [letterbox(split.read(index), 96)[0] for index in range(12)]
    mosaics = 0
    for epoch in range(40):
        for index in range(12):
            image, _, _ = augment(split, index, size_px=96, config=config, seed=0, epoch=epoch, epochs=40)
            mosaics += not np.array_equal(image, plain[index])
    assert abs(mosaics - 240) < 4 * np.sqrt(480 * 0.25)


def test_ignored_objects_are_not_trained_on() -> None:
    split = Planted()
    split.examples = [replace(e, ignored=e.labels == 0) for e in split.examples]
    for index, example in enumerate(split.examples):
        _, _, labels = augment(split, index, size_px=96, config=AugmentConfig(), seed=0, epoch=0, epochs=1)
        assert_array_equal(labels, example.labels[example.labels != 0])


def test_flip_mirrors_pixels_and_boxes_and_twice_is_identity() -> None:
    split = Planted()
    for index, example in enumerate(split.examples):
        image = split.read(index)
        whole = (0, 0, example.width_px, example.height_px)
        place = Placement(whole, whole, flip=True)
        once, twice = np.empty_like(image), np.empty_like(image)
        place.paste(image, once)
        place.paste(once, twice)
        assert_array_equal(once, image[:, ::-1])
        assert_array_equal(twice, image)
        moved = place.move(example.boxes_xyxy_px)
        assert (moved[:, 2:] > moved[:, :2]).all()
        assert_array_equal(moved[:, 0], example.width_px - example.boxes_xyxy_px[:, 2])
        assert_array_equal(place.move(moved), example.boxes_xyxy_px)


@given(st.integers(1, 900), st.integers(1, 900), st.integers(-300, 99), st.integers(1, 700))
@tried(length=2, other=1, start=-102, extent=405)
@settings(max_examples=1000, deadline=None)
def test_placement_stays_close_to_what_was_asked(length: int, other: int, start: int, extent: int) -> None:
    """The shown part lies in its region, and rounding moves it by at most one image pixel."""
    if start + extent <= 0:
        start = 1 - extent
    place = fit_region((length, other), start, 0, extent, 100, (0, 0, 100, 100), flip=False)
    (sx1, sy1, sx2, sy2), (x1, y1, x2, y2) = place.source, place.target
    assert 0 <= sx1 < sx2 <= length and 0 <= sy1 < sy2 <= other
    assert 0 <= x1 < x2 <= 100 and (y1, y2) == (0, 100)
    box = np.array([[sx1, 0, sx2, other]], np.float64)
    expected = start + box[0, [0, 2]] * extent / length
    assert (np.abs(expected - place.move(box)[0, [0, 2]]) <= max(1, extent / length) + 1e-9).all()


def test_the_rule_for_clipped_boxes_by_hand() -> None:
    boxes = np.array(
        [
            [10, 10, 30, 30],  # inside
            [-30, 0, 10, 20],  # a quarter visible
            [-31, 0, 10, 20],  # a little less
            [200, 10, 220, 30],  # outside
            [50, 50, 50.9, 80],  # thinner than a pixel
            [99.5, 0, 101, 50],  # half a pixel left
        ]
    )
    labels = np.arange(6, dtype=np.int64)
    region = (0, 0, 100, 100)
    remaining, names = clip_boxes(boxes, labels, region, min_visible=0.25, min_side_px=1.0)
    assert_array_equal(names, [0, 1])
    assert_array_equal(remaining, [[10, 10, 30, 30], [0, 0, 10, 20]])
    _, names = clip_boxes(boxes, labels, region, min_visible=0.0, min_side_px=0.0)
    assert_array_equal(names, [0, 1, 2, 4, 5])
    _, names = clip_boxes(boxes, labels, region, min_visible=1.0, min_side_px=0.0)
    assert_array_equal(names, [0, 4])
    empty, none = clip_boxes(np.empty((0, 4)), labels[:0], region, min_visible=0.2, min_side_px=1)
    assert empty.shape == (0, 4) and none.shape == (0,)


def test_colours_keep_grey_and_boxes(root: Path) -> None:
    split = Planted()
    config = AugmentConfig(hue=0.1, saturation=0.7, value=0.4)
    for epoch in range(5):
        image, boxes, _ = augment(split, 0, size_px=96, config=config, seed=0, epoch=epoch, epochs=5)
        plain, same, _ = augment(split, 0, size_px=96, config=AugmentConfig(), seed=0, epoch=epoch, epochs=5)
        assert_array_equal(boxes, same)
        assert_array_equal(coloured(image), coloured(plain))
        assert (image != plain).any()


@pytest.mark.parametrize(
    ("key", "value"),
    [("mosaic", 1.1), ("flip", -0.1), ("scale_min", 0.0), ("scale_max", 0.5), ("aspect_jitter", 1.0)],
)
def test_a_value_out_of_range_is_refused(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=r"found .*, must be "):
        AugmentConfig(**{key: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_name_every_field(root: Path, name: str) -> None:
    stated = OmegaConf.to_container(OmegaConf.load(root / "conf" / "augment" / f"{name}.yaml"))
    assert isinstance(stated, dict)
    assert set(stated) == {f.name for f in fields(AugmentConfig)}
    if name == "none":
        assert stated == asdict(AugmentConfig())
