"""What tests attack with: a pickle that runs code, names that lead elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ablation.study.app import composed


class Boom:
    """Unpickling it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


# names of classes, arms, studies and images
EVIL = [
    "../../x",
    "/etc/passwd",
    "a\0b",
    "x" * 5000,
    "-rf",
    "..",
    ".",
    "~root",
    "a\nb",
    "a/../../b",
    "\\\\host\\x",
    "ünï/çødé",
    "<script>",
    "$(touch x)",
    "%2e%2e/",
    "C:\\x",
    "",
    " ",
    ".hidden",
    "a;b|c&d",
]


def composed_without_hydra(*overrides: str) -> Any:
    """What `ablation train` composes of the overrides, free to be changed."""
    config = composed(list(overrides))
    OmegaConf.set_struct(config, False)
    config.pop("hydra", None)
    return config
