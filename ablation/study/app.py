"""`ablation train`: Hydra's application around one run or a study."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import CompactHydraException, HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from ablation import config as configuration
from ablation.errors import AblationError, UsageError, one_line
from ablation.study import sweeper
from ablation.study.execute import announce, execute, prepare, store_of
from ablation.study.launchers import local


def config_root() -> Path:
    """The folder that holds conf/ and sweeps/: the checkout, or the installed package's copy."""
    package = Path(__file__).resolve().parent.parent
    for root in (package.parent, package / "_config"):
        if (root / "conf" / "train.yaml").is_file():
            return root
    raise UsageError(f"conf/train.yaml not found beside {package}: the installation is incomplete")


def register_plugins() -> None:
    """Make our sweeper and launcher acceptable to Hydra, before hydra.main runs.

    Hydra 1.3 builds plugins only from a package named hydra_plugins; 1.4 has dropped that rule.
    """
    ours = (sweeper.StudySweeper, local.LocalLauncher)
    names = {f"{cls.__module__}.{cls.__name__}" for cls in ours}
    allowed = getattr(Plugins, "is_in_toplevel_plugins_module", None)
    if allowed is not None and not getattr(allowed, "accepts_ours", False):

        @functools.wraps(allowed)
        def accept(name: str) -> bool:
            return name in names or bool(allowed(name))

        accept.accepts_ours = True  # type: ignore[attr-defined]
        setattr(Plugins, "is_in_toplevel_plugins_module", staticmethod(accept))  # noqa: B010
    for cls in ours:
        Plugins.instance().register(cls)
    configuration.register()
    sweeper.register()
    local.register()


def task(config: DictConfig) -> str:
    """One run, in this process."""
    hydra_config = HydraConfig.get()
    if hydra_config.mode == RunMode.RUN and config.arms is not None:
        raise UsageError("a study has many runs: add -m, as in `ablation train -m sweeps=NAME`")
    overrides = [str(override) for override in hydra_config.overrides.task]
    run = prepare(config, overrides)
    store = store_of(run.config)
    announce([run], store)

    def progress(epoch: int, metrics: dict[str, float]) -> None:
        shown = ("train/loss", "val/AP", "val/AP50", "time/images_per_s")
        values = "  ".join(f"{name} {metrics[name]:.4g}" for name in shown if name in metrics)
        print(f"epoch {epoch}/{run.config.train.epochs}  {values}", flush=True)

    state = execute(run, store, progress)
    if state == "DIVERGED":
        raise AblationError(f"DIVERGED at {run.folder.reason}; kept as a result in {run.folder.path}")
    print(f"{state}: {run.folder.path}")
    return state


def main(arguments: list[str]) -> None:
    """Run `ablation train` with these arguments.

    Raises:
        AblationError: whatever went wrong, as one line; Hydra's own errors included.
    """
    register_plugins()
    root = config_root()
    # With it Hydra raises its errors instead of printing them over many lines and exiting.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    if not any(argument.startswith("hydra.searchpath=") for argument in arguments):
        folders = {root: None, Path.cwd(): None}
        arguments = [*arguments, "hydra.searchpath=[" + ",".join(f"'file://{f}'" for f in folders) + "]"]
    entry = hydra.main(version_base="1.3", config_path=str(root / "conf"), config_name="train")(task)
    former, sys.argv = sys.argv, ["ablation train", *arguments]
    try:
        entry()
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(explain(error)) from error
    finally:
        sys.argv = former


def explain(error: BaseException) -> str:
    """Hydra's error over many lines -> one that names the key, what was found, what would be right."""
    lines = [line.strip() for line in str(error).split("\n")]
    lines = [line for line in lines if line and not _noise(line)]
    cause: Any = error.__cause__
    text = "; ".join(lines)
    if cause is not None and not isinstance(cause, CompactHydraException):
        first = str(cause).split("\n")[0].strip()
        if first and first not in text:
            text = f"{text}: {first}"
    return one_line(text)


def _noise(line: str) -> bool:
    starts = ("Set the environment variable", "Config search path", "provider=", "object_type=", "full_key:",
              "reference_type=", "To append to your config use", "See https", "You may")  # fmt: skip
    return line.startswith(starts)
