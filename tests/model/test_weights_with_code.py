"""A weights file can hold a pickle; code in it is never run."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from helpers.attacks import Boom

from ablation.errors import DataError
from ablation.model.weights import load_weights


def test_the_pickle_of_these_tests_is_one_that_runs_code(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Boom(tmp_path / "mark")))
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize("plain", [True, False], ids=["pickle", "torch.save"])
def test_code_in_a_weights_file_is_refused(tmp_path: Path, plain: bool) -> None:
    mark, path = tmp_path / "mark", tmp_path / "weights.pth"
    content = {"model": Boom(mark)}
    path.write_bytes(pickle.dumps(content)) if plain else torch.save(content, path)
    with pytest.raises(DataError) as error:
        load_weights(torch.nn.Linear(1, 1), path, False)  # type: ignore[arg-type]
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert not mark.exists()
