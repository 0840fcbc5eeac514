"""Names from data and configuration as names of files and metrics."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from helpers.attacks import EVIL
from helpers.shared import put_store

from ablation.files import metric_name, safe_name
from ablation.tracking.run_folder import RunFolder
from ablation.tracking.study_folder import study_name


@pytest.mark.parametrize("name", EVIL, ids=lambda name: repr(name[:12]))
def test_a_name_is_one_plain_component_of_a_path(name: str, tmp_path: Path) -> None:
    safe = safe_name(name)
    assert re.fullmatch(r"[A-Za-z0-9_=][A-Za-z0-9._=-]*", safe) and len(safe) <= 120
    path = RunFolder.of(tmp_path, name, name, 3, "0123456789abcdef").path
    study = study_name(name)
    assert re.fullmatch(r"[A-Za-z0-9_=][A-Za-z0-9._=-]*", study) and len(study) <= 120
    assert path.resolve() == path and path.relative_to(tmp_path).parts == (study, safe, "seed3-01234567")
    path.mkdir(parents=True)
    assert [entry.name for entry in tmp_path.iterdir()] == [study]


def test_studies_of_any_two_names_have_two_folders() -> None:
    names = [*EVIL, "größe 1", "grüße 1", "gr e 1", "gr-e-1", "x" * 5001]
    assert len({study_name(name) for name in names}) == len(names)


@pytest.fixture(scope="module")
def mlflow_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, str]:
    """A client of a real store, and the id of a run in it."""
    store = put_store(tmp_path_factory.mktemp("metrics"))
    client = store.client()
    return client, str(client.create_run(store.experiment("names")).info.run_id)


@pytest.mark.parametrize("name", [*EVIL, "dog (small)", "猫", "a/b", "a:b"], ids=lambda name: repr(name[:12]))
def test_a_class_of_any_name_has_a_metric_that_mlflow_takes(name: str, mlflow_run: tuple[Any, str]) -> None:
    client, run = mlflow_run
    metric = metric_name(f"val/AP_class/{name}")
    client.log_metric(run, metric, 0.5)
    assert client.get_run(run).data.metrics[metric] == 0.5
    assert metric.startswith("val/AP_class") and metric != metric_name(f"val/AP_class/{name}!")
    assert metric_name("val/AP_class/white cell") == "val/AP_class/white cell"
