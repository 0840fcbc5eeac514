"""Runs made elsewhere enter the same analysis, or are refused by file and line."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from helpers.command import ROOT, ablation, error_line, in_this_process, run_folders
from helpers.shared import put_store

from ablation.analyse.tables.table import arms_table, runs_table
from ablation.commands.imports.import_runs import import_runs
from ablation.commands.imports.table import read_table
from ablation.errors import AblationError, UsageError
from ablation.tracking.run_folder import RunFolder
from ablation.tracking.store import Store
from ablation.tracking.study_record import load_study

HEAD = "arm,seed,AP,loss.name,loss.alpha\n"


def store_in(folder: Path) -> Store:
    return Store.of(f"sqlite:///{folder / 'mlflow.db'}", None)


def table(folder: Path, text: str, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_the_published_table_is_reported_without_a_verdict(tmp_path: Path) -> None:
    made = ablation(tmp_path, "import", "study=retinanet", f"table={ROOT}/notebooks/retinanet_table.csv")
    assert "8 runs" in made.stdout
    report = ablation(tmp_path, "report", "study=retinanet", figures=False)
    assert "not enough to tell" in report.stdout and report.stdout.count("inconclusive") == 7
    assert not any(word in report.stdout for word in ("better", "worse", "equivalent"))
    study = load_study(store_in(tmp_path), "retinanet")
    arms = arms_table(runs_table(study), "val/AP").set_index("arm")
    assert arms.loc["bce", "baseline"] and arms["n"].eq(1).all() and len(arms) == 8
    assert arms.loc["focal-0.25-2", "mean"] - arms.loc["bce", "mean"] == pytest.approx(0.038)
    assert study.runs[0].params["source"] == "import"


def test_importing_again_changes_nothing_and_an_edited_line_supersedes(tmp_path: Path) -> None:
    store, text = store_in(tmp_path), HEAD + "bce,0,0.3,bce,\nfocal,0,0.35,focal,0.25\n"

    def imported(text: str) -> dict[str, tuple[str, float]]:
        import_runs("s", table(tmp_path, text), tmp_path / "runs", store)
        return {run.key: (run.state, run.metrics["val/AP"]) for run in load_study(store, "s").runs}

    first = imported(text)
    before = {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    assert imported(text) == first and len(first) == 2
    assert {path: path.read_bytes() for path in before} == before
    # The same numbers in another spelling are the same runs.
    assert imported(text.replace("0.35,", "0.350,").replace(",0.25\n", ",0.250\n")) == first
    edited = imported(text.replace("0.35,", "0.36,"))
    now = {state: value for state, value in edited.values() if value in (0.35, 0.36) and state == "FINISHED"}
    assert now == {"FINISHED": 0.36}
    assert [value for state, value in edited.values() if state == "SUPERSEDED"] == [0.35]
    curve = load_study(store, "s").runs[0].history
    assert curve["epoch"].tolist() == [1]


def test_json_lines_and_csv_are_one(tmp_path: Path) -> None:
    rows = [{"arm": "bce", "seed": 0, "AP": 0.3}, {"arm": "f", "seed": 0, "AP": None, "state": "DIVERGED"}]
    lines = table(tmp_path, "# made elsewhere\n\n" + "\n".join(map(json.dumps, rows)) + "\n", "t.jsonl")
    same = table(tmp_path, "arm,seed,AP,state\nbce,0,0.3,\nf,0,,DIVERGED\n")
    contents = [
        [(r.arm, r.seed, r.state, r.params, r.metrics) for r in read_table(path)] for path in (lines, same)
    ]
    assert contents[0] == contents[1]
    assert contents[0][0] == ("bce", 0, "FINISHED", {"loss.name": "bce"}, {"val/AP": 0.3})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed,AP\n0,0.3\n", r"t\.csv:2: no arm"),
        ("arm,AP\nbce,0.3\n", r"t\.csv:2: no seed"),
        (
            "arm,seed,AP\nbce,0,0.3\n\nbce,0,0.4\n",
            r"t\.csv:4: arm 'bce' with seed 0 is already at .*t\.csv:2",
        ),
        ("arm,seed,AP\nbce,0,nan\n", r"t\.csv:2: AP: found nan, must be finite"),
        ("arm,seed,AP\nbce,0,inf\n", r"t\.csv:2: AP: found inf"),
        ("arm,seed,AP\nbce,0,30.2\n", r"t\.csv:2: AP: found 30\.2, must lie in \[0, 1\]; divide"),
        ("arm,seed,AP,note\nbce,0,0.3,good\n", r"t\.csv:2: note: found 'good', must be a number"),
        ("arm,seed,AP,state\nbce,0,0.3,DONE\n", r"t\.csv:2: state: found 'DONE', must be one of FINISHED"),
        ("arm,seed,AP\nbce,-1,0.3\n", r"t\.csv:2: seed: found '-1', must be a whole number"),
        ("arm,seed,AP\nbce,0\n", r"t\.csv:2: 2 cells under 3 columns"),
        ("arm,seed,AP,AP\nbce,0,1,1\n", r"t\.csv:1: column 'AP' occurs twice"),
        ("arm,seed,AP50\nbce,0,0.3\n", r"t\.csv:2: a finished run without AP"),
        ("arm,seed,AP,loss.alpha\nf,0,0.3,1\nf,1,0.3,2\n", r"t\.csv:3: arm 'f' has other loss settings"),
        ("arm,seed,AP,detections\nf,0,0.3,d.json\n", r"t\.csv:2: names detections; give gt=FILE"),
        ("arm,seed,AP\n", r"t\.csv: no runs in it"),
    ],
)
def test_a_wrong_line_is_named_and_nothing_is_written(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(AblationError, match=says):
        import_runs("s", table(tmp_path, text), tmp_path / "runs", store_in(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


# Sparse category ids, an annotation with the id 0, and image ids that are no positions.
TRUTH = {
    "images": [{"id": 7, "width": 100, "height": 100}, {"id": 9, "width": 100, "height": 100}],
    "annotations": [
        {"id": 0, "image_id": 7, "category_id": 17, "bbox": [10, 10, 40, 40]},
        {"id": 1, "image_id": 9, "category_id": 3, "bbox": [20, 20, 50, 50]},
    ],
    "categories": [{"id": 17, "name": "cat"}, {"id": 3, "name": "bed"}],
}
HITS = [
    {"image_id": note["image_id"], "category_id": note["category_id"], "bbox": note["bbox"], "score": 0.9}
    for note in TRUTH["annotations"]
]


def coco_files(folder: Path) -> Path:
    (folder / "found").mkdir()
    (folder / "gt.json").write_text(json.dumps(TRUTH))
    (folder / "found/all.json").write_text(json.dumps(HITS))
    (folder / "found/half.json").write_text(json.dumps(HITS[:1]))
    (folder / "found/none.json").write_text("[]")
    return folder / "gt.json"


def test_metrics_come_from_the_detections_where_they_are_given(tmp_path: Path) -> None:
    truth = coco_files(tmp_path)
    lines = table(tmp_path, "arm,seed,detections\nbce,0,half.json\nf,0,all.json\ng,0,none.json\n")
    folders = import_runs("s", lines, tmp_path / "runs", store_in(tmp_path), truth, tmp_path / "found")
    found = {run.arm: run.metrics for run in load_study(store_in(tmp_path), "s").runs}
    assert [found[arm]["val/AP"] for arm in ("bce", "f", "g")] == pytest.approx([0.5, 1.0, 0.0])
    assert found["bce"]["val/AP50_class/cat"] == pytest.approx(1) and found["bce"]["val/AP50_class/bed"] == 0
    assert [found[arm]["val/AP50_voc"] for arm in ("bce", "f", "g")] == pytest.approx([0.5, 1.0, 0.0])
    assert found["bce"]["val/AP50_voc_class/cat"] == pytest.approx(1)
    kept = [json.loads(folders[1].file(f"detections/{n}.json").read_text()) for n in ("val", "ground_truth")]
    assert {row["category_id"] for row in kept[0]} == {1, 2} and kept[1]["annotations"][0]["id"] == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ([HITS[0] | {"category_id": 4}], r"bad\.json: detection 1: category_id 4 is not in the ground truth"),
        ([HITS[0], HITS[0] | {"image_id": 8}], r"bad\.json: detection 2: image_id 8"),
        ([HITS[0] | {"score": float("nan")}], r"bad\.json: detection 1: score nan must be a finite number"),
        ([HITS[0] | {"bbox": [1, 2, 3]}], r"bad\.json: detection 1: bbox"),
        ({"a": 1}, r"bad\.json: must be a list"),
    ],
)
def test_wrong_detections_are_named(tmp_path: Path, text: object, says: str) -> None:
    truth = coco_files(tmp_path)
    (tmp_path / "found/bad.json").write_text(json.dumps(text))
    lines = table(tmp_path, "arm,seed,detections\nbce,0,found/bad.json\n")
    with pytest.raises(AblationError, match=says):
        import_runs("s", lines, tmp_path / "runs", store_in(tmp_path), truth)


def test_a_table_that_contradicts_its_detections_is_refused(tmp_path: Path) -> None:
    truth = coco_files(tmp_path)
    lines = table(tmp_path, "arm,seed,AP,detections\nbce,0,0.6,found/half.json\n")
    with pytest.raises(AblationError, match=r"t\.csv:2: val/AP: found 0\.6, but .*half\.json gives 0\.5000"):
        import_runs("s", lines, tmp_path / "runs", store_in(tmp_path), truth)


def test_a_trained_study_is_left_alone(tmp_path: Path) -> None:
    trained = RunFolder.of(tmp_path / "runs", "s", "bce", 0, "a" * 64)
    trained.write_json("run.json", {"params": {"loss.name": "bce"}})
    with pytest.raises(UsageError, match=r"study=s: has trained runs .*import into a study of another name"):
        import_runs("s", table(tmp_path, HEAD + "f,0,0.3,f,\n"), tmp_path / "runs", store_in(tmp_path))
    assert run_folders(tmp_path) == [trained.path]


def test_the_command_says_in_one_line_what_is_wrong(tmp_path: Path) -> None:
    table(tmp_path, "arm,seed,AP\nbce,0,x\n")
    assert "t.csv:2: AP" in error_line(ablation(tmp_path, "import", "study=s", "table=t.csv", check=1))
    assert "table=nothing.csv" in error_line(
        ablation(tmp_path, "import", "study=s", "table=nothing.csv", check=2)
    )


def test_the_next_command_can_be_pasted(tmp_path: Path) -> None:
    table(tmp_path, HEAD + "bce,0,0.1,bce,\n")
    assert (
        "ablation report study='my study'"
        in ablation(tmp_path, "import", "study=my study", "table=t.csv").stdout
    )


def test_a_store_that_fails_in_the_middle_is_one_line(tmp_path: Path) -> None:
    """MLflow prints a traceback of every error of a database before it raises it."""
    put_store(tmp_path)
    (tmp_path / "t.csv").write_text("arm,seed,AP,loss.name\nbce,0,0.4,bce\nbce,1,0.5,bce\n")
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("CREATE TRIGGER gone BEFORE INSERT ON params BEGIN SELECT RAISE(ABORT, 'gone'); END")
    result = in_this_process(tmp_path, "import", "study=s", "table=t.csv", check=1)
    assert "gone" in error_line(result) and "SQLAlchemy database error" not in result.stderr
    assert not (tmp_path / "runs" / "s").exists()
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("DROP TRIGGER gone")
    result = in_this_process(tmp_path, "import", "study=s", "table=t.csv")
    assert "2 runs of t.csv in runs/" in result.stdout
