"""Weights and checkpoints whose name and hash are right and whose content is not: one line each."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.attacks import composed_without_hydra
from helpers.command import TINY
from omegaconf import OmegaConf

from ablation.config import typed
from ablation.errors import StoreError
from ablation.tracking.run_folder import RunFolder
from ablation.training.run import Run
from ablation.training.trained_run import load_run

KEY = "backbone.stem.0.conv.weight"

ODD_TENSORS: dict[str, Callable[[torch.Tensor], Any]] = {
    "sparse": lambda tensor: tensor.to_sparse(),
    "meta": lambda tensor: tensor.to("meta"),
    "quantized": lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
    "integer": lambda tensor: tensor.to(torch.int64),
    "bool": lambda tensor: tensor.bool(),
    "complex": lambda tensor: tensor.to(torch.complex64),
    "huge": lambda tensor: torch.zeros(1).expand(2**42),
    "empty": lambda tensor: tensor[:0],
    "other shape": lambda tensor: tensor.flatten(),
    "list": lambda tensor: tensor.tolist(),
    "nested": lambda tensor: {"weight": tensor},
    "none": lambda tensor: None,
}


@pytest.fixture(scope="module")
def config() -> Any:
    settings = [*TINY, "tracking=none", "data.cache=none", "train.device=cpu"]
    return composed_without_hydra(*settings)


def run_of(config: Any, folder: Path) -> Run:
    typed_config = typed(config)
    return Run(typed_config, typed_config.data.open(), RunFolder(folder), lambda epoch, metrics: None)


def line_of(error: pytest.ExceptionInfo[StoreError]) -> str:
    text = str(error.value)
    assert "\n" not in text and len(text) < 700
    return text


@pytest.mark.parametrize("kind", [*ODD_TENSORS, "not finite"])
def test_the_weights_of_a_run(kind: str, config: Any, tmp_path: Path) -> None:
    odd = ODD_TENSORS | {"not finite": lambda tensor: tensor * float("nan")}
    state = typed(config).model.build(3, 64, 0).state_dict()
    state[KEY] = odd[kind](state[KEY])
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(config))
    torch.save({"model": state, "classes": ["a", "b", "c"]}, tmp_path / "weights.pt")
    with pytest.raises(StoreError) as error:
        load_run(RunFolder(tmp_path))
    assert str(tmp_path / "weights.pt") in line_of(error)


@pytest.mark.parametrize(
    "content",
    [
        [],
        3,
        {"model": {}},
        {"model": [], "classes": ["a"]},
        {"model": {}, "classes": 3},
        {"model": {}, "classes": []},
        {"model": {}, "classes": [[1]]},
        {"model": {}, "classes": ["a"]},
    ],
    ids=repr,
)
def test_another_content_than_a_runs_weights(content: Any, config: Any, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(config))
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(StoreError) as error:
        load_run(RunFolder(tmp_path))
    assert str(tmp_path / "weights.pt") in line_of(error)


def publish(state: Any, folder: Path) -> Path:
    """As checkpoint.save does: with the hash of its content in its name."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    path = folder / f"checkpoint-000001-{hashlib.sha256(buffer.getvalue()).hexdigest()[:16]}.pt"
    path.write_bytes(buffer.getvalue())
    return path


@pytest.fixture(scope="module")
def state(config: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run saves after its first step."""
    folder = tmp_path_factory.mktemp("first")
    run = run_of(config, folder)
    run.save(1)
    (path,) = folder.glob("checkpoint-*.pt")
    return dict(torch.load(path, weights_only=True))


def test_an_unchanged_state_is_resumed(config: Any, state: dict[str, Any], tmp_path: Path) -> None:
    publish(state, tmp_path)
    assert run_of(config, tmp_path).resume() == 1


@pytest.mark.parametrize("kind", ODD_TENSORS)
def test_a_checkpoint_with_an_odd_tensor(
    kind: str, config: Any, state: dict[str, Any], tmp_path: Path
) -> None:
    model = dict(state["model"])
    model[KEY] = ODD_TENSORS[kind](model[KEY])
    publish(state | {"model": model}, tmp_path)
    with pytest.raises(StoreError, match="delete it to use the one before") as error:
        run_of(config, tmp_path).resume()
    assert str(tmp_path) in line_of(error)


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a list": lambda state: [state],
    "a tensor": lambda state: torch.zeros(3),
    "without optimizer": lambda state: {key: state[key] for key in state if key != "optimizer"},
    "optimizer none": lambda state: state | {"optimizer": None},
    "optimizer empty": lambda state: state | {"optimizer": {}},
    "average none": lambda state: state | {"average": None},
    "calibration text": lambda state: state | {"calibration": "x"},
    "other classes": lambda state: state | {"classes": ["x"]},
    "model empty": lambda state: state | {"model": {}},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_checkpoint_of_something_else(
    change: str, config: Any, state: dict[str, Any], tmp_path: Path
) -> None:
    publish(CHANGES[change](state), tmp_path)
    with pytest.raises(StoreError, match="delete it to use the one before") as error:
        run_of(config, tmp_path).resume()
    assert str(tmp_path) in line_of(error)
