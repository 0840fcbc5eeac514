"""A secret in the environment, and settings that ask for it: refused, and not a byte of it is written."""

from __future__ import annotations

from itertools import cycle, islice, product
from pathlib import Path

import pytest
from helpers.command import TINY, ablation, error_line, started_from_nothing
from helpers.fault_trials import Row

SECRET = "s3cr3t-t0ken-91f2"
CALLS = (
    "${oc.env:TOKEN}",
    "a ${oc.decode:${oc.env:TOKEN}} b",
    "${oc.env:NONE,${oc.env:TOKEN}}",
    "${${out}:TOKEN}",
)
PLACES = ("argument", "study file", "arm", "study's name", "cache")


def command(folder: Path, place: str, call: str) -> list[str]:
    """A study of which one setting has the call."""
    head = {
        "study file": f"study: x\ndescription: '{call}'\narms: [{{loss: bce}}]",
        "arm": f"study: x\narms: [{{loss: bce, description: '{call}'}}]",
        "study's name": f"study: '{call}'\narms: [{{loss: bce}}]",
    }.get(place, "study: x\narms: [{loss: bce}]")
    (folder / "sweeps").mkdir(parents=True)
    (folder / "sweeps" / "x.yaml").write_text(f"# @package _global_\n{head}\n")
    asked = {"argument": [f"description='{call}'"], "cache": [f"data.cache_dir='{call}'"]}.get(place, [])
    return ["train", "-m", "sweeps=x", *TINY, "train.epochs=1", "out=oc.env", *asked]


def files_with_secret(folder: Path) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    "trials", [pytest.param(2, id="short"), pytest.param(20, id="full", marks=pytest.mark.fault)]
)
def test_a_secret_of_the_environment(
    tmp_path: Path, trials: int, monkeypatch: pytest.MonkeyPatch, record_property: object
) -> None:
    """Refused with one line that names the setting; nothing on disk or in the output has the secret."""
    monkeypatch.setenv("TOKEN", SECRET)
    row = Row("setting taken from the environment", record_property)
    pairs = list(product(PLACES, CALLS))[:: 7 if trials == 2 else 1]
    for number, (place, call) in enumerate(islice(cycle(pairs), trials)):
        with row.trial(f"{place}: {call}"):
            folder = tmp_path / str(number)
            run = ablation if trials == 2 else started_from_nothing
            result = run(folder, *command(folder, place, call), check=2)
            assert "the environment" in error_line(result)
            assert SECRET not in result.stdout + result.stderr
            assert files_with_secret(folder) == [] and not list(folder.rglob("run.json"))
    assert row.end(trials) == []


def test_a_run_writes_nothing_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret that no setting asks for: run folder, study folder and store are searched."""
    monkeypatch.setenv("TOKEN", SECRET)
    started_from_nothing(tmp_path, "train", "-m", *TINY, "train.epochs=1", "study=s", "seed=0,1")
    assert len(list(tmp_path.rglob("run.json"))) == 2 and (tmp_path / "mlflow.db").is_file()
    assert files_with_secret(tmp_path) == []
