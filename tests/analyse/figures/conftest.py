"""Every figure, rendered once for all tests that look at one."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
from helpers.figures import ALL, Rendered, holed, judged_view
from helpers.made_up_files import made_up
from matplotlib.figure import Figure as Canvas

from ablation.analyse import figures
from ablation.analyse.view import StudyView


@pytest.fixture(scope="session")
def view(tmp_path_factory: pytest.TempPathFactory) -> StudyView:
    """holed(2) with the files that its runs would have left."""
    record = holed(2)
    return judged_view(record, made_up(record, tmp_path_factory.mktemp("figures")))


@pytest.fixture(scope="session")
def rendered(view: StudyView) -> Callable[[str], Rendered]:
    """name -> the figure of `view`; rendered when it is first asked for."""

    @functools.cache
    def render(name: str) -> Rendered:
        canvases: list[Canvas] = []

        class Recording(type(ALL[name])):  # type: ignore[misc]
            def draw(self, view: StudyView) -> Canvas:
                canvases.append(super().draw(view))
                return canvases[0]

        files = figures.render(Recording(), view)
        return Rendered(canvases[0], files)

    return render
