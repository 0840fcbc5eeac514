"""The rules of going on, with made-up trainings: failed runs, budgets, ties of nothing trained twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ablation.commands.settle import settle as settle_file
from ablation.commands.settle.runs import Stage
from ablation.commands.settle.settle import Settling
from ablation.commands.settle.state import Budget, Settled
from ablation.commands.settle.text import answer, summary
from ablation.errors import AblationError, UsageError
from ablation.files import write_json
from ablation.records import Declaration, Plan, PlannedRun
from ablation.rng import generator
from ablation.study.plan_file import plan_file
from ablation.tracking.folder_record import folder_of
from ablation.tracking.study_folder import read_plan

pytestmark = pytest.mark.slow
Value = Callable[[str, int], float]
ARMS = (
    "arms=[{loss: bce},{loss: bce,loss.pos_weight: 2},{loss: varifocal},"
    "{loss: focal,loss.alpha: 0.25,loss.gamma: [1,2]}]"
)
HOUR_S = 3600.0


class Trainings:
    """In place of Stage.launch: writes the folders of runs with made-up values.

    Attributes:
        launched: every run that was trained, in order.
    """

    def __init__(self, value: Value, failing: set[tuple[str, int]] | None = None) -> None:
        self.value, self.failing = value, failing or set()
        self.launched: list[tuple[str, int]] = []

    def launch(
        self, stage: Stage, arms: Sequence[str], seeds: Sequence[int], analysis: dict[str, object]
    ) -> None:
        """As Stage.launch: what has ended is left alone; raises where a run failed."""
        path = plan_file(stage.out, stage.study)
        plan = read_plan(path)
        known = {(run.arm, run.seed): run for run in plan.runs}
        for seed in seeds:
            for arm in arms:
                params = stage.arms[arm].params
                known.setdefault(
                    (arm, seed), PlannedRun(arm, seed, f"{arm} {seed}", f"ablation train seed={seed}", params)
                )
        fields = {name: tuple(v) if isinstance(v, list) else v for name, v in analysis.items()}
        declared = plan.declared or [Declaration(**fields)]  # type: ignore[arg-type]
        write_json(path, Plan(list(known.values()), declared).to_json())
        failed = []
        for seed in seeds:
            for arm in arms:
                folder = folder_of(stage.out, stage.study, known[arm, seed])
                if folder.state in ("FINISHED", "DIVERGED"):
                    continue
                self.launched.append((arm, seed))
                folder.path.mkdir(parents=True, exist_ok=True)
                if (arm, seed) in self.failing:
                    folder.set_state("FAILED", "planted")
                    failed.append(f"{arm} seed {seed}")
                    continue
                folder.append_metrics(1, {"val/AP": self.value(arm, seed), "time/train_s": HOUR_S})
                folder.set_state("FINISHED")
        if failed:
            raise AblationError(f"runs failed: {', '.join(failed)}")


def noisy(shift: dict[str, float], sd: float) -> Value:
    """An arm's mean plus noise that depends on arm and seed."""
    return lambda arm, seed: 0.5 + shift.get(arm, 0.0) + float(generator(seed, arm).normal(0, sd))


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Trainings]:
    """A function that plants trainings in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(settle_file, "has_test_split", lambda run: False)

    def plant(value: Value, failing: set[tuple[str, int]] | None = None) -> Trainings:
        made = Trainings(value, failing)
        monkeypatch.setattr(Stage, "launch", lambda stage, *rest: made.launch(stage, *rest))
        return made

    return plant


def settled(margin: float = 0.05, max_seeds: int = 6, **budget: float) -> Settled:
    """One launch."""
    arguments = ["study=q", ARMS, f"analysis.margin={margin}", "data.cache=none", "hydra.launcher.slots=2"]
    limits = Budget(budget.get("hours"), int(budget["runs"]) if "runs" in budget else None)
    return Settling(arguments, max_seeds, limits).go_on()


def test_other_losses_are_one_side_and_the_whole_way_trains_no_run_twice(
    trainings: Callable[..., Trainings],
) -> None:
    made = trainings(noisy({"focal-alpha=0.25-gamma=2": 0.3}, 0.01))
    state = settled()
    assert set(state.design.arms["others"]) >= {"focal-alpha=0.25-gamma=1", "focal-alpha=0.25-gamma=2"}
    assert len(state.design.arms["others"]) == 3 and len(state.design.arms["bce"]) == 2
    assert state.decision is not None and state.decision.verdict == "better"
    assert len(set(made.launched)) == len(made.launched) == state.spent.runs
    again = settled()
    assert again == state and len(made.launched) == state.spent.runs


def test_a_budget_ends_it_inconclusive_and_a_larger_one_goes_on_with_the_same_design(
    trainings: Callable[..., Trainings],
) -> None:
    value = noisy({}, 0.05)
    trainings(value)
    whole = settled(margin=0.08)
    made = trainings(value)
    limits = [3.0, 5.0, None]  # hours; a run takes one, on one of two slots
    states = []
    for name in ("settle.json",):
        (Path("runs") / "q" / name).unlink()
    for folder in ("q_explore", "q_decide"):
        Path("runs", folder).rename(Path(f"former_{folder}"))
    for hours in limits:
        states.append(settled(margin=0.08) if hours is None else settled(margin=0.08, hours=hours))
    for hours, state in zip(limits[:-1], states, strict=False):
        assert state.spent.hours <= float(hours or 0) and state.stopped
        assert answer(state).startswith("Inconclusive within the budget")
        assert "more runs" in "\n".join(summary(state))
    assert len({tuple(state.design.looks) for state in states}) == 1
    assert states[-1].exploration == whole.exploration and states[-1].decision == whole.decision
    assert len(set(made.launched)) == len(made.launched)
    with pytest.raises(UsageError, match="margin"):
        settled(margin=0.09)


def test_a_failed_run_stops_it_and_the_same_command_goes_on_where_it_was(
    trainings: Callable[..., Trainings],
) -> None:
    value = noisy({"focal-alpha=0.25-gamma=2": 0.3}, 0.01)
    made = trainings(value, failing={("bce", 0)})
    with pytest.raises(AblationError, match="bce seed 0"):
        settled()
    assert len(made.launched) == 5  # the others of the round were trained all the same
    made = trainings(value)
    state = settled()
    assert made.launched[0] == ("bce", 0) and state.decision is not None
    assert state.decision.verdict == "better"
