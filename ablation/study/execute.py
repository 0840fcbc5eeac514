"""One run from its composed configuration to its final state, in this process."""

from __future__ import annotations

import json
import logging
import shlex
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ablation.config import OPEN_GROUPS, RunConfig, arm_name, flat, plain, typed
from ablation.data.dataset import DataSource, DetectionData
from ablation.data.loader import batches_per_epoch
from ablation.errors import AblationError, Diverged, NoRoom, UsageError, one_line
from ablation.files import canonical_json, exclusive_lock, remove_temporaries, sha256_file, write_text
from ablation.machine import code_version, resolve_device, resolve_precision, set_up_torch
from ablation.model.anchors import resolve_anchors
from ablation.records import Declaration, PlannedRun, StudyData
from ablation.study.identity import command_key, run_key
from ablation.study.interrupts import Interrupts
from ablation.study.plan_file import extend_plan, plan_file, source_text
from ablation.tracking.experiment import publish_plan
from ablation.tracking.mirror import Mirror
from ablation.tracking.run_folder import DONE_STATES, RunFolder
from ablation.tracking.store import Store
from ablation.tracking.study_folder import read_plan, run_log
from ablation.training.command.run import CommandRun
from ablation.training.command.trainer import CommandTrainer
from ablation.training.run import Run

log = logging.getLogger(__name__)

Progress = Callable[[int, dict[str, float]], None]
"""Called with the number of finished epochs and the last epoch's metrics."""


@dataclass(frozen=True)
class Prepared:
    """A run that is known by its key but has not been started.

    Attributes:
        config: typed, precision and arm resolved.
        data: the opened data set; of a command's run, what is known of it.
        command: what trains the run; None: this project's own training.
    """

    config: RunConfig
    data: DetectionData
    key: str
    overrides: tuple[str, ...]
    command: CommandTrainer | None = None

    @property
    def folder(self) -> RunFolder:
        """Where the run is, or will be, written."""
        c = self.config
        return RunFolder.of(Path(c.out), c.study, str(c.arm), c.seed, self.key)

    @property
    def planned(self) -> PlannedRun:
        """This run as an entry of the study's plan, with the command that makes it from the start."""
        of_the_run = [text for text in self.overrides if not text.startswith(_OF_THE_LAUNCH)]
        command = shlex.join(["ablation", "train", *of_the_run])
        return PlannedRun(str(self.config.arm), self.config.seed, self.key, command, self.params)

    @property
    def params(self) -> dict[str, str]:
        """Its settings on one level, as the texts that MLflow shows."""
        return _params(self.config) if self.command is None else self.command.params()

    @property
    def data_settings(self) -> dict[str, Any]:
        """What names its data set."""
        if self.command is not None:
            return {"name": self.data.name, "read_by": "trainer"}
        return {"name": self.data.name} | dict(json.loads(canonical_json(plain(self.config.data))))

    @property
    def study_data(self) -> StudyData:
        """The run's data set as the study's plan names it."""
        counts = len(self.data.train), len(self.data.val)
        return StudyData(self.data.fingerprint(), source_text(self.data_settings), *counts)

    @property
    def label(self) -> str:
        """The run as a person names it."""
        return f"{self.config.arm} seed {self.config.seed}"


INTERRUPTED = "interrupted; launch it again to go on from the last checkpoint"
"""Reason of a run that was stopped by a signal, where nothing more is known."""

_OF_THE_LAUNCH = ("retry=", "replace=", "halving.", "notify.", "train.stop_after=")
"""Overrides that say how far and which runs are launched, and not what a run is."""

_open_data: dict[str, DetectionData] = {}


def open_data(source: DataSource) -> DetectionData:
    """The data set, opened once per process however many runs use it."""
    key = canonical_json(plain(source))
    if key not in _open_data:
        _open_data[key] = source.open()
    return _open_data[key]


def prepare(composed: DictConfig, overrides: list[str]) -> Prepared:
    """Type the configuration, open the data, and find the run's key. Starts nothing.

    Args:
        overrides: what the run was asked for with; it becomes the command that reproduces it.

    Raises:
        UsageError, DataError: one line each.
    """
    config = typed(composed)
    if config.trainer.is_command:
        return _prepared_command(replace(config, arm=config.arm or arm_name(config)), overrides)
    device = resolve_device(config.train.device)
    train = replace(config.train, precision=resolve_precision(config.train.precision, device))
    config = replace(config, train=train, arm=config.arm or arm_name(config))
    data = open_data(config.data)
    config = replace(config, model=resolve_anchors(config.model, data, train.size_px))
    batches_per_epoch(data.train, train.batch_size)  # refuses fewer images than a batch
    key = run_key(config, data.fingerprint(), _weights_digest(config.model.weights))
    return Prepared(config, data, key, tuple(overrides))


def _prepared_command(config: RunConfig, overrides: list[str]) -> Prepared:
    command = CommandTrainer.of(config)
    data = command.data()
    key = command_key(command.identity(), data.fingerprint())
    return Prepared(config, data, key, tuple(overrides), command)


def _weights_digest(path: str | None) -> str | None:
    if path is None:
        return None
    if not Path(path).is_file():
        problem = "is a folder" if Path(path).is_dir() else "not found"
        raise UsageError(f"model.weights: {path} {problem}; give a file, or null to start from scratch")
    return sha256_file(Path(path))


def store_of(config: RunConfig) -> Store | None:
    """The tracking store, created where it does not exist; None where tracking is off."""
    if not config.tracking.enabled:
        return None
    store = Store.of(config.tracking.uri, config.tracking.artifacts)
    store.prepare()
    return store


def announce(runs: list[Prepared], store: Store | None) -> None:
    """Enter runs into their study's plan, in the study's folder and in MLflow.

    Raises:
        UsageError: the runs have other data than those that the study has already.
    """
    first = runs[0].config
    for detection in {id(run.data): run.data for run in runs}.values():
        faults = [*detection.faults, *detection.train.faults, *detection.val.faults]
        for fault in faults[:5]:
            log.warning("data: %s: %s; %s", fault.file, fault.what, fault.action)
        if len(faults) > 5:
            log.warning("data: and %d more, all in faults.json of every run", len(faults) - 5)
    out, study_data = Path(first.out), shared_data(runs)
    planned, declaration = [run.planned for run in runs], _declaration(first)
    plan, replaced = extend_plan(out, first.study, planned, declaration, study_data, first.replace)
    if replaced is not None:
        log.warning("%s", replaced.warning(study_data))
    if store is not None:
        try:
            publish_plan(store, first.study, replace(plan, description=first.description))
        except AblationError as error:
            log.warning("%s", error)


def shared_data(runs: list[Prepared]) -> StudyData:
    """The one data set of a study's runs.

    Raises:
        UsageError: two of the runs have different data.
    """
    first = runs[0]
    for run in runs[1:]:
        if run.study_data.fingerprint != first.study_data.fingerprint:
            raise UsageError(
                f"study={run.config.study}: {first.label} has {first.study_data} and {run.label} has "
                f"{run.study_data}. Runs of different data are never compared: give each data set a study "
                "of its own"
            )
    return first.study_data


def _declaration(config: RunConfig) -> Declaration:
    """What the study says about its analysis, with how much was known when it said so."""
    analysis = config.analysis
    study = plan_file(Path(config.out), config.study).parent
    return Declaration(
        metric=analysis.metric,
        margin=analysis.margin,
        level=analysis.level,
        family=None if analysis.family is None else tuple(analysis.family),
        time_ms=round(time.time() * 1000),
        runs_done=sum(1 for _ in study.glob("*/*/DONE")),
        looks=None if analysis.looks is None else tuple(analysis.looks),
        spending=analysis.spending,
        prior_sd=analysis.prior_sd,
        prior_df=analysis.prior_df,
    )


def execute(
    run: Prepared,
    store: Store | None,
    progress: Progress | None = None,
    stop_reason: Callable[[], str] = lambda: "",
    output: Path | None = None,
) -> str:
    """Train a prepared run, or go on with it, unless it is done.

    Args:
        stop_reason: asked once the run has been interrupted; "" where the reason is not known.
        output: the log of this process, to which a command's output goes too; None: it has none, and the
            run's usual log gets that.

    Returns:
        The final state: FINISHED, DIVERGED or STOPPED.

    Raises:
        AblationError: another process is training it; or what made it fail.
        KeyboardInterrupt: it was interrupted; it resumes when launched again.
    """
    folder = run.folder
    with exclusive_lock(folder.file(".lock")) as locked:
        if not locked:
            raise AblationError(f"{folder.path}: another process is training this run")
        remove_temporaries(folder.path)
        mirror = Mirror(store, folder)
        if folder.state in DONE_STATES:
            log.info("%s: %s already, in %s", run.label, folder.state, folder.path)
            if not folder.file("DONE").exists():  # it was killed before its very last write
                folder.set_state(folder.state, folder.reason)
            mirror.finish(folder.artifacts())
            return folder.state
        _require_plan(run)
        _describe(run)
        interrupts = Interrupts()
        with interrupts:
            try:
                _train(run, mirror, interrupts, progress, stop_reason, output)
            finally:
                mirror.finish(folder.artifacts())
            interrupts.raise_late()
        return folder.state


def _require_plan(run: Prepared) -> None:
    """Refuse data or code that changed between the launch and this run's start, in a study of many hours.

    Raises:
        AblationError: the study's plan names other data, or a command's run with another key.
    """
    config = run.config
    plan = read_plan(plan_file(Path(config.out), config.study))
    if plan.data is not None and plan.data.fingerprint != run.study_data.fingerprint:
        raise AblationError(
            f"{run.label}: the data changed after the study was launched: it has {plan.data}, now there are "
            f"{run.study_data}; put the former data back, then launch the same command again"
        )
    keys = {entry.key for entry in plan.runs if (entry.arm, entry.seed) == (config.arm, config.seed)}
    if run.command is not None and keys and run.key not in keys:
        raise AblationError(
            f"{run.label}: the trainer in {run.command.folder} changed after the study was launched; put it "
            "back to go on, or launch the same command again to train every run with what is there now"
        )


def _train(
    run: Prepared,
    mirror: Mirror,
    interrupts: Interrupts,
    progress: Progress | None,
    stop_reason: Callable[[], str],
    output: Path | None,
) -> None:
    """Fit the network; however it ends, the run's state says so."""
    folder = run.folder

    def after_epoch(epoch: int, metrics: dict[str, float]) -> None:
        with interrupts.held():
            mirror.push()
        if progress is not None:
            progress(epoch, metrics)

    try:
        with folder.heartbeat():
            folder.set_state("RUNNING")
            with interrupts.held():
                mirror.start()
            state = _fit(run, after_epoch, output)
        interrupts.end()
        folder.set_state(state)
    except Diverged as error:
        interrupts.end()
        log.warning("%s: DIVERGED at %s", run.label, error)
        folder.set_state("DIVERGED", str(error))
    except KeyboardInterrupt:
        folder.set_state("KILLED", stop_reason() or INTERRUPTED)
        raise
    except NoRoom as error:
        interrupts.end()
        with suppress(NoRoom):  # no room for this either; RUNNING without a process resumes as well
            folder.set_state("STOPPED", str(error))
        raise
    except BaseException as error:
        interrupts.end()
        folder.set_state("FAILED", one_line(f"{type(error).__name__}: {error}", 300))
        raise


def _fit(run: Prepared, after_epoch: Callable[[int, dict[str, float]], None], output: Path | None) -> str:
    """Train to the end; returns the state."""
    config, folder = run.config, run.folder
    if run.command is None:
        train = config.train
        set_up_torch(train.threads, train.deterministic, fixed_size=train.multi_scale is None)
        return Run(config, run.data, folder, after_epoch).fit()
    log_file = output or run_log(Path(config.out), config.study, str(config.arm), config.seed)
    try:
        return CommandRun(run.command, folder, log_file, after_epoch).fit()
    except Diverged:
        raise
    except AblationError as error:
        if output is None:  # else the launcher names it
            error.args = (f"{error} (log: {log_file})",)
        raise


def _params(config: RunConfig) -> dict[str, str]:
    """The typed configuration on one level, as the texts that MLflow shows."""
    of_the_study = ["arms", "seeds", "out", "tracking", "trainer", "analysis", "retry", "replace", "halving"]
    of_the_study.append("notify")
    settings = {k: v for k, v in plain(config).items() if k not in of_the_study}
    params = {key: str(value) for key, value in flat(settings).items()}
    del params["train.stop_after"]  # MLflow cannot change a parameter, and a run's next stage changes this
    for group in OPEN_GROUPS:
        params[f"{group}.name"] = params.pop(f"{group}._target_").rsplit(".", 1)[-1]
    params["loss.name"] = type(config.loss).name()
    return params


def _describe(run: Prepared) -> None:
    """Write what the run is before it starts."""
    config, folder, data = run.config, run.folder, run.data
    # Whom to tell is no part of a run, and its words may hold a secret address.
    settings = {key: value for key, value in plain(config).items() if key != "notify"}
    write_text(folder.file("config.yaml"), OmegaConf.to_yaml(OmegaConf.create(settings)))
    faults = [*data.faults, *data.train.faults, *data.val.faults]
    if faults:
        folder.write_json("faults.json", [vars(fault) for fault in faults])
    profile = {
        "classes": list(data.classes),
        "train_images": len(data.train),
        "val_images": len(data.val),
        "train_boxes": sum(data.train.counts().values()),
        "val_boxes": sum(data.val.counts().values()),
        "faults": len(faults),
    }
    folder.write_json(
        "run.json",
        {
            "study": config.study,
            "description": config.description,
            "arm": config.arm,
            "seed": config.seed,
            "key": run.key,
            "fingerprint": data.fingerprint(),
            "command": run.planned.command,
            "code": code_version() | _code_of(run.command),
            "data": run.data_settings,
            "data_profile": profile,
            "params": run.params,
        },
    )


def _code_of(command: CommandTrainer | None) -> dict[str, str]:
    return {} if command is None else {f"trainer_{name}": value for name, value in command.code.items()}
