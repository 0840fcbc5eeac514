"""Generated images: pure functions of their arguments, with exact boxes and counted faults."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from omegaconf import OmegaConf

from ablation.data.shapes import Shapes, ShapesSplit

PLAIN = Shapes(
    train_images=60,
    val_images=20,
    test_images=10,
    num_classes=5,
    clutter=0.0,
    hard_negatives=0,
    max_overlap=0.0,
    cache="none",
)


def same(a: ShapesSplit, b: ShapesSplit, count: int = 20) -> bool:
    """Equal pixels and boxes in the first images."""
    return all(
        np.array_equal(a.read(i), b.read(i))
        and np.array_equal(a.examples[i].boxes_xyxy_px, b.examples[i].boxes_xyxy_px)
        for i in range(count)
    )


def test_a_pure_function_of_seed_split_and_index() -> None:
    train = ShapesSplit(PLAIN, "train", 60)
    again = ShapesSplit(PLAIN, "train", 20)
    backwards = [again.read(index) for index in reversed(range(20))][::-1]
    assert all(np.array_equal(train.read(index), backwards[index]) for index in range(20))
    assert not same(train, ShapesSplit(PLAIN, "val", 20), 1)
    assert not same(train, ShapesSplit(replace(PLAIN, data_seed=1), "train", 20), 1)
    assert len({train.read(index).tobytes() for index in range(60)}) == 60


def test_boxes_are_tight_to_the_pixel() -> None:
    split = ShapesSplit(PLAIN, "train", 60)
    seen = 0
    for index, example in enumerate(split.examples):
        image = split.read(index)
        colours, counts = np.unique(image.reshape(-1, 3), axis=0, return_counts=True)
        if len(example.labels) == 0:
            assert len(colours) == 1
            continue
        inside = np.zeros(image.shape[:2], bool)
        for x1, y1, x2, y2 in example.boxes_xyxy_px.astype(int).tolist():
            inside[y1:y2, x1:x2] = True
        outside = image[~inside]
        ground = outside[0] if len(outside) else colours[counts.argmax()]
        changed = (image != ground).any(axis=2)
        assert not changed[~inside].any()
        for x1, y1, x2, y2 in example.boxes_xyxy_px.astype(int).tolist():
            rows, columns = np.nonzero(changed[y1:y2, x1:x2])
            assert (rows.min(), columns.min()) == (0, 0)
            assert (rows.max() + 1, columns.max() + 1) == (y2 - y1, x2 - x1)
            seen += 1
    assert seen > 100


def test_sizes_counts_and_overlap_keep_their_bounds() -> None:
    settings = replace(PLAIN, objects_min=2, objects_max=4, size_min=0.1, size_max=0.3, background_share=0.25)
    split = ShapesSplit(settings, "train", 400)
    counts = [len(example.labels) for example in split.examples]
    assert set(counts) <= {0, 1, 2, 3, 4}  # 1: no place was left for the second
    assert abs(counts.count(0) / 400 - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 400)
    boxes = np.concatenate([example.boxes_xyxy_px for example in split.examples])
    longer = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    assert longer.min() >= 0.1 * 96 - 1 and longer.max() <= 0.3 * 96 + 1
    assert longer.min() < 12 and longer.max() > 26
    assert boxes.min() >= 0 and boxes.max() <= 96
    for example in split.examples:
        b = example.boxes_xyxy_px
        low, high = np.maximum(b[:, None, :2], b[:, :2]), np.minimum(b[:, None, 2:], b[:, 2:])
        shared = (high - low).clip(0).prod(axis=-1)
        assert (shared[~np.eye(len(b), dtype=bool)] == 0).all()


def test_overlap_is_measured_on_the_smaller_object() -> None:
    """So that a small object cannot vanish behind a large one, which a bound on the IoU would allow."""
    settings = replace(PLAIN, objects_min=6, objects_max=9, max_overlap=0.2, size_min=0.1, size_max=0.6)
    shares = []
    for example in ShapesSplit(settings, "train", 100).examples:
        b = example.boxes_xyxy_px
        low, high = np.maximum(b[:, None, :2], b[:, :2]), np.minimum(b[:, None, 2:], b[:, 2:])
        areas = (b[:, 2:] - b[:, :2]).prod(axis=1)
        share = (high - low).clip(0).prod(axis=-1) / np.minimum(areas[:, None], areas)
        shares.extend(share[~np.eye(len(b), dtype=bool)].tolist())
    assert 0.15 < max(shares) <= 0.2 + 1e-6


def test_sizes_follow_their_distribution() -> None:
    """The median side: the mean of the ends for uniform, their geometric mean for log_uniform."""
    for kind, middle in (("uniform", 0.32), ("log_uniform", np.sqrt(0.08 * 0.56))):
        settings = replace(PLAIN, objects_max=1, size_min=0.08, size_max=0.56, size_distribution=kind)
        split = ShapesSplit(settings, "val", 600)
        boxes = np.concatenate([example.boxes_xyxy_px for example in split.examples])
        median = np.median((boxes[:, 2:] - boxes[:, :2]).max(axis=1))
        assert abs(median - 96 * middle) < 3


def test_no_objects_at_all_is_allowed() -> None:
    split = ShapesSplit(replace(PLAIN, objects_min=0, objects_max=0, hard_negatives=3), "train", 10)
    assert all(example.boxes_xyxy_px.shape == (0, 4) for example in split.examples)
    assert all(len(np.unique(split.read(i).reshape(-1, 3), axis=0)) > 1 for i in range(10))


def test_one_knob_leaves_the_rest_of_the_scene() -> None:
    base = ShapesSplit(PLAIN, "train", 20)
    for change in ({"hard_negatives": 2}, {"contrast": 0.3}, {"clutter": 0.7}):
        other = ShapesSplit(replace(PLAIN, **change), "train", 20)
        for a, b in zip(base.examples, other.examples, strict=True):
            assert_array_equal(a.boxes_xyxy_px, b.boxes_xyxy_px)
        assert not same(base, other)


def test_contrast_scales_the_difference_to_the_background() -> None:
    full, half = ShapesSplit(PLAIN, "val", 10), ShapesSplit(replace(PLAIN, contrast=0.5), "val", 10)
    for index in range(10):
        a, b = full.read(index).astype(float), half.read(index).astype(float)
        ground = a[(a == b).all(axis=2)][0]
        assert np.abs((a - ground) / 2 - (b - ground)).max() <= 0.5


def test_label_faults_are_counted_and_in_train_only() -> None:
    clean = ShapesSplit(PLAIN, "train", 200)
    for share in (0.0, 0.3, 1.0):
        settings = replace(PLAIN, missing_share=share, spurious_share=share / 2, jitter_share=share)
        split = ShapesSplit(settings, "train", 200)
        faults = Counter(fault.what for fault in split.faults)
        total = sum(clean.counts().values())
        assert split.true_boxes == total
        left = sum(split.counts().values())
        assert left == total - faults["label missing"] + faults["label spurious"]
        spread = 4 * np.sqrt(total * 0.25)
        assert abs(faults["label missing"] - share * total) <= (0 if share in (0, 1) else spread)
        assert abs(faults["label spurious"] - share / 2 * total) <= (0 if share == 0 else spread)
        val = ShapesSplit(settings, "val", 20)
        assert val.faults == [] and same(val, ShapesSplit(PLAIN, "val", 20))
        for example in split.examples:
            sides = example.boxes_xyxy_px[:, 2:] - example.boxes_xyxy_px[:, :2]
            assert (sides > 0).all() and len(example.labels) == len(example.ignored) == len(sides)


def test_displaced_boxes_move_by_at_most_their_amount() -> None:
    clean = ShapesSplit(PLAIN, "train", 100)
    moved = ShapesSplit(replace(PLAIN, jitter_share=1.0, jitter_amount=0.1), "train", 100)
    assert len(moved.faults) == moved.true_boxes
    for a, b in zip(clean.examples, moved.examples, strict=True):
        sides = np.tile(a.boxes_xyxy_px[:, 2:] - a.boxes_xyxy_px[:, :2], 2)
        shift = np.abs(a.boxes_xyxy_px - b.boxes_xyxy_px)
        assert (shift <= 0.1 * sides + 1e-4).all() and (len(shift) == 0 or shift.max() > 0)


def test_more_missing_labels_contain_the_fewer() -> None:
    def kept(share: float) -> set[tuple[str, float, float]]:
        split = ShapesSplit(replace(PLAIN, missing_share=share), "train", 50)
        return {(e.name, float(b[0]), float(b[1])) for e in split.examples for b in e.boxes_xyxy_px}

    assert kept(0.6) < kept(0.3) < kept(0.0)


def test_fingerprints_tell_data_sets_apart() -> None:
    def split(**change: object) -> ShapesSplit:
        return ShapesSplit(replace(PLAIN, **change), "train", 20)  # type: ignore[arg-type]

    changes: tuple[dict[str, object], ...] = (
        {},
        {"contrast": 0.9},
        {"clutter": 0.1},
        {"missing_share": 0.5},
        {"data_seed": 1},
    )
    prints = [split(**change).fingerprint() for change in changes]
    assert len(set(prints)) == len(prints)
    assert split().fingerprint() == split(cache="ram", cache_dir="elsewhere", val_images=7).fingerprint()
    assert split().pixels_key() == split(missing_share=0.5, jitter_share=0.1).pixels_key()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train_images", 0),
        ("size_px", 31),
        ("num_classes", 6),
        ("objects_min", -1),
        ("objects_max", 0),
        ("background_share", 1.01),
        ("background_share", float("nan")),
        ("size_min", 0.01),
        ("size_max", 1.2),
        ("size_distribution", "normal"),
        ("contrast", 0.0),
        ("missing_share", -0.1),
        ("jitter_amount", 0.5),
        ("data_seed", -1),
        ("cache", "tape"),
    ],
)
def test_a_value_out_of_range_is_named(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{key}: found .*, must be ") as raised:
        replace(Shapes(), **{key: value})  # type: ignore[arg-type]
    assert repr(value) in str(raised.value) and "\n" not in str(raised.value)


def test_the_yaml_states_the_defaults(root: Path) -> None:
    stated = OmegaConf.to_container(OmegaConf.load(root / "conf" / "data" / "shapes.yaml"))
    assert isinstance(stated, dict)
    assert stated.pop("_target_") == "ablation.data.shapes.Shapes"
    assert stated == {f.name: f.default for f in fields(Shapes)}
