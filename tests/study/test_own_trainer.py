"""A study of a foreign detector: everything that does not need to look inside a training."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.command import ablation, error_line, in_this_process, run_folders
from helpers.faulty_command import start
from helpers.foreign import put_own_trainer, put_quick_trainer
from helpers.shared import copy_of, made_once, put_store
from helpers.store import store_in

from ablation.study.app import study_runs
from ablation.study.run_status import study_status
from ablation.tracking.run_folder import RunFolder
from ablation.tracking.study_record import load_study

ARMS = ("bce", "focal-alpha=0.25-gamma=2")
OWN, QUICK = ("train", "-m", "sweeps=own"), ("train", "-m", "sweeps=quick")


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def pids_naming(text: str) -> set[int]:
    """Living processes whose command line holds `text`."""
    pids = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in path.read_bytes():
                pids.add(int(path.parent.name))
        except OSError:
            continue
    return pids


def train_through_a_kill(folder: Path) -> None:
    """Two arms, three seeds; the launcher is killed with -9 while trainers run, then started again.

    What was there in between is kept in between.json: states, notes, and what the trainers had written.
    """
    put_own_trainer(folder)
    put_store(folder)
    launcher = start(
        [sys.executable, "-m", "ablation.cli", *OWN, "hydra.launcher.slots=2"], folder, folder / "o"
    )
    files = "runs/own/*/*/trainer/"
    wait_until(lambda: any("\n2," in path.read_text() for path in folder.glob(files + "metrics.csv")))
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    wait_until(lambda: not pids_naming(str(folder)), 15)
    written = {str(path): path.read_text() for path in folder.glob(files + "metrics.csv")}
    runs = study_status(folder / "runs", "own").runs
    runs = [run for run in runs if (Path(run.folder) / "trainer" / "last.pth").exists()]
    between = {
        "written": written,
        "status": [run.status for run in runs],
        "notes": [run.note for run in runs],
    }
    (folder / "between.json").write_text(json.dumps(between))
    ablation(folder, *OWN)


@pytest.fixture(scope="module")
def finished() -> Path:
    """The working folder of that study. Not to be written to."""
    return made_once("own", train_through_a_kill)


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return copy_of(finished, tmp_path)


# the whole study


def test_kill_9_in_the_middle_leaves_no_process_and_every_run_goes_on(finished: Path) -> None:
    between = json.loads((finished / "between.json").read_text())
    assert set(between["status"]) == {"interrupted"}
    assert all(note.endswith("its trainer goes on from last.pth") for note in between["notes"])
    for name, former in between["written"].items():
        assert Path(name).read_text().startswith(former)  # no epoch that was whole is trained again
    logs = [path.read_text() for path in finished.glob("runs/own/logs/*.log")]
    assert sum("goes on after epoch" in text for text in logs) == len(between["status"])
    for run in run_folders(finished):
        assert [line["epoch"] for line in RunFolder(run).metrics()] == [1, 2, 3, 4]


def test_its_runs_have_metrics_curves_and_detections_in_folder_and_store(finished: Path) -> None:
    record = load_study(store_in(finished), "own")
    runs = {(run.arm, run.seed): run for run in record.runs}
    assert set(runs) == {(arm, seed) for arm in ARMS for seed in range(3)}
    assert {run.state for run in record.runs} == {"FINISHED"}
    for run in record.runs:
        curve = run.history[run.history["metric"] == "train/loss"]
        in_folder = [line["metrics"]["train/loss"] for line in RunFolder(Path(run.folder)).metrics()]
        assert list(curve["epoch"]) == [1, 2, 3, 4] and list(curve["value"]) == in_folder
    first = runs[ARMS[1], 0]
    assert 0 <= first.metrics["val/AP"] < 1 and first.params["loss.gamma"] == "2.0"
    # Nothing of this project's own network, which had no part in it.
    assert not any(name.startswith(("model.", "optim.", "data.")) for name in first.params)
    assert len({run.metrics["train/loss"] for run in record.runs}) == 6
    folder = RunFolder(Path(first.folder))
    assert {"ground_truth.json", "val.json"} == {path.name for path in folder.file("detections").iterdir()}
    log = finished / "runs" / "own" / "logs" / f"{ARMS[1]}-seed2.log"
    assert "--loss focal --alpha 0.25 --gamma 2.0" in log.read_text() and "epoch 4: loss" in log.read_text()
    assert "--loss bce --pause" in (log.parent / "bce-seed0.log").read_text()


def test_status_and_plan_know_it(finished: Path) -> None:
    status = study_status(finished / "runs", "own")
    assert [run.status for run in status.runs] == ["finished"] * 6
    assert all((run.epoch, run.epochs) == (4, 4) and run.value is not None for run in status.runs)
    plan = in_this_process(finished, "plan", "sweeps=own", "seeds=[0,1,2,3]").stdout
    assert "2 to do" in plan and "a trainer of your own" in plan and "s an epoch, 6 earlier runs" in plan
    measured = in_this_process(finished, "plan", "sweeps=own", "seeds=[4]", "measure=true", check=2)
    assert "measure=true: a trainer of your own cannot be timed" in error_line(measured)


def test_what_is_done_is_skipped_until_code_or_data_change(copied: Path) -> None:
    before = {run: (run / "metrics.jsonl").stat().st_mtime_ns for run in run_folders(copied)}
    in_this_process(copied, *OWN)
    assert {run: (run / "metrics.jsonl").stat().st_mtime_ns for run in run_folders(copied)} == before
    script = copied / "own" / "train.py"
    script.write_text(script.read_text() + "# edited\n")
    assert "6 to do" in in_this_process(copied, "plan", "sweeps=own").stdout
    truth = copied / "data" / "val.json"
    truth.write_text(truth.read_text().replace("red", "rot"))
    refused = in_this_process(copied, *OWN, check=2)
    assert "6 finished runs in it are of other data" in error_line(refused)


def test_the_report_says_what_pairing_rests_on_and_the_correlation_over_seeds(copied: Path) -> None:
    ablation(copied, "report", "study=own", figures=False)
    page = (copied / "runs" / "own" / "report" / "report.html").read_text()
    assert "pairing rests on the seed only" in page
    assert "Correlation with the baseline over the seeds: " in page
    assert "weights and batches as far as the trainer sees to it" in page
    assert "arms with one seed share weights" not in page and "the study&#39;s own trainer reads" in page


@pytest.mark.slow
def test_its_finalists_are_confirmed_on_the_test_split_by_its_own_command(copied: Path) -> None:
    result = ablation(copied, "confirm", "study=own", "seeds=10-12")
    assert "test/AP" in result.stdout
    record = load_study(store_in(copied), "own_confirm")
    assert len(record.runs) == 6 and all(0 <= run.metrics["test/AP"] < 1 for run in record.runs)
    truth = json.loads((Path(record.runs[0].folder) / "detections" / "test_ground_truth.json").read_text())
    assert truth["images"][0]["file_name"] == "test0.png"


def test_commands_that_cannot_do_their_work_say_so(copied: Path) -> None:
    run = run_folders(copied)[0]
    result = in_this_process(copied, "predict", f"run={run}", "images=data", check=2)
    assert "only that trainer can load them" in error_line(result)
    script = copied / "own" / "train.py"
    script.write_text(script.read_text() + "# edited\n")
    result = in_this_process(copied, "confirm", "study=own", "seeds=10-12", check=2)
    assert "was trained by another trainer: the content of trainer.folder was" in error_line(result)
    no_test = ["trainer.test_detections=null", "trainer.test_ground_truth=null"]
    result = in_this_process(copied, "confirm", "study=own", "seeds=10-12", *no_test, check=2)
    assert "give trainer.test_ground_truth and trainer.test_detections" in error_line(result)


def test_keys_of_our_own_training_do_not_know_the_trainer(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished)
    words = ["loss=bce", "data.train_images=16", "data.val_images=4"]
    (ours,), (spelled,) = (study_runs([*words, *more])[0] for more in ([], ["+trainer.settings.a=1"]))
    assert ours.key == spelled.key
    assert not any(name.startswith("trainer") for name in ours.params)


# errors


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.folder=nowhere"], "trainer.folder: "),
        (
            ["trainer.settings.width=3"],
            "no such entry; trainer.settings has pause. +trainer.settings.width=VALUE adds it",
        ),
        (
            ["trainer.settings={a: 1}"],
            "an entry is added with a + before it, as in +trainer.settings.NAME=VALUE",
        ),
        (
            ["arms=[{loss: focal, arm: x}, {loss: focal, train.size_px: 64, arm: y}]"],
            "arms 'x' and 'y' start the same",
        ),
        (["trainer.ground_truth=null"], "trainer.ground_truth: found None, must be COCO's ground truth"),
        (["halving.enabled=true", "halving.rungs=[1]"], "halving.enabled: a command cannot be stopped"),
        (["train.device=tpu"], "train.device: found 'tpu', must be auto, cpu, cuda or cuda:N"),
    ],
)
def test_what_is_refused_before_anything_starts(
    overrides: list[str], message: str, finished: Path, tmp_path: Path
) -> None:
    for name in ("own", "data", "sweeps"):
        shutil.copytree(finished / name, tmp_path / name)
    result = in_this_process(tmp_path, *OWN, *overrides, check=2)
    assert message in error_line(result)
    assert not (tmp_path / "runs").exists()


def test_faults_cost_their_run_alone_and_each_is_one_line_with_its_log(tmp_path: Path) -> None:
    """BCE seed 0: its process is killed with -9; BCE seed 1: the trainer fails; focal seed 1: memory."""
    fault = (
        "time.sleep(60 if (loss, seed) == ('bce', 0) else 0)"
        "; (loss, seed) == ('bce', 1) and sys.exit('no such seed')"
        "; tried = pathlib.Path('tried'); first = (loss, seed) == ('focal', 1) and not tried.exists()"
        "; first and (tried.touch(), sys.exit('CUDA out of memory'))"
    )
    folder = put_quick_trainer(tmp_path, fault)
    launcher = start([sys.executable, "-m", "ablation.cli", *QUICK], folder, folder / "output")
    wait_until(lambda: any(folder.glob("runs/quick/bce/seed0-*/trainer/m.csv")))
    (run,) = map(RunFolder, folder.glob("runs/quick/bce/seed0-*"))
    wait_until(lambda: len(list(folder.glob("runs/quick/focal*/*/DONE"))) == 1)
    os.kill(run.read_json("state.json")["pid"], signal.SIGKILL)
    assert launcher.wait(60) == 1
    wait_until(lambda: not pids_naming(str(run.path)), 10)
    output = (folder / "output").read_text()
    assert (
        "2 of 4 runs failed: bce seed 0: killed by SIGKILL (log: runs/quick/logs/bce-seed0.log); " in output
    )
    assert (
        "bce seed 1: the trainer exited with code 1; its last line: no such seed (log: runs/quick" in output
    )
    states = {path.parent.name[:5]: RunFolder(path).state for path in run_folders(folder)[:2]}
    states = [RunFolder(path).state for path in run_folders(folder)]
    assert states == ["KILLED", "FAILED", "FINISHED", "FINISHED"]
    assert f"finished {ARMS[1]} seed 1: FINISHED, alone, after it had run out of memory" in output
    values = [RunFolder(path).metrics()[-1]["metrics"]["val/AP"] for path in run_folders(folder)[2:]]
    assert values == [0.3, 0.4]


def test_a_single_run_shows_its_epochs_and_names_its_log(tmp_path: Path) -> None:
    folder = put_quick_trainer(tmp_path, "print('line', epoch); seed and sys.exit('no way')")
    words = ["train", "sweeps=quick", "arms=null"]
    result = ablation(folder, *words, "arm=x", "seed=0")
    assert "epoch 3/3  val/AP 0.4" in result.stdout and "FINISHED: runs/quick/x/seed0-" in result.stdout
    assert "line 3" in (folder / "runs" / "quick" / "logs" / "x-seed0.log").read_text()
    result = ablation(folder, *words, "arm=x", "seed=1", check=1)
    assert error_line(result).endswith("its last line: no way (log: runs/quick/logs/x-seed1.log)")


def test_a_trainer_that_is_edited_while_its_study_waits_is_refused(tmp_path: Path) -> None:
    """A run that starts late finds other code than the plan's: its key would be another one's."""
    fault = "open(__file__, 'a').write('# edited'); pass"
    folder = put_quick_trainer(tmp_path, fault)
    (folder / "other.json").write_text("{}")
    words = [*QUICK, "trainer.data=[../other.json]", "seeds=[5]", "hydra.launcher.slots=1"]
    assert "changed after the study was launched; put it back to go on" in error_line(
        ablation(folder, *words, check=1)
    )
