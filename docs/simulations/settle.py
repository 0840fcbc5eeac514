"""How often a whole `ablation settle` is right, and what it costs, on simulated studies.

    python docs/simulations/settle.py [--studies 4000] [--only KEYWORD]

Nine arms a side. A run's metric is its arm's mean plus noise; the unit is the standard deviation of a
paired difference of two runs. Compared with a grid of 18 arms x 3 seeds whose best two arms are confirmed
on 6 fresh seeds (66 runs). Everything that decides is the product's own code.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from ablation.analyse.statistics.sequential import PriorSpread, outcomes, sequential_design
from ablation.commands.settle.design import LOOKS, SPENDING
from ablation.commands.settle.exploration import BCE, MOST_SEEDS, OTHERS, explore

ARMS, SD = 9, np.sqrt(0.5)
SIDES = {side: tuple(f"{side}{i}" for i in range(ARMS)) for side in (OTHERS, BCE)}
Noise = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Normal noise."""
    return rng.standard_normal(shape)


def long_tail(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A long lower tail: 1 - Exp(1)."""
    return 1 - rng.exponential(size=shape)


def collapses(share: float, depth: float) -> Noise:
    """A run in `share` of all loses `depth` standard deviations."""

    def noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        values = rng.standard_normal(shape) - depth * (rng.random(shape) < share)
        return (values + depth * share) / np.sqrt(1 + depth**2 * share * (1 - share))

    return noise


def heavy(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Student's t with 3 degrees of freedom."""
    return rng.standard_t(3, shape) / np.sqrt(3)


def one_settle(
    rng: np.random.Generator,
    means: np.ndarray,
    noise: tuple[Noise, Noise],
    scale: tuple[float, float],
    margin: float,
    kind: str,
) -> tuple[float, float, int, int]:
    """-> decision, true difference of the finalists, exploration runs, all runs."""
    design = sequential_design(LOOKS, exponent=SPENDING)
    values = np.stack(
        [means[i][:, None] + SD * scale[i] * noise[i](rng, (ARMS, MOST_SEEDS)) for i in range(2)]
    )
    results = {
        (arm, seed): float(values[i, a, seed])
        for i, side in enumerate((OTHERS, BCE))
        for a, arm in enumerate(SIDES[side])
        for seed in range(MOST_SEEDS)
    }
    state = explore(SIDES, range(MOST_SEEDS), results)
    used = sum(len(arms) for r in state.rounds for arms in r.arms.values())
    f, b = (SIDES[side].index(state.finalists[side]) for side in (OTHERS, BCE))
    true = float(means[0][f] - means[1][b])
    seeds = [
        sum(state.finalists[side] in r.arms.get(side, ()) for r in state.rounds) for side in (OTHERS, BCE)
    ]
    fresh = [SD * scale[i] * noise[i](rng, (1, LOOKS[-1])) for i in range(2)]
    prior = None
    if kind == "pooled":
        prior = state.spread
    elif kind == "own":
        a, c = values[0, f, : seeds[0]], values[1, b, : seeds[1]]
        va, vc, na, nc = (
            *(np.var(v, ddof=1) if len(v) > 1 else 0.0 for v in (a, c)),
            seeds[0] - 1,
            seeds[1] - 1,
        )
        if na > 0 and nc > 0:
            total = va + vc
            prior = PriorSpread(total, total**2 / (va**2 / na + vc**2 / nc))
    result = outcomes(true + fresh[0] - fresh[1], design, margin, prior)
    return float(result.decided[0]), true, used, used + 2 * LOOKS[int(result.look[0])]


def row(
    studies: int,
    effect: float,
    margin: float,
    noise=(normal, normal),
    scale=(1.0, 1.0),
    kind="none",
    spread=0.0,
    seed=0,
    everyone=False,
):
    rng = np.random.default_rng(seed)
    right = wrong_diff = wrong_eq = runs = explored = 0
    scale = np.array(scale) * np.sqrt(2 / (scale[0] ** 2 + scale[1] ** 2))
    regret = 0.0
    for _ in range(studies):
        means = rng.normal(0, spread, (2, ARMS)) if spread else np.zeros((2, ARMS))
        if everyone:
            means[0] += effect
        else:
            means[0, 0] += effect
        decision, true, used, total = one_settle(rng, means, noise, tuple(scale), margin, kind)
        wanted = np.sign(effect) if abs(effect) >= margin else 0.0 if effect == 0 else np.nan
        right += decision == wanted
        wrong_eq += decision == 0 and abs(true) >= margin
        wrong_diff += (decision > 0 and true <= 0) or (decision < 0 and true >= 0)
        runs += total
        explored += used
        regret += means[0].max() - means[0].max() + (means.max(1) - 0).sum() * 0
    return [
        100 * right / studies,
        100 * wrong_diff / studies,
        100 * wrong_eq / studies,
        runs / studies,
        explored / studies,
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--studies", type=int, default=1000)
    n = parser.parse_args().studies
    lt, c6, c20 = long_tail, collapses(1 / 6, 3), collapses(1 / 6, 10)
    for kind in ("pooled",):
        print(kind)
        for name, args in {
            "all equal, margin 1": (0, 1),
            "all equal, margin 1.5": (0, 1.5),
            "one +.5": (0.5, 1),
            "one +1": (1, 1),
            "one +1.5": (1.5, 1),
            "one +2": (2, 1),
        }.items():
            print(f"  {name:24}", *(f"{v:7.1f}" for v in row(n, *args, kind=kind)), flush=True)
        for name, noise, scale in (
            ("normal", (normal, normal), (1, 1)),
            ("t3", (heavy, heavy), (1, 1)),
            ("arm noisier 3x", (normal, normal), (3, 1)),
            ("long tail arm", (lt, normal), (3, 1)),
            ("long tail both", (lt, lt), (1, 1)),
            ("collapse 1/6 x3", (c6, normal), (2, 1)),
            ("collapse 1/6 x10", (c20, normal), (3, 1)),
        ):
            a = row(n, 0, 1, noise, scale, kind)
            e = row(n, 1, 1, noise, scale, kind, everyone=True)
            f = row(n, -1, 1, noise, scale, kind, everyone=True)
            print(
                f"  {name:24} null wrong {a[1]:.1f}  edge+ eq {e[2]:.1f} edge- eq {f[2]:.1f} "
                f"right {a[0]:.0f} {e[0]:.0f} {f[0]:.0f} runs {a[3]:.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
