"""A study and its verdict -> everything that the page shows, as plain texts and tables."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from ablation import __version__
from ablation.analyse import figures
from ablation.analyse.detections.run_files import RunArtifacts
from ablation.analyse.report import markdown
from ablation.analyse.report.data_section import data_section
from ablation.analyse.report.drawn_figures import DrawnFigures
from ablation.analyse.report.examples import Examples
from ablation.analyse.report.formats import Table
from ablation.analyse.report.html import Answer, Page, RunLine, Snippet, picture
from ablation.analyse.report.recommendation import arm_threshold, overrides
from ablation.analyse.report.settings import Link, ReportSettings
from ablation.analyse.report.settle_section import PathSection
from ablation.analyse.tables import table
from ablation.analyse.tables.held_fixed import is_free
from ablation.analyse.tables.settings import format_setting, parse_setting
from ablation.analyse.verdict.headline import Headline
from ablation.analyse.verdict.verdict import StudyVerdict
from ablation.analyse.view import StudyView
from ablation.records import metric_and_level


def build(
    view: StudyView,
    verdict: StudyVerdict,
    artifacts: RunArtifacts,
    drawn: DrawnFigures,
    examples: Examples,
    path: PathSection,
    settings: ReportSettings,
) -> Page:
    """Collect the page.

    Args:
        view: with the verdicts in its arms table, see verdict.judged.
    """
    recommended = frozenset(i for i, arm in enumerate(view.arms["arm"]) if arm == verdict.recommended)
    # The verdict comes second, where a narrow screen still shows it.
    arms = Table.of(*markdown.arm_rows(view)).used().first("arm", "verdict")
    discovered = figures.discover()
    return Page(
        name=view.study.name,
        description=view.study.description,
        metric=view.metric,
        facts=_facts(view, verdict),
        answer=_answer(view, verdict),
        snippets=_snippets(view, verdict, artifacts),
        use_text=_use_text(view, verdict),
        arms=replace(arms, marked=recommended),
        arm_notes=list(markdown.notes(view, verdict)),
        path=path.parts,
        pictures=[
            picture(figure.name, figure.title, figure.caption_for(view), drawn.files[figure.name])
            for figure in discovered
            if figure.name in drawn.files
        ],
        not_drawn=[
            (figure.title, drawn.skipped[figure.name])
            for figure in discovered
            if figure.name in drawn.skipped
        ],
        examples_text=examples.text,
        examples=[example.picture for example in examples.images],
        data=data_section(view, artifacts, settings.checks),
        held_notes=_held_notes(view, artifacts),
        held=_held(view),
        runs_text=_runs_text(view),
        runs=_runs(view, settings.link),
        limits=verdict.limitations,
        made_with=f"Made by ablation {__version__} from the records of the study's runs.",
    )


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


def _sentence(text: str) -> str:
    """With a capital and a full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _answer(view: StudyView, verdict: StudyVerdict) -> Answer:
    """The verdict with the numbers that a reader asks for next."""
    main = verdict.headline
    kind = "none" if main is None or verdict.refused else main.comparison.verdict
    notes = list(_not_declared(view))
    if verdict.refused:
        notes.append(_sentence(f"No verdict: {verdict.refused}"))
    if main is not None:
        notes += _headline_notes(main)
    notes += [verdict.confirmation_line] if verdict.confirmation_line else []
    return Answer(_sentence(verdict.sentence), kind.replace(" ", "-"), tuple(notes))


def _not_declared(view: StudyView) -> Iterator[str]:
    """Says so where the report is not the one that the study declared."""
    metric, level = metric_and_level(view.study.declared)
    if (view.metric, view.level) != (metric, level):
        comparison = f"{metric} with {100 * level:g}% intervals"
        if view.study.declared:
            yield f"This is not the comparison that the study declared, which is by {comparison}."
        else:
            yield f"This is not the study's main report, which is by {comparison}."


def _headline_notes(main: Headline) -> list[str]:
    """What choosing the two arms and pairing their seeds changed."""
    notes = []
    if sum(main.arms) > 2:
        notes.append(
            f"The two are the best of {_arms(main.arms[0], 'focal')} and of {_arms(main.arms[1], 'BCE')}, "
            "chosen by these values. Only fresh seeds tell how large their difference is, and whether it "
            "is small enough to be called equivalent."
        )
    if math.isfinite(main.comparison.correlation):
        notes.append(
            f"The values of equal seeds correlate by {main.comparison.correlation:.2f}: pairing them was "
            f"worth {main.comparison.pairing_gain:.1f} times as many seeds."
        )
    return notes


def _arms(count: int, kind: str) -> str:
    return f"{count} {kind} {'arm' if count == 1 else 'arms'}"


def _snippets(view: StudyView, verdict: StudyVerdict, artifacts: RunArtifacts) -> list[Snippet]:
    """Settings and thresholds of the recommended arm; without one, of the two that were compared."""
    setting = dict(zip(view.arms["arm"], view.arms["setting"], strict=True))
    main = verdict.headline
    titles: dict[str, str] = {}
    if verdict.recommended is not None:
        titles[verdict.recommended] = f"Recommended: {setting[verdict.recommended]}"
    elif main is not None:
        titles[main.focal] = f"The best focal arm, {setting[main.focal]}"
        titles[main.bce] = f"The best BCE arm, {setting[main.bce]}"
    snippets = (_snippet(view, arm, title, artifacts) for arm, title in titles.items())
    return [snippet for snippet in snippets if snippet is not None]


def _snippet(view: StudyView, arm: str, title: str, artifacts: RunArtifacts) -> Snippet | None:
    """The overrides of an arm, and its threshold where detections are there; None without a valid run."""
    settings = overrides(view, arm)
    if not settings:
        return None
    heading, lines = f"{title}. Overrides for ablation train", [" ".join(settings)]
    best = arm_threshold(view, arm, artifacts)
    if best is not None:
        seeds = f", single seeds {best.low:.2f} to {best.high:.2f}" if best.curves > 1 else ""
        heading += (
            f", and the score threshold with the highest mean F1 on val (F1 {best.f1:.3f} at IoU 0.5{seeds})"
        )
        lines.append(f"score={best.score:.2f}")
    return Snippet(heading + ":", "\n".join(lines))


def _use_text(view: StudyView, verdict: StudyVerdict) -> str:
    """What to do with the lines."""
    if view.held.command:
        usage = (
            "The first line goes into a sweep's file as an arm; score= is for your own detector. A loss "
            "moves its scores, so a threshold tuned for one arm does not fit another."
        )
        return usage if verdict.recommended else f"{_NO_ARM} {usage}"
    usage = (
        "The first line goes after ablation train, or into a sweep's file as an arm; score= goes to ablation "
        "predict. A loss moves its scores, so a threshold tuned for one arm does not fit another."
    )
    if verdict.recommended:
        return usage
    return f"{_NO_ARM} {usage}"


_NO_ARM = "This study recommends no arm; these are the two that it compared."


def _held_notes(view: StudyView, artifacts: RunArtifacts) -> list[str]:
    notes = [view.held_text]
    batches: dict[int, set[tuple[str, str]]] = defaultdict(set)
    rows = view.runs[view.runs["valid"]]
    for run_id, seed in zip(rows["run_id"], rows["seed"], strict=True):
        hashes = artifacts.json("notes.json", run_id) or {}
        if "first_batch" in hashes and "last_batch" in hashes:
            batches[int(seed)].add((hashes["first_batch"], hashes["last_batch"]))
    different = sorted(seed for seed, pairs in batches.items() if len(pairs) > 1)
    if different:
        seeds = ", ".join(map(str, different))
        notes.append(f"NOT held fixed: with seed {seeds} the arms did not see the same batches.")
    elif batches:
        notes.append("With each seed all arms saw the same first and last batch (by their pixels).")
    return notes


def _held(view: StudyView) -> Table | None:
    """Settings that all runs share, one row for each group."""
    valid = set(view.runs.loc[view.runs["valid"], "run_id"])
    configurations = [run.params for run in view.study.runs if run.run_id in valid]
    if not configurations:
        return None
    groups: dict[str, list[str]] = defaultdict(list)
    for name, text in sorted(configurations[0].items()):
        values = {params.get(name) for params in configurations}
        if is_free(name) or len(values) > 1:
            continue
        group, _, short = name.rpartition(".")
        groups[group].append(f"{short} {format_setting(parse_setting(text))}")
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
    return [_run_line(run, view.metric, reasons, link) for _, run in view.runs.iterrows()]


def _run_line(run: pd.Series, metric: str, reasons: dict[tuple[str, int], str], link: Link) -> RunLine:
    value, run_id = run.get(metric, math.nan), str(run["run_id"])
    return RunLine(
        setting=str(run["setting"]),
        seed=str(run["seed"]),
        state=str(run["state"]) + (f", {run['problem']}" if run["problem"] else ""),
        reason=str(reasons.get((run["key"], run["seed"]), "")),
        value=f"{value:.3f}" if pd.notna(value) else "",
        key=str(run["key"])[:8],
        run_id=run_id[:8],
        link=link(run_id) if run_id else "",
        command=str(run["command"]),
    )
