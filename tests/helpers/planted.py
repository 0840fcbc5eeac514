"""Studies with a known truth: differences over seeds, and detections with seed, image and arm effects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ablation.analyse.detections.average_precision import IOUS, ApMatches, ClassMatches

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """How well a run finds an object: a sum of effects, in units of the spread between objects (1).

    Attributes:
        images: in a study's val set.
        objects: in an image on average.
        false: false positives in an image on average.
        arm: what the arm adds to every object's quality (the planted effect).
        seed, pair: spread between seeds (both arms alike), and of a seed's arm alone.
        image: spread between images (both arms alike).
        arm_image: spread of what the arm adds in an image: the images' part of the difference.
        run_image: spread of what a run adds in an image: the interaction.
    """

    images: int = 60
    objects: float = 4.0
    false: float = 3.0
    arm: float = 0.15
    seed: float = 0.15
    pair: float = 0.12
    image: float = 0.5
    arm_image: float = 0.4
    run_image: float = 0.3


def detections(
    world: World, seeds: int, random: np.random.Generator, images: int | None = None
) -> tuple[list[ApMatches], list[ApMatches]]:
    """The matches of `seeds` runs of each of two arms on the same images: the baseline's, the arm's.

    An object of quality q is found at the IoU threshold t if q > 4 t - 2.5, and its score rises with q;
    a false positive has the score of a worse object.
    """
    m = images or world.images
    truths = 1 + random.poisson(world.objects - 1, m)
    image_of = np.repeat(np.arange(m), truths)
    easy = random.normal(0, world.image, m)
    of_arm = random.normal(0, world.arm_image, m)
    own = random.normal(0, 1, len(image_of))
    arms: tuple[list[ApMatches], list[ApMatches]] = [], []
    for _ in range(seeds):
        shared = random.normal(0, world.seed)
        for arm, runs in enumerate(arms):
            level = shared + arm * world.arm + random.normal(0, world.pair)
            place = easy + arm * of_arm + random.normal(0, world.run_image, m) + level
            quality = own + place[image_of] + random.normal(0, 0.3, len(image_of))
            false = random.poisson(world.false, m)
            wrong = np.repeat(np.arange(m), false)
            runs.append(_run(m, truths, image_of, quality, wrong, random))
    return arms


def _run(
    m: int, truths: NDArray[np.int64], image_of: NDArray[np.int64], quality: Floats,
    wrong: NDArray[np.int64], random: np.random.Generator,
) -> ApMatches:  # fmt: skip
    needed = 4 * np.array(IOUS)[:, None] - 2.5
    score = np.concatenate([
        quality + random.normal(0, 0.5, len(quality)), random.normal(-0.7, 0.8, len(wrong))
    ])  # fmt: skip
    image = np.concatenate([image_of, wrong])
    matched = np.concatenate([quality > needed, np.zeros((len(IOUS), len(wrong)), bool)], axis=1)
    order = np.argsort(-score)
    one = ClassMatches("thing", truths, image[order], score[order], matched[:, order], np.zeros_like(matched))
    return ApMatches(tuple(range(1, m + 1)), (one,))


def truths_of(share: float, seed: int, arm: str, images: int = 30) -> tuple[dict, list[dict]]:  # type: ignore[type-arg]
    """COCO files of one run: an object in each image, found in `share` of them, and a false box in some."""
    from ablation.rng import generator

    random = generator(seed, f"files {arm}")
    truth = {
        "images": [{"id": i + 1, "width": 100, "height": 100} for i in range(images)],
        "annotations": [
            {"id": i + 1, "image_id": i + 1, "category_id": 1, "bbox": [10, 10, 40, 40],
             "area": 1600, "iscrowd": 0}
            for i in range(images)
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }  # fmt: skip
    results = []
    for i in range(images):
        if random.random() < share:
            shift = random.uniform(0, 8)
            results.append({"image_id": i + 1, "category_id": 1, "bbox": [10 + shift, 10, 40, 40],
                            "score": random.uniform(0.3, 1)})  # fmt: skip
        if random.random() < 0.4:
            results.append({"image_id": i + 1, "category_id": 1, "bbox": [60, 60, 30, 30],
                            "score": random.uniform(0, 0.8)})  # fmt: skip
    return truth, results
