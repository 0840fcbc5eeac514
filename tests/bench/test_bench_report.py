"""A study of 1,000 runs x 100 epochs: how long its table and its report take. Prints, and judges nothing."""

from __future__ import annotations

import os
import resource
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from helpers.command import started_from_nothing
from helpers.store import run_folder, store_in

from ablation.analyse.tables.table import runs_table
from ablation.tracking.mirror import Mirror
from ablation.tracking.study_record import load_study

ARMS, SEEDS, EPOCHS = 40, 25, 100
MORE = [f"val/AP_class/{letter}" for letter in "abcdefghijklmnopqrst"] + ["time/images_per_s", "val/AP_small"]


def generated_store(folder: Path) -> None:
    """MLflow's own tables, filled with copies of one run that went through its API."""
    store, run = store_in(folder), run_folder(folder)
    store.prepare()
    # As many parameters and notes as a real run has.
    about = run.read_json("run.json")
    run.write_json(
        "run.json", about | {"params": about["params"] | {f"group.key{i}": "0.5" for i in range(80)}}
    )
    run.note(**{f"note{i}": "x" for i in range(20)})
    for epoch in range(1, EPOCHS + 1):
        run.append_metrics(epoch, dict.fromkeys(("val/AP", "val/AP50", "val/AP75", "train/loss", *MORE), 0.5))
    run.set_state("FINISHED")
    Mirror(store, run, strict=True).finish([])
    generator = np.random.default_rng(0)
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        (first,) = database.execute(
            "SELECT run_uuid FROM tags WHERE key = 'kind' AND value = 'run'"
        ).fetchone()
        columns = {
            table: [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            for table in ("runs", "tags", "params", "metrics", "latest_metrics")
        }
        rows = {
            table: database.execute(f"SELECT * FROM {table} WHERE run_uuid = ?", (first,)).fetchall()
            for table in columns
        }
        for table in columns:
            database.execute(f"DELETE FROM {table} WHERE run_uuid = ?", (first,))
        for arm in range(ARMS):
            params = {"loss.name": "bce", "loss.alpha": "None", "loss.gamma": "None"} if arm == 0 else {
                "loss.name": "focal", "loss.alpha": f"{(arm % 8 + 1) / 10}", "loss.gamma": f"{arm // 8 / 2}"
            }  # fmt: skip
            for seed in range(SEEDS):
                uuid, value = f"{arm:016x}{seed:016x}", float(generator.normal(0.4 + 0.001 * arm, 0.01))
                tags = {"arm": f"arm{arm}", "seed": str(seed), "key": f"{arm:032x}{seed:032x}", "folder": ""}
                for table, content in rows.items():
                    names = columns[table]
                    new = []
                    for row in content:
                        cells = dict(zip(names, row, strict=True)) | {"run_uuid": uuid}
                        if table == "tags":
                            cells["value"] = tags.get(cells["key"], cells["value"])
                        if table == "params":
                            cells["value"] = params.get(cells["key"], cells["value"])
                        if table in ("metrics", "latest_metrics"):
                            cells["value"] = value * cells["step"] / EPOCHS
                        new.append(tuple(cells[name] for name in names))
                    marks = ", ".join("?" * len(names))
                    database.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", new)
        database.commit()


@pytest.mark.bench
def test_a_thousand_runs(tmp_path: Path) -> None:
    generated_store(tmp_path)
    start, cpu = time.perf_counter(), time.process_time()
    study = load_study(store_in(tmp_path), "s")
    loaded = time.perf_counter()
    table = runs_table(study)
    done = time.perf_counter()
    assert len(table) == ARMS * SEEDS and table["valid"].all()
    assert all(len(run.history) == 4 * EPOCHS for run in study.runs)
    print(
        f"\n{len(table)} runs x {EPOCHS} epochs: "
        f"read in {loaded - start:.1f} s, table in {done - loaded:.1f} s "
        f"(of a processor: {time.process_time() - cpu:.1f} s)"
    )
    begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    started_from_nothing(tmp_path, "report", "study=s")
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"the whole report in {wall:.1f} s (of a processor: {used:.1f} s), on {os.cpu_count()} cores")
