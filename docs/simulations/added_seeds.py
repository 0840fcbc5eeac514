"""How often a study of two arms is wrong when seeds are added after each report until one decides.

Normal paired differences with standard deviation 1 and a margin of 1, at 3 to 12 pairs. That every report
decides is what a tool without memory does; that the first one does is the rule of analyse/verdict/looks.py.

    python docs/simulations/added_seeds.py
"""

from __future__ import annotations

import numpy as np
from scipy import stats

STUDIES, FIRST, LAST, MARGIN, ALPHA = 100_000, 3, 12, 1.0, 0.05


def decisions(effect: float, steps: list[int], random: np.random.Generator) -> tuple[float, float]:
    """Shares of studies that end as (better or worse, equivalent), looking at these numbers of pairs."""
    differences = random.normal(effect, 1, (STUDIES, LAST))
    verdict = np.zeros(STUDIES, int)
    for pairs in steps:
        seen = differences[:, :pairs]
        mean, error = seen.mean(1), seen.std(1, ddof=1) / np.sqrt(pairs)
        equivalent = stats.t.sf((MARGIN - abs(mean)) / error, pairs - 1) < ALPHA
        differs = 2 * stats.t.sf(abs(mean) / error, pairs - 1) < ALPHA
        undecided = verdict == 0
        verdict[undecided & equivalent] = 2
        verdict[undecided & ~equivalent & differs] = 1
    return float((verdict == 1).mean()), float((verdict == 2).mean())


def main() -> None:
    random = np.random.default_rng(0)
    rules = {
        "every report decides, one seed at a time": list(range(FIRST, LAST + 1)),
        "every report decides, at 3, 6, 9, 12": [3, 6, 9, 12],
        "the first report decides": [FIRST],
    }
    print("| rule | false better or worse, % | false equivalent at the margin's edge, % |\n|---|---|---|")
    for rule, steps in rules.items():
        null, edge = decisions(0.0, steps, random), decisions(MARGIN, steps, random)
        print(f"| {rule} | {100 * null[0]:.1f} | {100 * edge[1]:.1f} |")


if __name__ == "__main__":
    main()
