"""The doctor: on this machine, without what it does not need, and where things go wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import doctor_sections
from helpers.command import ROOT

from ablation.commands.doctor import (
    command,
    examination,
    facts,
    gpu,
    packages,
    reference,
    self_test,
    speed,
    sweep,
)
from ablation.commands.doctor.lines import Line, Section, Settings
from ablation.commands.doctor.process import run_section
from ablation.commands.doctor.training import composed, small_run
from ablation.errors import UsageError

CPU = Settings("cpu", "", (), quick=True)
NOT_NEEDED = (
    *("mlflow", "pandas", "matplotlib", "scipy", "sklearn", "statsmodels", "rich", "jinja2"),
    *("defusedxml", "xxhash", "pyarrow", "PIL", "sqlalchemy"),
)
BLOCK = f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {NOT_NEEDED!r}:
            raise ModuleNotFoundError("blocked: " + name, name=name)

sys.meta_path.insert(0, Blocked())
"""


def doctor(folder: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, answer and stderr of the command, in a Python that lacks what is NOT_NEEDED."""
    blocked = folder / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text(BLOCK)
    environment = os.environ | {"PYTHONPATH": f"{blocked}:{ROOT}", "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "ablation.cli", "doctor", "json=true", *arguments]
    ended = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return ended.returncode, json.loads(ended.stdout or "{}"), ended.stderr


def by_name(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {line["name"]: line for line in answer["lines"]}


def test_it_needs_torch_numpy_opencv_hydra_and_pycocotools_alone(tmp_path: Path) -> None:
    code, answer, errors = doctor(tmp_path, "quick=true", "device=cpu")
    assert code == 0, (answer, errors)
    assert answer["ready"] is True
    lines = by_name(answer)
    assert {line["status"] for line in answer["lines"]} <= {"ok", "info", "warn"}
    assert lines["MLflow"]["status"] == "info" and "not installed" in lines["MLflow"]["text"]
    assert {"torch", "precision", "slots", "memory", "disk", "store", "resume", "detection"} <= set(lines)
    assert lines["resume"]["text"].endswith("to the last bit")
    assert lines["peak GFLOP/s"]["values"]["gemm_fp32"] > 1
    assert lines["demo (tiny_small 64 px)"]["values"]["images_per_s"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["blocked"], "something was left behind"


@pytest.mark.slow
def test_the_whole_of_it_on_this_machine(tmp_path: Path) -> None:
    began = time.monotonic()
    code, answer, errors = doctor(tmp_path, "device=cpu", "sweeps=demo")
    assert code == 0, (answer, errors)
    assert time.monotonic() - began < 480
    lines = by_name(answer)
    assert {f"step of {model}" for model in reference.MODELS} <= set(lines)
    assert lines["sweeps=demo"]["values"]["runs"] == 10
    assert set(speed.PRESETS) <= set(lines)


def test_a_gpu_that_is_not_there_is_one_failed_line_and_the_rest_is_skipped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(examination, "run_section", lambda section, settings, limit_s: section.look(settings))
    assert command.run(["device=cuda"]) == 1
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1].startswith("NOT READY: 1 failed (device)")
    assert "or use device=cpu" in printed
    skipped = [line for line in printed.splitlines() if line.startswith("  skipped ")]
    assert len(skipped) == 1 + len(examination.sections(Settings("cuda", "", (), False))) - 1


def section(look: Callable[[Settings], Iterator[Line]]) -> Section:
    return Section("trial", look, 5)


def test_a_section_that_hangs_is_ended_with_what_it_started_and_its_lines_hold() -> None:
    first, last = run_section(section(doctor_sections.hangs), CPU, 3)
    assert first.status == "ok"
    assert last.status == "failed" and "not done after 3 s" in last.text and last.remedy
    assert _gone(first.values["pid"])


def _gone(pid: int) -> bool:
    for _ in range(50):
        status = Path(f"/proc/{pid}/stat")
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.1)
    return False


def test_a_section_that_dies_or_raises_is_a_failed_line_with_a_remedy() -> None:
    first, last = run_section(section(doctor_sections.dies), CPU, 20)
    assert (first.name, last.status) == ("first", "failed")
    assert "by signal 9" in last.text and "memory" in last.remedy
    first, last = run_section(section(doctor_sections.raises), CPU, 20)
    assert "CUDA out of memory" in last.text and "nvidia-smi" in last.remedy


def test_numbers_that_are_wrong_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two thousandths off in a term, or two hundredths in the gradient, is more than rounding."""
    model = "yolov4_tiny_small"
    right = reference.stored()[model]
    assert reference.compare(right, right, "fp32")[0]
    for name, factor in (("loss_box", 1.002), ("grad_norm", 1.02), ("loss_class", float("nan"))):
        assert not reference.compare(right | {name: right[name] * factor}, right, "fp32")[0]
    assert reference.compare(right | {"grad_norm": float("inf")}, right, "fp16")[0]
    assert not reference.compare(right | {"loss_confidence": 2.0}, right, "bf16")[0]
    monkeypatch.setattr(reference, "training_steps", lambda *_: right | {"loss_box": right["loss_box"] * 1.1})
    line = self_test._step(model, CPU)
    assert line.status == "failed" and line.remedy


@pytest.mark.parametrize("model", ["yolov4_tiny_small", "yolov4_small"])
def test_the_stored_step_is_that_of_the_code(model: str) -> None:
    measured = reference.training_steps(model, "fp32", "cpu")
    fits, text = reference.compare(measured, reference.stored()[model], "fp32")
    assert fits, f"{text}; if the numbers were meant to move: python -m ablation.commands.doctor.reference"


def test_a_place_that_cannot_be_written_to_and_a_server_that_is_gone_have_remedies() -> None:
    line = facts._writable(Path("/proc"))
    assert line.status == "failed" and "out=DIR" in line.remedy
    line = facts._mlflow(True, "http://127.0.0.1:9")
    assert line.status == "warn" and "ablation sync" in line.remedy
    assert facts._mlflow(False, None).status == "info"


def test_the_runs_of_a_study_are_counted_as_the_launch_would() -> None:
    assert sweep.number_of_runs(composed(["sweeps=demo"])) == 10
    assert sweep.number_of_runs(composed(["sweeps=demo", "seeds=0-2"])) == 15


@pytest.mark.parametrize("wrong", ["sweeps=none_such", "device=tpu", "train.epoch=3"])
def test_what_is_not_understood_is_wrong_usage(wrong: str) -> None:
    with pytest.raises(UsageError, match=wrong.partition("=")[2] if "." not in wrong else "train.epochs"):
        command.run([wrong, "quick=true"])


def test_a_study_whose_data_are_not_there_is_a_failed_line(tmp_path: Path) -> None:
    overrides = (f"data.root={tmp_path / 'none'}", "train.threads=1")
    (line,) = sweep.look(Settings("cpu", "bccd", overrides, quick=True))
    assert line.status == "failed" and "data.root=DIR" in line.remedy and "none" in line.text


def test_missing_packages_are_named_before_anything_is_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(packages, "is_installed", lambda module: module not in ("cv2", "pycocotools"))
    assert command.run([]) == 1
    assert "pip install opencv-python-headless pycocotools" in capsys.readouterr().out


def test_what_a_gpu_is_asked_runs_on_a_cpu_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sections of device=cuda, as far as they go without one."""
    monkeypatch.setattr(gpu, "SMALL", (*gpu.SMALL, "model.width=0.0625", "train.threads=1"))
    (line,) = gpu.agreement(CPU)
    assert line.status == "ok" and "0 off" in line.text
    assert [line.status for line in gpu.no_waiting(CPU)] == ["ok", "ok", "ok"]
    small = ["model=yolov4_tiny_small", "model.width=0.125", "train.size_px=64", "train.batch_size=4"]
    with small_run([*small, "data.train_images=8", "data.val_images=2"], "cpu") as run:
        shares = gpu.profiled(run, steps=1)
        assert 0.5 < sum(shares.values()) <= 1.0001
        assert any("convolution" in name for name in shares)
        flop = speed.training_flop(run)
    assert flop == pytest.approx(3 * _forward_flop(run), rel=0.1)


def _forward_flop(run: Any) -> float:
    """2 x multiplications of every convolution, from the shapes of its outputs."""
    total = 0.0

    def count(module: Any, _: Any, output: torch.Tensor) -> None:
        nonlocal total
        total += 2.0 * output[0].numel() * module.weight[0].numel()

    handles = [
        module.register_forward_hook(count)
        for module in run.model.modules()
        if isinstance(module, torch.nn.Conv2d)
    ]
    with torch.no_grad():
        run.model(torch.rand(1, 3, 64, 64))
    for handle in handles:
        handle.remove()
    return total
