"""What a figure is, how figures are found, and how one becomes a PNG, a PDF and an SVG."""

from __future__ import annotations

import importlib
import io
import pkgutil
from abc import ABC, abstractmethod
from types import ModuleType
from typing import ClassVar, Literal

import matplotlib as mpl
import matplotlib.figure

from ablation.analyse.figures.shared import style
from ablation.analyse.view import StudyView
from ablation.errors import AblationError


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
    """One instance of every figure in the folder of `package`, by name; not in its subfolders or in `_x.py`.

    Raises:
        AblationError: naming the file that does not define exactly one Figure, or names it wrongly.
    """
    module = importlib.import_module(package)
    figures = []
    for info in sorted(pkgutil.iter_modules(module.__path__), key=lambda info: info.name):
        if not info.ispkg and not info.name.startswith("_"):
            figures.append(_only_figure(importlib.import_module(f"{package}.{info.name}"), info.name))
    return figures


def _only_figure(module: ModuleType, name: str) -> Figure:
    items = [item for item in vars(module).values() if isinstance(item, type)]
    classes = [cls for cls in items if issubclass(cls, Figure) and cls.__module__ == module.__name__]
    if len(classes) != 1:
        raise AblationError(f"{module.__file__}: defines {len(classes)} figures; it must define exactly one")
    figure = classes[0]()
    if figure.name != name:
        raise AblationError(f"{module.__file__}: its figure is named {figure.name!r}, not {name!r}")
    return figure


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
    with style.house_style():
        drawn = figure.draw(view)
        if view.partial and not drawn.get_suptitle():
            # Captions get lost when a picture is copied; that runs are missing must not.
            drawn.suptitle(view.partial, fontsize=6.5, color=style.WORSE, x=0.01, ha="left")
        return save(drawn, formats)


def save(drawn: mpl.figure.Figure, formats: tuple[Format, ...] = FORMATS) -> dict[str, bytes]:
    """A drawn canvas as bytes per format; call it within style.house_style()."""
    files: dict[str, bytes] = {}
    for kind in formats:
        buffer = io.BytesIO()
        drawn.savefig(buffer, format=kind, dpi=style.DPI, metadata=METADATA[kind])
        files[kind] = buffer.getvalue()
        # Laid out once: that is most of the time, and every format should look the same.
        drawn.set_layout_engine("none")
    return files
