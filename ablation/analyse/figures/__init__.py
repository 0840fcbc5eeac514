"""The figures of a report: one file each, found by themselves. See README.md beside this file."""

from ablation.analyse.figures.shared.base import FORMATS, Figure, discover, render

__all__ = ["FORMATS", "Figure", "discover", "render"]
