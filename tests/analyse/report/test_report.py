"""The report: what it writes, what it refuses, and that it loads no torch."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from helpers.synthetic import bce, focal, grid, run, study, with_state

from ablation.analyse import figures
from ablation.analyse.report.report import write_report
from ablation.analyse.report.settings import ReportSettings
from ablation.errors import AblationError, UsageError
from ablation.records import PlannedRun, StudyRecord

ROOT = Path(__file__).resolve().parents[3]
OF_THE_TABLES = {"alpha_gamma_heatmap", "gamma_curves", "training_curves"}
"""Figures that need no files of the runs."""


@pytest.mark.usefixtures("same_picture")
def test_everything_is_written(tmp_path: Path) -> None:
    record = with_state(grid([0, 1]), focal(0.25, 2)[0], 1, "DIVERGED", "loss inf at step 7")
    report = write_report(with_state(record, focal(0.75, 0)[0], 0, "MISSING"), tmp_path / "new" / "report")
    assert set(report.figures) >= OF_THE_TABLES
    assert set(report.figures) | set(report.skipped) == {figure.name for figure in figures.discover()}
    on_disk = set(report.folder.iterdir())
    assert on_disk == set(report.files)
    assert len(on_disk) == 1 + len(report.tables) + 3 * len(report.figures)
    assert all(path.stat().st_size > 300 for path in on_disk if path.suffix != ".json")
    runs, arms = pd.read_csv(report.runs_csv), pd.read_csv(report.arms_csv)
    assert len(runs) == 26 and list(runs.loc[~runs["valid"], "state"]) == ["DIVERGED", "MISSING"]
    assert len(arms) == 13 and arms.loc[0, "arm"] == "bce"
    lines = report.text.split("\n")
    assert len(lines) == 14 and lines[1].startswith("bce ") and "1 diverged" in report.text
    markdown = report.arms_md.read_text(encoding="utf-8")
    assert "loss inf at step 7" in markdown and "| missing |" in markdown and "gamma_curves.png" in markdown
    assert "With two seeds an interval rests on one degree of freedom" in markdown
    assert "no verdict" in report.headline and "1 missing" in report.headline


@pytest.mark.usefixtures("same_picture")
def test_equal_studies_give_equal_files(tmp_path: Path) -> None:
    first = write_report(grid([0, 1], (0.25,), (1.0, 2.0)), tmp_path / "a")
    # The store may return the records in any order.
    record = grid([0, 1], (0.25,), (1.0, 2.0))
    second = write_report(dataclasses.replace(record, runs=record.runs[::-1]), tmp_path / "b")
    assert first.text == second.text and first.headline == second.headline
    for one, other in zip(first.files, second.files, strict=True):
        assert one.name == other.name and one.read_bytes() == other.read_bytes(), one.name


def test_a_metric_that_no_run_has_is_refused_with_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"metric=val/APP.*synthetic.*val/AP, val/AP50"):
        write_report(grid([0]), tmp_path, ReportSettings("val/APP"))
    assert list(tmp_path.iterdir()) == []


def test_a_metric_that_only_a_failed_run_has_does_not_exist(tmp_path: Path) -> None:
    failed = run(focal(0.5, 1), 0, 0.4, state="FAILED")
    failed = dataclasses.replace(failed, metrics={"val/special": 0.5})
    with pytest.raises(UsageError, match="val/special"):
        write_report(StudyRecord("s", [run(bce(), 0, 0.4), failed]), tmp_path, ReportSettings("val/special"))


@pytest.mark.parametrize("metric", ["train/loss", "train/loss_confidence"])
def test_the_loss_is_no_measure_across_losses(tmp_path: Path, metric: str) -> None:
    with pytest.raises(UsageError, match="another quantity"):
        write_report(grid([0]), tmp_path, ReportSettings(metric))


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_a_level_out_of_range_is_refused(tmp_path: Path, level: float) -> None:
    with pytest.raises(UsageError, match="level"):
        write_report(grid([0]), tmp_path, ReportSettings(level=level))


def test_a_study_without_a_finished_run_counts_its_states(tmp_path: Path) -> None:
    record = StudyRecord(
        "empty", [run(bce(), 0, 0.4, state="DIVERGED"), run(bce(), 1, 0.4, state="RUNNING")],
        [PlannedRun("bce", 2, "x", "ablation train loss=bce seed=2")],
    )  # fmt: skip
    with pytest.raises(AblationError, match=r"empty.*1 DIVERGED, 1 MISSING, 1 RUNNING") as caught:
        write_report(record, tmp_path)
    assert caught.value.exit_code == 1 and "\n" not in str(caught.value)
    with pytest.raises(AblationError, match="nothing: no runs"):
        write_report(StudyRecord("nothing", []), tmp_path)


def test_a_figure_that_cannot_be_drawn_is_listed_and_its_old_file_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "gamma_curves.png",
        "training_curves.svg",
        "example_1.png",
    ):  # as an earlier report left them
        (tmp_path / name).write_text("old")

    def broken(self: object, view: object) -> None:
        raise ZeroDivisionError("by zero")

    cls = next(type(f) for f in figures.discover() if f.name == "training_curves")
    monkeypatch.setattr(cls, "draw", broken)
    report = write_report(study([(bce(), 0.4), (bce(4.0), 0.41)], [0, 1]), tmp_path)
    assert set(report.skipped) >= OF_THE_TABLES
    assert "no arm of focal loss" in report.skipped["gamma_curves"]
    assert "ZeroDivisionError: by zero" in report.skipped["training_curves"]
    left = {path.stem for path in tmp_path.iterdir()}
    assert not left & OF_THE_TABLES and "Not drawn: " in report.arms_md.read_text(encoding="utf-8")


@pytest.mark.usefixtures("same_picture")
def test_without_plain_bce_the_report_says_so(tmp_path: Path) -> None:
    report = write_report(study([(bce(4.0), 0.4), (focal(0.5, 1), 0.4)], [0, 1]), tmp_path)
    assert "has no plain BCE arm" in report.arms_md.read_text(encoding="utf-8")


@pytest.mark.usefixtures("same_picture")
def test_names_from_data_stay_text(tmp_path: Path) -> None:
    hostile = ('=HYPERLINK("x")|<script>', {"loss.name": "focal", "loss.gamma": "1", "loss.alpha": "a|b"})
    record = dataclasses.replace(
        StudyRecord(
            "<b>|s", [run(bce(), 0, 0.4), run(hostile, 0, 0.4, state="FAILED", reason="x | <i>\n# y")]
        )
    )
    report = write_report(record, tmp_path)
    markdown = report.arms_md.read_text(encoding="utf-8")
    assert "<script>" not in markdown.replace("\\<", "") and "\n# y" not in markdown
    table_lines = [line for line in markdown.split("\n") if line.startswith("| ") and "HYPERLINK" in line]
    assert [line.replace("\\|", "").count("|") for line in table_lines] == [7]
    assert "\"'=HYPERLINK" in report.runs_csv.read_text(encoding="utf-8")


@pytest.mark.usefixtures("same_picture")
def test_a_larger_study_gives_the_notes_it_needs(tmp_path: Path) -> None:
    arms = [(bce(), 0.4), (focal(0.5, 1), 0.4)]
    five = write_report(study(arms, range(5)), tmp_path / "5").arms_md.read_text(encoding="utf-8")
    six = write_report(study(arms, range(6)), tmp_path / "6").arms_md.read_text(encoding="utf-8")
    assert "With 5 pairs the sign-flip p cannot be smaller than 0.0625" in five
    assert "cannot be smaller" not in six and "one degree of freedom" not in six


def test_a_whole_report_loads_neither_torch_nor_training_nor_pyplot(tmp_path: Path) -> None:
    code = (
        "import sys, pkgutil, importlib, ablation.analyse as package\n"
        "for info in pkgutil.walk_packages(package.__path__, 'ablation.analyse.'):\n"
        "    importlib.import_module(info.name)\n"
        "from helpers.synthetic import grid\n"
        "from ablation.analyse.report.report import write_report\n"
        f"from pathlib import Path; folder = Path({str(tmp_path)!r})\n"
        "report = write_report(grid([0, 1], (0.25,), (1.0,)), folder)\n"
        "bad = {'torch', 'mlflow', 'hydra', 'matplotlib.pyplot', 'ablation.training.run', 'ablation.config',"
        " 'ablation.study', 'ablation.tracking.store'}\n"
        "print(sorted(bad & set(sys.modules)), len(report.figures) >= 3)\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[] True"


def test_the_word_for_the_focusing_parameter_stands_only_in_the_figures_that_plot_it() -> None:
    files = [*(ROOT / "ablation" / "analyse").rglob("*.py"), ROOT / "ablation" / "records.py"]
    figures_folder = ROOT / "ablation" / "analyse" / "figures"
    places = [path for path in files if "gamma" in path.read_text(encoding="utf-8")]
    assert places and all(path.is_relative_to(figures_folder) for path in places)
