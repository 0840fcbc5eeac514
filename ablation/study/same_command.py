"""Two arms that would start the same command: what differs between them does not reach the trainer."""

from __future__ import annotations

from pathlib import Path

from ablation.errors import UsageError
from ablation.files import canonical_json
from ablation.study.execute import Prepared

_NOWHERE = Path("/run.folder")


class StartedCommands:
    """The commands of the runs of a study, by seed."""

    def __init__(self) -> None:
        self._arms: dict[tuple[int, str], str] = {}

    def add(self, run: Prepared) -> None:
        """Refuse an arm with the command and environment of another: they would differ by chance alone.

        Raises:
            UsageError: names both arms.
        """
        if run.command is None:
            return
        words, environment = run.command.words(_NOWHERE), run.command.environment(_NOWHERE)
        started = canonical_json([words, environment, run.command.code])
        arm = str(run.config.arm)
        other = self._arms.setdefault((run.config.seed, started), arm)
        if other != arm:
            raise UsageError(
                f"trainer.command: arms {other!r} and {arm!r} start the same command; what differs between "
                "them must reach it, as in {loss.name}, {loss.alpha} or {settings.X}"
            )
