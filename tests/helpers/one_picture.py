"""Reports in which every figure that applies is the same small picture.

Drawing all figures takes nine of a report's ten seconds. Tests of its page, tables and texts do without; the
report of tests/study/test_study.py is drawn in full by the real command, and tests/analyse/figures draws
every figure.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any
from unittest import mock

from helpers.shared import made_once

FORMATS = ("png", "pdf", "svg")


def one_picture() -> dict[str, bytes]:
    """The picture in every format."""
    place = made_once("picture", _draw)
    return {suffix: (place / f"picture.{suffix}").read_bytes() for suffix in FORMATS}


def _draw(place: Path) -> None:
    from matplotlib.figure import Figure

    for suffix in FORMATS:
        content = io.BytesIO()
        Figure(figsize=(2, 1)).savefig(content, format=suffix)
        (place / f"picture.{suffix}").write_bytes(content.getvalue())


def without_figures() -> Any:
    """A context in which figures are not drawn; `start` it for the rest of a process."""
    picture = one_picture()
    return mock.patch("ablation.analyse.figures.render", lambda figure, view: picture)
