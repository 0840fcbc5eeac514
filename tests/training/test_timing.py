"""What a step costs, with a clock that moves by one second at each step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.command import TINY

from ablation.commands.doctor.training import small_run
from ablation.training import timing
from ablation.training.run import Run


@pytest.fixture
def clocked_run(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Run]:
    """A run of `request.param` steps in all, each of which takes one second."""
    batch = 4
    images = request.param * batch
    settings = [f"data.train_images={images}", f"train.batch_size={batch}", "train.epochs=1"]
    with small_run([*TINY, *settings], "cpu", tmp_path) as run:
        seconds = iter(range(1000))
        step = run.step
        now = [0.0]

        def one_second(*arguments: object) -> object:
            now[0] = next(seconds) + 1.0
            return step(*arguments)  # type: ignore[arg-type]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run, "step", one_second)
            patch.setattr(timing.time, "perf_counter", lambda: now[0])
            yield run


@pytest.mark.parametrize("clocked_run", [1, 2, 3, 8], indirect=True)
def test_an_image_costs_a_quarter_of_a_step_of_four(clocked_run: Run) -> None:
    assert timing.training_image_s(clocked_run) == 0.25
