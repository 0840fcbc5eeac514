"""What a study would do, as a person reads it."""

from __future__ import annotations

import logging

from rich.console import Group, RenderableType
from rich.text import Text

from ablation.errors import UsageError, counted
from ablation.files import size_text
from ablation.study.execute import Prepared
from ablation.study.forecast.costs import OWN_TRAINER, Cost, Shape, as_text
from ablation.study.forecast.forecast import Capacity, StudyPlan, shape_of
from ablation.study.forecast.measure import measure
from ablation.study.pace import clock
from ablation.study.run_status import run_status
from ablation.study.terminal import status_table as show

log = logging.getLogger(__name__)


def rendered(plan: StudyPlan, launched: set[str]) -> RenderableType:
    """The runs, then time and disk.

    Args:
        launched: statuses that a launch would take up.
    """
    counts = {name: sum(run.status == name for run in plan.runs) for name in show.STYLES}
    head = Text(f"study {plan.study}  ", "bold").append_text(show.counts_line(counts, len(plan.runs)))
    return Group(
        head,
        show.table(plan.runs, plan.analysis.metric, left="takes"),
        *show.notes(plan.runs),
        *(Text(line) for line in [*_time(plan, launched), *_left_alone(plan, launched)]),
        *_other_data(plan),
        Text(_disk(plan), "bold red" if plan.disk_needed > plan.disk_free else ""),
    )


def _time(plan: StudyPlan, launched: set[str]) -> list[str]:
    todo = [run for run in plan.runs if run.status in launched]
    if not todo:
        return ["time   nothing to do"]
    slots, threads = plan.capacity.slots, plan.capacity.threads
    beside = f"{min(slots, len(todo))} at a time"
    if any(shape.threads for shape in [*plan.costs, *plan.unknown]):
        beside += f", {threads} thread{'s' * (threads > 1)} each"
    if plan.wall_s is not None and plan.machine_s is not None:
        runs = f"{len(todo)} run{'s' * (len(todo) > 1)}, {beside}"
        lines = [f"time   about {clock(plan.wall_s)} for {runs}; {clock(plan.machine_s)} of run time in all"]
    else:
        unknown = sum(run.left_s is None for run in todo)
        of_all = f"{unknown} of {counted(len(todo), 'run')}"
        own = all(shape.device == OWN_TRAINER for shape in plan.unknown)
        how = "the first run of a trainer of your own tells" if own else "measure=true times a few real steps"
        lines = [f"time   unknown for {of_all}: {how}"]
    for shape, cost in plan.costs.items():
        speed = f"{1 / cost.train_s:.0f} images/s" if cost.train_s < 1 else f"{cost.train_s:.1f} s an image"
        if shape.device == OWN_TRAINER:
            speed = f"{cost.train_s:.1f} s an epoch"
        lines.append(f"       {as_text(shape)}: {speed}, {cost.source}")
    return lines + [f"       {as_text(shape)}: not known" for shape in plan.unknown]


def _left_alone(plan: StudyPlan, launched: set[str]) -> list[str]:
    failed = sum(run.status == "failed" for run in plan.runs)
    pruned = sum(run.status == "pruned" for run in plan.runs)
    lines = []
    if failed and "failed" not in launched:
        lines.append(f"       {failed} failed before and would be left alone; retry=failed redoes them")
    if pruned and "pruned" not in launched:
        lines.append(
            f"       {pruned} pruned before and would be left alone; halving.enabled=false takes them up"
        )
    return lines


def _other_data(plan: StudyPlan) -> list[Text]:
    if plan.other_data is None:
        return []
    if plan.replace:
        return [Text(f"data   {plan.other_data.warning(plan.data)}", "yellow")]
    return [Text(f"data   a launch is refused: {plan.other_data.refusal(plan.data)}", "bold red")]


def _disk(plan: StudyPlan) -> str:
    if not plan.disk_needed:
        return f"disk   nothing more; {size_text(plan.disk_free)} free"
    enough = "" if plan.disk_needed <= plan.disk_free else ": NOT ENOUGH"
    needed, free = size_text(plan.disk_needed), size_text(plan.disk_free)
    return f"disk   {needed} more (from {plan.disk_source}), {free} free{enough}"


def measured(runs: list[Prepared], capacity: Capacity, launched: set[str]) -> dict[Shape, Cost]:
    """Time each distinct shape of the runs that would be launched; says which, as it takes a while."""
    todo = [run for run in runs if run_status(run.folder) in launched]
    if any(run.command is not None for run in todo):
        raise UsageError("measure=true: a trainer of your own cannot be timed by steps; its first run tells")
    distinct: dict[Shape, Prepared] = {}
    for run in todo:
        distinct.setdefault(shape_of(run, capacity), run)
    costs = {}
    for shape, run in distinct.items():
        log.info("measuring %s", as_text(shape))
        threads = run.config.train.threads or capacity.threads
        costs[shape] = measure(run, min(capacity.slots, len(todo)), threads)
    return costs
