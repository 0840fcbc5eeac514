"""The recipe for training scripts that have their settings in their own text, and the sweep to copy."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from helpers.command import ROOT

from ablation.config import TrainerConfig, typed
from ablation.config.typed import filled
from ablation.study.app import composed
from ablation.tracking.run_folder import RunFolder
from ablation.training.command.placeholders import Placeholders
from ablation.training.command.run import CommandRun
from ablation.training.command.trainer import CommandTrainer

RUNNER = ROOT / "docs" / "recipes" / "with_values.py"
EVALUATE = """\
import json
import detector

truth_path = "coco/val.json"
out_path = "map_out"
weights = json.load(open(detector.Detector.defaults["model_path"]))
focal = weights["loss"] == "focal"
box = [8, 8, 32, 32 if focal else 30]
json.dump([{"image_id": 1, "category_id": 1, "bbox": box, "score": 0.5}], open(out_path + "/val.json", "w"))
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    (folder / "nets").mkdir(parents=True)
    (folder / "tools").mkdir()
    (folder / "train.py").write_text((ROOT / "tests" / "foreign" / "fixed_values.py").read_text())
    (folder / "nets" / "loss.py").write_text("def name_of(focal):\n    return 'focal' if focal else 'bce'\n")
    (folder / "detector.py").write_text("class Detector:\n    defaults = {'model_path': 'nowhere'}\n")
    (folder / "tools" / "evaluate.py").write_text(EVALUATE)
    truth = {
        "images": [{"id": 1, "width": 64, "height": 64}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [8, 8, 32, 32]}],
        "categories": [{"id": 1, "name": "a"}],
    }
    (folder / "val.json").write_text(json.dumps(truth))
    return folder


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(RUNNER), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_values_of_a_script_are_replaced_without_editing_it(repository: Path) -> None:
    before = (repository / "train.py").read_text()
    result = run(
        repository, "train.py", "seed=3", "focal_loss='focal' == 'focal'", "save_dir='out'", "VERSION=2"
    )
    assert result.returncode == 0 and "trained train.py" in result.stdout, result.stderr
    written = json.loads((repository / "out" / "last_epoch_weights.pth").read_text())
    assert written == {"seed": 3, "loss": "focal", "gamma": 2, "epochs": 300, "v": 2}
    assert (repository / "train.py").read_text() == before


def test_a_name_that_the_script_does_not_assign_is_an_error(repository: Path) -> None:
    result = run(repository, "train.py", "sead=3")
    assert result.returncode == 1 and "train.py assigns no sead" in result.stderr
    assert not (repository / "logs").exists()


def test_the_first_script_that_fails_ends_the_whole(repository: Path) -> None:
    result = run(repository, "train.py", "--before", "import sys; sys.exit(7)", "+", "tools/evaluate.py")
    assert result.returncode == 7 and "nowhere" not in result.stderr


@pytest.mark.parametrize(("loss", "ap"), [("bce", 0.9), ("focal", 1.0)])
def test_two_scripts_as_the_trainer_of_a_run(loss: str, ap: float, repository: Path, tmp_path: Path) -> None:
    weights = "{run.folder}/last_epoch_weights.pth"
    load = "import detector; detector.Detector.defaults['model_path']"
    command = [
        *(sys.executable, str(RUNNER), "train.py", "seed={seed}", "save_dir='{run.folder}'"),
        *("focal_loss='{loss.name}' == 'focal'", ["focal_gamma={loss.gamma}"], "epochs={train.epochs}", "+"),
        *("tools/evaluate.py", "--before", f"{load} = '{weights}'"),
        *("truth_path='val.json'", "out_path='{run.folder}'"),
    ]
    trainer = TrainerConfig(
        "command",
        command=command,
        folder=str(repository),
        files=["**/*.py"],
        ground_truth="val.json",
        detections="{run.folder}/val.json",
    )
    config = replace(typed(composed([f"loss={loss}", "seed=5"])), trainer=trainer)
    folder = RunFolder(tmp_path / "run")
    CommandRun(CommandTrainer.of(config), folder, tmp_path / "log", lambda epoch, metrics: None).fit()
    assert folder.metrics()[0]["metrics"]["val/AP"] == pytest.approx(ap)
    written = json.loads(folder.file("trainer/last_epoch_weights.pth").read_text())
    assert written["seed"] == 5 and written["loss"] == loss and written["epochs"] == config.train.epochs


@pytest.mark.parametrize("loss", ["bce", "focal"])
def test_the_sweep_to_copy_names_placeholders_that_exist(loss: str) -> None:
    config = replace(typed(composed(["sweeps=own_trainer", f"loss={loss}", "arms=null"])), arm=loss)
    words = Placeholders(config, Path("/run")).words("trainer.command", config.trainer.command)
    assert words[:8] == ["python", "train.py", "--seed", "0", "--epochs", "100", "--loss", loss]
    assert ("--focal-gamma" in words) == (loss == "focal") and words[-2:] == ["--out", "/run"]


def test_the_yaml_of_the_page_is_a_trainer() -> None:
    page = (ROOT / "docs" / "own_trainer.md").read_text()
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    trainers = [filled("trainer", TrainerConfig, block["trainer"]) for block in blocks]
    assert [bool(trainer.command) for trainer in trainers] == [True, False, False, True]
    assert trainers[1].environment == {
        "PYTHONPATH": "lib",
        "WANDB_API_KEY": None,
        "FOCAL_GAMMA": "{loss.gamma}",
    }
