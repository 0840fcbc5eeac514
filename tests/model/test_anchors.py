"""model.anchors=auto: anchors for the data, as numbers in the configuration and in the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from helpers.command import SMALL, TINY, ablation, run_folders
from numpy.testing import assert_allclose

from ablation.cli import run as command
from ablation.data.anchors import fit_of, letterboxed_sizes, shape_ious, spread_over_heads
from ablation.data.dataset import DetectionData, Example, Image, Split
from ablation.data.voc import Voc
from ablation.errors import DataError, UsageError
from ablation.model.anchors import resolve_anchors
from ablation.model.base import DetectorConfig
from ablation.model.yolov4 import YOLOv4
from ablation.model.yolov4_tiny import YOLOv4Tiny
from ablation.study.app import composed
from ablation.study.execute import Prepared, prepare

SIDES = np.array(
    [[8, 10], [14, 9], [20, 22], [40, 30], [50, 60], [90, 80], [70, 150], [160, 140], [300, 310]]
)


def boxes_of(sides: np.ndarray, each: int = 20) -> np.ndarray:
    """Some boxes around each of these sizes, within 1 %."""
    noise = np.random.default_rng(0).uniform(0.99, 1.01, (each, *sides.shape))
    return (sides * noise).reshape(-1, 2)


def prepared(*overrides: str) -> Prepared:
    return prepare(composed([*SMALL, *overrides]), list(overrides))


def pairs(flat: list[float]) -> np.ndarray:
    return np.array(flat).reshape(-1, 2)


def test_planted_sizes_become_the_anchors_by_ascending_area() -> None:
    expected = SIDES[np.argsort(SIDES.prod(axis=1))]
    found = pairs(spread_over_heads(boxes_of(SIDES), 9, range(9)))
    assert_allclose(found, expected, rtol=0.01)
    assert_allclose(found * 10, np.rint(found * 10), err_msg="a tenth of a pixel: what is printed is used")


def test_an_anchor_that_no_head_serves_takes_no_box_from_the_others() -> None:
    """Five sizes for YOLOv4-tiny's five served anchors; 0 stands for the smallest, whose boxes it repeats."""
    five = SIDES[[0, 2, 4, 6, 8]].astype(float)
    found = pairs(spread_over_heads(boxes_of(five), 6, [1, 2, 3, 4, 5]))
    assert_allclose(found[1:], five, rtol=0.01)
    assert_allclose(found[0], found[1])
    assert shape_ious(boxes_of(five), found[1:]).max(axis=1).mean() > 0.97


@pytest.mark.parametrize("model", ["yolov4", "yolov4_small", "yolov4_tiny", "yolov4_tiny_small"])
def test_the_numbers_replace_the_word_before_the_key_is_made(model: str) -> None:
    auto = prepared(f"model={model}", "model.anchors=auto")
    config: DetectorConfig = auto.config.model
    assert config.anchors is None and config.anchors_at_px == 64
    areas = pairs(config.anchors_px).prod(axis=1)
    assert (np.diff(areas) >= 0).all() and len(areas) == config.num_anchors
    layout = config.head_layout(3, 64)
    finest, coarsest = layout.masks[-1], layout.masks[0]
    assert np.mean(areas[list(finest)]) < np.mean(areas[list(coarsest)])
    assert layout.anchors_px == tuple(map(tuple, pairs(config.anchors_px).tolist()))
    sides = ",".join(map(str, config.anchors_px))
    pasted = prepared(f"model={model}", f"model.anchors_px=[{sides}]", "model.anchors_at_px=64")
    given = prepared(f"model={model}")
    assert auto.key == pasted.key != given.key
    assert auto.planned.params["model.anchors_px"] == str(config.anchors_px)


def test_equal_data_gives_equal_anchors_whatever_the_model_was_given() -> None:
    """Neither the seed, nor the loss, nor the anchors of the YAML; the data and the size do."""
    base = prepared("model.anchors=auto").config.model.anchors_px
    for other in (
        ["seed=5"],
        ["loss=focal"],
        ["model=yolov4"],
        [f"model.anchors_px=[{','.join(['7'] * 18)}]"],
    ):
        assert prepared(*other, "model.anchors=auto").config.model.anchors_px == base
    for other in (["data.data_seed=9"], ["train.size_px=96"]):
        assert prepared(*other, "model.anchors=auto").config.model.anchors_px != base


class Blank(Split):
    """Two images without objects."""

    def __init__(self) -> None:
        self.faults = []
        none = (np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_))
        self.examples = [Example(name, 64, 64, *none) for name in "ab"]

    def read(self, index: int) -> Image:
        return np.zeros((64, 64, 3), np.uint8)

    def fingerprint(self) -> str:
        return "blank"


def test_without_boxes_there_are_no_anchors() -> None:
    data = DetectionData("blank", ("a",), Blank(), Blank())
    with pytest.raises(DataError, match=r"^model\.anchors=auto: the train split has no boxes"):
        resolve_anchors(YOLOv4(anchors="auto"), data, 64)
    assert resolve_anchors(YOLOv4(), data, 64) == YOLOv4()


def test_a_network_is_not_built_from_the_word() -> None:
    for config in (YOLOv4(anchors="auto"), YOLOv4Tiny(anchors="auto")):
        with pytest.raises(UsageError, match=r"model\.anchors: auto must be resolved"):
            config.build(3, 64, 0)
    with pytest.raises(ValueError, match=r"^anchors: found 'kmeans', must be auto, or null"):
        YOLOv4(anchors="kmeans")


@pytest.mark.parametrize(("config", "least"), [(YOLOv4(), 0.87), (YOLOv4Tiny(), 0.82)])
def test_they_fit_bccd_better_than_the_published_ones(
    config: DetectorConfig, least: float, bccd: Path, tmp_path: Path
) -> None:
    data = Voc(root=str(bccd), bad_boxes="drop", cache_dir=str(tmp_path)).open()
    sizes = letterboxed_sizes(data.train, 416)
    made = resolve_anchors(type(config)(anchors="auto"), data, 416)
    served = sorted({index for mask in config.masks for index in mask})
    fits = [fit_of(sizes, pairs(model.anchors_px)[served]).mean_best_iou for model in (config, made)]
    assert fits[1] > least > 0.79 > fits[0]


def test_every_arm_and_the_check_say_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    setting = [*TINY, "model.anchors=auto"]
    ablation(tmp_path, "train", "-m", *setting, "train.epochs=1", "loss=bce,focal")
    configs: list[dict[str, Any]] = [
        yaml.safe_load((run / "config.yaml").read_text()) for run in run_folders(tmp_path)
    ]
    assert len(configs) == 2
    sides = [config["model"]["anchors_px"] for config in configs]
    assert sides[0] == sides[1] and configs[0]["model"]["anchors"] is None
    monkeypatch.chdir(tmp_path)
    command(["check", *TINY])
    printed = capsys.readouterr().out
    pasted = f"'model.anchors_px=[{','.join(map(str, sides[0]))}]' model.anchors_at_px=64"
    assert f"model.anchors=auto, which stands for {pasted}" in printed
    with pytest.raises(UsageError, match=r"^model\.anchors: found 'kmeans', must be auto, or null$"):
        command(["check", *TINY, "model.anchors=kmeans"])
