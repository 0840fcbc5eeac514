"""Code in a run's checkpoint or weights is never run."""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path

import pytest
import torch
from helpers.attacks import Boom, composed_without_hydra
from omegaconf import OmegaConf

from ablation.errors import StoreError
from ablation.tracking.run_folder import RunFolder
from ablation.training import checkpoint
from ablation.training.trained_run import load_run


def test_code_in_a_checkpoint_is_refused_even_with_the_right_hash(tmp_path: Path) -> None:
    mark, buffer = tmp_path / "mark", io.BytesIO()
    torch.save({"model": Boom(mark)}, buffer)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()[:16]
    path = tmp_path / f"checkpoint-000001-{digest}.pt"
    path.write_bytes(buffer.getvalue())
    with pytest.raises(StoreError, match=re.escape(path.name)):
        checkpoint.load_newest(tmp_path)
    assert not mark.exists()


def test_code_in_the_weights_of_a_run_is_refused(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(composed_without_hydra("loss=bce")))
    torch.save({"model": Boom(mark), "classes": ["a"]}, tmp_path / "weights.pt")
    with pytest.raises(StoreError, match=r"weights\.pt: not readable"):
        load_run(RunFolder(tmp_path))
    assert not mark.exists()
