"""A study is the union of its arms' grids; hand-counted examples."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from ablation.errors import UsageError
from ablation.study.expand import expand, override_text


def has_field(loss: str, field: str) -> bool:
    return field in {"bce": ["pos_weight"], "focal": ["alpha", "gamma"]}[loss]


def overrides(
    arms: object, sweep: dict[str, list[str]] | None = None, fixed: tuple[str, ...] = ()
) -> list[list[str]]:
    return [job.overrides() for job in expand(arms, sweep or {}, fixed, has_field)]  # type: ignore[arg-type]


def test_a_union_is_no_product() -> None:
    arms = [{"loss": "bce"}, {"loss": "focal", "loss.alpha": [0.25, 0.5], "loss.gamma": [0, 2]}]
    assert overrides(arms) == [
        ["loss=bce"],
        ["loss=focal", "loss.alpha=0.25", "loss.gamma=0"],
        ["loss=focal", "loss.alpha=0.25", "loss.gamma=2"],
        ["loss=focal", "loss.alpha=0.5", "loss.gamma=0"],
        ["loss=focal", "loss.alpha=0.5", "loss.gamma=2"],
    ]


def test_the_command_line_multiplies_every_arm() -> None:
    arms = [{"loss": "bce"}, {"loss": "focal"}]
    found = overrides(arms, {"criterion": ["blog", "positives"]})
    assert len(found) == 4 and ["loss=bce", "criterion=positives"] in found


def test_a_swept_setting_of_the_loss_passes_by_losses_without_it() -> None:
    sweep = {"loss": ["bce", "focal"], "loss.gamma": ["0", "1", "2"]}
    assert overrides(None, sweep) == [["loss=bce"]] + [["loss=focal", f"loss.gamma={g}"] for g in (0, 1, 2)]


def test_an_arm_and_the_command_line_may_not_both_set_a_key() -> None:
    for sweep, fixed in (({"loss": ["bce"]}, ()), ({}, ("loss",))):
        with pytest.raises(UsageError, match="loss: set both by arm 1"):
            overrides([{"loss": "bce"}], sweep, fixed)


@pytest.mark.parametrize("arms", [["bce"], [{"loss": []}]])
def test_an_arm_that_is_none_is_refused(arms: object) -> None:
    with pytest.raises(UsageError, match=r"arms\[1\]"):
        overrides(arms)


@pytest.mark.parametrize(
    "value",
    [None, True, 3, 0.25, 1e-05, "bce", "two words", "it's", "a=b", [1, 2.5], {"a": 1}, "x,y", "null"],
)
def test_override_text_is_read_back_as_the_same_value(value: object) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (parsed,) = OverridesParser.create().parse_overrides([f"key={override_text(value)}"])
    assert not parsed.is_sweep_override()
    assert OmegaConf.create({"v": parsed.value()}).v == OmegaConf.create({"v": value}).v
