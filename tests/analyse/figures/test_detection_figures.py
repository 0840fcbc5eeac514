"""Figures of the runs' files: which arms they choose, what they say, what happens without files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from helpers.figures import ALL, draw, words
from helpers.made_up_files import made_up
from helpers.synthetic import bce, focal, grid, study, with_state

from ablation.analyse.detections.run_files import DETECTIONS, GROUND_TRUTH, RunArtifacts
from ablation.analyse.figures.shared.artifact_figures import MOST, ArtifactFigure, plotted_arms
from ablation.analyse.report.recommendation import arm_threshold
from ablation.analyse.view import study_view

FROM_FILES = sorted(
    name for name, figure in ALL.items() if isinstance(figure, ArtifactFigure) and figure.files
)


def test_there_is_a_figure_for_every_file() -> None:
    assert len(FROM_FILES) == 11


def test_of_many_arms_the_baseline_the_best_of_each_loss_and_the_worst_are_shown() -> None:
    record = study(
        [(bce(), 0.40), (bce(4.0), 0.42), *[(focal(0.25, g), 0.5 - 0.02 * g) for g in range(12)]],
        [0, 1], sd_seed=0, sd_noise=0,
    )  # fmt: skip
    arms = [arm.arm for arm in plotted_arms(study_view(record))]
    assert len(arms) == MOST and arms[0] == "bce" and len(set(arms)) == MOST
    assert {"bce-pos_weight=4", "focal-alpha=0.25-gamma=0", "focal-alpha=0.25-gamma=11"} <= set(arms)
    everything = plotted_arms(study_view(study([(bce(), 0.4), (focal(0.5, 1), 0.3)], [0, 1])))
    assert [arm.legend for arm in everything] == ["BCE (n = 2)", "focal (alpha=0.5, gamma=1) (n = 2)"]


def test_a_run_without_the_file_is_not_counted(tmp_path: Path) -> None:
    record = study([(bce(), 0.4), (focal(0.5, 1), 0.3)], [0, 1, 2])
    whole = made_up(record, tmp_path)
    lost = next(run.run_id for run in record.runs if run.arm == "bce" and run.seed == 1)
    artifacts = RunArtifacts(record, lambda run, name: None if run == lost else whole.path(name, run))
    view = study_view(record, artifacts=artifacts)
    assert "BCE (n = 2 of 3)" in words(draw("pr_curves", view))
    assert "BCE\nn = 2 of 3" in words(draw("gradient_shares", view))


@pytest.mark.parametrize("name", FROM_FILES)
def test_without_files_a_figure_says_so(name: str) -> None:
    record = grid([0])
    assert ALL[name].applies(study_view(record)) is not None
    reason = ALL[name].applies(study_view(record, artifacts=RunArtifacts(record)))
    assert all(file in str(reason) for file in ALL[name].files)
    unfinished = with_state(study([(bce(), 0.4)], [0]), "bce", 0, "DIVERGED")
    view = study_view(unfinished, artifacts=made_up(unfinished, Path("/nowhere")))
    assert ALL[name].applies(view) is not None


@pytest.mark.slow
@pytest.mark.parametrize("name", FROM_FILES)
def test_a_study_of_one_run_and_one_of_25_arms_are_drawn(name: str, tmp_path: Path) -> None:
    one = study([(focal(0.5, 1), 0.4)], [0])
    many = grid([0], alphas=(None, 0.1, 0.25, 0.5, 0.75, 0.9))
    for record in (one, many):
        view = study_view(record, artifacts=made_up(record, tmp_path))
        assert ALL[name].applies(view) is None
        canvas = draw(name, view)
        assert canvas.get_figwidth() <= 7.0 and canvas.get_figheight() <= 8.0
        said = "Shown: 6 of 25 arms" in ALL[name].caption_for(view)
        assert said == (record is many and name != "loss_cdf_fixed_model")


def test_detections_without_any_result_are_drawn(tmp_path: Path) -> None:
    """A network that finds nothing is a result as well."""
    record = study([(bce(), 0.0), (focal(0.5, 1), 0.3)], [0])
    whole = made_up(record, tmp_path)
    nothing = tmp_path / "nothing.json"
    nothing.write_text("[]")
    empty = {run.run_id for run in record.runs if run.arm == "bce"}
    fetch = lambda run, name: nothing if run in empty and name.endswith("val.json") else whole.path(name, run)  # noqa: E731
    view = study_view(record, artifacts=RunArtifacts(record, fetch))
    for name in ("f1_threshold", "pr_curves", "false_positives", "tide_errors", "reliability"):
        assert ALL[name].applies(view) is None
        draw(name, view)


def test_the_thresholds_in_the_figure_are_those_of_the_settings_to_use(tmp_path: Path) -> None:
    record = study([(bce(), 0.4), (focal(0.5, 1), 0.3)], [0, 1, 2])
    artifacts = made_up(record, tmp_path)
    view = study_view(record, artifacts=artifacts)
    panel = draw("f1_threshold", view).axes[1]
    thresholds = [arm_threshold(view, arm, artifacts) for arm in view.arms["arm"]]
    best = [threshold for threshold in thresholds if threshold is not None]
    assert len(best) == 2
    dots = [line.get_xdata() for line in panel.lines if line.get_marker() == "o"]
    assert [(min(scores), max(scores)) for scores in dots] == [(b.low, b.high) for b in best]
    bars = [line.get_xdata() for line in panel.lines if line.get_marker() != "o"]
    assert [list(ends) for ends in bars] == [[b.score] * 2 for b in best]
    assert [text.get_text() for text in panel.texts] == [
        f"at {b.score:.2f}: F1 {b.f1:.3f}" for b in best if b
    ]


NAMES = ("<b>", "key=val", "$x_{", "a, b", "small", "\\frac$")


def test_classes_stand_in_figures_by_their_names_with_their_counts(tmp_path: Path) -> None:
    truth = {
        "images": [{"id": 1, "width": 9, "height": 9, "file_name": "i"}],
        "categories": [{"id": k, "name": name} for k, name in enumerate(NAMES, 1)],
        "annotations": [
            {"id": 10 * k + i, "category_id": k, "image_id": 1, "bbox": [0, 0, 4, 4], "area": 16.0}
            for k in range(1, len(NAMES) + 1)
            for i in range(k)
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "val.json").write_text("[]")
    files = {GROUND_TRUTH: tmp_path / "truth.json", DETECTIONS: tmp_path / "val.json"}
    record = study([(bce(), 0.4), (focal(0.5, 1), 0.3)], [0])
    metrics = {"val/AP": 0.4, "val/AP_small": 0.3} | {f"val/AP_class/{name}": 0.5 for name in NAMES}
    record = dataclasses.replace(record, runs=[dataclasses.replace(r, metrics=metrics) for r in record.runs])
    view = study_view(record, artifacts=RunArtifacts(record, lambda run, name: files.get(name)))
    labels = words(draw("ap_by_size_and_class", view))
    for count, name in enumerate(NAMES, 1):
        assert f"{name}\n{count} objects" in labels
    assert "small\n21 objects" in labels
    panels = words(draw("pr_curves", view))
    assert "\\frac$ (6)" in panels and "$x_{ (3)" in panels


def test_ap_recalibrated_says_how_much_each_arm_changes() -> None:
    record = study([(bce(), 0.4), (focal(0.5, 1), 0.3)], [0, 1])
    said = words(draw("ap_recalibrated", study_view(record)))
    assert "+0.000, n = 2" in said and "+0.004, n = 2" in said
    without = dataclasses.replace(
        record, runs=[dataclasses.replace(run, metrics={"val/AP": 0.4}) for run in record.runs]
    )
    assert "val/AP_recalibrated" in str(ALL["ap_recalibrated"].applies(study_view(without)))
    assert "AP by size" in str(ALL["ap_by_size_and_class"].applies(study_view(without)))
