"""The headline of simulated studies: how often it is wrong, and whether the corrected difference is better.

    python docs/simulations/headline.py

Normal values; the unit is the standard deviation of a paired difference of two runs. Errors are counted
against the true difference of the two arms that were chosen. The functions of the product that decide are
vectorised here by their definition (t test, TOST, Holm); `headline.py` has the rule itself.
"""

from __future__ import annotations

import itertools

import numpy as np
from scipy import special

STUDIES, SD, MARGIN, ALPHA = 20_000, np.sqrt(0.5), 1.0, 0.05


def draw(rng: np.random.Generator, means: np.ndarray, seeds: int, studies: int) -> np.ndarray:
    """(studies, arms, seeds)."""
    return means[:, None] + SD * rng.standard_normal((studies, len(means), seeds))


def holm_of(p: np.ndarray, arm: np.ndarray) -> np.ndarray:
    """Holm's p of one arm of each study; p is (studies, arms)."""
    steps = np.maximum.accumulate(np.sort(p, 1) * np.arange(p.shape[1], 0, -1), 1)
    rank = np.argsort(np.argsort(p, 1), 1)
    rows = np.arange(len(p))
    return np.minimum(steps[rows, rank[rows, arm]], 1)


def errors(focal: np.ndarray, bce: np.ndarray, seeds: int) -> dict[str, float]:
    """Shares of studies, in %: false better or worse and false equivalent, before and after."""
    rng = np.random.default_rng(0)
    a, b = draw(rng, focal, seeds, STUDIES), draw(rng, bce, seeds, STUDIES)
    rows = np.arange(STUDIES)
    best, rival = a.mean(2).argmax(1), b.mean(2).argmax(1)
    true = focal[best] - bce[rival]
    d = a[rows, best] - b[rows, rival]
    error = d.std(1, ddof=1) / np.sqrt(seeds)
    p = 2 * special.stdtr(seeds - 1, -np.abs(d.mean(1)) / error)
    tost = special.stdtr(seeds - 1, (np.abs(d.mean(1)) - MARGIN) / error)
    against = a - b[:, :1]  # the first BCE arm is the baseline
    every = 2 * special.stdtr(seeds - 1, -np.abs(against.mean(2)) / (against.std(2, ddof=1) / np.sqrt(seeds)))
    adjusted, sign = holm_of(every, best), np.sign(d.mean(1))
    paid = np.minimum(p * np.where(sign > 0, len(focal), len(bce)), 1)
    before = np.where(rival == 0, adjusted, paid)
    after = np.where(rival == 0, np.where(sign > 0, adjusted, np.maximum(adjusted, paid)), paid)
    false = sign * true <= 1e-12
    equal = tost < ALPHA
    return {
        "differs before": 100 * float(((before < ALPHA) & ~equal & false).mean()),
        "differs after": 100 * float(((after < ALPHA) & false).mean()),
        "baseline is best: before": 100 * float(((before < ALPHA) & ~equal & false)[rival == 0].mean()),
        "after": 100 * float(((after < ALPHA) & false)[rival == 0].mean()),
        "equivalent before": 100 * float((equal & (np.abs(true) >= MARGIN - 1e-12)).mean()),
    }


def optimism(candidates: np.ndarray, opponents: np.ndarray) -> float:
    """By how much the best of (seeds, arms) minus the best opponent looks too large, by halves of the seeds.

    The best of either side on one half, less the same arms on the other half; scaled to all seeds.
    """
    n = len(candidates)
    half = (n + 1) // 2
    chosen = np.array(list(itertools.combinations(range(n), half)))
    inside = np.zeros((len(chosen), n))
    np.put_along_axis(inside, chosen, 1.0, axis=1)
    gap = np.zeros(len(chosen))
    for sign, values in ((1.0, candidates), (-1.0, opponents)):
        on_half, on_rest = inside @ values / half, (1 - inside) @ values / (n - half)
        best = on_half.argmax(axis=1)[:, None]
        gap += sign * np.take_along_axis(on_half - on_rest, best, axis=1)[:, 0]
    return float(gap.mean()) * np.sqrt(half / n)


def corrected(arms: int, seeds: int, spread: float, studies: int = 2_000) -> tuple[float, float]:
    """Root mean square errors of the difference of the chosen arms, as seen and less the optimism."""
    rng = np.random.default_rng(1)
    raw, less = [], []
    for _ in range(studies):
        means = spread * rng.standard_normal((2, arms))
        values = means[:, :, None] + SD * rng.standard_normal((2, arms, seeds))
        chosen = values.mean(2).argmax(1)
        true = means[0, chosen[0]] - means[1, chosen[1]]
        seen = values[0, chosen[0]].mean() - values[1, chosen[1]].mean()
        surplus = optimism(values[0].T, values[1].T)
        raw.append(seen - true)
        less.append(seen - surplus - true)
    return float(np.sqrt(np.mean(np.square(raw)))), float(np.sqrt(np.mean(np.square(less))))


def one_sided(arms: int, seeds: int, spread: float, studies: int = 2_000) -> tuple[float, float]:
    """As `corrected`, with one BCE arm."""
    rng = np.random.default_rng(2)
    raw, less = [], []
    for _ in range(studies):
        means = spread * rng.standard_normal(arms)
        values = means[:, None] + SD * rng.standard_normal((arms, seeds))
        plain = SD * rng.standard_normal((1, seeds))
        chosen = int(values.mean(1).argmax())
        seen = values[chosen].mean() - plain.mean()
        surplus = optimism(values.T, plain.T)
        raw.append(seen - means[chosen])
        less.append(seen - surplus - means[chosen])
    return float(np.sqrt(np.mean(np.square(raw)))), float(np.sqrt(np.mean(np.square(less))))


def main() -> None:
    """Print both tables."""
    print("| arms | seeds | true | false better/worse: before | after | baseline is the best BCE: before |"
          " after | false equivalent: before | after |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    cases = {"all equal": (0.0, 0.0), "one focal arm better by the margin": (MARGIN, 0.0),
             "one BCE arm better by the margin": (0.0, MARGIN)}  # fmt: skip
    for arms in ((9, 1), (9, 9), (1, 9), (2, 9)):
        for seeds in (3, 6, 10):
            for name, (up, down) in cases.items():
                focal, bce = np.zeros(arms[0]), np.zeros(arms[1])
                focal[0] += up
                bce[-1] += down
                row = " | ".join(f"{value:.1f}" for value in errors(focal, bce, seeds).values())
                print(f"| {arms[0]} + {arms[1]} | {seeds} | {name} | {row} | 0 |", flush=True)
    print("\n| arms | spread of the arms | seeds | error as seen | error less the optimism |")
    print("|---|---|---|---|---|")
    for spread in (0.0, 0.5):
        for seeds in (2, 3, 4, 5, 6, 8, 10):
            for name, (seen, less) in {
                "9 + 1": one_sided(9, seeds, spread),
                "9 + 9": corrected(9, seeds, spread),
            }.items():
                print(f"| {name} | {spread:g} | {seeds} | {seen:.2f} | {less:.2f} |", flush=True)


if __name__ == "__main__":
    main()
