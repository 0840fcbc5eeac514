"""Batches: every image once an epoch, the same for any number of workers, errors as one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.voc_folder import write_voc
from numpy.testing import assert_allclose, assert_array_equal

from ablation.boxes import cxcywh_to_xyxy
from ablation.data.augment import AugmentConfig, augment
from ablation.data.dataset import Split
from ablation.data.letterbox import letterbox
from ablation.data.loader import TrainLoader, batches_per_epoch, epoch_order, train_batches, val_batches
from ablation.data.shapes import Shapes
from ablation.data.voc import Voc
from ablation.errors import DataError, UsageError

LIGHT = AugmentConfig(scale_min=0.8, scale_max=1.2, aspect_jitter=0.1, hue=0.02, flip=0.5, mosaic=0.3)
SETTINGS = {"seed": 3, "epochs": 4, "batch_size": 4, "size_px": 64, "augment": LIGHT}


@pytest.fixture(scope="module")
def split() -> Split:
    """22 generated images, in RAM."""
    return Shapes(train_images=22, val_images=5, objects_min=0, size_px=80, cache="ram").open().train


def digests(loader: TrainLoader, epochs: int = 4) -> list[list[str]]:
    """The digests of every batch."""
    return [[batch.digest() for batch in loader.epoch(epoch)] for epoch in range(epochs)]


def test_order_is_a_permutation_of_its_epoch_and_seed() -> None:
    for seed in range(3):
        orders = [epoch_order(50, seed, epoch).tolist() for epoch in range(5)]
        assert all(sorted(order) == list(range(50)) for order in orders)
        assert len({tuple(order) for order in orders}) == 5
    assert epoch_order(50, 0, 0).tolist() != epoch_order(50, 1, 0).tolist()


def test_an_epoch_takes_whole_batches_in_its_order(split: Split) -> None:
    batches = list(train_batches(split, epoch=2, **SETTINGS))  # type: ignore[arg-type]
    assert len(batches) == batches_per_epoch(split, 4) == 5
    taken = torch.cat([batch.indices for batch in batches])
    assert_array_equal(taken, epoch_order(22, 3, 2)[:20])


def test_a_batch_holds_what_augment_made(split: Split) -> None:
    for batch in train_batches(split, epoch=1, **SETTINGS):  # type: ignore[arg-type]
        assert batch.images.shape == (4, 3, 64, 64) and batch.images.dtype == torch.uint8
        assert batch.images.is_contiguous()
        assert batch.boxes_cxcywh_px.dtype == torch.float32 and batch.labels.dtype == torch.int64
        objects = batch.present.sum(dim=1)
        assert batch.labels.shape == batch.present.shape == (4, max(1, int(objects.max())))
        assert (batch.boxes_cxcywh_px[~batch.present] == 0).all() and (
            batch.labels[~batch.present] == 0
        ).all()
        for row, index in enumerate(batch.indices.tolist()):
            image, boxes, labels = augment(split, index, size_px=64, config=LIGHT, seed=3, epoch=1, epochs=4)
            assert_array_equal(batch.images[row].permute(1, 2, 0), image)
            mask = batch.present[row]
            assert_array_equal(batch.labels[row][mask], labels)
            assert_allclose(cxcywh_to_xyxy(batch.boxes_cxcywh_px[row][mask]), boxes, atol=1e-4)
            assert mask.tolist() == sorted(mask.tolist(), reverse=True)


def test_a_batch_without_any_object_has_one_empty_place() -> None:
    empty = Shapes(train_images=4, objects_min=0, objects_max=0, cache="none").open().train
    (batch,) = train_batches(empty, epoch=0, **SETTINGS)  # type: ignore[arg-type]
    assert batch.boxes_cxcywh_px.shape == (4, 1, 4) and not batch.present.any()


def test_epochs_and_seeds_differ_and_repeat(split: Split) -> None:
    loader = TrainLoader(split, **SETTINGS)  # type: ignore[arg-type]
    first = digests(loader)
    assert digests(TrainLoader(split, **SETTINGS)) == first  # type: ignore[arg-type]
    assert [batch.digest() for batch in loader.epoch(2)] == first[2]  # resumed in the middle
    other = digests(TrainLoader(split, **(SETTINGS | {"seed": 4})))  # type: ignore[arg-type]
    every = [digest for run in (first, other) for epoch in run for digest in epoch]
    assert len(set(every)) == len(every)


def test_workers_change_nothing(split: Split) -> None:
    alone = digests(TrainLoader(split, **SETTINGS))  # type: ignore[arg-type]
    with TrainLoader(split, workers=2, **SETTINGS) as loader:  # type: ignore[arg-type]
        assert digests(loader) == alone
        left = loader.epoch(1)  # an epoch that is not finished
        assert next(left).digest() == alone[1][0]
        del left
        assert [batch.digest() for batch in loader.epoch(3)] == alone[3]


def test_an_error_in_a_worker_arrives_as_one_line(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "data")
    train = Voc(root=str(root), cache="none").open().train
    (root / "JPEGImages" / "b.jpg").write_bytes(b"")
    settings = SETTINGS | {"batch_size": 2}
    with TrainLoader(train, workers=1, **settings) as loader:  # type: ignore[arg-type]
        for _ in range(2):
            with pytest.raises(DataError, match=r"b\.jpg: has changed since") as raised:
                list(loader.epoch(0))
            assert "\n" not in str(raised.value) and "Traceback" not in str(raised.value)


def test_digest_reads_images_boxes_and_labels(split: Split) -> None:
    def batch() -> object:
        return next(train_batches(split, epoch=0, **SETTINGS))  # type: ignore[arg-type]

    base = batch().digest()  # type: ignore[attr-defined]
    assert batch().to("cpu").digest() == base  # type: ignore[attr-defined]
    for name in ("images", "boxes_cxcywh_px", "labels"):
        changed = batch()
        getattr(changed, name).view(-1)[0] += 1
        assert changed.digest() != base  # type: ignore[attr-defined]


def test_multi_scale_takes_one_size_a_batch(split: Split) -> None:
    settings = SETTINGS | {"batch_size": 1}
    sizes = [
        batch.images.shape[-1]
        for epoch in range(4)
        for batch in train_batches(split, epoch=epoch, multi_scale=[32, 64, 96], **settings)  # type: ignore[arg-type]
    ]
    assert set(sizes) == {32, 64, 96} and len(sizes) == 88


def test_fewer_images_than_a_batch_is_refused(split: Split) -> None:
    with pytest.raises(
        UsageError, match=r"^train\.batch_size: 64, but the train split has 22 images; .*22 or"
    ):
        TrainLoader(split, **(SETTINGS | {"batch_size": 64}))  # type: ignore[arg-type]


@pytest.mark.parametrize("batch_size", [1, 3, 5, 8])
def test_evaluation_sees_every_image_once_letterboxed(batch_size: int) -> None:
    val = Shapes(val_images=5, size_px=80, cache="none").open().val
    batches = list(val_batches(val, batch_size=batch_size, size_px=64))
    assert torch.cat([batch.indices for batch in batches]).tolist() == [0, 1, 2, 3, 4]
    for batch in batches:
        assert len(batch.images) == len(batch.indices) == len(batch.geometries)
        for image, index, geometry in zip(
            batch.images, batch.indices.tolist(), batch.geometries, strict=True
        ):
            square, expected = letterbox(val.read(index), 64)
            assert_array_equal(image.permute(1, 2, 0), square)
            assert geometry == expected


def test_an_arm_with_other_labels_sees_the_same_images() -> None:
    """Label faults change boxes; order, augmentation and pixels stay paired."""
    base = Shapes(train_images=12, cache="none")
    images = [
        [
            batch.images
            for batch in train_batches(source.open().train, epoch=0, **SETTINGS)  # type: ignore[arg-type]
        ]
        for source in (base, replace(base, missing_share=0.5))
    ]
    assert all(np.array_equal(a, b) for a, b in zip(*images, strict=True))
