"""Confirming a choice: fresh seeds, the test split once, and no second look."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.command import TINY, ablation, error_line, in_this_process, run_folders
from helpers.shared import copy_of
from helpers.voc_folder import write_voc

from ablation.analyse.verdict.confirmation import FILE
from ablation.commands.confirm.choice import Choice, arguments, choose, keep_choice
from ablation.errors import UsageError
from ablation.records import Declaration, PlannedRun
from ablation.study.relaunch import overrides_of
from ablation.tracking.store import Store
from ablation.tracking.study_record import load_study

CHOICE = Choice("s", ("f", "b"), (10, 11), "val/AP", 0)


def settings(params: dict[str, str]) -> dict[str, str]:
    """All that decides a result, but for the seed."""
    return {key: value for key, value in params.items() if key not in ("seed", "study", "description")}


@pytest.fixture(scope="module")
def confirmed(finished_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of BCE and two focal arms, confirmed, and then reported."""
    folder = copy_of(finished_study, tmp_path_factory.mktemp("confirm"))
    result = ablation(folder, "confirm", "study=little", "seeds=10-12")
    assert "on fresh seeds" in result.stdout and "test/AP" in result.stdout
    for study in ("little", "little_confirm"):
        written = ablation(folder, "report", f"study={study}", figures=False)
        (folder / f"{study}.out").write_text(written.stdout)
    return folder


def confirmation_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "runs" / "little" / FILE).read_text())
    return content


def test_two_finalists_on_the_fresh_seeds_and_nothing_else_is_trained(confirmed: Path) -> None:
    store = Store.of(f"sqlite:///{confirmed / 'mlflow.db'}", None)
    runs = load_study(store, "little_confirm").runs
    assert sorted(run.seed for run in runs) == [10, 10, 11, 11, 12, 12]
    arms = {run.arm for run in runs}
    assert len(arms) == 2 and sum(arm.startswith("focal") for arm in arms) == 1
    old = {run.arm: run for run in load_study(store, "little").runs}
    for run in runs:
        assert settings(run.params) == settings(old[run.arm].params)
        assert run.fingerprint == old[run.arm].fingerprint != "", "the data set is known to the analysis"
        assert 0 <= run.metrics["test/AP"] <= 1, "the test split's value is in MLflow as well"


def test_the_test_split_is_read_for_the_confirmation_alone(confirmed: Path) -> None:
    for run in run_folders(confirmed):
        text = (run / "metrics.jsonl").read_text()
        fresh = "little_confirm" in run.parts
        assert text.count('"test/AP"') == (1 if fresh else 0)
        assert (run / "detections" / "test.json").exists() == fresh
    content = confirmation_of(confirmed)
    assert content["test"]["pairs"] == content["val"]["pairs"] == 3


def test_confirm_and_the_report_of_its_runs_give_one_number(confirmed: Path) -> None:
    """The same interval, over seeds and images, to the last digit."""
    content = confirmation_of(confirmed)
    arms = pd.read_csv(confirmed / "runs" / "little_confirm" / "report" / "arms.csv").set_index("arm")
    row = arms.loc[content["finalists"][0]]
    test = content["test"]
    reported = [row["difference"], row["difference_low"], row["difference_high"], row["p_t"], row["tost_p"]]
    assert reported == [test[name] for name in ("difference", "low", "high", "p_t", "tost_p")]
    assert pd.notna(row["image_se"]) and row["verdict"] == test["verdict"] and row["n_pairs"] == test["pairs"]
    page = (confirmed / "runs" / "little_confirm" / "report" / "report.html").read_text()
    assert "6 of them were evaluated on the test split" in page and "none read the test split" not in page
    assert "has not been read" not in page


def test_the_studys_own_report_has_the_confirmation(confirmed: Path) -> None:
    content = confirmation_of(confirmed)
    assert content["seeds"] == [10, 11, 12] and content["metric"] == "test/AP" and content["time_ms"] > 0
    report = confirmed / "runs" / "little" / "report"
    number = f"{content['test']['difference']:+.3f}"
    for text in (
        (confirmed / "little.out").read_text(),
        (report / "report.html").read_text(),
        (report / "arms.md").read_text().replace("\\", ""),
    ):
        assert "10, 11, 12" in text and "little_confirm" in text and "test/AP" in text and number in text
    store = Store.of(f"sqlite:///{confirmed / 'mlflow.db'}", None)
    experiment = store.client().get_experiment_by_name("little")
    (parent,) = store.client().search_runs([experiment.experiment_id], "tags.kind = 'study'")
    assert number in parent.data.tags["confirmation"]


def test_confirming_again_trains_nothing_and_says_the_same(confirmed: Path) -> None:
    path = confirmed / "runs" / "little" / FILE
    before = path.read_text()
    lines = [run.joinpath("metrics.jsonl").read_text() for run in run_folders(confirmed)]
    ablation(confirmed, "confirm", "study=little", "seeds=10,11,12")
    assert path.read_text() == before
    assert [run.joinpath("metrics.jsonl").read_text() for run in run_folders(confirmed)] == lines


def test_a_second_look_and_stale_seeds_are_refused(confirmed: Path) -> None:
    again = in_this_process(confirmed, "confirm", "study=little", "seeds=13,14,15", check=2)
    assert "was fixed before" in error_line(again) and "seeds=10,11,12" in error_line(again)
    stale = in_this_process(confirmed, "confirm", "study=little", "seeds=1,12,13", check=2)
    assert "seeds: 1 took part in the choice" in error_line(stale)
    word = in_this_process(confirmed, "confirm", "study=little", "seeds=many", check=2)
    assert "seeds=many" in error_line(word)


def test_a_damaged_confirmation_is_one_line(copied_study: Path) -> None:
    path = copied_study / "runs" / "little" / FILE
    for content in ("{", "[]", '{"seeds": 1}', '{"finalists": ["a", "b"], "seeds": [1], "time_ms": "x"}'):
        path.write_text(content)
        result = in_this_process(copied_study, "report", "study=little", check=1)
        assert FILE in error_line(result) and "ablation confirm" in error_line(result)


def test_two_seeds_can_never_decide_and_are_refused(copied_study: Path) -> None:
    result = in_this_process(copied_study, "confirm", "study=little", "seeds=10-11", check=2)
    assert "seeds=10,11" in error_line(result) and "3" in error_line(result)
    nothing_started(copied_study, "little")


def nothing_started(folder: Path, study: str) -> None:
    assert not (folder / "runs" / f"{study}_confirm").exists()
    assert not (folder / "runs" / study / "confirm.json").exists()


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A finished study of a VOC folder, and the overrides that launch it; its test split is still there."""
    folder = tmp_path_factory.mktemp("pets")
    root = write_voc(folder / "voc")
    data = ["data=voc", f"data.root={root}", "train.batch_size=2", "train.epochs=1"]
    replaced = ("data.", "train.batch", "train.epochs")
    launch = [*(word for word in TINY if not word.startswith(replaced)), *data]
    launch += ["loss=bce,focal", "seed=0", "study=pets"]
    ablation(folder, "train", "-m", *launch)
    return folder, launch


@pytest.mark.parametrize("kind", ["no file", "empty", "not named"])
def test_without_a_test_split_nothing_is_started_and_plan_and_check_say_so(
    pets: tuple[Path, list[str]], kind: str
) -> None:
    folder, launch = pets
    listing = folder / "voc" / "ImageSets" / "Main" / "test.txt"
    extra = ["data.test_set=null"] if kind == "not named" else []
    listing.unlink(missing_ok=True)
    if kind == "empty":
        listing.write_text("")
    result = in_this_process(folder, "confirm", "study=pets", "seeds=10-12", *extra, check=None)
    assert result.returncode in (1, 2) and "test" in error_line(result)
    nothing_started(folder, "pets")
    if kind == "empty":
        return
    assert "ablation confirm" in in_this_process(folder, "plan", *launch, *extra).stdout
    audited = [word for word in launch if word.startswith(("data", "train.", "model"))]
    assert "ablation confirm" in in_this_process(folder, "check", *audited, *extra).stdout


def test_changed_data_are_not_confirmed(copied_study: Path) -> None:
    result = in_this_process(
        copied_study, "confirm", "study=little", "seeds=10-12", "data.train_images=25", check=2
    )
    assert "fingerprint" in error_line(result)
    nothing_started(copied_study, "little")


def test_a_choice_is_written_before_and_goes_on_as_it_was(tmp_path: Path) -> None:
    def chosen(finalist: str, *seeds: int) -> Choice:
        return choose(tmp_path, "s", (finalist, "b"), seeds, "val/AP", {0, 1})

    for seeds in ([4], [4, 5], [4, 5, 5]):
        with pytest.raises(UsageError, match="seeds="):
            chosen("f", *seeds)
    first = chosen("f", 4, 5, 6)
    assert not list(tmp_path.rglob("*.json")), "nothing is written before everything was checked"
    keep_choice(first, tmp_path)
    assert chosen("f", 4, 5, 6) == first
    with pytest.raises(UsageError, match="chosen by it"):
        chosen("g", 4, 5, 6)


def test_a_choice_of_two_seeds_made_by_an_older_version_can_be_read_again(tmp_path: Path) -> None:
    keep_choice(Choice("s", ("f", "b"), (4, 5), "val/AP", 7), tmp_path)
    assert choose(tmp_path, "s", ("f", "b"), [4, 5], "val/AP", {0}).time_ms == 7


def test_a_runs_command_becomes_an_arm_of_the_confirmation() -> None:
    command = "ablation train sweeps=x 'arms=[{loss: bce}]' study=s seed=3 loss=focal loss.gamma=2 arm=f"
    focal = PlannedRun("f", 3, "k1", command)
    bce = PlannedRun("b", 3, "k2", "ablation train sweeps=x loss=bce loss.pos_weight=2 seed=3 arm=b")
    assert overrides_of(focal) == ["sweeps=x", "loss=focal", "loss.gamma=2"]
    declared = Declaration("val/AP", 0.02, 0.9)
    words = arguments(CHOICE, [focal, bce], Path("runs"), ["train.device=cpu"], declared)
    assert words[:2] == ["-m", "sweeps=x"] and words[-1] == "train.device=cpu"
    assert "arms=[{arm: f, loss: focal, loss.gamma: 2},{arm: b, loss: bce, loss.pos_weight: 2}]" in words
    assert "seeds=[10,11]" in words and "study=s_confirm" in words and "analysis.metric=test/AP" in words
    assert "analysis.margin=0.02" in words and "analysis.level=0.9" in words
