"""What the runs of a study share is read from their records; nothing else is claimed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from helpers.synthetic import bce, focal, run, study
from hydra import compose, initialize_config_dir

from ablation.analyse.tables.held_fixed import DATA, HeldFixed, held_fixed, is_free
from ablation.analyse.tables.table import runs_table
from ablation.config import flat, plain, typed
from ablation.records import RunRecord, StudyRecord
from ablation.study.app import register_plugins

ROOT = Path(__file__).resolve().parents[3]
FOCAL = focal(0.5, 1)


def held(records: list[RunRecord]) -> HeldFixed:
    record = StudyRecord("s", records)
    return held_fixed(record, runs_table(record))


def two_arms(**of_focal: str) -> list[RunRecord]:
    """BCE and one focal arm, two seeds; the focal arm's runs have these settings besides."""
    settings = {name.replace("__", "."): value for name, value in of_focal.items()}
    fingerprint = settings.pop("fingerprint", "0" * 32)
    of_bce = [run(bce(), seed, 0.4) for seed in (0, 1)]
    return [*of_bce, *(run(FOCAL, seed, 0.4, extra=settings, fingerprint=fingerprint) for seed in (0, 1))]


def test_equal_settings_are_equal_however_they_are_spelled() -> None:
    record = study([(bce(), 0.4), (FOCAL, 0.4)], [0, 1])
    assert held_fixed(record, runs_table(record)).differences == ()
    spelled = held(two_arms(optim__lr="1e-2", train__epochs="20.0", train__device="cuda", data__root="/b"))
    assert spelled.differences == () and spelled.refusal == ""
    close = held(two_arms(optim__lr="0.0100000000001"))
    assert close.names == ("optim.lr",)


@pytest.mark.parametrize("source", ["shapes", "voc", "coco", "yolo"])
def test_free_settings_are_those_that_are_no_part_of_a_runs_key(source: str) -> None:
    register_plugins()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = typed(compose("train", [f"hydra.searchpath=['file://{ROOT}']", f"data={source}"]))
    settings, identity = set(flat(plain(config))), set(flat(plain(config, identity=True)))
    # Settings of a trainer are part of the keys of a command's runs, and of no other runs.
    assert not any(is_free(name) for name in settings if name.startswith("trainer."))
    of_the_study = ("arms", "seeds", "analysis", "retry", "replace", "halving", "trainer", "notify")
    outside = {name for name in settings - identity if name.partition(".")[0] not in of_the_study}
    outside -= {name for name in outside if name.endswith("_target_")} | {"model.weights"}
    outside -= {"train.voc_inclusive"}  # in the key only where it is false
    assert {name for name in outside if not is_free(name)} == set()
    assert {name for name in identity if is_free(name)} <= {"seed", "train.eval_batch_size"}


def test_other_data_or_a_changed_setting_is_refused_and_says_where() -> None:
    other_data = held(two_arms(fingerprint="e5f6a7b8" * 4, data__root="/photos", data__name="voc"))
    assert other_data.names == (DATA,) and "2 data sets" in other_data.refusal
    assert all(text in other_data.refusal for text in ("00000000", "e5f6a7b8", "/photos", "study=NAME"))
    assert "focal-alpha=0.5-gamma=1 (seeds 0, 1)" in other_data.refusal
    longer = held(two_arms(train__epochs="40"))
    assert "train.epochs differs: 20 in bce (seeds 0, 1); 40 in focal" in longer.refusal
    assert "train.epochs" in longer.text(several_gains=False)


def test_a_setting_that_is_crossed_with_the_loss_is_varied_by_the_study() -> None:
    arms = [(arm, lr) for arm in (bce(), FOCAL) for lr in ("0.01", "0.02")]
    records = [
        run((f"{name}-lr={lr}", params), seed, 0.4, extra={"optim.lr": lr})
        for (name, params), lr in arms
        for seed in (0, 1)
    ]
    crossed = held(records)
    assert crossed.refusal == "" and [entry.name for entry in crossed.varied(crossed.runs)] == ["optim.lr"]
    # What AP is measured on is never a property of an arm.
    measured = [
        dataclasses.replace(item, params=item.params | {"train.nms_iou": item.params["optim.lr"]})
        for item in records
    ]
    assert "train.nms_iou" in held(measured).refusal


def test_an_arm_with_two_losses_or_two_gains_is_refused() -> None:
    for name in ("loss.gamma", "criterion.confidence_gain"):
        records = [run(bce(), 0, 0.4), run(bce(), 1, 0.4), run(FOCAL, 0, 0.4, extra={name: "1"})]
        assert held([*records, run(FOCAL, 1, 0.4, extra={name: "1.0"})]).differences == ()
        mixed = held([*records, run(FOCAL, 1, 0.4, extra={name: "2"})])
        assert mixed.names == (name,) and "bce" not in mixed.refusal.partition(":")[2].partition(": such")[0]


def test_what_is_not_recorded_is_not_claimed() -> None:
    older = held(two_arms(data__max_pixels="64000000"))
    assert older.differences == (), "a setting that older records lack is not known to differ"
    unknown = held(two_arms(fingerprint=""))
    assert unknown.unknown_data == 2 and "2 of 4 runs" in unknown.text(several_gains=False)
    foreign = held([run(arm, 0, 0.4, extra={"source": "import"}) for arm in (bce(), FOCAL)])
    assert "images" not in foreign.text(several_gains=False)
    whole = held(two_arms())
    assert "images" in whole.text(several_gains=False) and "gain" in whole.text(several_gains=True)
