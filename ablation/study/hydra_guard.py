"""Configuration files that somebody else wrote: read within limits, and unable to make Hydra call something.

YAML is checked before Hydra's reader sees it, which would expand aliases without end and whose errors name
no file.

The groups data, model and loss build only classes of this project (`ablation.config.typed`). But
Hydra's own node can name code as well: `_target_` of its callbacks, launcher and sweeper, and in its
logging `()`, `class` and `ext://`. A sweep file that somebody else wrote can set all of them, so they
are looked at between the composing of a configuration and its first use.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.sources_registry import SourcesRegistry
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ablation.errors import UsageError, one_line
from ablation.yaml_files import load_yaml

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
    """Check every file that Hydra reads, and every configuration that it composes; once is enough."""
    _check_files()
    load = ConfigLoaderImpl.load_configuration
    if getattr(load, "checks_for_code", False):
        return

    @functools.wraps(load)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            config = load(self, *args, **kwargs)
        except HydraException:
            raise
        except (ValueError, TypeError, AttributeError, KeyError, OSError) as error:  # Hydra's own checks
            raise UsageError(f"the configuration cannot be composed: {one_line(error, 300)}") from error
        refuse_foreign_code(OmegaConf.to_container(config.hydra, resolve=False))
        return config

    checked.checks_for_code = True  # type: ignore[attr-defined]
    ConfigLoaderImpl.load_configuration = checked  # type: ignore[method-assign]


def _check_files() -> None:
    # Not by the module's name: Hydra imports its plugins anew, and so their classes are others.
    source: Any = SourcesRegistry.instance().resolve("file")
    load = source.load_config
    if getattr(load, "checks_yaml", False):
        return

    @functools.wraps(load)
    def checked(self: Any, config_path: str) -> Any:
        path = Path(self.path, self._normalize_file_name(config_path))
        if path.is_file():
            _check_yaml(path, path.stat().st_mtime_ns, path.stat().st_size)
        try:
            return load(self, config_path)
        except (yaml.YAMLError, OmegaConfBaseException, OSError, ValueError) as error:
            raise UsageError(_located(path, error)) from None

    checked.checks_yaml = True  # type: ignore[attr-defined]
    source.load_config = checked


@functools.lru_cache(256)
def _check_yaml(path: Path, modified_ns: int, size: int) -> None:
    """Raise UsageError for a file that is no YAML or beyond the limits; an unchanged file is read once."""
    content = load_yaml(path, UsageError)
    if content is not None and not isinstance(content, dict):
        kind = type(content).__name__
        raise UsageError(f"{path}:1:1: found a {kind}, must be a mapping of settings, as in `study: NAME`")


def _located(path: Path, error: Exception) -> str:
    """A reader's error as one line with its place."""
    mark = getattr(error, "problem_mark", None)
    where = f":{mark.line + 1}:{mark.column + 1}" if mark is not None else ""
    return one_line(f"{path}{where}: {getattr(error, 'problem', None) or error}", 400)


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
