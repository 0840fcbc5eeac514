"""`ablation train`: Hydra's application around one run or a study."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path

import hydra
from hydra import compose, initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from ablation import config as configuration
from ablation.config import RunConfig
from ablation.errors import AblationError, UsageError
from ablation.study import hydra_guard, sweeper
from ablation.study.command_line import config_root as config_root
from ablation.study.command_line import explain, prepared
from ablation.study.execute import Prepared, announce, execute, prepare, store_of
from ablation.study.expand import override_text
from ablation.study.forecast.forecast import Capacity, capacity_of
from ablation.study.launchers.local import launcher as local
from ablation.study.launchers.slurm import launcher as slurm

PRINTED_METRICS = ("train/loss", "val/AP", "val/AP50", "time/images_per_s")
"""After each epoch of a single run."""


def register_plugins() -> None:
    """Make our sweeper and launcher acceptable to Hydra, before hydra.main runs.

    Hydra 1.3 builds plugins only from a package named hydra_plugins; 1.4 has dropped that rule.
    """
    ours = (sweeper.StudySweeper, local.LocalLauncher, slurm.SlurmLauncher)
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
    hydra_guard.install()
    configuration.register()
    sweeper.register()
    local.register()
    slurm.register()


def task(config: DictConfig) -> str:
    """One run, in this process."""
    hydra_config = HydraConfig.get()
    # With an arm named it is one run of that study: the command that every run is recorded with.
    if hydra_config.mode == RunMode.RUN and config.arms is not None and config.arm is None:
        raise UsageError("a study has many runs: add -m, as in `ablation train -m sweeps=NAME`")
    overrides = [str(override) for override in hydra_config.overrides.task]
    run = prepare(config, overrides)
    store = store_of(run.config)
    announce([run], store)

    def progress(epoch: int, metrics: dict[str, float]) -> None:
        values = "  ".join(f"{name} {metrics[name]:.4g}" for name in PRINTED_METRICS if name in metrics)
        print(f"epoch {epoch}/{run.config.train.epochs}  {values}", flush=True)

    state = execute(run, store, progress)
    if state == "DIVERGED":
        raise AblationError(f"DIVERGED at {run.folder.reason}; kept as a result in {run.folder.path}")
    print(f"{state}: {run.folder.path}")
    return state


def main(arguments: list[str]) -> RunConfig | None:
    """Run `ablation train` with these arguments.

    Returns:
        The configuration of a run of the study, where a whole study has come to its end; else None.

    Raises:
        AblationError: whatever went wrong, as one line; Hydra's own errors included.
        OSError: a file or folder cannot be read or written.
    """
    register_plugins()
    root = config_root()
    # With it Hydra raises its errors instead of printing them over many lines and exiting.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    arguments = prepared(arguments, multirun=bool({"-m", "--multirun"} & set(arguments)))
    failures: list[Exception] = []
    sweeper.StudySweeper.ended = None

    def guarded(config: DictConfig) -> str:
        try:
            return task(config)
        except Exception as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise
            failures.append(error)  # Hydra would print lines of its own around it
            return "FAILED"

    entry = hydra.main(version_base="1.3", config_path=str(root / "conf"), config_name="train")(guarded)
    shell_arguments, sys.argv = sys.argv, ["ablation train", *_flags_last(with_search_path(arguments, root))]
    try:
        entry()
    except (HydraException, OmegaConfBaseException, RecursionError) as error:
        raise UsageError(explain(error)) from error
    finally:
        sys.argv = shell_arguments
    if failures:
        raise failures[0]
    return sweeper.StudySweeper.ended


def _flags_last(arguments: list[str]) -> list[str]:
    """argparse, which Hydra uses, cannot take a flag (-m, --cfg job) between two overrides."""
    overrides = [a for a in arguments if not a.startswith("-") and ("=" in a or a.startswith("~"))]
    return overrides + [argument for argument in arguments if argument not in overrides]


def with_search_path(arguments: list[str], root: Path) -> list[str]:
    """The arguments, with sweeps/ and conf/ of `root` and of the working folder to be found by Hydra."""
    if any(argument.startswith("hydra.searchpath=") for argument in arguments):
        return arguments
    folders = {root: None, Path.cwd(): None}
    return [*arguments, "hydra.searchpath=[" + ",".join(override_text(f"file://{f}") for f in folders) + "]"]


def composed(overrides: list[str]) -> DictConfig:
    """The configuration that `ablation train` would run with these overrides, without running it.

    Raises:
        UsageError: one line, for an override that is not understood.
    """
    register_plugins()
    root = config_root()
    try:
        with initialize_config_dir(str(root / "conf"), version_base="1.3", job_name="ablation"):
            return compose("train", with_search_path(prepared(overrides, multirun=False), root))
    except (HydraException, OmegaConfBaseException, RecursionError) as error:
        raise UsageError(explain(error)) from error


def study_runs(arguments: list[str]) -> tuple[list[Prepared], Capacity]:
    """The runs that `ablation train -m` would have with these arguments, and what its launcher would use.

    Nothing is started and nothing is written.

    Raises:
        UsageError, DataError: as the launch itself would.
    """
    register_plugins()
    root = config_root()
    arguments = [argument for argument in arguments if argument not in ("-m", "--multirun")]
    arguments = prepared(arguments, multirun=True)
    try:
        with initialize_config_dir(str(root / "conf"), version_base="1.3", job_name="ablation"):
            application = GlobalHydra.instance().hydra
            assert application is not None
            config = application.compose_config(
                config_name="train",
                overrides=with_search_path(arguments, root),
                run_mode=RunMode.MULTIRUN,
                with_log_configuration=False,
            )
            context = HydraContext(config_loader=application.config_loader, callbacks=Callbacks())
            planner = Plugins.instance().instantiate_sweeper(
                config=config, hydra_context=context, task_function=task
            )
            if not isinstance(planner, sweeper.StudySweeper):
                raise UsageError("hydra/sweeper: ablation plan knows the runs of hydra/sweeper=study only")
            runs = planner.plan(list(config.hydra.overrides.task))
            return runs, capacity_of(config.hydra.launcher, runs)
    except (HydraException, OmegaConfBaseException, RecursionError) as error:
        raise UsageError(explain(error)) from error
