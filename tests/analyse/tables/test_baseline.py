"""One rule says which arm the others are compared with."""

from __future__ import annotations

from ablation.analyse.tables.baseline import RunSetting, baseline_of


def test_of_several_plain_bce_arms_the_one_with_the_gain_of_the_other_losses_is_the_baseline() -> None:
    runs = [RunSetting("bce", "bce", None, 1.0), RunSetting("bce-gain=4", "bce", 1.0, 4.0)]
    focal = [RunSetting("focal", "focal", None, 4.0)]
    assert baseline_of([*runs, *focal]) == "bce-gain=4"
    assert baseline_of(runs) == "bce"
    assert baseline_of([RunSetting("heavy", "bce", 2.0, 1.0), *focal]) is None
