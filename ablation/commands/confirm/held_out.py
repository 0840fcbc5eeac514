"""The test split of a confirmation: that there is one, and reading it once, when all runs have ended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ablation.commands.confirm.choice import Choice
from ablation.errors import AblationError, UsageError, counted
from ablation.machine import resolve_device, set_up_torch
from ablation.records import PlannedRun
from ablation.study.execute import Prepared
from ablation.study.plan_file import plan_file
from ablation.tracking.mirror import Mirror
from ablation.tracking.run_folder import OWN_FOLDER, RunFolder
from ablation.tracking.store import Store
from ablation.tracking.study_folder import read_plan, run_log
from ablation.training.command.run import CommandRun
from ablation.training.command.trainer import CommandTrainer
from ablation.training.evaluate import EvaluationSettings, evaluate
from ablation.training.trained_run import config_of, load_run

CODE = "trainer.code"
"""Parameter of a command's run: the content of the trainer's folder."""


def require_test_split(study: str, runs: Sequence[Prepared]) -> None:
    """Refuse, before anything is trained, what could not be evaluated afterwards.

    Raises:
        UsageError, DataError: there is no test split, it is empty, or its annotations cannot be read.
    """
    for run in runs:
        if run.command is not None and not run.command.has_test:
            raise UsageError(
                f"study={study}: a confirmation needs a test split: give trainer.test_ground_truth and "
                "trainer.test_detections, and trainer.test_command where training does not write them"
            )
    for source in {repr(run.config.data): run.config.data for run in runs if run.command is None}.values():
        try:
            empty = len(source.open_test()) == 0
        except UsageError as error:
            raise UsageError(f"study={study}: a confirmation needs a test split: {error}") from None
        if empty:
            raise UsageError(f"study={study}: a confirmation needs a test split, and the one there is empty")


def require_same_trainer(study: str, planned: Sequence[PlannedRun], runs: Sequence[Prepared]) -> None:
    """Refuse to confirm a choice with another trainer than the one that it was made with.

    Raises:
        UsageError: the content of the trainer's folder is another one now.
    """
    then = {run.arm: run.params.get(CODE) for run in planned}
    for run in runs:
        now = run.params.get(CODE)
        if then.get(str(run.config.arm), now) != now:
            raise UsageError(
                f"study={study}: arm {run.config.arm!r} was trained by another trainer: the content of "
                f"trainer.folder was {then[str(run.config.arm)]}, now it is {now}; put it back, or launch "
                "the study again first"
            )


def read_test(choice: Choice, out: Path, store: Store | None) -> int:
    """Evaluate every finished run of the confirmation on the test split; returns how many there are.

    Nothing is read before all of them have ended: else a look at the first could decide about the
    others. A run that was evaluated is not evaluated again.

    Raises:
        AblationError: a run of the confirmation has not ended.
        UsageError, DataError: the data set has no test split, or it is damaged.
    """
    planned = read_plan(plan_file(out, choice.name)).runs
    folders = [RunFolder.of(out, choice.name, run.arm, run.seed, run.key) for run in planned]
    return evaluate_on_test(choice.name, folders, store)


def evaluate_on_test(study: str, folders: Sequence[RunFolder], store: Store | None) -> int:
    """Evaluate these runs of a study on the test split, once each; returns how many finished.

    Raises:
        AblationError: one of them has not ended.
        UsageError, DataError: the data set has no test split, or it is damaged.
    """
    open_ones = [folder for folder in folders if folder.state not in ("FINISHED", "DIVERGED")]
    if open_ones:
        raise AblationError(
            f"of {counted(len(folders), 'run')} of {study}, {len(open_ones)} not ended "
            f"({open_ones[0].path}: {open_ones[0].state}); the test split is read when all have"
        )
    finished = [folder for folder in folders if folder.state == "FINISHED"]
    for folder in finished:
        if not any("test/AP" in line["metrics"] for line in folder.metrics()):
            _evaluate(study, folder)
        Mirror(store, folder).finish(folder.artifacts())
    return len(finished)


def _evaluate(study: str, folder: RunFolder) -> None:
    if folder.file(OWN_FOLDER).is_dir():
        config = config_of(folder)
        output = run_log(Path(config.out), study, str(config.arm), config.seed)
        CommandRun(CommandTrainer.of(config), folder, output, lambda epoch, metrics: None).test()
        return
    run = load_run(folder)
    train = run.config.train
    set_up_torch(train.threads, train.deterministic, fixed_size=train.multi_scale is None)
    device = resolve_device(train.device)
    settings = EvaluationSettings.of(train, device)
    evaluation = evaluate(run.network.to(device), run.config.data.open_test(), run.classes, settings)
    folder.write_json("detections/test_ground_truth.json", evaluation.ground_truth)
    folder.write_json("detections/test.json", evaluation.results)
    metrics: dict[str, Any] = {f"test/{name}": value for name, value in evaluation.metrics.items()}
    folder.append_metrics(train.epochs, metrics)
