"""From a study's records to tables, numbers, figures and a report. Imports neither torch nor training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ablation.analyse.view import load_runs, load_view

__all__ = ["load_runs", "load_view"]


def __getattr__(name: str) -> Any:
    """The names of __all__, read at their first use: training needs one file from here, without pandas."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ablation.analyse import view

    return getattr(view, name)
