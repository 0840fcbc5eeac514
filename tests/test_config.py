"""Types, ranges and names of the configuration, and the key that is made from it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig

from ablation import config as configuration
from ablation.config import RunConfig, arm_name, flat, plain, typed
from ablation.data.auto import Auto
from ablation.errors import UsageError
from ablation.study.app import register_plugins
from ablation.study.identity import run_key

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module", autouse=True)
def hydra() -> Any:
    register_plugins()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        yield


def composed(*overrides: str) -> DictConfig:
    return compose("train", [f"hydra.searchpath=['file://{ROOT}']", "train.precision=fp32", *overrides])


def make(*overrides: str) -> RunConfig:
    return typed(composed(*overrides))


def key(*overrides: str) -> str:
    return run_key(make(*overrides), "data")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loss.gamma=-1", "loss.gamma: found -1.0, must be >= 0"),
        ("loss.alpha=1.5", "loss.alpha: found 1.5, must be in [0, 1], or null"),
        ("loss.gamma=abc", "loss.gamma: Value 'abc' of type 'str' could not be converted to Float"),
        ("loss.alpha=true", "loss.alpha: "),
        ("+loss.gama=2", "loss.gama: Focal has no such setting; it has: alpha, gamma"),
        ("criterion.normaliser=cells", "criterion.normaliser: found 'cells', must be one of"),
        ("train.size_px=100", "train.size_px: found 100, must be a multiple of 32"),
        ("optim.lr=0", "optim.lr: found 0.0, must be > 0"),
        ("loss.gamma='???'", "loss.gamma: missing, and has no default; give loss.gamma=VALUE"),
        ("tracking.uri=''", "tracking.uri: found 'nothing', must be the server's address"),
        ("loss._target_=os.system", "loss._target_: os.system is not a class of this project"),
        (
            "loss._target_=ablation.losses.base.ConfidenceTargets",
            "is not a dataclass derived from ConfidenceLoss",
        ),
        ("loss._target_=ablation.losses.focal.Fokal", "loss._target_: ablation.losses.focal.Fokal not found"),
        ("seed=-1", "seed: found -1, must be in [0, 2^63)"),
        ("study=''", "study: found '', must be a name"),
    ],
)
def test_wrong_values_are_refused_in_one_line_that_names_the_key(override: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        make("loss=focal", override)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_hydra_itself_refuses_a_wrong_type_in_the_spine() -> None:
    with pytest.raises(ConfigCompositionException, match=r"train\.epochs"):
        composed("train.epochs=abc")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["loss=focal", "loss.gamma=2"], ["loss=focal", "loss.gamma=2.0"]),
        (["loss=focal", "loss.alpha=.25"], ["loss=focal", "loss.alpha=2.5e-1"]),
        (["loss=focal"], ["loss=focal", "loss.alpha=0.25", "loss.gamma=2"]),
        (["loss=bce"], ["loss.pos_weight=null"]),
        (["optim.momentum=0"], ["optim.momentum=-0.0"]),
        (["criterion.balance=[1,1,1]"], ["criterion.balance=[1.0, 1.0, 1.0]"]),
        ([], ["train.workers=2", "train.threads=1", "out=elsewhere", "tracking=none", "study=x", "arm=y"]),
    ],
)
def test_two_spellings_of_one_configuration_have_one_key(one: list[str], other: list[str]) -> None:
    assert key(*one) == key(*other)


def test_seed_data_and_version_are_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    base = make()
    assert run_key(base, "data") != run_key(base, "other data")
    assert key("seed=0") != key("seed=1")
    before = run_key(base, "data")
    monkeypatch.setattr("ablation.study.identity.__version__", "99.0.1")
    assert run_key(base, "data") != before


def test_editing_any_field_that_can_change_a_result_changes_the_key() -> None:
    """Walks over every field of the typed configuration and edits its value in place."""
    base = make("loss=focal", "model=yolov4_small")
    reference = run_key(base, "data")
    edited = 0
    for owner, f in _fields(base):
        former = getattr(owner, f.name)
        other = _another(former)
        object.__setattr__(owner, f.name, other)
        changed = run_key(base, "data") != reference
        object.__setattr__(owner, f.name, former)
        assert changed == f.metadata.get("identity", True), f"{type(owner).__name__}.{f.name}"
        edited += 1
    assert edited > 80
    assert run_key(base, "data") == reference


def test_a_setting_that_came_later_leaves_the_keys_of_earlier_runs() -> None:
    identity = plain(make(), identity=True)
    assert "voc_inclusive" not in identity["train"] and "nms_iou" in identity["train"]
    assert key("train.voc_inclusive=true") == key() != key("train.voc_inclusive=false")


def _fields(owner: Any) -> Any:
    for f in dataclasses.fields(owner):
        value = getattr(owner, f.name)
        if dataclasses.is_dataclass(value) and f.metadata.get("identity", True):
            yield from _fields(value)
        elif not dataclasses.is_dataclass(value):
            yield owner, f


def _another(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, dict):
        return {**value, "another": 1.0}
    if isinstance(value, list | tuple):
        return [*value, 1.0]
    return "something" if value is None else None


def test_arm_names_tell_losses_apart() -> None:
    names = [
        arm_name(make("loss=bce")),
        arm_name(make("loss=bce", "loss.pos_weight=4")),
        arm_name(make("loss=focal")),
        arm_name(make("loss=focal", "loss.alpha=null", "loss.gamma=0.5")),
    ]
    assert names == ["bce", "bce-pos_weight=4", "focal-alpha=0.25-gamma=2", "focal-gamma=0.5"]


def test_plain_and_flat_keep_every_value() -> None:
    values = flat(plain(make("loss=focal")))
    assert values["loss.alpha"] == 0.25
    assert values["train.epochs"] == make().train.epochs
    assert values["loss._target_"] == "ablation.losses.focal.Focal"


@pytest.mark.parametrize(
    "group", ["criterion", "assigner", "augment", "optim", "train", "tracking", "data", "model", "loss"]
)
def test_every_yaml_of_every_group_is_complete_and_valid(group: str) -> None:
    """A file states every field of its class, so that it can be read without the code."""
    for path in sorted((ROOT / "conf" / group).glob("*.yaml")):
        if path.stem == "auto":  # becomes the format of its folder; see the next test
            continue
        needed = {"voc": ["data.root=somewhere"], "server": ["tracking.uri=http://127.0.0.1:5000"]}
        config = composed(f"{group}={path.stem}", *needed.get(path.stem, []))
        value = getattr(typed(config), group)
        assert {f.name for f in dataclasses.fields(value)} == {str(k) for k in config[group]} - {
            "_target_"
        }, path.name


def test_the_file_of_the_recognised_format_is_complete_too() -> None:
    config = composed("data=auto")
    assert {f.name for f in dataclasses.fields(Auto)} == {str(key) for key in config.data} - {"_target_"}


def test_the_schema_is_registered() -> None:
    configuration.register()
    assert make().seed == 0
