"""The figures of a report: one file each, found by themselves. See README.md beside this file."""

from ablation.analyse.figures._base import Figure, StudyView, discover, render, study_view

__all__ = ["Figure", "StudyView", "discover", "render", "study_view"]
