"""Which runs of a study are no data, and whether that forbids a verdict."""

from __future__ import annotations

import pandas as pd

from ablation.analyse.tables import table

RESULTS = ("finished", "diverged")
"""What may become of a run in a complete study: a run that diverged is a result."""


def lacking(runs: pd.DataFrame, metric: str) -> dict[str, int]:
    """Runs that should be data and are not: 'missing': 2, 'pruned': 1, ...; empty: the grid is complete.

    Records that were replaced (duplicate, superseded) lack nothing.
    """
    if runs.empty:
        return {}
    kinds = table.problems(runs, metric)["problem"]
    counts = kinds[~kinds.isin(["duplicate", "superseded", *RESULTS])].value_counts()
    return {str(kind): int(count) for kind, count in counts.sort_index().items()}


def planned(runs: pd.DataFrame) -> int:
    """How many arms and seeds there should be."""
    real = runs[~runs["problem"].isin(["duplicate", "superseded"])]
    return len(real[["arm", "seed"]].drop_duplicates())


def stamp(runs: pd.DataFrame, metric: str) -> str:
    """What every figure of an incomplete study says; empty for a complete one."""
    kinds = lacking(runs, metric)
    if not kinds:
        return ""
    words = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    return f"INCOMPLETE: {sum(kinds.values())} of {planned(runs)} runs are no data ({words})."


def refusal(runs: pd.DataFrame, metric: str, partial: bool) -> str:
    """Why there is no verdict; empty where there may be one.

    Arms that were stopped early for looking bad leave survivors that were chosen by their values: no
    verdict stands on them, not even a partial one.
    """
    kinds = lacking(runs, metric)
    if kinds.get("pruned"):
        return (
            f"{kinds['pruned']} runs were pruned, so this study explores: which arms went on was decided by "
            "their values; train the arms of interest in a study of their own, on fresh seeds"
        )
    if kinds and not partial:
        words = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        total, all_runs = sum(kinds.values()), planned(runs)
        verb = "is" if total == 1 else "are"
        return (
            f"{total} of {all_runs} runs {verb} no data ({words}); launch the study again to finish them, "
            "or say partial=true for a verdict on what is there"
        )
    return ""
