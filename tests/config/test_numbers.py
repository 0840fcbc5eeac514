"""Numbers of a configuration: whatever a run is trained with can be read back from its config.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ablation.config import plain, typed
from ablation.errors import UsageError
from ablation.study.app import composed
from ablation.yaml_files import checked_text


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("optim.lr_high=inf", "optim.lr_high"),
        ("optim.clip_norm=inf", "optim.clip_norm"),
        ("optim.lr=nan", "optim.lr"),
        ("loss.pos_weight=inf", "loss.pos_weight"),
        ("criterion.balance=[1,inf,1]", "criterion.balance[1]"),
        ("analysis.margin=1e999", "analysis.margin"),
        (f"train.epochs={10**30}", "train.epochs"),
        (f"seed={2**63}", "seed"),
        (f"data.data_seed={2**70}", "data.data_seed"),
    ],
)
def test_what_is_not_finite_or_beyond_64_bits_is_refused(override: str, key: str) -> None:
    with pytest.raises(UsageError) as error:
        typed(composed([override]))
    assert key in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 300


def test_the_largest_numbers_can_be_read_back(tmp_path: Path) -> None:
    config = typed(composed([f"seed={2**63 - 1}", "optim.lr=1e-300", "optim.clip_norm=1e300"]))
    path = tmp_path / "config.yaml"
    path.write_text(OmegaConf.to_yaml(OmegaConf.create(plain(config))))
    assert typed(OmegaConf.create(checked_text(path))) == config
