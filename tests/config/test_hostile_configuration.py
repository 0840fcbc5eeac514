"""What a configuration must not be able to run."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.attacks import composed_without_hydra
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ablation.config import typed
from ablation.errors import UsageError
from ablation.study.app import composed


@pytest.mark.parametrize("group", ["loss", "data", "model"])
@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "subprocess.Popen",
        "builtins.eval",
        "pathlib.Path.touch",
        "ablation.cli.main",
        "ablation.files.write_text",
        "ablation.cli.subprocess.run",
        "ablation.cli.os.system",
        "ablation.losses.base.ConfidenceLoss",
        "ablation.losses.focal.dataclass",
        "ablation.losses.focal.Focal.__init__",
        "ablation.config.RunConfig",
        "ablation..losses",
        "ablation",
        ".",
        "evil.Evil",
        "ablation_evil.Evil",
    ],
)
def test_only_the_projects_own_kind_is_built(
    group: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("evil", "ablation_evil"):
        (tmp_path / f"{name}.py").write_text(
            f"import pathlib; pathlib.Path({str(tmp_path)!r}, 'mark').touch()"
        )
    monkeypatch.syspath_prepend(tmp_path)
    config = composed_without_hydra("loss=focal")
    config[group]["_target_"] = target
    with pytest.raises(UsageError, match=rf"{group}\._target_"):
        typed(config)
    assert not (tmp_path / "mark").exists(), "its module was imported"


def test_a_class_of_the_wrong_group_is_refused() -> None:
    config = composed_without_hydra("loss=focal")
    config.loss._target_ = type(typed(config).model).__module__ + "." + type(typed(config).model).__name__
    with pytest.raises(UsageError, match="not a dataclass derived from ConfidenceLoss"):
        typed(config)


@pytest.mark.parametrize(
    "place", ["loss.extra", "loss.alpha", "criterion.extra", "train.epochs", "data.extra"]
)
def test_a_target_inside_a_group_is_never_built(place: str, tmp_path: Path) -> None:
    config = composed_without_hydra("loss=focal")
    OmegaConf.set_struct(config, False)
    node = {"_target_": "pathlib.Path.touch", "self": str(tmp_path / "mark")}
    with pytest.raises((UsageError, OmegaConfBaseException), match=r"extra|alpha|epochs"):
        OmegaConf.update(config, place, node, force_add=True)
        typed(config)
    assert not (tmp_path / "mark").exists()


def test_no_resolver_evaluates_anything(tmp_path: Path) -> None:
    composed([])
    for name in ("eval", "oc.eval", "py", "python"):
        assert not OmegaConf.has_resolver(name)
    mark = tmp_path / "mark"
    config = composed_without_hydra("loss=bce")
    config.study = f"${{oc.eval:\"open('{mark}', 'w')\"}}"
    with pytest.raises(UsageError, match="study"):
        typed(config)
    assert not mark.exists()
