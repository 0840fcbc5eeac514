"""The figures of a report as files, and why some could not be drawn."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ablation.analyse import figures
from ablation.analyse.view import StudyView
from ablation.errors import one_line
from ablation.files import write_bytes


@dataclass(frozen=True)
class DrawnFigures:
    """What became of every figure.

    Attributes:
        files: name -> the files of a figure that was drawn, PNG first.
        skipped: name -> why a figure was not drawn.
    """

    files: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def paths(self) -> list[Path]:
        """Every file."""
        return [path for paths in self.files.values() for path in paths]


def draw_figures(view: StudyView, folder: Path) -> DrawnFigures:
    """Draw every figure that applies into `folder`; files of figures that no longer apply are deleted."""
    drawn = DrawnFigures()
    for figure in figures.discover():
        try:
            reason = figure.applies(view)
            contents = figures.render(figure, view) if reason is None else {}
        except Exception as error:  # the tables and the other figures do not depend on this one
            reason, contents = one_line(f"drawing it failed: {type(error).__name__}: {error}", 300), {}
        if reason is None:
            drawn.files[figure.name] = write_pictures(folder / figure.name, contents)
        else:
            drawn.skipped[figure.name] = reason
            for kind in figures.FORMATS:  # a picture of an earlier state would be taken for this one
                (folder / f"{figure.name}.{kind}").unlink(missing_ok=True)
    return drawn


def write_pictures(stem: Path, contents: dict[str, bytes]) -> tuple[Path, ...]:
    """One file for each format, named `stem` with the format as suffix."""
    paths = [(stem.with_name(f"{stem.name}.{kind}"), content) for kind, content in contents.items()]
    for path, content in paths:
        write_bytes(path, content)
    return tuple(path for path, _ in paths)
