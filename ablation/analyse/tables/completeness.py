"""Which runs of a study have no result, and whether that forbids a verdict."""

from __future__ import annotations

import pandas as pd

from ablation.analyse.tables import table

RESULTS = ("finished", "diverged")
"""The end states of a complete study: a run that diverged is a result."""


def lacking(runs: pd.DataFrame, metric: str) -> dict[str, int]:
    """Runs without a result, by problem: {'missing': 2, 'pruned': 1}; empty: the study is complete.

    Records that were replaced (duplicate, superseded) are not counted.
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
    return f"INCOMPLETE: {_without_result(kinds, planned(runs))}."


def refusal(runs: pd.DataFrame, metric: str, partial: bool) -> str:
    """Why there is no verdict; empty where there may be one.

    Where arms were stopped early because of low values, the remaining ones were chosen by their values:
    there is no verdict on them, not even a partial one.
    """
    kinds = lacking(runs, metric)
    if kinds.get("pruned"):
        return (
            f"{kinds['pruned']} runs were pruned, so this study only explores: their values decided which "
            "arms went on; train the arms of interest in another study, on fresh seeds"
        )
    if kinds and not partial:
        return (
            f"{_without_result(kinds, planned(runs))}; launch the study again to finish them, or set "
            "partial=true for a verdict on the finished runs"
        )
    return ""


def _without_result(kinds: dict[str, int], runs: int) -> str:
    """'3 of 20 runs have no result (2 missing, 1 failed)'."""
    problems = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    total = sum(kinds.values())
    return f"{total} of {runs} runs {'has' if total == 1 else 'have'} no result ({problems})"
