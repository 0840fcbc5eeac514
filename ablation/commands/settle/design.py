"""The declared procedure of a `settle`, written down before anything is trained.

Everything that decides is in it, so that a launch after an interruption, or with a larger budget, goes on
with the same design: what may change between launches (the budget, the launcher, the device) is not.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from ablation.analyse.statistics.sequential import SequentialDesign, sequential_design
from ablation.commands.settle.exploration import BCE, OTHERS
from ablation.errors import StoreError, UsageError
from ablation.files import write_json
from ablation.tracking.study_folder import study_folder

LOOKS = (4, 5, 6, 8, 10, 12, 16)
"""Numbers of pairs at which the decision is looked at; those above max_seeds are left out."""
SPENDING = 1.0
"""Exponent of the spending function: as much error a pair from the first look on."""
FIRST_DECISION_SEED = 100
"""The seeds of the decision start here: far from those that a study usually has."""


@dataclass(frozen=True)
class SettleDesign:
    """What a `settle` does, whatever its runs show.

    Attributes:
        study: the question.
        arms: side -> arm names, in the order of the study's file.
        metric: of the choice, val/..., and of the decision.
        margin: the smallest difference that matters, > 0.
        level: 1 - level is the error over the whole procedure.
        explore_seeds: in the order of their use.
        decide_seeds: likewise; one pair of runs each.
        looks: numbers of pairs.
        keys: (arm, key of its first exploration seed): another configuration under these names is another
            question.
        time_ms: when it was declared, since 1970.
    """

    study: str
    arms: dict[str, list[str]]
    metric: str
    margin: float
    level: float
    explore_seeds: list[int]
    decide_seeds: list[int]
    looks: list[int]
    keys: dict[str, str]
    time_ms: int = 0

    @property
    def exploration_study(self) -> str:
        """The study of the exploration's runs."""
        return f"{self.study}_explore"

    @property
    def decision_study(self) -> str:
        """The study of the finalists on fresh seeds."""
        return f"{self.study}_decide"

    @property
    def sequential(self) -> SequentialDesign:
        """The looks with their nominal levels."""
        return sequential_design(self.looks, self.level, SPENDING)


def looks_for(max_seeds: int) -> list[int]:
    """The looks of a decision on at most this many pairs.

    Raises:
        UsageError: fewer than 4 pairs, with which no look decides.
    """
    if max_seeds < LOOKS[0]:
        raise UsageError(f"max_seeds={max_seeds}: must be {LOOKS[0]} or more; fewer pairs cannot decide")
    return [look for look in LOOKS if look < max_seeds] + [max_seeds]


def design_file(out: Path, study: str) -> Path:
    """runs/<study>/settle.json."""
    return study_folder(out, study) / "settle.json"


def read_design(out: Path, study: str) -> SettleDesign | None:
    """The design that was declared; None where there is none."""
    path = design_file(out, study)
    try:
        return SettleDesign(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise StoreError(f"{path}: not the design of a settle ({error}); restore the file") from None


def declare(out: Path, design: SettleDesign) -> SettleDesign:
    """Write the design down, or return the same one that stands there.

    Raises:
        UsageError: another design was declared under this name; the message says what differs.
    """
    path = design_file(out, design.study)
    former = read_design(out, design.study)
    if former is None:
        declared = SettleDesign(**{**asdict(design), "time_ms": round(time.time() * 1000)})
        write_json(path, asdict(declared))
        return declared
    before, now = asdict(former), asdict(design)
    differs = [name for name in before if name != "time_ms" and before[name] != now[name]]
    if differs:
        name = differs[0]
        raise UsageError(
            f"{path}: this settle was declared with {name}={_short(before[name])}, now {_short(now[name])}; "
            "go on with what was declared, or give the new question another name: study=NAME"
        )
    return former


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def sides_of(arms: list[tuple[str, str]]) -> dict[str, list[str]]:
    """BCE and its tuned forms against all other losses.

    Args:
        arms: (arm, name of its loss) in the order of the plan.

    Raises:
        UsageError: one side has no arm.
    """
    sides: dict[str, list[str]] = {OTHERS: [], BCE: []}
    for arm, loss in arms:
        side = sides[BCE if loss == "bce" else OTHERS]
        if arm not in side:
            side.append(arm)
    if not sides[BCE]:
        raise UsageError("arms: settle compares other losses with BCE; add an arm with loss: bce")
    if not sides[OTHERS]:
        raise UsageError("arms: all of them are BCE; add an arm with another loss, such as loss: focal")
    return sides
