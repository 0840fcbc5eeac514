"""`ablation check`: counts, anchors and cells against what is known, through the real command too."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.command import ablation, error_line
from numpy.testing import assert_allclose, assert_array_equal

from ablation.boxes import shape_iou
from ablation.cli import run
from ablation.commands.check.audit import Audit, audit
from ablation.commands.check.check import count_cells
from ablation.commands.check.figures import draw
from ablation.commands.check.report import show
from ablation.data.anchors import fit_of, kmeans_anchors, letterboxed_sizes, shape_ious
from ablation.data.dataset import DetectionData, Example, Fault, Image, Split
from ablation.data.voc import Voc
from ablation.errors import DataError, UsageError
from ablation.model.head import HeadLayout
from ablation.model.yolov4 import YOLOv4
from ablation.objective.assigner import AssignerConfig

SEED_ANCHORS = [12, 16, 19, 36, 40, 28, 36, 75, 76, 55, 72, 146, 142, 110, 192, 243, 459, 401]


def layout(classes: int = 3) -> HeadLayout:
    return YOLOv4(anchors_px=[float(side) for side in SEED_ANCHORS]).head_layout(classes, 416)


class Plain(Split):
    """Annotations without images."""

    def __init__(self, images: list[list[tuple[float, ...]]], side: int = 416, ignored: bool = False) -> None:
        self.faults: list[Fault] = []
        self.examples = []
        for number, boxes in enumerate(images):
            corners = np.array(boxes, np.float32).reshape(-1, 4)
            labels, flags = np.zeros(len(boxes), np.int64), np.full(len(boxes), ignored)
            self.examples.append(Example(f"{number}", side, side, corners, labels, flags))

    def read(self, index: int) -> Image:
        raise AssertionError("a check reads no image through its split")

    def fingerprint(self) -> str:
        return "none"


def around(x: float, y: float, width: float, height: float) -> tuple[float, ...]:
    return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)


# ---- anchors


def test_shape_iou_is_that_of_the_assigner() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.uniform(1, 200, (50, 2)), rng.uniform(1, 200, (9, 2))
    expected = shape_iou(torch.from_numpy(a)[:, None], torch.from_numpy(b)[None]).numpy()
    assert_allclose(shape_ious(a, b), expected, rtol=1e-9)


def planted(counts: list[int], spread: float = 0.03) -> tuple[np.ndarray, np.ndarray]:
    centres = np.array([[20, 24], [60, 30], [35, 90], [150, 140]], np.float64)
    rng = np.random.default_rng(1)
    noise = [np.exp(rng.normal(0, spread, (n, 2))) for n in counts]
    parts = [centre * factors for centre, factors in zip(centres, noise, strict=True)]
    return centres[np.argsort(centres.prod(axis=1))], np.concatenate(parts)


def test_kmeans_finds_a_planted_mixture_of_unequal_parts() -> None:
    centres, sizes = planted([900, 20, 300, 50])
    anchors = kmeans_anchors(sizes, 4)
    assert_allclose(anchors, centres, rtol=0.03)
    assert fit_of(sizes, anchors).boxes_per_anchor == [900, 20, 300, 50]
    assert fit_of(sizes, anchors).mean_best_iou > 0.94


def test_kmeans_is_repeatable_and_independent_of_the_global_state() -> None:
    _, sizes = planted([100, 100, 100, 100], spread=0.4)
    np.random.seed(1)
    first = kmeans_anchors(sizes, 3)
    np.random.seed(2)
    assert_array_equal(kmeans_anchors(sizes, 3), first)


def test_kmeans_is_exact_where_every_size_has_an_anchor_and_never_worse_than_its_start() -> None:
    sizes = np.array([[10.0, 10], [20, 40], [80, 30]])
    assert_allclose(kmeans_anchors(np.repeat(sizes, 5, axis=0), 3), sizes)
    more = kmeans_anchors(sizes, 6)  # than there are sizes
    assert more.shape == (6, 2) and fit_of(sizes, more).mean_best_iou == pytest.approx(1)
    rng = np.random.default_rng(2)
    cloud = np.exp(rng.normal(4, 0.8, (300, 2)))
    start = np.exp(rng.normal(4, 0.8, (5, 2)))
    assert (
        fit_of(cloud, kmeans_anchors(cloud, 5, start=start)).mean_best_iou
        > fit_of(cloud, start).mean_best_iou
    )
    assert_array_equal(kmeans_anchors(np.zeros((0, 2)), 5, start=start), start)


def test_kmeans_of_many_boxes_uses_a_part() -> None:
    centres, sizes = planted([12_000, 6_000, 9_000, 3_000])
    assert_allclose(kmeans_anchors(sizes, 4), centres, rtol=0.03)


def test_sizes_are_letterboxed_and_leave_out_ignored_boxes() -> None:
    assert_allclose(letterboxed_sizes(Plain([[(0, 0, 104, 208)]], side=208), 416), [[208, 416]])
    assert letterboxed_sizes(Plain([[(0, 0, 104, 208)]], ignored=True), 416).shape == (0, 2)


# ---- cells


def test_cells_of_hand_made_images() -> None:
    # 142 x 110 and 12 x 16 are anchors: one cell each, at stride 32 and at stride 8; the third box
    # has the shape and the cell of the first; the fourth is alone in its image, at the border.
    first, small = around(208, 208, 142, 110), around(100, 100, 12, 16)
    split = Plain([[first, small, around(209, 209, 142, 110)], [], [around(410, 208, 12, 16)]])
    cells = count_cells(split, layout(), AssignerConfig(ignore_iou=1.0), 416)
    assert (cells.images, cells.boxes, cells.positives, cells.boxes_lost, cells.matches_lost) == (
        3,
        4,
        3,
        1,
        1,
    )
    assert [(head.stride, head.positives, head.ignored) for head in cells.heads] == [
        (32, 1, 0),
        (16, 0, 0),
        (8, 2, 0),
    ]
    assert [head.negatives for head in cells.heads] == [3 * 3 * 13**2 - 1, 3 * 3 * 26**2, 3 * 3 * 52**2 - 2]


def test_an_untrained_networks_boxes_are_the_anchors_at_the_centres() -> None:
    # A 40 x 28 box on a centre of stride 8 (204 = 25.5 x 8). Its neighbours' anchors, 8 px to a side,
    # overlap by 32 x 28 of a union of 1344: 0.667 > 0.5; 8 px up by 20 / 36: 0.556; two cells to a
    # side: 24 / 56: 0.43, and a diagonal neighbour: 640 / 1600 = 0.4, are below.
    split = Plain([[around(204, 204, 40, 28)]])
    heads = {
        head.stride: head for head in count_cells(split, layout(), AssignerConfig(ignore_iou=0.5), 416).heads
    }
    # The two other anchors of stride 8 are too small: 532 of 1272 for the larger one.
    assert (heads[8].positives, heads[8].ignored) == (1, 4)
    none = count_cells(split, layout(), AssignerConfig(ignore_iou=1.0), 416)
    assert [head.ignored for head in none.heads] == [0, 0, 0]


def test_several_anchors_per_box_are_matches_not_boxes() -> None:
    split = Plain([[around(208, 208, 76, 55), around(209, 209, 60, 60)]])
    cells = count_cells(split, layout(), AssignerConfig(match_iou=0.213), 416)
    assert cells.positives > 2 and cells.matches_lost > 0 and cells.boxes == 2
    ignored = count_cells(Plain([[around(208, 208, 76, 55)]], ignored=True), layout(), AssignerConfig(), 416)
    assert ignored.boxes == ignored.positives == 0


def test_a_large_split_is_sampled() -> None:
    split = Plain([[around(100, 100, 12, 16)]] * 30)
    cells = count_cells(split, layout(), AssignerConfig(), 416, most_images=7)
    assert (cells.images, cells.boxes, cells.positives) == (7, 7, 7)


# ---- BCCD: the facts


def test_bccd_facts(bccd: Path, tmp_path: Path) -> None:
    source = Voc(root=str(bccd), bad_boxes="drop", cache_dir=str(tmp_path))
    data, test = source.open(), source.open_test()
    bccd_audit = audit(data, size_px=416, anchors_px=layout().anchors_px, test=test)
    left_out = [fault for fault in bccd_audit.all_faults if fault.action == "box left out"]
    assert sum(split.images for split in bccd_audit.splits.values()) == 364
    assert sum(split.boxes for split in bccd_audit.splits.values()) + len(left_out) == 4888
    assert sorted(Path(fault.file).stem for fault in left_out) == ["BloodImage_00338", "BloodImage_00343"]
    assert bccd_audit.kmeans_fit.mean_best_iou > 0.87 > 0.74 > bccd_audit.model_fit.mean_best_iou > 0.73
    cells = [count_cells(split, layout(), AssignerConfig(), 416) for split in (data.train, data.val, test)]
    assert [part.boxes_lost for part in cells] == [4, 2, 1]
    positives = sum(part.positives for part in cells)
    assert round(sum(part.others for part in cells) / positives) == 793
    assert sum(part.others for part in cells) + positives == 364 * 10_647


# ---- the command


def tiny_audit(names: tuple[str, ...] = ("cell",)) -> Audit:
    data = DetectionData("voc", names, Plain([[around(100, 100, 30, 40)], []]), Plain([]))
    return audit(data, size_px=416, anchors_px=layout().anchors_px)


def test_names_of_the_data_reach_the_terminal_without_markup_or_control_characters() -> None:
    text = io.StringIO()
    show(tiny_audit(("[red]a[/red]", "\x1b[31mb", ":smile:")), text)
    assert "[red]a[/red]" in text.getvalue() and "?[31mb" in text.getvalue() and ":smile:" in text.getvalue()
    assert "\x1b" not in text.getvalue()
    assert "it cannot be learnt: ?[31mb, :smile:" in text.getvalue()
    assert "the test split was not opened" in text.getvalue()


def test_a_missing_test_split_is_warned_of() -> None:
    text = io.StringIO()
    show(dataclasses.replace(tiny_audit(), has_test=False), text)
    assert "WARNING: there is no test split" in text.getvalue() and "data.test_share" in text.getvalue()


def test_figures_of_odd_data_are_drawn() -> None:
    files = draw(tiny_audit(("$x^2", "b" * 60, "\x1b[31mc")))
    assert set(files) == {
        f"{name}.{kind}" for name in ("class_balance", "box_sizes") for kind in ("png", "pdf")
    }
    assert files == draw(tiny_audit(("$x^2", "b" * 60, "\x1b[31mc")))
    empty = DetectionData("voc", ("a",), Plain([[]]), Plain([[]]))
    nothing = audit(empty, size_px=416, anchors_px=layout().anchors_px)
    assert set(draw(nothing)) == {"class_balance.png", "class_balance.pdf"}
    assert nothing.to_json()["given"]["mean_best_iou"] is None


def write_tiny(root: Path, bad: bool) -> Path:
    """A YOLO folder of two images a split, one of the train boxes without area if `bad`."""
    from ablation.data.opencv import cv2

    for split in ("train", "val", "test"):
        for part in ("images", "labels"):
            (root / part / split).mkdir(parents=True)
        for name in "ab":
            content = cv2.imencode(".png", np.full((64, 64, 3), ord(name), np.uint8))[1].tobytes()
            (root / "images" / split / f"{name}.png").write_bytes(content)
            (root / "labels" / split / f"{name}.txt").write_text("0 0.5 0.5 0.25 0.25\n")
    if bad:
        for name in "ab":
            (root / "labels/train" / f"{name}.txt").write_text("0 0.5 0.5 0.25 0.25\n1 0.5 0.5 0 0.5\n")
    (root / "data.yaml").write_text(
        "{train: images/train, val: images/val, test: images/test, names: [cat, dog]}"
    )
    return root


def test_the_command_audits_writes_and_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_tiny(tmp_path / "set", bad=True)
    (root / "images/test/a.png").write_bytes(b"")  # must not be looked at without being asked to
    arguments = ["check", "data=yolo", f"data.root={root}", "train.size_px=64", "model=yolov4_tiny"]
    refused = ablation(tmp_path, *arguments, check=1)
    assert "a.txt: line 2 (dog): box 32, 16, 32, 48 has no area" in error_line(refused)
    assert refused.stdout.count("has no area") == 2 and "test split was not opened" in refused.stdout
    monkeypatch.chdir(tmp_path)
    assert run([*arguments, "data.bad_boxes=drop", "assigner.match_iou=0.1", "out=elsewhere"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("has no area") == 2 and "served by no head: 10x14" in printed
    folder = tmp_path / "elsewhere" / "check" / "yolo"
    figures = [path.stem for path in sorted(folder.glob("*.p*"))]
    assert figures == ["box_sizes", "box_sizes", "cells", "cells", "class_balance", "class_balance"]
    written = json.loads((folder / "check.json").read_text())
    assert set(written["splits"]) == {"train", "val"} and written["classes"] == ["cat", "dog"]
    assert written["splits"]["train"]["boxes_per_class"] == {"cat": 2, "dog": 0}
    # 16 x 16 px: shape IoU 0.41 with 23x27 and 0.12 with 37x58, both of stride 16, in each of two images.
    assert [head["positives"] for head in written["cells"]["train"]["heads"]] == [0, 4]
    with pytest.raises(DataError, match=r"a\.png: is empty"):
        run([*arguments, "data.bad_boxes=drop", "test=true"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data=yolo", "data.root=nowhere"], "data.root: found nowhere, which is not a folder"),
        (["train.epoch=3"], "epochs?"),
        (["data=yola"], "yola"),
        (["test=yes"], "true or false"),
        (["loss=focal", "loss.alpha=0.2,0.3"], "loss.alpha"),
    ],
)
def test_the_command_understands_what_train_does_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message) as raised:
        run(["check", *arguments])
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())
