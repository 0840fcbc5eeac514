"""Makes ablation/analyse/statistics/sequential_levels.py: the nominal levels of the designs in use.

    python docs/simulations/nominal_levels.py > ablation/analyse/statistics/sequential_levels.py

8 million simulated studies a design: the error spent up to any look is right to 0.01 points.
"""

from __future__ import annotations

import numpy as np

from ablation.analyse.statistics.sequential import simulated_levels

DESIGNS = (
    ((4, 5, 6, 8, 10), 1.0),
    ((4, 5, 6, 8, 10, 12), 1.0),
    ((4, 5, 6, 8, 10, 12, 16), 1.0),
    ((3, 5, 8, 12), 2.0),
    ((4, 6, 8, 10), 2.0),
    ((4, 8, 12, 16), 2.0),
)
STUDIES, PARTS = 1_000_000, 8


def main() -> None:
    """Print the module."""
    made = "made by docs/simulations/nominal_levels.py"
    print(f'"""Nominal levels of declared looks at the level 0.95; {made}."""\n')
    print("from __future__ import annotations\n")
    print("LEVELS: dict[tuple[tuple[int, ...], float], tuple[tuple[float, ...], tuple[float, ...]]] = {")
    for looks, exponent in DESIGNS:
        parts = [simulated_levels(looks, 0.95, exponent, STUDIES, seed) for seed in range(PARTS)]
        difference, equivalence = np.mean(parts, axis=0)
        print(f"    ({looks}, {exponent}): (")
        for row in (difference, equivalence):
            print("        (" + ", ".join(f"{value:.5f}" for value in row) + "),")
        print("    ),")
    print("}")
    print(
        '"""(looks, exponent) -> (two-sided p of a difference, one-sided p of equivalence) of each look."""'
    )


if __name__ == "__main__":
    main()
