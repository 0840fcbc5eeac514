"""From a study's records to tables, numbers, figures and a report. Imports neither torch nor training."""

from ablation.analyse.view import load_runs, load_view

__all__ = ["load_runs", "load_view"]
