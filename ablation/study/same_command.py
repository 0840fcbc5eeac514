"""Two arms that would start the same command: what differs between them does not reach the trainer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ablation.errors import UsageError
from ablation.study.execute import Prepared

_NOWHERE = Path("/run.folder")


def refuse_same_command(run: Prepared, others: Iterable[Prepared]) -> None:
    """Refuse an arm with the command and environment of another: they would differ by chance alone.

    Raises:
        UsageError: names both arms.
    """
    if run.command is None:
        return
    started = _started(run)
    for other in others:
        another_arm = other.config.seed == run.config.seed and other.config.arm != run.config.arm
        if another_arm and _started(other) == started:
            raise UsageError(
                f"trainer.command: arms {other.config.arm!r} and {run.config.arm!r} start the same command; "
                "what differs between them must reach it, as in {loss.name}, {loss.alpha} or {settings.X}"
            )


def _started(run: Prepared) -> Any:
    assert run.command is not None
    return run.command.words(_NOWHERE), run.command.environment(_NOWHERE)
