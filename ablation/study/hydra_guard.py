"""A configuration file says what to train; it must not be able to make Hydra call something.

The groups data, model and loss build only classes of this project (`ablation.config.typed`). But
Hydra's own node can name code as well: `_target_` of its callbacks, launcher and sweeper, and in its
logging `()`, `class` and `ext://`. A sweep file that somebody else wrote can set all of them, so they
are looked at between the composing of a configuration and its first use.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import OmegaConf

from ablation.errors import UsageError

_PLUGINS = (
    r"ablation\.study\.sweeper\.StudySweeper",
    r"ablation\.study\.launchers\.local\.launcher\.LocalLauncher",
    r"ablation\.study\.launchers\.slurm\.launcher\.SlurmLauncher",
    r"hydra_plugins(\.\w+)+",
    r"hydra\._internal\.core_plugins\.\w+\.\w+",
)
# Whole names: `logging.os.system` would begin well too.
_TRUSTED = {
    r"hydra\.(launcher|sweeper)(\..+)?\._target_": "|".join(_PLUGINS),
    r"hydra\.(job|hydra)_logging\.handlers\.\w+\.class": r"logging\.(Stream|File|Null)Handler",
    r"hydra\.(job|hydra)_logging\..+": r"ext://sys\.std(out|err)",
}
"""Pattern of a key -> pattern of the code that it may name."""


def install() -> None:
    """Check every configuration that Hydra composes from now on; once is enough."""
    load = ConfigLoaderImpl.load_configuration
    if getattr(load, "checks_for_code", False):
        return

    @functools.wraps(load)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        config = load(self, *args, **kwargs)
        refuse_foreign_code(OmegaConf.to_container(config.hydra, resolve=False))
        return config

    checked.checks_for_code = True  # type: ignore[attr-defined]
    ConfigLoaderImpl.load_configuration = checked  # type: ignore[method-assign]


def refuse_foreign_code(node: Any) -> None:
    """Raise UsageError where Hydra's node names code that is neither this project's nor a plugin's."""
    for path, value in _code(node, "hydra"):
        if not any(re.fullmatch(key, path) and re.fullmatch(code, value) for key, code in _TRUSTED.items()):
            raise UsageError(f"{path}: found {value!r}; a configuration may not name code to be called here")


def _code(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every key below that names code, and what it names."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("_target_", "()", "class") or str(value).startswith(("ext://", "cfg://")):
                yield f"{path}.{key}", str(value)
            else:
                yield from _code(value, f"{path}.{key}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _code(value, f"{path}[{index}]")
