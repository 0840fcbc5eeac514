"""How often a whole `ablation settle` is right, and what it costs, on simulated studies.

    python docs/simulations/settle.py [--studies 4000] > docs/simulations/settle.md

Nine arms a side. A run's metric is its arm's mean plus noise; the unit is the standard deviation of a
paired difference of two runs (seeds give no correlation, so nothing is gained from pairing). It is
compared with a grid of 18 arms x 3 seeds whose two best arms are confirmed on 6 fresh seeds: 66 runs.
Everything that decides is the product's own code.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from ablation.analyse.statistics.sequential import outcomes, sequential_design
from ablation.commands.settle.design import LOOKS, SPENDING
from ablation.commands.settle.exploration import BCE, MOST_SEEDS, OTHERS, explore

ARMS, SD = 9, float(np.sqrt(0.5))
SIDES = {side: tuple(f"{side}{number}" for number in range(ARMS)) for side in (OTHERS, BCE)}
DESIGN = sequential_design(LOOKS, exponent=SPENDING)
GRID_SEEDS, CONFIRM_SEEDS = 3, 6

Noise = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Normal noise."""
    return rng.standard_normal(shape)


def heavy(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Student's t with 3 degrees of freedom."""
    return rng.standard_t(3, shape) / np.sqrt(3)


def long_tail(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A long lower tail: 1 - Exp(1)."""
    return 1 - rng.exponential(size=shape)


def collapses(share: float, depth: float) -> Noise:
    """A run in `share` of all loses `depth` standard deviations of the others."""

    def noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        values = rng.standard_normal(shape) - depth * (rng.random(shape) < share)
        return (values + depth * share) / np.sqrt(1 + depth**2 * share * (1 - share))

    return noise


@dataclass(frozen=True)
class Case:
    """What is true in a simulated study.

    Attributes:
        effect: by which one arm of the other losses is better.
        everywhere: by which all of them are, so that whatever finalist has this difference.
        margin: of equivalence.
        noise, scale: of the other losses and of BCE; the scales' squares are made to add up to 2.
    """

    effect: float = 0.0
    everywhere: float = 0.0
    margin: float = 1.0
    noise: tuple[Noise, Noise] = (normal, normal)
    scale: tuple[float, float] = (1.0, 1.0)

    def means(self) -> np.ndarray:
        """(2, arms)."""
        means = np.zeros((2, ARMS))
        means[0] += self.everywhere
        means[0, 0] += self.effect
        return means

    def draw(self, rng: np.random.Generator, side: int, shape: tuple[int, ...]) -> np.ndarray:
        """Noise of the runs of one side."""
        unit = np.sqrt(2 / (self.scale[0] ** 2 + self.scale[1] ** 2))
        return SD * unit * self.scale[side] * self.noise[side](rng, shape)


@dataclass(frozen=True)
class End:
    """How one study ended: decision (+1, -1, 0, NaN), true difference of the finalists, runs."""

    decided: float
    true: float
    explored: int
    runs: int


def settle(case: Case, rng: np.random.Generator) -> End:
    """One settle from the exploration to the verdict."""
    means = case.means()
    values = [means[side][:, None] + case.draw(rng, side, (ARMS, MOST_SEEDS)) for side in range(2)]
    results: dict[tuple[str, int], float | None] = {
        (arm, seed): float(values[side][number, seed])
        for side, name in enumerate((OTHERS, BCE))
        for number, arm in enumerate(SIDES[name])
        for seed in range(MOST_SEEDS)
    }
    state = explore(SIDES, range(MOST_SEEDS), results)
    explored = sum(len(arms) for one in state.rounds for arms in one.arms.values())
    finalists = [SIDES[name].index(state.finalists[name]) for name in (OTHERS, BCE)]
    true = float(means[0, finalists[0]] - means[1, finalists[1]])
    fresh = [case.draw(rng, side, (1, LOOKS[-1])) for side in range(2)]
    end = outcomes(true + fresh[0] - fresh[1], DESIGN, case.margin, state.spread)
    return End(float(end.decided[0]), true, explored, explored + 2 * LOOKS[int(end.look[0])])


def grid_and_confirm(case: Case, rng: np.random.Generator) -> End:
    """The fixed grid, and the ordinary tests on the fresh seeds of its two best arms."""
    means = case.means()
    best = [
        int((means[side] + case.draw(rng, side, (GRID_SEEDS, ARMS)).mean(axis=0)).argmax())
        for side in range(2)
    ]
    true = float(means[0, best[0]] - means[1, best[1]])
    fresh = [case.draw(rng, side, (1, CONFIRM_SEEDS)) for side in range(2)]
    end = outcomes(true + fresh[0] - fresh[1], sequential_design((CONFIRM_SEEDS,)), case.margin)
    explored = 2 * ARMS * GRID_SEEDS
    return End(float(end.decided[0]), true, explored, explored + 2 * CONFIRM_SEEDS)


def shares(ends: Iterable[End], case: Case) -> tuple[float, float, float, float]:
    """Right verdicts, false "better" or "worse", false "equivalent" (in %), mean number of runs."""
    ends = list(ends)
    difference = case.effect or case.everywhere
    wanted = 0.0 if abs(difference) < case.margin else np.sign(difference)
    right = np.mean([end.decided == wanted for end in ends])
    false = np.mean([end.decided * end.true <= 0 and abs(end.decided) == 1 for end in ends])
    equivalent = np.mean([end.decided == 0 and abs(end.true) >= case.margin for end in ends])
    return (
        100 * float(right),
        100 * float(false),
        100 * float(equivalent),
        float(np.mean([e.runs for e in ends])),
    )


POWER = {
    "all equal, margin 1": Case(),
    "all equal, margin 1.5": Case(margin=1.5),
    "all equal, margin 2": Case(margin=2.0),
    "one arm better by 0.5, margin 1": Case(effect=0.5),
    "one arm better by 1, margin 1": Case(effect=1.0),
    "one arm better by 1.5, margin 1": Case(effect=1.5),
    "one arm better by 2, margin 1": Case(effect=2.0),
}
TAILS: dict[str, tuple[tuple[Noise, Noise], tuple[float, float]]] = {
    "normal": ((normal, normal), (1, 1)),
    "Student's t, 3 df": ((heavy, heavy), (1, 1)),
    "the other losses 3 x noisier": ((normal, normal), (3, 1)),
    "long lower tail, BCE quiet": ((long_tail, normal), (3, 1)),
    "long lower tail on both sides": ((long_tail, long_tail), (1, 1)),
    "1 run in 6 loses 3 sd": ((collapses(1 / 6, 3), normal), (2, 1)),
    "1 run in 6 loses 10 sd": ((collapses(1 / 6, 10), normal), (3, 1)),
    "1 run in 20 loses 10 sd": ((collapses(1 / 20, 10), normal), (3, 1)),
}


def main() -> None:
    """Print the two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=4000)
    count = parser.parse_args().studies
    print("| true | settle: right | its runs | grid + confirm: right | its runs |\n|---|---|---|---|---|")
    for number, (name, case) in enumerate(POWER.items()):
        rng = np.random.default_rng(number)
        ours = shares((settle(case, rng) for _ in range(count)), case)
        grid = shares((grid_and_confirm(case, rng) for _ in range(count)), case)
        print(f"| {name} | {ours[0]:.0f} % | {ours[3]:.1f} | {grid[0]:.0f} % | {grid[3]:.0f} |", flush=True)
    print("\n| noise | false better/worse, all equal | false equivalent, +1 | false equivalent, -1 |")
    print("|---|---|---|---|")
    for number, (name, (noise, scale)) in enumerate(TAILS.items(), 100):
        rng = np.random.default_rng(number)
        errors = []
        for everywhere, place in ((0.0, 1), (1.0, 2), (-1.0, 2)):
            case = Case(everywhere=everywhere, noise=noise, scale=scale)
            errors.append(shares((settle(case, rng) for _ in range(count)), case)[place])
        print(f"| {name} | " + " | ".join(f"{error:.1f} %" for error in errors) + " |", flush=True)


if __name__ == "__main__":
    main()
