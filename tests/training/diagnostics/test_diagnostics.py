"""Diagnostics of a run: hand-worked gradients and curves, the published inversion, real runs."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.command import SMALL, ablation, metrics, run_folders

from ablation.data.loader import ValBatch
from ablation.losses.asl import ASL
from ablation.losses.base import ConfidenceLoss
from ablation.losses.bce import BCE
from ablation.losses.focal import Focal
from ablation.losses.quality_focal import QualityFocal
from ablation.losses.varifocal import Varifocal
from ablation.model.head import HeadLayout, cell_grid
from ablation.objective.assigner import Assigner, AssignerConfig
from ablation.objective.criterion import CalibrationBatch, Criterion, CriterionConfig
from ablation.training.diagnostics.bins import histogram, logit_edges
from ablation.training.diagnostics.cells import CellCollector, Cells, objectness_histograms
from ablation.training.diagnostics.gradients import gradient_norms, gradient_record
from ablation.training.diagnostics.inversion import inversion_record, log_odds, recalibrated, true_probability
from ablation.training.diagnostics.loss_cdf import FRACTIONS, cumulative, families, loss_cdf

CPU = torch.device("cpu")
LAYOUT = HeadLayout(((16.0, 16.0), (40.0, 40.0)), ((1,), (0,)), (32, 16), (1.0, 1.0), 2)
GRID = cell_grid(LAYOUT, 64, 64, CPU)
BOX = torch.tensor([[[24.0, 24.0, 16.0, 16.0]]])


def criterion(loss: ConfidenceLoss, **settings: object) -> Criterion:
    config = CriterionConfig(**settings)  # type: ignore[arg-type]
    return Criterion(config, loss, LAYOUT, Assigner(AssignerConfig(ignore_iou=1.0), LAYOUT, CPU))


def batch(logit: float, hard: int = 0) -> CalibrationBatch:
    """One image of 20 cells (4 of the coarse head, 16 of the fine) and one object in fine cell (1, 1).

    Every objectness logit is `logit`, except the first `hard` fine cells, which have 2.
    """
    outputs = [torch.zeros(1, 7, 2, 2), torch.zeros(1, 7, 4, 4)]
    for output in outputs:
        output[:, 4] = logit
    outputs[1][0, 4].view(-1)[:hard] = 2.0
    return outputs, BOX, torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1, dtype=torch.bool)


def test_gradient_shares_by_hand() -> None:
    """BCE at p = .01: 1 - p at the positive, p at 16 easy negatives, sigmoid(2) at 3 hard ones."""
    record = gradient_record(criterion(BCE()), [batch(math.log(0.01 / 0.99), hard=3)], GRID)
    assert record["cells"] == {"positives": 1, "easy_negatives": 16, "hard_negatives": 3}
    assert record["objectness"]["positives"] == pytest.approx(0.99, rel=1e-6)
    assert record["objectness"]["easy_negatives"] == pytest.approx(0.16, rel=1e-6)
    assert record["objectness"]["hard_negatives"] == pytest.approx(3 * 0.8807970, rel=1e-6)
    assert record["outputs_l1"]["confidence"] == pytest.approx(sum(record["objectness"].values()), rel=1e-6)
    squares = 0.99**2 + 16 * 0.01**2 + 3 * 0.8807970**2
    assert record["outputs_l2"]["confidence"] == pytest.approx(math.sqrt(squares), rel=1e-6)
    # Two classes at logit 0, one of them right: |p - y| = .5 each.
    assert record["outputs_l1"]["class"] == pytest.approx(1.0, rel=1e-6)


def test_gain_and_normaliser_are_in_the_sums_and_not_in_the_shares() -> None:
    batches = [batch(-1.0, hard=2), batch(-3.0, hard=5)]
    plain = gradient_record(criterion(BCE()), batches, GRID)
    scaled = gradient_record(criterion(BCE(), confidence_gain=7.0), batches, GRID)
    for name, value in plain["objectness"].items():
        assert scaled["objectness"][name] == pytest.approx(7 * value, rel=1e-6)
    assert scaled["outputs_l2"]["box"] == plain["outputs_l2"]["box"]
    cells = gradient_record(criterion(BCE(), normaliser="valid_cells"), batches, GRID)
    assert cells["objectness"]["positives"] == pytest.approx(plain["objectness"]["positives"] / 20, rel=1e-6)


def test_focal_that_is_half_of_bce_has_its_shares() -> None:
    batches = [batch(-3.0, hard=4)]
    bce, half = (gradient_record(criterion(loss), batches, GRID) for loss in (BCE(), Focal(0.5, 0.0)))
    for name, value in bce["objectness"].items():
        assert half["objectness"][name] == pytest.approx(value / 2, rel=1e-6)
    focused = gradient_record(criterion(Focal(None, 2.0)), batches, GRID)["objectness"]
    assert focused["easy_negatives"] / sum(focused.values()) < 0.25 * bce["objectness"][
        "easy_negatives"
    ] / sum(bce["objectness"].values())


def test_the_record_is_the_gradient_that_training_gets() -> None:
    outputs, *truth = batch(-1.5, hard=3)
    loss = criterion(Focal(), confidence_gain=3.0)
    leaves = [output.clone().requires_grad_() for output in outputs]
    loss(leaves, *truth, GRID).total.backward()
    objectness = sum(float(leaf.grad[:, 4].abs().sum()) for leaf in leaves if leaf.grad is not None)
    record = gradient_record(loss, [(outputs, *truth)], GRID)
    assert sum(record["objectness"].values()) == pytest.approx(objectness, rel=1e-6)


def test_a_gradient_that_is_not_finite_becomes_null() -> None:
    record = gradient_record(criterion(BCE()), [batch(float("nan"))], GRID)
    assert record["objectness"]["positives"] is None and json.dumps(record, allow_nan=False)


def test_gradient_norms_by_hand() -> None:
    """Under BCE |dL/dz| is |p - y|: both histograms hold the same cells, in known bins."""
    record = gradient_norms(criterion(BCE(), confidence_gain=2.0), [batch(-3.0, hard=3)], GRID)
    edges = record["logit_edges"]
    negatives, positives = record["negatives"], record["positives"]
    assert (sum(negatives["cells"]), sum(positives["cells"])) == (19, 1)
    assert negatives["cells"][edges.index(-3.0)] == 16 and negatives["cells"][edges.index(2.0)] == 3
    assert positives["cells"][edges.index(3.0)] == 1  # wrong by 1 - p
    p = 1 / (1 + math.exp(3))
    assert negatives["gradient"][edges.index(-3.0)] == pytest.approx(2 * 16 * p, rel=1e-6)
    index = next(i for i, edge in enumerate(record["log10_edges"]) if edge > math.log10(2 * p)) - 1
    assert negatives["norms"][index] == 16


def test_histogram_keeps_what_lies_outside() -> None:
    values = torch.tensor([-math.inf, -99.0, 0.0, 0.1, 99.0])
    counts = histogram(values, logit_edges())
    assert sum(counts) == 5 and counts[0] == 2 and counts[-1] == 1 and counts[len(counts) // 2] == 2


def cells(logits: list[float], positive: list[int]) -> Cells:
    labels = torch.zeros(len(logits))
    labels[positive] = 1
    return Cells(torch.tensor(logits), labels, labels * 0.5, images=1)


def test_cumulative_loss_by_hand() -> None:
    """Costs 1, 1, 2, 4: the easiest half holds a quarter, the easiest three quarters a half."""
    curve = cumulative(np.array([2.0, 1.0, 4.0, 1.0]))
    assert curve is not None
    at = dict(zip(FRACTIONS, curve, strict=True))
    assert (at[0.0], at[0.25], at[0.5], at[0.75]) == (0, 0.125, 0.25, 0.5)
    assert at[0.9] == pytest.approx(0.5 + 0.6 * 0.5) and curve[-1] == 1
    assert len(FRACTIONS) == len(set(FRACTIONS)) and list(FRACTIONS) == sorted(FRACTIONS)
    assert cumulative(np.array([])) is None and cumulative(np.zeros(3)) is None
    assert cumulative(np.array([1.0, np.inf])) is None


def test_focusing_leaves_easy_negatives_less_and_a_factor_changes_nothing() -> None:
    seen = cells(torch.randn(500, generator=torch.Generator().manual_seed(0)).mul(3).tolist(), [0, 1, 2])
    record = loss_cdf(seen, Focal(0.25, 2.0))
    assert (record["positives"], record["negatives"]) == (3, 497)
    family = record["families"]["focal"]
    # alpha is a factor of all negatives: the arm's own loss is its family's, normalised.
    np.testing.assert_allclose(record["own"]["negatives"], family["gamma=2"]["negatives"], atol=1e-6)
    half = FRACTIONS.index(0.5)
    ranked = [family[f"gamma={gamma}"]["negatives"][half] for gamma in ("0", "0.5", "1", "2", "5")]
    assert ranked == sorted(ranked, reverse=True) and ranked[0] > 10 * ranked[-1]
    np.testing.assert_allclose(
        loss_cdf(seen, BCE())["own"]["negatives"], family["gamma=0"]["negatives"], atol=1e-6
    )


def test_families_are_those_that_losses_offer() -> None:
    assert list(families()["focal"].values()) == [Focal(None, gamma) for gamma in (0.0, 0.5, 1.0, 2.0, 5.0)]
    assert "bce" not in families()


PUBLISHED = [(0.001, 0.050), (0.01, 0.11), (0.5, 0.40), (0.9, 0.60), (0.99, 0.79)]


@pytest.mark.parametrize(("eta", "score"), PUBLISHED)
def test_focal_says_the_published_scores(eta: float, score: float) -> None:
    """The score at which eta is reached under (.25, 2), to the digits in which it is known."""
    logits = torch.linspace(-8, 8, 160_001, dtype=torch.float64)
    odds = log_odds(Focal(0.25, 2.0), logits)
    assert bool((odds.diff() > 0).all())
    at = torch.searchsorted(odds, math.log(eta / (1 - eta)))
    digits = 3 if score == 0.050 else 2
    assert round(float(logits[at].sigmoid()), digits) == score


@pytest.mark.parametrize(
    "loss",
    [Focal(0.25, 2.0), Focal(0.75, 0.5), Focal(None, 5.0), BCE(), BCE(4.0), Varifocal(), QualityFocal()],
)
def test_known_probabilities_come_back(loss: ConfidenceLoss) -> None:
    """Minimise the expected loss at known probabilities; undoing the score gives them back."""
    eta = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    low, high = torch.full_like(eta, -30.0), torch.full_like(eta, 30.0)
    for _ in range(80):  # bisection on the sign of the expected gradient, by finite autograd
        z = ((low + high) / 2).requires_grad_()
        ones = torch.ones_like(z.detach())[None, None, None]
        targets = [type_targets(ones * label) for label in (1.0, 0.0)]
        costs = [loss(z[None, None, None], target).flatten() for target in targets]
        (slope,) = torch.autograd.grad((eta * costs[0] + (1 - eta) * costs[1]).sum(), z)
        low = torch.where(slope < 0, z.detach(), low)
        high = torch.where(slope < 0, high, z.detach())
    scores = ((low + high) / 2).sigmoid()
    torch.testing.assert_close(true_probability(loss, scores), eta, rtol=0, atol=1e-6)


def type_targets(y: torch.Tensor) -> object:
    from ablation.losses.base import ConfidenceTargets

    return ConfidenceTargets(y, y, torch.ones_like(y, dtype=torch.bool))


def test_bce_means_what_it_says_and_pos_weight_multiplies_the_odds() -> None:
    scores = torch.linspace(1e-6, 1 - 1e-6, 101, dtype=torch.float64)
    torch.testing.assert_close(true_probability(BCE(), scores), scores, rtol=0, atol=1e-9)
    odds = scores / (1 - scores) / 4
    torch.testing.assert_close(true_probability(BCE(4.0), scores), odds / (1 + odds), rtol=0, atol=1e-9)


@pytest.mark.parametrize("loss", [Focal(), BCE(), ASL(), Focal(0.0, 1.0), Focal(1.0, 1.0)])
def test_the_record_is_json_for_every_loss(loss: ConfidenceLoss) -> None:
    record = inversion_record(loss)
    assert len(record["logits"]) == len(record["log_odds"]) == 321
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["increasing"]


def test_a_loss_that_ignores_scores_below_a_margin_says_probability_0_there() -> None:
    eta = true_probability(ASL(margin=0.05), torch.tensor([0.01, 0.04, 0.2]))
    assert eta[:2].tolist() == [0, 0] and 0 < float(eta[2]) < 1


def test_recalibrated_detections_by_hand() -> None:
    """(.25, 2): objectness .5 means .5 x .75 / (.5 x .75 + .5 x .25) = .75 (equal slopes but alpha)."""
    results = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.4, "objectness": 0.5}]
    (new,) = recalibrated(results, Focal(0.25, 2.0))
    assert new["score"] == pytest.approx(0.75 * 0.8, abs=1e-6)
    assert {k: v for k, v in new.items() if k != "score"} == {
        k: v for k, v in results[0].items() if k != "score"
    }
    (same,) = recalibrated([results[0] | {"score": float(np.float32(0.4))}], BCE())
    assert same["score"] == float(np.float32(0.4))
    assert recalibrated([], Focal()) == []


class FakeSplit:
    """Three images of 64 x 64 with one object, one ignored object, and nothing."""

    def __init__(self) -> None:
        from ablation.data.dataset import Example

        corners = np.array([[16, 16, 32, 32]], np.float32)
        none = np.zeros((0, 4), np.float32)
        self.examples = [
            Example("a", 64, 64, corners, np.array([0]), np.array([False])),
            Example("b", 64, 64, corners, np.array([0]), np.array([True])),
            Example("c", 64, 64, none, np.zeros(0, np.int64), np.zeros(0, np.bool_)),
        ]

    def __len__(self) -> int:
        return 3


def test_cells_are_labelled_as_in_training() -> None:
    from ablation.data.letterbox import Letterbox

    collector = CellCollector(criterion(BCE()), FakeSplit(), GRID)  # type: ignore[arg-type]
    geometry = Letterbox.fit(64, 64, 64)
    outputs = batch(-3.0, hard=2)[0]
    for index in range(3):
        images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
        collector(outputs, ValBatch(images, torch.tensor([index]), [geometry]))
    seen = collector.cells()
    assert seen.images == 3 and len(seen.logits) == 60 and seen.objectness.sum() == 1
    assert seen.logits[seen.objectness > 0].tolist() == [-3.0]
    counts = objectness_histograms(seen)
    assert sum(counts["positives"]) == 1 and sum(counts["negatives"]) == 59
    assert counts["negatives"][counts["logit_edges"].index(2.0)] == 6


# real runs


TWINS = [
    "loss=focal",
    "criterion=matched",
    "train.precision=bf16",
    "train.multi_scale=[64,96]",
    "train.epochs=4",
    "train.eval_every=2",
    "tracking=none",
]


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One configuration with and without diagnostics: bf16, several sizes, two epochs between evaluations."""
    folder = tmp_path_factory.mktemp("twins")
    common = [*SMALL, *TWINS]
    ablation(folder, "train", *common, "study=with")
    ablation(folder, "train", *common, "study=without", "train.diagnostics=false")
    return folder


def test_diagnostics_change_no_weight_and_no_metric(twins: Path) -> None:
    measured, plain = run_folders(twins)
    assert measured.name == plain.name  # one key
    assert metrics(measured) == metrics(plain)
    assert (measured / "weights.pt").read_bytes() == (plain / "weights.pt").read_bytes()
    assert not (plain / "diagnostics").exists()


def test_a_run_leaves_its_diagnostics(twins: Path) -> None:
    run = run_folders(twins)[0]
    names = {path.name for path in (run / "diagnostics").iterdir()}
    topics = ("gradients", "gradient_norms", "objectness", "loss_cdf", "score_inversion")
    assert names == {f"{topic}.json" for topic in topics}
    gradients = json.loads((run / "diagnostics/gradients.json").read_text())
    assert [record["epoch"] for record in gradients["epochs"]] == [0, 2, 4]
    assert gradients["images"] == 16 and gradients["confidence_gain"] != 1.0
    # The prior of .01 at the start: no hard negatives, and every cell of 64 px at that objectness.
    assert gradients["epochs"][0]["cells"]["hard_negatives"] == 0
    seen = json.loads((run / "diagnostics/objectness.json").read_text())
    assert seen["images"] == 8 and sum(seen["positives"]) > 8
    last = metrics(run)[-1]
    assert {"val/AP_recalibrated", "val/AP50_recalibrated"} <= set(last)
    assert "val/AP_recalibrated" not in metrics(run)[1]


def test_a_resumed_run_has_the_diagnostics_of_an_undisturbed_one(twins: Path, tmp_path: Path) -> None:
    command = ["train", *SMALL, *TWINS, "study=with"]
    # Epoch 2 is evaluated, but the checkpoint is of epoch 1: its record is written twice.
    ablation(tmp_path, *command, "train.stop_after=3")
    (run,) = run_folders(tmp_path)
    for path in run.glob("checkpoint-00000[23]-*.pt"):
        path.unlink()
    ablation(tmp_path, *command)
    undisturbed = run_folders(twins)[0]
    for path in sorted((undisturbed / "diagnostics").iterdir()):
        assert (run / "diagnostics" / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_run_that_diverges_writes_no_final_diagnostics(tmp_path: Path) -> None:
    explosive = ["optim.lr=1e30", "optim.warmup_epochs=0", "optim.clip_norm=null"]
    ablation(tmp_path, "train", *SMALL, *explosive, "tracking=none", check=None)
    (run,) = run_folders(tmp_path)
    assert json.loads((run / "state.json").read_text())["state"] == "DIVERGED"
    assert {path.name for path in (run / "diagnostics").iterdir()} == {"gradients.json"}
