"""Figures: found by themselves, drawn for awkward studies too, the same bytes every time."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from helpers.figures import ALL, Rendered, draw, holed, judged_view, words
from helpers.made_up_files import made_up
from helpers.synthetic import bce, focal, grid, run, study
from matplotlib.image import imread

from ablation.analyse import figures
from ablation.analyse.figures.shared import style
from ablation.analyse.view import StudyView, study_view
from ablation.errors import AblationError
from ablation.records import StudyRecord

Render = Callable[[str], Rendered]
OF_THE_TABLES = ("alpha_gamma_heatmap", "gamma_curves", "training_curves", "ap_recalibrated")

NEW = """
from matplotlib.figure import Figure as Canvas
from ablation.analyse.figures import Figure

class Dropped(Figure):
    name = "{name}"
    title = "Dropped"
    caption = "Nothing to read; {{n}}. {{held}}"

    def applies(self, view):
        return None

    def draw(self, view):
        canvas = Canvas(figsize=(2, 2))
        canvas.add_subplot().plot([0, 1])
        return canvas
"""


@pytest.mark.parametrize("name", sorted(ALL))
def test_captions_say_n_and_what_is_held_fixed(name: str, view: StudyView) -> None:
    figure = ALL[name]
    assert "{n}" in figure.caption and "{held}" in figure.caption and figure.title
    caption = figure.caption_for(view)
    assert "n = 1 to 2 seeds per arm" in caption and "Held fixed" in caption and "{" not in caption


def test_captions_say_what_is_not_held_fixed() -> None:
    other = run(focal(0.5, 2), 0, 0.4, extra={"optim.lr": "0.02"})
    view = study_view(StudyRecord("s", [run(bce(), 0, 0.4), other]))
    assert "NOT held fixed besides the loss: optim.lr." in ALL["gamma_curves"].caption_for(view)


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_format_holds_a_picture(name: str, view: StudyView, rendered: Render) -> None:
    assert ALL[name].applies(view) is None
    files = rendered(name).files
    picture = imread(io.BytesIO(files["png"]))
    assert picture.shape[1] > 600 and picture.shape[0] > 300
    # Not one colour, and not mostly ink.
    assert 0.01 < float(np.mean(picture[..., :3].min(axis=2) < 0.95)) < 0.9
    assert files["pdf"].startswith(b"%PDF") and len(files["pdf"]) > 5000
    assert files["svg"].startswith(b"<?xml") and b"</svg>" in files["svg"]


@pytest.mark.parametrize("name", sorted(ALL))
def test_no_label_is_a_formula(name: str, rendered: Render) -> None:
    """Names from data stand in figures as they are, so not even powers of ten are formulas."""
    canvas = rendered(name).canvas
    texts = canvas.findobj(mpl.text.Text)
    assert not any(text.get_parse_math() for text in texts) and "mathdefault" not in words(canvas)


def test_powers_of_ten() -> None:
    label = style.PowersOfTen()
    assert [label(x) for x in (1e-3, 1.0, 1e12)] == ["10\u207b\u00b3", "10\u2070", "10\u00b9\u00b2"]


@pytest.mark.parametrize("seeds", [1, 5])
@pytest.mark.parametrize("name", OF_THE_TABLES)
def test_other_numbers_of_seeds_are_drawn(name: str, seeds: int) -> None:
    other = judged_view(holed(seeds) if seeds > 1 else grid([0]))
    assert ALL[name].applies(other) is None and draw(name, other).axes


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory) -> StudyView:
    """A study equal to that of `view`, from files of its own."""
    record = holed(2)
    return judged_view(record, made_up(record, tmp_path_factory.mktemp("again")))


@pytest.mark.parametrize("name", sorted(ALL))
def test_equal_studies_give_equal_bytes_whatever_the_users_style(
    name: str, rendered: Render, again: StudyView
) -> None:
    """PNG, for which a figure is laid out, and SVG, which holds every line and letter; PDF of some."""
    formats = figures.FORMATS if name in OF_THE_TABLES else ("png", "svg")
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "red", "savefig.dpi": 30, "lines.linewidth": 9}):
        second = figures.render(ALL[name], again, formats)
    assert second == {kind: rendered(name).files[kind] for kind in formats}


def test_drawing_leaves_no_global_state() -> None:
    before = dict(mpl.rcParams)
    figures.render(ALL["gamma_curves"], study_view(grid([0, 1])), ("png",))
    assert dict(mpl.rcParams) == before


def test_heat_map_says_what_it_shows(rendered: Render) -> None:
    text = words(rendered("alpha_gamma_heatmap").canvas)
    assert "BCE: val/AP" in text and "n = 2" in text and "±" in text
    assert "2 diverged" in text and "n = 1, 1 diverged" in text and "n = 1, 1 missing" in text
    assert "none" in text.split("\n")


def test_heat_map_numbers() -> None:
    """BCE .40 and .30, focal .43 and .31: mean .370, difference .020 +- 12.706205 x .01 = .127."""
    records = [
        run(bce(), 0, 0.40),
        run(bce(), 1, 0.30),
        run(focal(0.5, 1), 0, 0.43),
        run(focal(0.5, 1), 1, 0.31),
    ]
    lines = words(draw("alpha_gamma_heatmap", judged_view(StudyRecord("s", records)))).split("\n")
    assert "0.370" in lines and "+0.020 ± 0.127" in lines
    assert any(line.startswith("BCE: val/AP 0.350 [") and "n = 2" in line for line in lines)


def test_heat_map_marks_a_combination_that_the_study_has_not() -> None:
    record = study([(bce(), 0.4), (focal(0.25, 0), 0.4), (focal(0.75, 2), 0.4)], [0, 1])
    assert words(draw("alpha_gamma_heatmap", judged_view(record))).count("not in\nthe study") == 2


def test_without_bce_the_heat_map_says_so_and_shows_no_difference() -> None:
    record = study([(focal(0.25, 0), 0.4), (focal(0.75, 2), 0.3)], [0, 1])
    text = words(draw("alpha_gamma_heatmap", judged_view(record)))
    assert "no BCE arm" in text and "±" not in text


def test_gamma_curves_keep_the_points_readable_at_two_seeds() -> None:
    record = grid([0, 1])
    ax = draw("gamma_curves", study_view(record)).axes[0]
    low, high = ax.get_ylim()
    values = [item.metrics["val/AP"] for item in record.runs]
    assert low < min(values) and max(values) < high
    # The intervals of two seeds alone would make it several times as high.
    assert high - low < 2 * (max(values) - min(values))
    markers = {line.get_marker() for line in ax.lines}
    assert {"^", "v"} <= markers


def test_gamma_curves_do_not_bridge_an_arm_without_a_value(rendered: Render) -> None:
    canvas = rendered("gamma_curves").canvas
    ax = canvas.axes[0]
    line = next(line for line in ax.lines if line.get_label() == "focal, alpha = 0.25")
    assert [bool(np.isnan(y)) for y in line.get_ydata()] == [False, False, True, False]
    assert "x" in {line.get_marker() for line in ax.lines}
    assert "n = 0 of 2" in words(canvas)


def test_gammas_too_close_to_tell_apart_are_spread() -> None:
    arms = [(bce(), 0.4)] + [(focal(None, gamma), 0.4) for gamma in (0, 0.1, 5)]
    assert "not to scale" in words(draw("gamma_curves", study_view(study(arms, [0, 1]))))
    assert "not to scale" not in words(draw("gamma_curves", study_view(grid([0, 1]))))


def test_training_curves_name_every_arm(rendered: Render) -> None:
    text = words(rendered("training_curves").canvas)
    assert "gamma=1: 0 of 2 finished" in text and "gamma=2 (n = 1 of 2)" in text and "BCE (n = 2)" in text
    assert "focal, alpha = none" in text
    record = study([(bce(), 0.4), (bce(4.0), 0.4), (focal(0.5, 1), 0.4)], [0, 1])
    few = words(draw("training_curves", study_view(record)))
    assert "bce (pos_weight=4) (n = 2)" in few and "focal (alpha=0.5, gamma=1) (n = 2)" in few


@pytest.mark.parametrize(
    ("name", "record", "reason"),
    [
        ("alpha_gamma_heatmap", study([(bce(), 0.4)], [0]), "no arm of focal loss"),
        ("gamma_curves", study([(bce(), 0.4), (focal(0.25, 1), 0.4)], [0]), "only one gamma"),
        ("alpha_gamma_heatmap", StudyRecord("s", [run(focal(0.5, 1), 0, 0.4, state="FAILED")]),
         "no focal arm has a finished run"),
        ("gamma_curves", StudyRecord("s", [run((name, focal(0.5, 1)[1]), 0, 0.4) for name in "ab"]),
         "a, b have the same alpha and gamma"),
        ("training_curves", StudyRecord("s", [run(bce(), 0, 0.4, epochs=(20,))]), "at one epoch only"),
    ],
)  # fmt: skip
def test_a_figure_that_cannot_be_drawn_says_why(name: str, record: StudyRecord, reason: str) -> None:
    assert reason in str(ALL[name].applies(study_view(record)))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the figures package also looks in."""
    folder = tmp_path / "more"
    folder.mkdir()
    monkeypatch.setattr(figures, "__path__", [*figures.__path__, str(folder)])
    yield folder  # type: ignore[misc]
    for name in [name for name in sys.modules if name.startswith("ablation.analyse.figures.dropped")]:
        del sys.modules[name]


def test_a_dropped_file_is_a_figure(package: Path) -> None:
    (package / "dropped_in.py").write_text(NEW.format(name="dropped_in"))
    (package / "_helper.py").write_text("raise RuntimeError('helpers are not imported')")
    found = {figure.name: figure for figure in figures.discover()}
    assert set(found) == {*ALL, "dropped_in"}
    assert figures.render(found["dropped_in"], study_view(grid([0])))["png"].startswith(b"\x89PNG")


def test_a_figure_with_another_files_name_is_refused(package: Path) -> None:
    (package / "dropped_wrong.py").write_text(NEW.format(name="something_else"))
    with pytest.raises(AblationError, match=r"dropped_wrong\.py.*'something_else'"):
        figures.discover()


def test_a_file_without_a_figure_is_refused(package: Path) -> None:
    (package / "dropped_empty.py").write_text("x = 1\n")
    with pytest.raises(AblationError, match=r"dropped_empty\.py.*exactly one"):
        figures.discover()


def test_the_example_of_the_readme_works(package: Path) -> None:
    readme = Path(str(figures.__file__)).with_name("README.md").read_text(encoding="utf-8")
    code = readme.split("```python\n")[1].split("```")[0].replace("seed_spread", "dropped_readme")
    (package / "dropped_readme.py").write_text(code)
    found = {figure.name: figure for figure in figures.discover()}["dropped_readme"]
    view = study_view(grid([0, 1]))
    assert found.applies(view) is None and len(figures.render(found, view, ("png",))["png"]) > 5000


def test_limits() -> None:
    """Range 1..2; bounds within reach are shown whole, others cut at .4 of the range; .08 of margin."""
    assert style.limits([1, 2], [0.9, 2.1], 0.4) == pytest.approx((0.82, 2.18))
    assert style.limits([1, 2], [-50, 50, float("nan")], 0.4) == pytest.approx((0.52, 2.48))
    low, high = style.limits([0.4], [], 0.4)
    assert low < 0.4 < high
