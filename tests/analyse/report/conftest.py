"""For tests of the page, the tables and the texts: figures that are not drawn."""

from __future__ import annotations

import pytest
from helpers.synthetic import bce, study

from ablation.analyse import figures
from ablation.analyse.view import StudyView, study_view


@pytest.fixture(scope="session")
def picture() -> dict[str, bytes]:
    """One figure in every format."""
    smallest = next(figure for figure in figures.discover() if figure.name == "ap_recalibrated")
    return figures.render(smallest, study_view(study([(bce(), 0.4)], [0])))


@pytest.fixture
def same_picture(monkeypatch: pytest.MonkeyPatch, picture: dict[str, bytes]) -> None:
    """Every figure that applies has the same picture: drawing them all takes many seconds."""

    def render(figure: figures.Figure, view: StudyView) -> dict[str, bytes]:
        return picture

    monkeypatch.setattr(figures, "render", render)
