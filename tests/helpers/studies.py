"""Studies that many tests look at."""

from __future__ import annotations

from pathlib import Path

from helpers.command import TINY, started_from_nothing

LITTLE = """\
# @package _global_
study: little
seeds: [0, 1]
arms:
  - {loss: bce}
  - {loss: focal, loss.alpha: 0.25, loss.gamma: [0, 2]}
"""


def put_sweep(folder: Path) -> Path:
    """The sweep file `little` in `folder`."""
    (folder / "sweeps").mkdir()
    (folder / "sweeps" / "little.yaml").write_text(LITTLE)
    return folder


def train_little(folder: Path) -> None:
    """The study of that file, as a person would launch it in an empty folder."""
    put_sweep(folder)
    started_from_nothing(folder, "train", "-m", "sweeps=little", *TINY)
