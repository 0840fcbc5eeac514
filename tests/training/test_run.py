"""Real runs through the real command: determinism, pairing, resuming."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers.command import SMALL, TINY, ablation, metrics, notes, run_folders

from ablation.tracking.store import Store
from ablation.tracking.study_record import load_study
from ablation.training import checkpoint
from ablation.training.evaluate import coco_metrics


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished run of four epochs, with everything random switched on."""
    folder = tmp_path_factory.mktemp("reference")
    ablation(folder, "train", *SMALL, "augment=yolov4", "train.epochs=4", "loss=focal")
    return folder


def test_a_run_leaves_everything_it_should(reference: Path) -> None:
    (run,) = run_folders(reference)
    assert run.parent.name == "focal-alpha=0.25-gamma=2"
    assert (run / "DONE").read_text() == "FINISHED\n"
    assert [line["epoch"] for line in metrics(run)] == [1, 2, 3, 4]
    assert {"val/AP", "val/AP50", "val/AP75", "train/loss_confidence", "train/grad_norm"} <= set(
        metrics(run)[-1]
    )
    detections = json.loads((run / "detections" / "val.json").read_text())
    assert set(detections[0]) >= {"image_id", "category_id", "bbox", "score"}
    truth = json.loads((run / "detections" / "ground_truth.json").read_text())
    again = coco_metrics(truth, detections, [c["name"] for c in truth["categories"]])
    assert again.metrics["AP"] == metrics(run)[-1]["val/AP"]
    state = torch.load(run / "weights.pt", weights_only=True)
    assert state["classes"]

    study = load_study(Store.of(f"sqlite:///{reference / 'mlflow.db'}", None), "default")
    (record,) = study.runs
    assert record.state == "FINISHED"
    assert record.params["loss.gamma"] == "2.0" and record.params["loss.name"] == "focal"
    assert record.metrics["val/AP50"] == metrics(run)[-1]["val/AP50"]
    assert record.history.query("metric == 'val/AP'")["epoch"].tolist() == [1, 2, 3, 4]
    assert [planned.key for planned in study.planned] == [record.key]


def test_the_same_seed_gives_the_same_numbers_with_any_number_of_workers(
    reference: Path, tmp_path: Path
) -> None:
    ablation(tmp_path, "train", *SMALL, "augment=yolov4", "train.epochs=4", "loss=focal", "train.workers=2")
    (first,), (second,) = run_folders(reference), run_folders(tmp_path)
    assert first.name == second.name  # one key: workers are no part of it
    assert metrics(first) == metrics(second)
    assert _weights(first) == _weights(second)


def test_a_focal_arm_that_is_bce_trains_to_the_same_weights(tmp_path: Path) -> None:
    """The whole way from the YAML to the last epoch: nothing but the loss tells two arms apart."""
    for number, loss in enumerate((["loss=bce"], ["loss=focal", "loss.alpha=null", "loss.gamma=0"])):
        ablation(tmp_path, "train", *TINY, *loss, "augment=yolov4", "tracking=none", f"study=s{number}")
    bce, focal = run_folders(tmp_path)
    assert (bce.parent.name, focal.parent.name) == ("bce", "focal-gamma=0")
    assert bce.name != focal.name  # two keys: they are two configurations
    assert metrics(bce) == metrics(focal)
    assert _weights(bce) == _weights(focal)


def test_measuring_the_gain_leaves_no_trace_in_the_network(tmp_path: Path) -> None:
    """BCE matched to BCE has gain 1, and trains to the weights of BCE that was never measured."""
    for criterion in ("positives", "matched"):
        ablation(tmp_path, "train", *TINY, f"criterion={criterion}", f"study={criterion}", "tracking=none")
    ablation(tmp_path, "train", *TINY, "criterion=matched", "loss=focal", "study=x", "tracking=none")
    matched, plain, focal = run_folders(tmp_path)
    assert notes(matched)["confidence_gain"] == notes(plain)["confidence_gain"] == 1.0
    assert notes(focal)["confidence_gain"] not in (0.0, 1.0)
    assert metrics(matched) == metrics(plain)
    assert _weights(matched) == _weights(plain)


def test_a_stopped_and_resumed_run_ends_identical(reference: Path, tmp_path: Path) -> None:
    command = ["train", *SMALL, "augment=yolov4", "train.epochs=4", "loss=focal"]
    for epochs in (1, 3):
        ablation(tmp_path, *command, f"train.stop_after={epochs}")
        (run,) = run_folders(tmp_path)
        assert json.loads((run / "state.json").read_text())["state"] == "STOPPED"
        assert not (run / "DONE").exists()
    ablation(tmp_path, *command)
    (first,), (second,) = run_folders(reference), run_folders(tmp_path)
    assert metrics(first) == metrics(second)
    assert _weights(first) == _weights(second)
    assert notes(first)["last_batch"] == notes(second)["last_batch"]
    # In MLflow it is one run, with every point once.
    (record,) = load_study(Store.of(f"sqlite:///{tmp_path / 'mlflow.db'}", None), "default").runs
    assert record.state == "FINISHED"
    assert record.history.query("metric == 'val/AP'")["epoch"].tolist() == [1, 2, 3, 4]


def test_a_damaged_checkpoint_is_noticed_and_the_one_before_is_used(reference: Path, tmp_path: Path) -> None:
    command = ["train", *SMALL, "augment=yolov4", "train.epochs=4", "loss=focal"]
    ablation(tmp_path, *command, "train.stop_after=3")
    (run,) = run_folders(tmp_path)
    newest = checkpoint.checkpoints(run)[0]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    result = ablation(tmp_path, *command)
    assert "damaged" in result.stderr
    (first,) = run_folders(reference)
    assert metrics(first) == metrics(run)
    assert _weights(first) == _weights(run)


def test_finished_runs_are_not_trained_again(reference: Path, tmp_path: Path) -> None:
    shutil.copytree(reference, tmp_path / "copy")
    folder = tmp_path / "copy"
    (run,) = run_folders(folder)
    before = (run / "metrics.jsonl").read_bytes()
    ablation(folder, "train", *SMALL, "augment=yolov4", "train.epochs=4", "loss=focal", "loss.gamma=2.00")
    assert (run / "metrics.jsonl").read_bytes() == before
    assert len(run_folders(folder)) == 1


def test_a_divergence_is_noticed_at_once_and_recorded(tmp_path: Path) -> None:
    """A learning rate of 1e30 makes the second step's loss non-finite."""
    result = ablation(
        tmp_path,
        "train",
        *TINY,
        "optim.lr=1e30",
        "optim.warmup_epochs=0",
        "optim.clip_norm=null",
        check=None,
    )
    (run,) = run_folders(tmp_path)
    state = json.loads((run / "state.json").read_text())
    assert state["state"] == "DIVERGED" and "epoch 1, step" in state["reason"]
    assert (run / "DONE").exists()
    assert result.returncode == 1
    assert "DIVERGED" in result.stderr
    (record,) = load_study(Store.of(f"sqlite:///{tmp_path / 'mlflow.db'}", None), "default").runs
    assert record.state == "DIVERGED"


def _weights(run: Path) -> dict[str, bytes]:
    state = torch.load(run / "weights.pt", weights_only=True)["model"]
    return {name: value.contiguous().numpy().tobytes() for name, value in state.items()}


def test_flags_of_hydra_may_stand_anywhere(tmp_path: Path) -> None:
    printed = ablation(tmp_path, "train", "loss=focal", "--cfg", "job", "-p", "loss", "loss.gamma=1").stdout
    assert "gamma: 1" in printed and "Focal" in printed
    assert not run_folders(tmp_path)
