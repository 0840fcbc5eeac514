"""`ablation plan`, retry=failed and halving, through the real command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.command import TINY, ablation, error_line, launch_counts, run_folders
from helpers.studies import put_sweep

from ablation.study.forecast.seeds import seeds_text
from ablation.study.halving import losers
from ablation.tracking.run_folder import RunFolder
from ablation.tracking.store import Store
from ablation.tracking.study_record import load_study


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    """Each file with its size and time."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


def states(folder: Path) -> dict[str, set[str]]:
    """Arm -> states of its runs."""
    found: dict[str, set[str]] = {}
    for path in run_folders(folder):
        found.setdefault(path.parent.name, set()).add(RunFolder(path).state)
    return found


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of which one arm was pruned after its first epoch; what plan said before is kept."""
    folder = put_sweep(tmp_path_factory.mktemp("plan"))
    before = ablation(folder, "plan", "sweeps=little", *TINY, "measure=true")
    assert (
        run_folders(folder) == [] and not (folder / "runs").exists() and not (folder / "mlflow.db").exists()
    )
    halving = ["halving.enabled=true", "halving.rungs=[1]"]
    first = ablation(folder, "train", "-m", "sweeps=little", *TINY, *halving)
    (folder / "plan.txt").write_text(before.stdout)
    (folder / "log.txt").write_text(first.stderr)
    return folder


def test_plan_of_a_new_study_measures_and_starts_nothing(pruned: Path) -> None:
    text = (pruned / "plan.txt").read_text()
    assert "study little  0 of 6 done: 6 to do" in text
    assert "time   about " in text and "measured on real steps" in text
    assert "more (from the number of parameters)" in text
    assert "spread of paired differences not known" in text


def test_the_worst_arm_is_pruned_at_the_rung_on_its_mean_and_bce_never(pruned: Path) -> None:
    by_arm = states(pruned)
    assert by_arm["bce"] == {"FINISHED"}
    focal = {arm: found for arm, found in by_arm.items() if arm != "bce"}
    assert sorted(map(tuple, focal.values())) == [("FINISHED",), ("PRUNED",)]
    means = {}
    for arm in focal:
        folders = [folder for folder in run_folders(pruned) if folder.parent.name == arm]
        lines = [json.loads((folder / "metrics.jsonl").read_text().split("\n")[0]) for folder in folders]
        means[arm] = sum(line["metrics"]["val/AP"] for line in lines) / 2
    (loser,) = (arm for arm, found in focal.items() if found == {"PRUNED"})
    assert means[loser] == min(means.values())
    folder = next(RunFolder(p) for p in run_folders(pruned) if p.parent.name == loser)
    assert folder.reason.startswith(
        f"arm stood 2 of 2 at epoch 1: mean val/AP {means[loser]:.3f} over 2 seeds"
    )
    records = load_study(Store.of(f"sqlite:///{pruned / 'mlflow.db'}", None), "little").runs
    assert sorted(run.state for run in records) == ["FINISHED"] * 4 + ["PRUNED"] * 2
    assert all("train.stop_after" not in run.params for run in records)
    assert "stop_after" not in folder.read_json("run.json")["command"]


def test_plan_afterwards_knows_time_disk_and_spread_and_writes_nothing(pruned: Path) -> None:
    before = everything(pruned)
    result = ablation(pruned, "plan", "sweeps=little", *TINY, "seeds=[0,1,2]")
    assert everything(pruned) == before
    assert "study little  4 of 9 done: 4 finished, 2 pruned, 3 to do" in result.stdout
    assert "for 5 runs, " in result.stdout and "earlier runs of this shape" in result.stdout
    assert "more (from earlier runs)" in result.stdout
    assert "spread of paired differences from 2 pairs of 1 arm; few" in result.stdout


def test_pruned_runs_stay_so_with_halving_and_go_on_without(pruned: Path) -> None:
    halving = ["halving.enabled=true", "halving.rungs=[1]"]
    again = ablation(pruned, "train", "-m", "sweeps=little", *TINY, *halving)
    assert launch_counts(again.stderr) == {"done": 4, "to do": 0, "pruned": 2}
    assert {"PRUNED"} in states(pruned).values()
    ablation(pruned, "train", "-m", "sweeps=little", *TINY)
    assert all(found == {"FINISHED"} for found in states(pruned).values())
    assert all(len((p / "metrics.jsonl").read_text().splitlines()) == 2 for p in run_folders(pruned))


def test_failed_runs_are_redone_only_when_asked(tmp_path: Path) -> None:
    arms = [*TINY, "loss=focal", "loss.gamma=0,1", "train.epochs=1", "tracking=none"]
    one_run = [*TINY, "loss=focal", "loss.gamma=1", "train.epochs=1", "tracking=none"]
    ablation(tmp_path, "train", *one_run, "train.threads=1", "data.train_images=24")
    (done,) = run_folders(tmp_path)
    folder = RunFolder(done)
    folder.file("DONE").unlink()
    folder.set_state("FAILED", "RuntimeError: as it was")
    result = ablation(tmp_path, "train", "-m", *arms, check=1)
    assert launch_counts(result.stderr) == {"done": 0, "to do": 1, "failed": 1}
    assert error_line(result) == (
        "ablation: 1 of 2 runs FAILED before and were left alone: focal-alpha=0.25-gamma=1 seed 0: "
        "RuntimeError: as it was; retry=failed redoes them"
    )
    assert folder.state == "FAILED"
    ablation(tmp_path, "train", "-m", *arms, "retry=failed")
    assert folder.state == "FINISHED"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["halving.enabled=true"], "halving.rungs: found [], must be at least one number of epochs"),
        (
            ["halving.enabled=true", "halving.rungs=[2]"],
            "halving.rungs: found 2, must be below train.epochs (2",
        ),
        (
            ["halving.enabled=true", "halving.rungs=[1]", "train.eval_every=2"],
            "halving.rungs: found 1, must be a multiple of train.eval_every (2",
        ),
        (["halving.enabled=true", "halving.rungs=[1]", "seeds=[0]"], "arm bce has one seed"),
        (["halving.keep_one_in=4"], "halving.keep_one_in: found 4, must be 2 or 3"),
        (["retry=all"], "retry: found 'all', must be failed, or null"),
    ],
)
def test_wrong_settings_are_refused_before_anything_starts(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    from ablation.errors import UsageError
    from ablation.study.app import study_runs
    from ablation.study.halving import check_rungs

    (tmp_path / "sweeps").mkdir()
    arguments = ["loss=bce,focal", *TINY, "seeds=[0,1]", f"out={tmp_path / 'runs'}", *overrides]
    with pytest.raises(UsageError) as error:
        check_rungs(study_runs(arguments)[0])
    assert message in str(error.value)


def test_of_the_other_arms_the_best_half_or_third_go_on() -> None:
    means = {"bce": 0.0, "a": 0.5, "b": 0.4, "c": 0.3, "d": 0.2, "e": 0.1}
    ranked, below = losers(means, {"bce"}, 2)
    assert ranked == ["a", "b", "c", "d", "e"] and below == [("d", 4), ("e", 5)]
    assert losers(means, {"bce"}, 3)[1] == [("c", 3), ("d", 4), ("e", 5)]
    assert losers({"bce": 0.1, "a": 0.0}, {"bce"}, 2) == (["a"], [])
    assert losers({}, set(), 2) == ([], [])


def test_the_number_of_seeds_is_that_of_the_tables() -> None:
    """With SD .01 and a margin of .01: 10 pairs find 1.00 SD, 11 show equivalence; 5 pairs find 1.68 SD."""
    lines = seeds_text(planned=5, metric="val/AP", margin=0.01, level=0.95, sd=0.01, pairs=20, arms=4)
    assert lines[-1].split() == ["0.0100", "0.017", "10", "11"]
    assert "few" not in lines[1]
    unknown = seeds_text(planned=1, metric="val/AP", margin=0.01, level=0.95, sd=None)
    assert [line.split()[0] for line in unknown[-3:]] == ["0.0050", "0.0100", "0.0200"]
    assert unknown[-1].split()[1] == "none"
