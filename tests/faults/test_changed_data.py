"""Data that change under a study's name: refused before anything trains, or the old runs leave the plan."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.command import ablation, error_line, run_folders
from helpers.fault_trials import Row, random
from helpers.voc_folder import annotation, encode, picture, write_voc

from ablation.study.app import study_runs
from ablation.study.execute import announce
from ablation.study.plan_file import plan_file, read_plan

RUN = [
    *("data=voc", "model=yolov4_tiny_small", "model.width=0.0625", "train.size_px=64", "train.batch_size=2"),
    *("train.epochs=2", "train.eval_every=1", "train.precision=fp32", "train.threads=1", "tracking=none"),
    *("augment=none", "study=s"),
]
ARMS = ["loss=bce,focal", "seed=0,1"]
LAUNCHES = {
    "the same study": ["-m", *ARMS],
    "another arm": ["-m", "loss=asl", "seed=0,1"],
    "one run": ["loss=bce", "seed=0"],
    "one more seed": ["loss=bce", "seed=7"],
    "halving": ["-m", *ARMS, "halving.enabled=true", "halving.rungs=[1]"],
}


def edit_box(root: Path) -> None:
    path = root / "Annotations" / "a.xml"
    path.write_text(path.read_text().replace("<xmin>2<", "<xmin>3<"))


def rename_class(root: Path) -> None:
    for path in (root / "Annotations").glob("*.xml"):
        path.write_text(path.read_text().replace("dog", "wolf"))


def change_image(root: Path) -> None:
    (root / "JPEGImages" / "c.jpg").write_bytes(encode(picture(seed=1)))


def add_image(root: Path) -> None:
    (root / "JPEGImages" / "g.jpg").write_bytes(encode(picture(seed=7)))
    (root / "Annotations" / "g.xml").write_text(annotation("g", [("dog", 2, 3, 12, 13)]))
    with (root / "ImageSets" / "Main" / "train.txt").open("a") as file:
        file.write("g\n")


def drop_val_image(root: Path) -> None:
    (root / "ImageSets" / "Main" / "val.txt").write_text("c\n")


CHANGES = (
    edit_box,
    rename_class,
    change_image,
    add_image,
    drop_val_image,
)


def sizes(short: int, full: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "trials", [pytest.param(short, id="short"), pytest.param(full, id="full", marks=pytest.mark.fault)]
    )


def content(folder: Path) -> dict[str, bytes]:
    """Every file below runs/ but locks."""
    files = (path for path in (folder / "runs").rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path): path.read_bytes() for path in files}


@sizes(2, 20)
def test_data_that_change_under_a_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trials: int, record_property: Any
) -> None:
    """Every change, in place or in another root, with every way to launch; states of the runs at random."""
    row, generator = Row("data that change under a study's name", record_property), random("other data")
    for number in range(trials):
        change, in_place = CHANGES[number % len(CHANGES)], bool(generator.integers(2))
        name = list(LAUNCHES)[int(generator.integers(len(LAUNCHES)))]
        with row.trial(f"{change.__name__}, {'in place' if in_place else 'another root'}, {name}"):
            folder = tmp_path / str(number)
            folder.mkdir()
            monkeypatch.chdir(folder)
            root = write_voc(folder / "a")
            runs, _ = study_runs([*RUN, *ARMS, f"data.root={root}"])
            announce(runs, None)
            states = generator.choice(["FINISHED", "DIVERGED", "KILLED", "FAILED"], len(runs))
            for run, state in zip(runs, states, strict=True):
                facts = {
                    "fingerprint": run.study_data.fingerprint,
                    "data": {"name": "voc", "root": str(root)},
                }
                run.folder.write_json("run.json", facts | {"study": "s"})
                run.folder.set_state(str(state))
            if not in_place:
                shutil.copytree(root, folder / "b")
                root = folder / "b"
            before = content(folder)
            assert "refused" not in ablation(folder, "plan", *RUN, *ARMS, f"data.root={root}").stdout
            change(root)
            launch = ["train", *LAUNCHES[name], *RUN, f"data.root={root}"]
            line = error_line(ablation(folder, *launch, check=2))
            assert "replace=true" in line and runs[0].study_data.fingerprint[:8] in line
            assert content(folder) == before
            assert "leave the plan" in ablation(folder, *launch, "replace=true").stderr
            plan, old = read_plan(plan_file(folder / "runs", "s")), {run.key for run in runs}
            assert old == set(plan.left_out) and not old & {run.key for run in plan.runs}
            assert len(run_folders(folder)) == len(old) + len(plan.runs)
    assert row.end(trials) == []
