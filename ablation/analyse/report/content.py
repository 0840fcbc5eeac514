"""A study and its verdict -> everything that the page shows, as plain texts and tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from ablation import __version__
from ablation.analyse import figures
from ablation.analyse.detections.run_files import RunArtifacts
from ablation.analyse.report import markdown as text
from ablation.analyse.report import recommendation as use
from ablation.analyse.report.data_section import about_data
from ablation.analyse.report.formats import Table
from ablation.analyse.report.html import Answer, Page, Picture, RunLine, Snippet, picture
from ablation.analyse.tables import table
from ablation.analyse.tables.settings import format_setting, parse_setting
from ablation.analyse.verdict.verdict import StudyVerdict
from ablation.analyse.view import StudyView

Link = Callable[[str], str]
"""run_id -> the address of the run in MLflow's UI, or ''."""


def build(
    view: StudyView,
    verdict: StudyVerdict,
    artifacts: RunArtifacts,
    drawn: Mapping[str, tuple[Path, ...]],
    skipped: Mapping[str, str],
    examples: tuple[str, Sequence[Picture]],
    checks: Path | None = None,
    link: Link = lambda run_id: "",
) -> Page:
    """Collect the page.

    Args:
        view: with the verdicts in its arms table, see verdict.judged.
        drawn, skipped: as in report.ReportFiles.
        examples: what is to be said about them, and the pictures.
        checks: see data_audit.about_data.
    """
    # The verdict stands where a narrow screen still shows it.
    shown = Table.of(*text.arm_rows(view)).used().first("arm", "verdict")
    marked = frozenset(i for i, arm in enumerate(view.arms["arm"]) if arm == verdict.recommended)
    known = figures.discover()
    return Page(
        name=view.study.name,
        description=view.study.description,
        metric=view.metric,
        facts=_facts(view, verdict),
        answer=_answer(view, verdict),
        snippets=_snippets(view, verdict, artifacts),
        use_text=_use_text(verdict),
        arms=replace(shown, marked=marked),
        arm_notes=list(text.notes(view, verdict)),
        pictures=[
            picture(figure.name, figure.title, figure.caption_for(view), drawn[figure.name])
            for figure in known if figure.name in drawn
        ],
        not_drawn=[(figure.title, skipped[figure.name]) for figure in known if figure.name in skipped],
        examples_text=examples[0],
        examples=examples[1],
        data=about_data(view, artifacts, checks),
        held_notes=_held_notes(view, artifacts),
        held=_held(view),
        runs_text=_runs_text(view),
        runs=_runs(view, link),
        limits=verdict.limitations,
        made_with=f"Made by ablation {__version__} from the records of the study's runs.",
    )  # fmt: skip


def _facts(view: StudyView, verdict: StudyVerdict) -> list[tuple[str, str]]:
    arms = view.arms
    finished, planned = int(arms["n_finished"].sum()), int(arms["n_planned"].sum())
    n = sorted({int(count) for count in arms["n"]})
    seeds = str(n[-1]) if n[0] == n[-1] else f"{n[0]} to {n[-1]}"
    margin = "not declared" if verdict.margin is None else f"{verdict.margin:g}"
    if verdict.margin is not None and not verdict.declared_before:
        margin += " (not declared before the runs)"
    return [
        ("Compared by", view.metric),
        ("Smallest difference that matters", margin),
        ("Arms", str(len(arms))),
        ("Finished seeds per arm", seeds),
        ("Runs finished", f"{finished} of {planned}"),
        ("Intervals cover", verdict.covers),
    ]


def _sentence(words: str) -> str:
    """With a capital and a full stop."""
    return words[:1].upper() + words[1:] + ("" if words.endswith((".", "!", "?")) else ".")


def _answer(view: StudyView, verdict: StudyVerdict) -> Answer:
    """The verdict with the numbers that a reader asks for next."""
    main = verdict.headline
    kind = "none" if main is None or verdict.refused else main.comparison.verdict
    notes = []
    if verdict.refused:
        notes.append(_sentence(f"No verdict is drawn: {verdict.refused}"))
    if main is not None and sum(main.arms) > 2 and math.isfinite(main.optimism.value):
        notes.append(
            f"The two were chosen from {_count(main.arms[0], 'focal')} and {_count(main.arms[1], 'BCE')} for "
            "looking best. "
            f"The choice alone is worth about {main.optimism.value:+.3f}; less that, the difference of "
            f"{main.comparison.difference:+.3f} would be {main.corrected:+.3f}."
        )
    if main is not None and math.isfinite(main.comparison.correlation):
        one = main.comparison
        notes.append(
            f"Pairing by seed (correlation {one.correlation:.2f}) was worth {one.pairing_gain:.1f} times as "
            "many seeds."
        )
    return Answer(_sentence(verdict.sentence), kind.replace(" ", "-"), tuple(notes))


def _count(arms: int, kind: str) -> str:
    return f"{arms} {kind} {'arm' if arms == 1 else 'arms'}"


def _snippets(view: StudyView, verdict: StudyVerdict, artifacts: RunArtifacts) -> list[Snippet]:
    """Settings and thresholds of the recommended arm; without one, of the two that were compared."""
    names = dict(zip(view.arms["arm"], view.arms["setting"], strict=True))
    main = verdict.headline
    if verdict.recommended is not None:
        shown = [(verdict.recommended, f"Recommended: {names[verdict.recommended]}")]
    elif main is not None:
        shown = [
            (main.focal, f"The best focal arm, {names[main.focal]}"),
            (main.bce, f"The best BCE arm, {names[main.bce]}"),
        ]
    else:
        shown = []
    found = []
    for arm, about in shown:
        lines = use.overrides(view, arm)
        if not lines:
            continue
        best = use.arm_threshold(view, arm, artifacts)
        about += ". Overrides for ablation train"
        if best is not None:
            spread = f", seeds alone {best.low:.2f} to {best.high:.2f}" if best.curves > 1 else ""
            about += (
                ", and the score threshold with the highest mean F1 on val "
                f"(F1 {best.f1:.3f} at IoU 0.5{spread})"
            )
            lines = [" ".join(lines), f"score={best.score:.2f}"]
        else:
            lines = [" ".join(lines)]
        found.append(Snippet(about + ":", "\n".join(lines)))
    return found


def _use_text(verdict: StudyVerdict) -> str:
    """What to do with the lines."""
    where = (
        "The first line goes after ablation train, or as loss: and its settings into a sweep's file; score= "
        "goes to ablation predict. A loss moves its scores, so a threshold tuned for one arm does not fit "
        "another."
    )
    return (
        where
        if verdict.recommended
        else f"This study recommends no arm; these are the two it compared. {where}"
    )


def _held_notes(view: StudyView, artifacts: RunArtifacts) -> list[str]:
    notes = [view.held_text]
    batches: dict[int, set[tuple[str, str]]] = {}
    rows = view.runs[view.runs["valid"]]
    for run_id, seed in zip(rows["run_id"], rows["seed"], strict=True):
        own = artifacts.json("notes.json", run_id) or {}
        if "first_batch" in own and "last_batch" in own:
            batches.setdefault(int(seed), set()).add((own["first_batch"], own["last_batch"]))
    if batches:
        odd = sorted(seed for seed, found in batches.items() if len(found) > 1)
        notes.append(
            "With each seed all arms saw the same first and the same last batch (by their pixels' hash)."
            if not odd else
            f"NOT held fixed: with seed {', '.join(map(str, odd))} the arms did not see the same batches."
        )  # fmt: skip
    return notes


_WHERE_IT_RAN = ("data.cache", "data.cache_dir", "train.eval_batch_size")


def _held(view: StudyView) -> Table | None:
    """Settings that all runs share, one row for each group."""
    counted = set(view.runs.loc[view.runs["valid"], "run_id"])
    params = [run.params for run in view.study.runs if run.run_id in counted]
    if not params:
        return None
    groups: dict[str, list[str]] = {}
    for name in sorted(params[0]):
        shared = {one.get(name) for one in params}
        if table.is_free(name) or name in _WHERE_IT_RAN or len(shared) > 1:
            continue
        group, _, short = name.rpartition(".")
        value = parse_setting(params[0][name])
        groups.setdefault(group, []).append(f"{short} {format_setting(value)}")
    rows = [[group or "study", ", ".join(settings)] for group, settings in sorted(groups.items())]
    return Table.of(["group", "settings"], rows) if rows else None


def _runs_text(view: StudyView) -> str:
    counts = table.state_counts(view.runs)
    return (
        f"{counts}. Only FINISHED runs are data. The links work while ablation ui runs. A key stands for "
        "the whole configuration, the data and the version: equal keys are one run."
    )


def _runs(view: StudyView, link: Link) -> list[RunLine]:
    problems = table.problems(view.runs, view.metric)
    reasons = dict(zip(zip(problems["key"], problems["seed"], strict=True), problems["reason"], strict=True))
    lines = []
    for _, run in view.runs.iterrows():
        value = run.get(view.metric, math.nan)
        state = str(run["state"]) + (f", {run['problem']}" if run["problem"] else "")
        run_id = str(run["run_id"])
        lines.append(
            RunLine(
                setting=str(run["setting"]), seed=str(run["seed"]), state=state,
                reason=str(reasons.get((run["key"], run["seed"]), "")),
                value=f"{value:.3f}" if pd.notna(value) else "", key=str(run["key"])[:8], run_id=run_id[:8],
                link=link(run_id) if run_id else "", command=str(run["command"]),
            )
        )  # fmt: skip
    return lines
