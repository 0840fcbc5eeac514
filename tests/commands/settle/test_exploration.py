"""Which arms leave the exploration, on hand-worked results."""

from __future__ import annotations

import numpy as np
import pytest

from ablation.commands.settle.exploration import BCE, OTHERS, Exploration, explore

SEEDS = range(6)


def all_of(values: dict[str, list[float | None]]) -> dict[tuple[str, int], float | None]:
    return {(arm, seed): value for arm, row in values.items() for seed, value in enumerate(row)}


def test_first_round_asks_for_every_arm_on_the_first_seed() -> None:
    state = explore({OTHERS: ("f1", "f2"), BCE: ("b1", "b2")}, SEEDS, {})
    assert state.missing == (("f1", 0), ("f2", 0), ("b1", 0), ("b2", 0))
    assert not state.finalists and not state.done


def test_an_open_round_decides_nothing() -> None:
    state = explore({OTHERS: ("f1", "f2"), BCE: ("b1", "b2")}, SEEDS, {("f1", 0): 0.9, ("b1", 0): 0.1})
    assert state.missing == (("f2", 0), ("b2", 0))
    assert state.rounds[-1].left == {}


def test_after_the_first_round_two_fifths_stay() -> None:
    values = {f"f{i}": [0.1 * i] for i in range(9)} | {"b": [0.5], "c": [0.4]}
    state = explore({OTHERS: [f"f{i}" for i in range(9)], BCE: ("b", "c")}, SEEDS, all_of(values))
    assert set(state.rounds[0].left) == {"f0", "f1", "f2", "f3", "f4"}  # 0.4 x 9 rounded up: 4 stay
    assert {arm for arm, _ in state.missing} == {"f5", "f6", "f7", "f8", "b", "c"}


def test_an_arm_that_clearly_trails_its_own_leader_leaves() -> None:
    values: dict[str, list[float | None]] = {
        "f1": [0.50, 0.52], "f2": [0.30, 0.31], "b1": [0.41, 0.40], "b2": [0.40, 0.41],
    }  # fmt: skip
    state = explore({OTHERS: ("f1", "f2"), BCE: ("b1", "b2")}, SEEDS, all_of(values))
    # sums of squares .0002 + .00005 on 2 df, and .00005 + .00005 on 2 df
    assert state.spread.variance == pytest.approx(0.000125 + 0.00005)
    assert state.spread.df == pytest.approx(0.000175**2 / (0.000125**2 / 2 + 0.00005**2 / 2))
    assert set(state.rounds[1].left) == {"f2", "b2"}  # b1 = b2, but both trail f1: one is enough
    assert state.finalists == {OTHERS: "f1", BCE: "b1"}
    assert state.done


def test_equal_arms_go_on_to_the_last_seed_and_the_first_named_wins_a_tie() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, 6)
    values = {arm: list(0.5 + noise) for arm in ("f1", "f2", "b1", "b2")}
    state = explore({OTHERS: ("f1", "f2"), BCE: ("b1", "b2")}, SEEDS, all_of(values))
    assert len(state.rounds) == 6 and not any(one.left for one in state.rounds)
    assert state.finalists == {OTHERS: "f1", BCE: "b1"}


def test_a_side_with_one_arm_is_not_trained_in_the_exploration() -> None:
    state = explore({OTHERS: ("f1", "f2"), BCE: ("b",)}, SEEDS, {})
    assert {arm for arm, _ in state.missing} == {"f1", "f2"}
    values = all_of({"f1": [0.5, 0.5, 0.5], "f2": [0.1, 0.1, 0.1]})
    assert explore({OTHERS: ("f1", "f2"), BCE: ("b",)}, SEEDS, values).finalists[BCE] == "b"


def test_one_arm_a_side_needs_no_exploration() -> None:
    state = explore({OTHERS: ("f",), BCE: ("b",)}, SEEDS, {})
    assert state.done and state.finalists == {OTHERS: "f", BCE: "b"} and state.spread.df == 0


def test_an_arm_that_diverges_leaves_at_once() -> None:
    values = all_of({"f1": [None], "f2": [0.2], "b1": [0.3], "b2": [0.3]})
    state = explore({OTHERS: ("f1", "f2"), BCE: ("b1", "b2")}, SEEDS, values)
    assert "diverged" in state.rounds[0].left["f1"]
    assert {arm for arm, _ in state.missing} == {"b1", "b2"}


def test_a_side_whose_every_arm_diverged_ends_it() -> None:
    values = all_of({"f1": [None], "f2": [None], "b1": [0.3], "b2": [0.3]})
    state = explore({OTHERS: ("f1", "f2"), BCE: ("b1", "b2")}, SEEDS, values)
    assert state.lost == (OTHERS,) and state.done and not state.finalists


def test_a_side_without_arms_is_refused() -> None:
    with pytest.raises(ValueError, match=BCE):
        explore({OTHERS: ("f",), BCE: ()}, SEEDS, {})


def test_the_path_depends_on_finished_runs_alone() -> None:
    """Results in any order, and those of later rounds, lead to the same state."""
    rng = np.random.default_rng(1)
    values = {f"{side}{i}": list(rng.normal(0.5, 0.1, 6)) for side in "fb" for i in range(9)}
    sides = {OTHERS: [f"f{i}" for i in range(9)], BCE: [f"b{i}" for i in range(9)]}
    whole = explore(sides, SEEDS, all_of(values))  # type: ignore[arg-type]
    results: dict[tuple[str, int], float | None] = {}
    trained = 0
    while True:
        state: Exploration = explore(sides, SEEDS, results)
        if state.done:
            break
        for place in rng.permutation(np.array(state.missing, dtype=object)):
            results[str(place[0]), int(place[1])] = values[place[0]][int(place[1])]
            trained += 1
            explore(sides, SEEDS, results)
    assert state == whole
    assert trained == sum(len(arms) for one in whole.rounds for arms in one.arms.values())
