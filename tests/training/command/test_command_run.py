"""A run of a command in this process: its results, its errors, its environment, going on, its end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ablation.config import RunConfig, TrainerConfig, typed
from ablation.errors import AblationError, DataError, Diverged, OutOfMemory, UsageError
from ablation.files import metric_name
from ablation.study.app import composed
from ablation.tracking.run_folder import RunFolder
from ablation.training.command import process, run
from ablation.training.command.run import CommandRun
from ablation.training.command.trainer import CommandTrainer

TRUTH = {
    "images": [{"id": 5, "file_name": "a.png", "width": 64, "height": 64}],
    "annotations": [{"id": 1, "image_id": 5, "category_id": 9, "bbox": [8, 8, 32, 32]}],
    "categories": [{"id": 9, "name": "cell"}],
}
RIGHT = [{"image_id": 5, "category_id": 9, "bbox": [8, 8, 32, 32], "score": 0.9}]
LOOK = "import json, os, pathlib, signal, sys, time\nout = pathlib.Path(sys.argv[1])\n"


@pytest.fixture(scope="module")
def base() -> RunConfig:
    return typed(composed(["loss=focal", "seed=3", "train.epochs=4"]))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "POLL_S", 0.05)
    monkeypatch.setattr(process, "GRACE_S", 0.5)


class Trial:
    """A script as the trainer of one run."""

    def __init__(self, folder: Path, base: RunConfig) -> None:
        self.folder, self.base = folder, base
        self.run_folder, self.log = RunFolder(folder / "run"), folder / "log"
        self.seen: list[int] = []
        (folder / "truth.json").write_text(json.dumps(TRUTH))

    def prepared(self, script: str, **settings: Any) -> CommandTrainer:
        """`settings` are those of the trainer; without any its detections are evaluated."""
        (self.folder / "script.py").write_text(LOOK + script)
        command = [sys.executable, "-I", "-S", "script.py", "{run.folder}", "{seed}"]
        results = {"detections": "{run.folder}/val.json", "ground_truth": "truth.json"}
        if {"metrics", "epoch_metrics"} & set(settings):
            results = {"data": ["truth.json"]}
        values: dict[str, Any] = {"command": command, "folder": str(self.folder), "files": ["script.py"]}
        trainer = TrainerConfig("command", **(values | results | settings))
        return CommandTrainer.of(replace(self.base, trainer=trainer))

    def fit(self, script: str, **settings: Any) -> str:
        trainer = self.prepared(script, **settings)
        return CommandRun(trainer, self.run_folder, self.log, lambda epoch, _: self.seen.append(epoch)).fit()

    @property
    def lines(self) -> list[tuple[int, dict[str, float]]]:
        return [
            (line["epoch"], {k: v for k, v in line["metrics"].items() if not k.startswith("time/")})
            for line in self.run_folder.metrics()
        ]


@pytest.fixture
def trial(tmp_path: Path, base: RunConfig) -> Trial:
    return Trial(tmp_path, base)


WRITE = f"(out / 'val.json').write_text({json.dumps(RIGHT)!r})\n"


# results


def test_detections_are_evaluated_as_those_of_our_own_networks(trial: Trial) -> None:
    assert trial.fit("print('hello', sys.argv[2])\n" + WRITE) == "FINISHED"
    ((epoch, metrics),) = trial.lines
    assert epoch == 4 and metrics["val/AP"] == metrics["val/AP_class/cell"] == pytest.approx(1)
    assert trial.log.read_text() == "hello 3\n"
    kept = trial.run_folder.file("detections/val.json").read_text()
    assert json.loads(kept)[0]["category_id"] == 1  # numbered from 1, as everywhere


def test_epochs_are_followed_and_the_final_metrics_belong_to_the_last(trial: Trial) -> None:
    script = """
for epoch in range(1, 4):
    with (out / "m.jsonl").open("a") as file:
        file.write(json.dumps({"epoch": epoch, "train/loss": 1 / epoch, "AP": epoch / 10}) + "\\n")
    time.sleep(0.15)
(out / "end.json").write_text('{"AP": 0.75, "AR100": 0.5}')
"""
    files = {"epoch_metrics": "{run.folder}/m.jsonl", "metrics": "{run.folder}/end.json"}
    trial.fit(script, **files)
    assert trial.lines[0] == (1, {"train/loss": 1.0, "val/AP": 0.1})
    assert trial.lines[2] == (3, {"train/loss": 1 / 3, "val/AP": 0.75, "val/AR100": 0.5})
    assert trial.seen == [1, 2, 3, 3]
    times = [line["metrics"]["time/train_s"] for line in trial.run_folder.metrics()]
    assert all(0.05 < seconds < 2 for seconds in times[1:])


def test_training_and_validation_of_an_epoch_may_have_lines_of_their_own(trial: Trial) -> None:
    script = """
with (out / "m.jsonl").open("a") as file:
    for epoch in (1, 2):
        file.write(json.dumps({"epoch": epoch, "train/loss": 1 / epoch}) + "\\n")
        file.write(json.dumps({"epoch": epoch, "AP": epoch / 4}) + "\\n")
"""
    trial.fit(script, epoch_metrics="{run.folder}/m.jsonl")
    expected = [(epoch, {"train/loss": 1 / epoch, "val/AP": epoch / 4}) for epoch in (1, 2)]
    assert trial.lines == expected


def test_a_metric_that_is_not_finite_is_a_run_that_diverged(trial: Trial) -> None:
    with pytest.raises(Diverged, match="val/AP is nan"):
        trial.fit("(out / 'end.json').write_text('{\"AP\": NaN}')", metrics="{run.folder}/end.json")


# errors, each one line


@pytest.mark.parametrize(
    ("script", "kind", "message"),
    [
        (
            "print('it broke'); sys.exit(3)",
            AblationError,
            "the trainer exited with code 3; its last line: it broke",
        ),
        ("os.kill(os.getpid(), signal.SIGSEGV)", AblationError, "the trainer was killed by SIGSEGV"),
        ("print('CUDA out of memory. Tried'); sys.exit(1)", OutOfMemory, "its last line: CUDA out of memory"),
        ("", DataError, "val.json: not written: the command ended well"),
        ("(out / 'val.json').touch()", DataError, "val.json: empty; the command must write COCO's results"),
        ("(out / 'val.json').write_text('{}')", DataError, "val.json: must be a list of detections"),
        ("(out / 'val.json').write_text('[1')", DataError, "val.json: is not JSON"),
        (
            "(out / 'val.json').write_text('[{\"image_id\": 6, \"category_id\": 9}]')",
            DataError,
            "val.json: detection 1: image_id 6 is not in the ground truth",
        ),
    ],
)
def test_what_a_command_can_do_wrong(script: str, kind: type[Exception], message: str, trial: Trial) -> None:
    with pytest.raises(kind) as error:
        trial.fit(script)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_no_detection_at_all_is_an_ap_of_0_with_a_warning(trial: Trial, caplog: Any) -> None:
    trial.fit("(out / 'val.json').write_text('[]')")
    assert trial.lines[0][1]["val/AP"] == 0 and "no detections at all" in caplog.text


def test_a_metric_of_another_name_is_named_with_the_remedy(trial: Trial) -> None:
    with pytest.raises(DataError, match=r"have no val/AP \(analysis.metric\), but .*val/mAP; trainer.names"):
        trial.fit("(out / 'end.json').write_text('{\"mAP\": 0.5}')", metrics="{run.folder}/end.json")
    names = {"metrics": "{run.folder}/end.json", "names": {"mAP": "val/AP"}}
    assert trial.fit("(out / 'end.json').write_text('{\"mAP\": 0.5}')", **names) == "FINISHED"


def test_a_hang_is_ended_by_the_time_limit(trial: Trial) -> None:
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nif not os.fork(): time.sleep(60)\ntime.sleep(60)"
    began = time.monotonic()
    with pytest.raises(AblationError, match=r"ran longer than trainer.timeout_h=0.0001 and was killed"):
        trial.fit(deaf, timeout_h=0.0001)
    assert time.monotonic() - began < 10
    assert processes_with(str(trial.run_folder.path)) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"command": ["no-such-program"]}, "trainer.command[0]: no-such-program is no program on PATH"),
        ({"command": ["./script.py"]}, "trainer.command[0]: ./script.py is no program in"),
        (
            {"command": [sys.executable, "{sed}"]},
            "trainer.command[1]: unknown placeholder {sed}; did you mean",
        ),
        ({"detections": "{run.folder}/../val.json"}, "is not in the run's folder"),
        ({"detections": "val.json"}, "trainer.detections: val.json is not in the run's folder"),
        ({"detections": "{run.folder}/val.txt"}, "must end in .json"),
        ({"ground_truth": "nowhere.json"}, "nowhere.json: ground truth cannot be read: No such file"),
        ({"environment": {"A": "{loss.name}{x}"}}, "trainer.environment.A: unknown placeholder {x}"),
        ({"files": ["*.c"]}, "trainer.files: '*.c' names no file"),
        ({"test_detections": "{run.folder}/t.json", "test_ground_truth": "no.json"}, "no.json not found"),
    ],
)
def test_what_is_refused_before_anything_starts(settings: dict[str, Any], message: str, trial: Trial) -> None:
    with pytest.raises((UsageError, DataError)) as error:
        trial.prepared(WRITE, **settings)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "yolo"}, "name: found 'yolo', must be yolov4 or command"),
        ({"name": "command"}, "command: found \\[\\], must be a list of words"),
        (
            {"name": "command", "command": ["a"]},
            "detections: found None, must be detections with ground_truth",
        ),
        ({"name": "command", "command": ["a"], "metrics": "m.json"}, "data: found \\[\\], must be files of"),
        ({"name": "command", "command": ["a", []]}, "command: found \\[\\], must be words"),
        ({"environment": {"A=B": "x"}}, "environment.A=B: found 'x'"),
        ({"timeout_h": 0.0}, "timeout_h: found 0.0, must be > 0"),
        ({"settings": {"a b": 1}}, "settings.a b: found 1, must be a value under a plain name"),
        ({"settings": {"a": {"b": 1}}}, "settings.a: found .*, must be a value under a plain name"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainerConfig(**settings)


# the environment


def test_the_environment_is_named_and_not_inherited(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "hidden")
    monkeypatch.setenv("A_PASSED", "shown")
    monkeypatch.delenv("NOT_SET", raising=False)
    environment = {"A_PASSED": None, "NOT_SET": None, "SEED": "{seed}", "ALPHA": "{loss.pos_weight}"}
    trial.fit("print(json.dumps(dict(os.environ)))\n" + WRITE, environment=environment)
    given = json.loads(trial.log.read_text())
    assert given["A_PASSED"] == "shown" and given["SEED"] == "3"
    assert given.keys().isdisjoint({"A_SECRET", "NOT_SET", "ALPHA"})
    assert "hidden" not in json.dumps(trial.prepared(WRITE, environment=environment).params())


@pytest.mark.parametrize(
    ("device", "visible", "expected"),
    [
        ("auto", None, None),
        ("auto", "2,3", "2,3"),
        ("cpu", "2,3", ""),
        ("cuda:1", None, "1"),
        ("cuda:1", "2,3", "3"),
        ("cuda", "GPU-a", "GPU-a"),
    ],
)
def test_gpu_and_threads_are_handed_on(device: str, visible: str | None, expected: str | None) -> None:
    launch = {"PATH": "/bin", "OMP_NUM_THREADS": "8"} | (
        {} if visible is None else {process.DEVICES: visible}
    )
    given = process.environment_of({}, device, 2, launch)
    assert given.get(process.DEVICES) == expected
    assert {given[name] for name in process.THREADS} == {"2"}
    assert process.environment_of({}, device, None, launch)["OMP_NUM_THREADS"] == "8"


# going on, and the end of the process

STEPS = """
last = out / "last"
first = int(last.read_text()) if last.exists() else 0
(out / f"start{first}").touch()
for epoch in range(first + 1, 7):
    with (out / "m.csv").open("a") as file:
        file.write("epoch,AP,pass\\n" if file.tell() == 0 else "")
        file.write(f"{epoch},{epoch / 10},{first}\\n")
    if epoch % 2 == 0:
        (out / "new").write_text(str(epoch)); (out / "new").replace(last)
    time.sleep(0.12)
    if epoch == 5 and first == 0:
        sys.exit(1)
"""
FILES = {"epoch_metrics": "{run.folder}/m.csv"}


def test_a_command_goes_on_from_its_checkpoint_and_repeated_epochs_replace_the_former(trial: Trial) -> None:
    settings = FILES | {"checkpoint": "{run.folder}/last"}
    with pytest.raises(AblationError):
        trial.fit(STEPS, **settings)
    assert [epoch for epoch, _ in trial.lines] == [1, 2, 3, 4, 5]
    assert 2 <= trial.run_folder.checkpoint_epoch <= 4  # never more than the checkpoint holds
    assert trial.fit(STEPS, **settings) == "FINISHED"
    passes = [(epoch, metrics["val/pass"]) for epoch, metrics in trial.lines]
    assert passes == [(1, 0), (2, 0), (3, 0), (4, 0), (5, 4), (6, 4)]
    assert trial.run_folder.file("trainer/start4").exists()


def test_without_a_checkpoint_a_killed_run_starts_anew_in_an_empty_folder(trial: Trial) -> None:
    with pytest.raises(AblationError):
        trial.fit(STEPS, **FILES)
    assert trial.run_folder.checkpoint_epoch == 0
    own = trial.run_folder.file("trainer")
    assert (own / "last").exists()
    with pytest.raises(AblationError):  # from the start once more, as `last` is gone
        trial.fit(STEPS, **FILES)
    assert [path.name for path in own.glob("start*")] == ["start0"]
    assert [epoch for epoch, _ in trial.lines] == [1, 2, 3, 4, 5]


def test_an_old_result_never_passes_for_a_new_one(trial: Trial) -> None:
    once = "\nif not (out / 'last').exists():\n    (out / 'last').touch()\n    "
    settings = {"checkpoint": "{run.folder}/last"}
    assert trial.fit(once + WRITE, **settings) == "FINISHED"
    with pytest.raises(DataError, match="not written"):
        trial.fit(once + WRITE, **settings)


@pytest.mark.parametrize("leaves", ["", "os.setsid(); "])
def test_what_a_command_leaves_running_ends_with_it(leaves: str, trial: Trial) -> None:
    """A process of a session of its own too, such as a worker of torchrun."""
    trial.fit(WRITE + f"if not os.fork(): {leaves}time.sleep(60)\ntime.sleep(0.1)")
    assert processes_with(str(trial.run_folder.path)) == []


def processes_with(text: str) -> list[str]:
    """The command lines of living processes that name `text`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            state = (path.parent / "stat").read_text().rsplit(")")[-1].split()[0]
        except OSError:
            continue
        if text in line and state != "Z":
            found.append(line)
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_command_outlives_the_process_that_started_it(number: signal.Signals, tmp_path: Path) -> None:
    """The command is deaf, with a deaf helper in another session; the process that waits for it is killed."""
    mark = tmp_path / "started"
    deaf = (
        "import os, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "os.fork() or os.setsid(); "
        f"open({str(mark)!r}, 'a').write('x'); time.sleep(60)"
    )
    program = (
        "import os, pathlib, sys; from ablation.training.command.process import CommandProcess\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        f"words = [sys.executable, '-I', '-S', '-c', {deaf!r}]\n"
        "with CommandProcess(words, folder, os.environ, folder / 'log') as p:\n    p.wait(60)\n"
    )
    waiting = subprocess.Popen([sys.executable, "-c", program])
    wait_until(lambda: mark.exists() and len(mark.read_text()) == 2)
    assert len(processes_with(str(mark))) == 2 + 1  # and the program itself, which names it too
    waiting.send_signal(number)
    waiting.wait(10)
    wait_until(lambda: processes_with(str(mark)) == [])


def wait_until(true: Any, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_is_recorded_has_names_that_mlflow_takes(trial: Trial) -> None:
    """Columns and variables can be called anything: one refused name would lose all parameters."""
    settings = {
        "names": {"metrics/mAP50-95(B)": "val/AP"},
        "environment": {"A(B)": "{seed}"},
        "settings": {"a": 1},
    }
    params = trial.prepared(WRITE, **settings).params()
    assert [name for name in params if metric_name(name) != name] == []
    assert params["trainer.settings.a"] == "1" and params["loss.gamma"] == "2.0"
    assert "{seed}" in params["trainer.command"]


def test_the_key_changes_with_what_decides_the_result_and_with_nothing_else(trial: Trial) -> None:
    def identity(config: RunConfig = trial.base, **settings: Any) -> dict[str, Any]:
        trial.base = config
        return trial.prepared(WRITE, **settings).identity()

    base, reference = trial.base, identity()
    loss = replace(base.loss, gamma=1.0)
    assert identity(replace(base, loss=loss)) != reference
    assert identity(replace(base, seed=9)) != reference
    assert identity(base, environment={"A": "1"}) != reference
    assert identity(base, settings={"a": 1}) != reference
    train = replace(
        base.train, device="cpu", threads=3, epochs=9, size_px=64
    )  # the command uses none of them
    assert identity(replace(base, train=train, out="elsewhere", study="x")) == reference
    used = {"command": [sys.executable, "script.py", "{run.folder}", "{train.epochs}"]}
    assert identity(base, **used) != identity(replace(base, train=train), **used)
    trial.base = base
    assert CommandTrainer.of(trial.prepared(WRITE + "# edited").config).identity() != reference
