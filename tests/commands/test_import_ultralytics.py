"""Runs of ultralytics enter a study from results.csv and args.yaml, or are refused by file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.command import ablation, error_line

from ablation.commands.imports.import_runs import import_runs
from ablation.commands.imports.ultralytics import is_ultralytics, read_runs
from ablation.errors import AblationError
from ablation.tracking.store import Store
from ablation.tracking.study_record import load_study

COLUMNS = ("train/box_loss", "metrics/mAP50(B)", "metrics/mAP50-95(B)", "val/box_loss", "lr/pg0")


def results(folder: Path, aps: list[float], args: str = "", first: int = 1, padded: bool = False) -> Path:
    """A results.csv in which mAP50 is twice the mAP; padded as versions before 8.3 write it."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [["epoch", *COLUMNS]]
    lines += [[str(first + i), "1.5", str(2 * ap), str(ap), "nan", "0.01"] for i, ap in enumerate(aps)]
    texts = [",".join(cell.rjust(23) if padded else cell for cell in line) for line in lines]
    (folder / "results.csv").write_text("\n".join(texts) + "\n")
    if args:
        (folder / "args.yaml").write_text(args)
    return folder / "results.csv"


def test_padded_columns_counted_from_0_are_those_of_newer_versions(tmp_path: Path) -> None:
    new = read_runs(results(tmp_path / "a" / "bce-seed3", [0.1, 0.2]))[0]
    old = read_runs(results(tmp_path / "b" / "bce-seed3", [0.1, 0.2], first=0, padded=True))[0]
    assert (new.arm, new.seed, new.epoch, new.state) == ("bce", 3, 2, "FINISHED")
    assert new.metrics == {"train/box_loss": 1.5, "val/AP50": 0.4, "val/AP": 0.2, "train/lr_pg0": 0.01}
    assert [(epoch, line["val/AP"]) for epoch, line in new.epochs] == [(1, 0.1), (2, 0.2)]
    assert (old.epochs, old.arm, old.seed) == (new.epochs, new.arm, new.seed)


def test_the_last_epoch_counts_and_a_resumed_one_counts_once(tmp_path: Path) -> None:
    file = results(tmp_path / "bce-seed0", [0.1, 0.4, 0.2])
    with file.open("a") as text:
        text.write("3,1.4,0.6,0.3,1,0.01\n")
    row = read_runs(file)[0]
    assert (row.epoch, row.metrics["val/AP"], len(row.epochs)) == (3, 0.3, 3)


def test_a_folder_of_runs_is_a_study(tmp_path: Path) -> None:
    for arm, gamma, level in (("bce", 0.0, 0.3), ("focal", 1.5, 0.35)):
        for seed in range(3):
            args = f"seed: {seed}\nepochs: 2\nimgsz: 640\nfl_gamma: {gamma}\nname: train{seed}\n"
            results(tmp_path / "theirs" / arm / f"train{seed or ''}", [0.1, level + seed / 100], args)
    made = ablation(tmp_path, "import", "study=s", "table=theirs")
    assert "6 runs" in made.stdout
    study = load_study(Store.of(f"sqlite:///{tmp_path / 'mlflow.db'}", None), "s")
    assert {(run.arm, run.seed) for run in study.runs} == {(a, s) for a in ("bce", "focal") for s in range(3)}
    run = next(run for run in study.runs if run.arm == "focal")
    assert run.params["loss.fl_gamma"] == "1.5" and run.params["args.imgsz"] == "640.0"
    curve = run.history[run.history["metric"] == "val/AP"]
    assert curve["epoch"].tolist() == [1, 2]
    report = ablation(tmp_path, "report", "study=s", figures=False)
    assert "focal" in report.stdout and "+0.050" in report.stdout


def test_one_run_an_arm_has_no_verdict(tmp_path: Path) -> None:
    for arm, level in (("bce", 0.3), ("focal", 0.5)):
        results(tmp_path / "theirs" / f"{arm}-seed0", [level])
    ablation(tmp_path, "import", "study=s", "table=theirs")
    report = ablation(tmp_path, "report", "study=s", figures=False).stdout
    assert "not enough to tell" in report and "one pair cannot tell" in report
    row = next(line for line in report.splitlines() if line.startswith("focal"))
    assert row.split()[:5] == ["focal", "1", "0.500", "+0.200", "1"] and "%" not in row
    assert "p sign-flip" not in report, "one pair has no p value"
    assert not any(word in report for word in ("better", "worse", "equivalent"))


def test_a_run_that_stopped_early_is_told_from_one_that_was_killed(tmp_path: Path) -> None:
    def state(args: str) -> str:
        return read_runs(results(tmp_path / "bce-seed0", [0.1, 0.2, 0.3], args))[0].state

    assert state("epochs: 3\npatience: 100\n") == state("epochs: 9\npatience: 2\n") == "FINISHED"
    assert state("epochs: 9\npatience: 100\n") == state("epochs: 9\npatience: 0\n") == "KILLED"


HEAD = "epoch,metrics/mAP50-95(B)\n"


@pytest.mark.parametrize(
    ("text", "args", "says"),
    [
        (
            HEAD + "1,abc\n",
            "seed: 0",
            r"results\.csv:2: metrics/mAP50-95\(B\): found 'abc', must",
        ),
        (HEAD + "1,0.3\n2\n", "seed: 0", r"results\.csv:3: 1 cells under 2 columns"),
        (HEAD + "1,30.2\n", "seed: 0", r"results\.csv:2: metrics/mAP50-95\(B\): found 30\.2, must lie in"),
        (HEAD + "1.5,0.3\n", "seed: 0", r"results\.csv:2: epoch: found 1\.5, must be a whole number"),
        (HEAD + "1,0.3\n2,nan\n", "seed: 0", r"results\.csv: the last epoch has no finite metrics/mAP50-95"),
        (HEAD, "seed: 0", r"results\.csv: no epochs in it"),
        (HEAD + "1,0.3\n", "", r"results\.csv: its seed is None; give `seed: N` in args\.yaml"),
        (HEAD + "1,0.3\n", "seed: x", r"results\.csv: its seed is 'x'"),
        (HEAD + "1,0.3\n", "- 1\n", r"args\.yaml: must be settings"),
        ("epoch\xff", "seed: 0", r"results\.csv:1: no column epoch"),
    ],
)
def test_a_wrong_file_is_named_and_nothing_is_written(
    tmp_path: Path, text: str, args: str, says: str
) -> None:
    results(tmp_path / "theirs" / "bce", [0.3], "seed: 0")
    file = results(tmp_path / "theirs" / "focal", [0.3], args)
    file.write_text(text)
    store = Store.of(f"sqlite:///{tmp_path / 'mlflow.db'}", None)
    with pytest.raises(AblationError, match=says):
        import_runs("s", tmp_path / "theirs", tmp_path / "runs", store)
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


def test_runs_of_an_arm_with_other_settings_are_refused(tmp_path: Path) -> None:
    for seed, size in ((0, 640), (1, 416)):
        results(tmp_path / f"bce-seed{seed}", [0.3], f"seed: {seed}\nimgsz: {size}\n")
    with pytest.raises(AblationError, match=r"bce-seed1.*has other settings than at .*\(args\.imgsz\)"):
        read_runs(tmp_path)


def test_what_is_no_such_file_is_left_to_the_table(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("arm,seed,AP\nbce,0,0.3\n")
    assert not is_ultralytics(tmp_path / "t.csv") and not is_ultralytics(tmp_path / "none.csv")
    (tmp_path / "empty").mkdir()
    refused = ablation(tmp_path, "import", "study=s", "table=empty", check=2)
    assert "table=empty: no results.csv in it" in error_line(refused)
