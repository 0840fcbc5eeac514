"""Which score threshold `ablation predict` takes where none is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.command import TINY, ablation, run_folders

from ablation.commands.predict import DEFAULT_SCORE, recommended_threshold
from ablation.data.visualise import write_png
from ablation.errors import StoreError
from ablation.tracking.run_folder import RunFolder
from ablation.training.trained_run import load_run


def run_in(folder: Path) -> Any:
    config = SimpleNamespace(study="my study", arm="focal/2")
    return SimpleNamespace(folder=RunFolder(folder / "s" / "focal-2" / "seed0-1"), config=config)


def written(folder: Path, content: str) -> Path:
    path = folder / "s" / "report" / "thresholds.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    return path


def test_the_arms_threshold_of_the_report(tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps({"bce": {"score": 0.4}, "focal/2": {"score": 0.31, "f1": 0.8}}))
    threshold = recommended_threshold(run_in(tmp_path))
    assert threshold.score == 0.31 and str(path) in threshold.source and "focal/2" in threshold.source


def test_without_one_the_default_and_how_to_get_one(tmp_path: Path) -> None:
    threshold = recommended_threshold(run_in(tmp_path))
    assert threshold.score == DEFAULT_SCORE and "ablation report study='my study'" in threshold.source
    path = written(tmp_path, json.dumps({"bce": {"score": 0.4}}))
    threshold = recommended_threshold(run_in(tmp_path))
    assert threshold.score == DEFAULT_SCORE and str(path) in threshold.source


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]x",
        "3",
        '{"focal/2": 3}',
        '{"focal/2": {}}',
        '{"focal/2": {"score": "x"}}',
        '{"focal/2": {"score": 1.5}}',
        '{"focal/2": {"score": NaN}}',
        '{"focal/2": {"score": null}}',
    ],
)
def test_a_damaged_file_is_not_passed_over(tmp_path: Path, content: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(StoreError) as error:
        recommended_threshold(run_in(tmp_path))
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_from_training_to_prediction(tmp_path: Path) -> None:
    ablation(tmp_path, "train", *TINY, "train.epochs=3", "optim=adamw", "optim.lr=0.01", "study=s")
    run = load_run(RunFolder(run_folders(tmp_path)[0]))
    images = tmp_path / "images"
    images.mkdir()
    write_png(images / "a.png", run.config.data.open().val.read(0))
    arguments = ["predict", f"run={run.folder.path}", f"images={images}"]
    assert "threshold 0.25: the study has no report" in ablation(tmp_path, *arguments).stdout
    ablation(tmp_path, "report", "study=s", figures=False)
    best = json.loads((tmp_path / "runs/s/report/thresholds.json").read_text())[run.config.arm]["score"]
    out = tmp_path / "out"
    assert f"threshold {best:g}: the best for arm" in ablation(tmp_path, *arguments, f"to={out}").stdout
    assert all(result["score"] > best for result in json.loads((out / "detections.json").read_text()))
    assert "threshold 0.5: as asked for" in ablation(tmp_path, *arguments, "score=0.5").stdout
