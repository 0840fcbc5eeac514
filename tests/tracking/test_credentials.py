"""Passwords in addresses: taken out, used, hidden."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from helpers.shared import put_store
from helpers.store import run_folder
from hydra.types import HydraContext
from omegaconf import OmegaConf

from ablation.errors import UsageError, one_line, redact
from ablation.records import Plan, PlannedRun
from ablation.study.launchers.local.launcher import job_config
from ablation.tracking.credentials import clean_argument, with_credentials, without_credentials
from ablation.tracking.experiment import publish_plan
from ablation.tracking.mirror import Mirror
from ablation.tracking.store import Store

NAMES = ("USERNAME", "PASSWORD", "TOKEN")


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """None of the variables before the test, nor after it."""
    former = {name: os.environ.pop(f"MLFLOW_TRACKING_{name}", None) for name in NAMES}
    yield
    for name, value in former.items():
        os.environ.pop(f"MLFLOW_TRACKING_{name}", None)
        if value is not None:
            os.environ[f"MLFLOW_TRACKING_{name}"] = value


def taken() -> dict[str, str]:
    variables = {name: os.environ.get(f"MLFLOW_TRACKING_{name}") for name in NAMES}
    return {name: value for name, value in variables.items() if value is not None}


@pytest.mark.parametrize(
    ("address", "public", "secrets"),
    [
        ("http://alice:PW-1234@host:5000", "http://host:5000", {"USERNAME": "alice", "PASSWORD": "PW-1234"}),
        ("https://a%40b:p%2F%3A1@host/x", "https://host/x", {"USERNAME": "a@b", "PASSWORD": "p/:1"}),
        ("http://alice:p@ss/w#rd@host", "http://host", {"USERNAME": "alice", "PASSWORD": "p@ss/w#rd"}),
        ("https://TOKEN-1234@host", "https://host", {"TOKEN": "TOKEN-1234"}),
        ("http://host:5000/?access_token=T-1234#x", "http://host:5000/", {"TOKEN": "T-1234"}),
        ("http://host?user=u&password=PW-1", "http://host", {"USERNAME": "u", "PASSWORD": "PW-1"}),
        ("postgresql+psycopg://u:PW@h/db", "postgresql+psycopg://h/db", {"USERNAME": "u", "PASSWORD": "PW"}),
        ("mysql://h/db?ssl_mode=on&password=PW-1", "mysql://h/db?ssl_mode=on", {"PASSWORD": "PW-1"}),
        ("mysql://u@h/db", "mysql://h/db", {"USERNAME": "u"}),
        ("http://host:5000", "http://host:5000", {}),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db", {}),
        ("HTTP://alice:PW-1234@host", "HTTP://host", {"USERNAME": "alice", "PASSWORD": "PW-1234"}),
    ],
)
def test_credentials_leave_the_address_for_the_environment(
    address: str, public: str, secrets: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    assert without_credentials(address) == public
    assert taken() == secrets
    assert without_credentials(public) == public and taken() == secrets
    assert caplog.text.count("MLFLOW_TRACKING_PASSWORD") == (1 if secrets else 0)
    assert not any(value in caplog.text for name, value in secrets.items() if name != "USERNAME")


def test_a_database_gets_its_credentials_in_memory_only() -> None:
    store = Store.of("postgresql+pg8000://alice:p%2Fw-12@host/db", None)
    assert store.uri == "postgresql+pg8000://host/db" and "p/w-12" not in repr(store)
    assert store.private_uri == "postgresql+pg8000://alice:p%2Fw-12@host/db"
    assert with_credentials("http://host", "alice", "p") == "http://host"  # MLflow reads the environment


def test_a_secret_that_cannot_be_passed_on_is_refused_without_being_shown() -> None:
    for call in (
        lambda: without_credentials("postgresql://h/db?sslpassword=PW-1234"),
        lambda: without_credentials("alice:PW-1234@host:5000"),
        lambda: without_credentials(" http://alice:PW-1234@host"),
        lambda: without_credentials("http://alice:PW-1234${x}@host"),
        lambda: clean_argument("tracking.uri=alice:PW-1234@host"),
        lambda: clean_argument("tracking.artifacts=s3://key:PW-1234@bucket"),
        lambda: clean_argument("description=see http://a:PW-1234@host"),
        lambda: clean_argument("tracking={uri: 'http://a:PW-1234@host'}"),
        lambda: clean_argument("tracking.artifacts=http://host/a?user=u&password=PW-1234"),
        lambda: clean_argument("description=see http://host/a?api_key=PW-1234"),
        lambda: Store.of(None, "s3://key:PW-1234@bucket"),
        lambda: Store.of(None, "http://host/a?access_token=PW-1234"),
    ):
        with pytest.raises(UsageError) as error:
            call()
        assert "PW-1234" not in str(error.value) and taken() == {}


@pytest.mark.parametrize("key", ["uri", "tracking.uri", "+tracking.uri", "++tracking.uri"])
@pytest.mark.parametrize("mark", ["", "'", '"'])
def test_arguments_are_cleaned_before_hydra_reads_them(key: str, mark: str) -> None:
    assert clean_argument(f"{key}={mark}http://alice:PW-1234@h:1{mark}") == f"{key}={mark}http://h:1{mark}"
    assert taken() == {"USERNAME": "alice", "PASSWORD": "PW-1234"}


@pytest.mark.parametrize(
    "argument", ["data.root=a@b", "-m", "uri=sqlite:////a@b/c.db", "images=/x@y", "--help"]
)
def test_other_arguments_are_left_alone(argument: str) -> None:
    assert clean_argument(argument) == argument


def test_messages_do_not_show_a_password(caplog: pytest.LogCaptureFixture) -> None:
    without_credentials("http://alice:PW-%2F234@host")
    for text in ("wrong password PW-/234", "tried PW-%2F234", "GET http://bob:PW-/234@host failed"):
        assert "234" not in one_line(text) and "bob" not in one_line(text)
        logging.getLogger("mlflow").warning("%s", text)
    assert "234" not in caplog.text and caplog.text.count("***") == 2
    assert redact("sqlite:////home/me@work/mlflow.db is fine") == "sqlite:////home/me@work/mlflow.db is fine"


def test_a_job_for_slurm_which_is_written_to_disk_holds_none() -> None:
    def composed(config: object, overrides: list[str]) -> Any:
        return OmegaConf.create({"tracking": {"uri": address}, "out": "runs"})

    context = cast(HydraContext, SimpleNamespace(config_loader=SimpleNamespace(load_sweep_config=composed)))
    address = "http://alice:PW-1234@host"
    assert "PW-1234" not in OmegaConf.to_yaml(job_config(context, OmegaConf.create(), []))
    assert taken()["PASSWORD"] == "PW-1234"  # which the job inherits
    address = "${other.setting}"
    assert "${other.setting}" in OmegaConf.to_yaml(job_config(context, OmegaConf.create(), []))


def test_what_version_0_1_wrote_is_not_copied_into_mlflow(tmp_path: Path) -> None:
    store, folder = put_store(tmp_path), run_folder(tmp_path)
    folder.file("config.yaml").write_text("tracking: {uri: http://alice:PW-1234@host}\n")
    command = "ablation train tracking.uri=http://alice:PW-1234@host"
    folder.write_json("run.json", folder.read_json("run.json") | {"command": command})
    folder.set_state("FINISHED")
    Mirror(store, folder, strict=True).finish([])
    publish_plan(store, "s", Plan([PlannedRun("bce", 0, "k", command)]))
    files = [path for path in tmp_path.rglob("*") if path.is_file() and "runs" not in path.parts]
    assert len(files) >= 3 and not [path for path in files if b"PW-1234" in path.read_bytes()]
