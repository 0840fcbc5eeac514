"""The report as one self-contained page: no script, no request, light and dark, printable.

Jinja escapes every text that came from data or configuration. Should one get through all the same, a
content security policy in the page itself forbids it to run scripts or to ask for anything.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from xml.etree.ElementTree import ParseError

import jinja2
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring
from markupsafe import Markup

from ablation.analyse.figures.shared import style
from ablation.analyse.report.data_section import Part
from ablation.analyse.report.formats import Table

LARGEST_SVG = 150_000
"""Bytes up to which a figure goes into the page as SVG; a denser one is smaller as PNG."""
_PX_PER_IN = 108
"""Of the page: figures are made for paper in 8 pt, a little less than a page's text needs."""


@dataclass(frozen=True)
class Picture:
    """An image inside the page.

    Attributes:
        anchor: its id.
        short: its name in the list of contents.
        source: a data URI.
        width_px, height_px: as shown, in pixels of the page.
        files: where it also lies, for people.
    """

    anchor: str
    title: str
    short: str
    source: str
    alt: str
    caption: str
    width_px: int
    height_px: int
    files: str = ""


@dataclass(frozen=True)
class Answer:
    """The verdict as people read it. kind: better, worse, equivalent, inconclusive or none."""

    sentence: str
    kind: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Snippet:
    """Lines to paste, and what they are."""

    heading: str
    text: str


@dataclass(frozen=True)
class RunLine:
    """One run in the list of all runs; `link` is '' where MLflow's UI has no address."""

    setting: str
    seed: str
    state: str
    reason: str
    value: str
    key: str
    run_id: str
    link: str
    command: str


@dataclass(frozen=True)
class PathPart:
    """A heading with text, a picture and a table; what is missing is not shown."""

    title: str
    notes: tuple[str, ...] = ()
    picture: Picture | None = None
    table: Table | None = None


@dataclass(frozen=True)
class Page:
    """All that the template shows, in its order; texts are plain and get escaped."""

    name: str
    description: str
    metric: str
    facts: Sequence[tuple[str, str]]
    answer: Answer
    snippets: Sequence[Snippet]
    use_text: str
    arms: Table
    arm_notes: Sequence[str]
    path: Sequence[PathPart]
    pictures: Sequence[Picture]
    not_drawn: Sequence[tuple[str, str]]
    examples_text: str
    examples: Sequence[Picture]
    data: Sequence[Part]
    held_notes: Sequence[str]
    held: Table | None
    runs_text: str
    runs: Sequence[RunLine]
    limits: Sequence[str]
    made_with: str

    @property
    def title(self) -> str:
        """Of the browser's tab."""
        return f"{self.name}: ablation report"


def render(page: Page) -> str:
    """The page as HTML. Equal pages give equal bytes."""
    folder = resources.files("ablation.analyse.report") / "templates"
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    # The style is this package's own text; everything else is escaped.
    css = Markup((folder / "report.css").read_text(encoding="utf-8"))
    return environment.get_template("report.html.j2").render(page=page, style=css)


def picture(
    name: str, title: str, caption: str, files: Iterable[Path], alt: str = "", dense: bool = False
) -> Picture:
    """An image of the page from the files of a figure: SVG where it is small, else PNG.

    Args:
        files: must include a PNG.
        dense: never as SVG (photographs).
    """
    by_kind = {path.suffix: path for path in files}
    png = by_kind[".png"].read_bytes()
    width, height = struct.unpack(">II", png[16:24])
    scale = _PX_PER_IN / style.DPI
    kind, content = "image/png", png
    svg = by_kind.get(".svg")
    if svg is not None and not dense and svg.stat().st_size <= LARGEST_SVG and _is_svg(svg):
        kind, content = "image/svg+xml", svg.read_bytes()
    return Picture(
        anchor=f"figure-{name}",
        title=title,
        short=title,
        source=f"data:{kind};base64,{base64.b64encode(content).decode()}",
        alt=alt or title,
        caption=caption,
        width_px=round(width * scale),
        height_px=round(height * scale),
        files=f"Files: {', '.join(path.name for path in by_kind.values())}",
    )


def _is_svg(path: Path) -> bool:
    """Whether a browser will show it: matplotlib writes characters that XML forbids as they are."""
    try:
        fromstring(path.read_bytes())
    except (ParseError, DefusedXmlException):
        return False
    return True
