"""Coverage of the repeated confidence interval and bias of the estimates when a decision stops early.

    python docs/simulations/interval.py

Normal differences of standard deviation 1, margin 1, the looks of `ablation settle`, a prior from 20
degrees of freedom.
"""

from __future__ import annotations

import numpy as np
from scipy import special

from ablation.analyse.statistics.sequential import PriorSpread, median_unbiased, outcomes, sequential_design
from ablation.commands.settle.design import LOOKS, SPENDING

STUDIES, ESTIMATED = 40_000, 200


def main() -> None:
    """Print one row for each true difference."""
    design = sequential_design(LOOKS, exponent=SPENDING)
    print("| true difference | coverage | mean at the end | share of estimates above the truth | pairs |")
    print("|---|---|---|---|---|")
    for true in (0.0, 0.5, 1.0, 1.5, 2.0):
        rng = np.random.default_rng(round(10 * true))
        prior = PriorSpread(float(rng.chisquare(20) / 20), 20)
        end = outcomes(rng.standard_normal((STUDIES, LOOKS[-1])) + true, design, 1.0, prior)
        pairs = np.array(LOOKS)[end.look]
        limit = np.array(design.difference)[end.look]
        half = special.stdtrit(pairs - 1.0, 1 - limit / 2) * np.sqrt(end.variance / pairs)
        covered = (np.abs(end.mean - true) < half).mean()
        estimates = [
            median_unbiased(float(mean), 1.0, design, 1.0, prior, studies=1_000)
            for mean in end.mean[:ESTIMATED]
        ]
        above = np.mean(np.array(estimates) > true)
        print(f"| {true:g} | {covered:.1%} | {end.mean.mean():.3f} | {above:.0%} | {pairs.mean():.1f} |")


if __name__ == "__main__":
    main()
