"""How many seeds a study needs, said before it runs: the design's sensitivity and the declared margin."""

from __future__ import annotations

from collections.abc import Sequence

from ablation.analyse.statistics.power import detectable_effect, seeds_for_equivalence, seeds_to_detect

USUAL_SD = (0.005, 0.01, 0.02)
"""Of paired differences of AP, where no run has told yet: between seeds, AP of detectors on small data
sets has a standard deviation of .004 to .014."""
POWER = 0.8


def seeds_text(
    *, planned: int, metric: str, margin: float, level: float, sd: float | None, pairs: int = 0, arms: int = 0
) -> list[str]:
    """Lines for a terminal.

    Args:
        planned: seeds of each arm; of several numbers the smallest.
        margin: the declared smallest difference that matters.
        sd: of the paired differences, from earlier runs; None: not known, so a few are shown.
        pairs, arms: what `sd` was estimated from.
    """
    lines = [
        f"seeds  {planned} of each arm; declared margin {margin:g} of {metric}, {level:.0%} level, 80 % power"
    ]
    if sd is None or sd == 0:
        lines.append(
            "       spread of paired differences not known (an arm and BCE on two seeds tell it); usual:"
        )
        return [*lines, *_table(USUAL_SD, planned, margin, level)]
    few = "; few, so it may be off by half" if pairs - arms < 8 else ""
    lines.append(
        f"       spread of paired differences from {pairs} pairs of {arms} arm{'s' * (arms > 1)}{few}:"
    )
    return [*lines, *_table((sd,), planned, margin, level)]


def _table(sds: Sequence[float], planned: int, margin: float, level: float) -> list[str]:
    yours = f"{planned} seed{'s' * (planned > 1)} can find"
    lines = [
        f"       {'standard':>10}  {'smallest difference':>20}  {'seeds to find':>15}  {'seeds to show':>14}",
        f"       {'deviation':>10}  {yours:>20}  {'the margin':>15}  {'equivalence':>14}",
    ]
    for sd in sds:
        effect = f"{detectable_effect(planned, POWER, level) * sd:.3f}" if planned >= 2 else "none"
        different = _count(seeds_to_detect(margin, sd, POWER, level))
        equal = _count(seeds_for_equivalence(margin, sd, POWER, level))
        lines.append(f"       {sd:>10.4f}  {effect:>20}  {different:>15}  {equal:>14}")
    return lines


def _count(number: int | None) -> str:
    return "too many" if number is None else str(number)
