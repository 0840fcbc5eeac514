"""What a figure is, how figures are found, and how one becomes a PNG, a PDF and an SVG."""

from __future__ import annotations

import importlib
import io
import pkgutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import matplotlib as mpl
import matplotlib.figure
import matplotlib.style
import pandas as pd

from ablation.analyse.detections.run_files import RunArtifacts
from ablation.analyse.figures import _style
from ablation.analyse.tables import completeness, table
from ablation.errors import AblationError
from ablation.records import StudyRecord


@dataclass(frozen=True)
class StudyView:
    """All that a figure may look at.

    Attributes:
        study: the records; figures need them for curves only.
        runs, arms: see table.runs_table and table.arms_table, made for `metric` and `level`.
        metric: what is compared, such as val/AP.
        level: of every interval.
        baseline: the arm of plain BCE, or None.
        not_held: settings other than loss and seed that differ between finished runs.
        partial: what an incomplete study says on every figure; empty for a complete one.
        artifacts: the files that the runs left; None: only what the tables hold.
    """

    study: StudyRecord
    runs: pd.DataFrame
    arms: pd.DataFrame
    metric: str
    level: float
    baseline: str | None
    not_held: tuple[str, ...]
    partial: str = ""
    artifacts: RunArtifacts | None = None

    @property
    def percent(self) -> str:
        """The level for people: '95%'."""
        return f"{100 * self.level:g}%"

    @property
    def n_text(self) -> str:
        """How many seeds stand behind the arms: 'n = 5 seeds per arm', 'n = 1 to 5 seeds per arm'."""
        n = self.arms.loc[self.arms["n"] > 0, "n"]
        if n.empty:
            return "n = 0: no arm has a finished run"
        low, high = int(n.min()), int(n.max())
        count = f"{low}" if low == high else f"{low} to {high}"
        return f"n = {count} {'seed' if high == 1 else 'seeds'} per arm"

    @property
    def held_text(self) -> str:
        """What the arms share, what they should share but do not, and that runs are missing if any are."""
        stamp = f" {self.partial}" if self.partial else ""
        if self.not_held:
            return f"NOT held fixed besides the loss: {', '.join(self.not_held)}.{stamp}"
        gains = " and the gain of its term" if self.arms["gain"].nunique() > 1 else ""
        return (
            f"Held fixed: everything but the loss{gains}; arms with one seed share weights, images and "
            f"their order.{stamp}"
        )


def study_view(
    study: StudyRecord, metric: str = "val/AP", level: float = 0.95, artifacts: RunArtifacts | None = None
) -> StudyView:
    """The tables of a study, made once for all figures."""
    runs = table.runs_table(study)
    return StudyView(
        study=study,
        runs=runs,
        arms=table.arms_table(runs, metric, level),
        metric=metric,
        level=level,
        baseline=table.baseline_arm(runs),
        not_held=tuple(table.not_held_fixed(study)),
        partial=completeness.stamp(runs, metric),
        artifacts=artifacts,
    )


class Figure(ABC):
    """Base of every figure. A file in this folder defines exactly one subclass.

    Attributes:
        name: the file's stem, also the stem of the PNG and the PDF.
        title: a few words.
        caption: "how to read this", 2 to 4 sentences. May hold {n}, {held}, {metric} and {percent},
            which caption_for fills in; {n} and {held} must be there.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    caption: ClassVar[str]

    @abstractmethod
    def applies(self, view: StudyView) -> str | None:
        """None if it can be drawn, else the reason why not, as half a sentence."""

    @abstractmethod
    def draw(self, view: StudyView) -> mpl.figure.Figure:
        """Draw on a matplotlib.figure.Figure of its own; pyplot's global state is never used."""

    def caption_for(self, view: StudyView) -> str:
        """The caption with the study's numbers in it."""
        return self.caption.format(
            n=view.n_text, held=view.held_text, metric=view.metric, percent=view.percent
        )


def discover(package: str = "ablation.analyse.figures") -> list[Figure]:
    """One instance of every figure in the folder of `package`, by name. `_x.py` files are helpers.

    Raises:
        AblationError: naming the file that does not define exactly one Figure, or names it wrongly.
    """
    module = importlib.import_module(package)
    figures = []
    for info in sorted(pkgutil.iter_modules(module.__path__), key=lambda info: info.name):
        if info.name.startswith("_"):
            continue
        found = importlib.import_module(f"{package}.{info.name}")
        classes = [
            item for item in vars(found).values()
            if isinstance(item, type) and issubclass(item, Figure) and item.__module__ == found.__name__
        ]  # fmt: skip
        if len(classes) != 1:
            raise AblationError(
                f"{found.__file__}: defines {len(classes)} figures; it must define exactly one"
            )
        figure = classes[0]()
        if figure.name != info.name:
            raise AblationError(f"{found.__file__}: its figure is named {figure.name!r}, not {info.name!r}")
        figures.append(figure)
    return figures


# Without these the files would carry the time of drawing and the version of the library.
METADATA: dict[str, dict[str, str | None]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
}


Format = Literal["png", "pdf", "svg"]
FORMATS: tuple[Format, ...] = ("png", "pdf", "svg")


def render(figure: Figure, view: StudyView, formats: tuple[Format, ...] = FORMATS) -> dict[str, bytes]:
    """The figure as bytes per format. Equal studies give equal bytes, whatever the user's matplotlibrc."""
    with mpl.style.context(["default", _style.STYLE]):
        drawn = figure.draw(view)
        if view.partial and not drawn.get_suptitle():
            # Captions get lost when a picture is copied; that runs are missing must not.
            drawn.suptitle(view.partial, fontsize=6.5, color=_style.WORSE, x=0.01, ha="left")
        return save(drawn, formats)


def save(drawn: mpl.figure.Figure, formats: tuple[Format, ...] = FORMATS) -> dict[str, bytes]:
    """A drawn canvas as bytes per format; call it within _style.STYLE."""
    files: dict[str, bytes] = {}
    for kind in formats:
        buffer = io.BytesIO()
        drawn.savefig(buffer, format=kind, dpi=_style.DPI, metadata=METADATA[kind])
        files[kind] = buffer.getvalue()
        # Laid out once: that is most of the time, and every format should look the same.
        drawn.set_layout_engine("none")
    return files
