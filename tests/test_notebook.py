"""The notebook runs from top to bottom on a real study, and git holds it without outputs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from helpers.command import ROOT, TINY, ablation

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
WALK = ROOT / "notebooks" / "study_walk.ipynb"


def test_git_holds_no_outputs() -> None:
    for cell in nbformat.read(WALK, as_version=4).cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None


@pytest.mark.slow
def test_the_walk_runs_on_a_real_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    study = ["study=walk", "seed=0,1"]
    ablation(tmp_path, "train", "-m", "loss=bce", *study, *TINY)
    ablation(tmp_path, "train", "-m", "loss=focal", "loss.gamma=1,2", *study, *TINY)
    monkeypatch.setenv("STUDY", "walk")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(WALK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": tmp_path}}).execute()
    texts = ["".join(out.get("text", "") for out in cell.get("outputs", [])) for cell in notebook.cells]
    shown = "\n".join(texts)
    assert "against bce" in shown
    assert "score=0." in shown and "training_curves: " in shown
    images = [
        out
        for cell in notebook.cells
        for out in cell.get("outputs", [])
        if "image/png" in out.get("data", {})
    ]
    assert len(images) == 2
