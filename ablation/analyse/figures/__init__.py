"""The figures of a report: one file each, found by themselves. See README.md beside this file."""

from ablation.analyse.figures.shared.base import Figure, discover, render

__all__ = ["Figure", "discover", "render"]
