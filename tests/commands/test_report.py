"""`ablation report`: the declared comparison has its own place, and classes of the data keep their names."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.shared import put_store
from helpers.store import run_folder, store_in

from ablation import cli
from ablation.commands.report import report_folder
from ablation.tracking.mirror import Mirror
from ablation.tracking.study_record import load_study

TABLE = """\
arm,seed,loss.name,AP,AP50
bce,0,bce,0.40,0.60
bce,1,bce,0.41,0.61
focal,0,focal,0.45,0.50
focal,1,focal,0.46,0.51
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an imported study and its report."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs.csv").write_text(TABLE)
    assert cli.run(["import", "study=s", "table=runs.csv"]) == 0
    assert cli.run(["report", "study=s"]) == 0
    return tmp_path


def mlflow_state(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Tags of the study's experiment and of its parent run."""
    store = store_in(folder)
    client, experiment = store.client(), store.experiment("s")
    parent = store.parent_run(experiment, "s", create=False)
    assert parent is not None
    return dict(client.get_experiment(experiment).tags), dict(client.get_run(parent).data.tags)


def test_another_metric_takes_nothing_from_the_declared_report(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = project / "runs" / "s"
    before = {path.name: path.read_bytes() for path in (folder / "report").iterdir()}
    in_mlflow = mlflow_state(project)
    assert "verdict" in in_mlflow[1]
    capsys.readouterr()
    assert cli.run(["report", "study=s", "metric=val/AP50"]) == 0
    assert {path.name: path.read_bytes() for path in (folder / "report").iterdir()} == before
    assert mlflow_state(project) == in_mlflow
    output = capsys.readouterr().out
    assert "report-val-AP50" in output and "(val/AP)" in output
    page = (folder / "report-val-AP50" / "report.html").read_text(encoding="utf-8")
    assert "not the study&#39;s main report" in page
    assert "main report" not in (folder / "report" / "report.html").read_text(encoding="utf-8")


def test_folders_of_other_metrics_do_not_collide() -> None:
    assert report_folder("val/AP", "val/AP") == "report"
    classes = ("<b>", "(b)", "-b-", "../..")
    metrics = ["val/AP", "val/AP50", *(f"val/AP_class/{name}" for name in classes)]
    folders = [report_folder(metric, "test/AP") for metric in metrics]
    assert len(set(folders)) == len(folders) and folders[1] == "report-val-AP50"
    assert all(folder.startswith("report-") and "/" not in folder for folder in folders)


@pytest.mark.parametrize(
    "name", ["<b>", "key=val", "$x_{", "a,b", "plain", "gr\u00fc\u00dfe", "a_undistorted"]
)
def test_classes_keep_their_names_in_the_records(tmp_path: Path, name: str) -> None:
    """MLflow takes few characters in the names of metrics; what it takes is not what people read."""
    run, store = run_folder(tmp_path), put_store(tmp_path)
    metrics = {"val/AP": 0.5, f"val/AP_class/{name}": 0.25}
    for epoch in (1, 2):
        run.append_metrics(epoch, metrics)
    run.set_state("FINISHED")
    mirror = Mirror(store, run, strict=True)
    mirror.start()
    mirror.push()
    record = load_study(store, "s", tmp_path / "runs").runs[0]
    assert record.metrics == metrics


def test_hundreds_of_such_classes_are_logged(tmp_path: Path) -> None:
    """MLflow takes at most 100 tags at once."""
    run, store = run_folder(tmp_path), put_store(tmp_path)
    metrics = {f"val/AP_class/<{number}>": number / 1000 for number in range(250)}
    run.append_metrics(1, metrics)
    run.set_state("FINISHED")
    mirror = Mirror(store, run, strict=True)
    mirror.start()
    mirror.push()
    assert load_study(store, "s", tmp_path / "runs").runs[0].metrics == metrics
