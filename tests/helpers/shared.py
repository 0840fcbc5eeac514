"""Made once in a test session, by whichever worker needs it first: an empty store, finished studies.

Nobody writes into what is shared: tests that write take a copy.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from ablation.files import exclusive_lock

if TYPE_CHECKING:
    from ablation.tracking.store import Store

VARIABLE = "ABLATION_TESTS_SHARED"
"""Names the session's folder; tests/conftest.py sets it before the workers start."""


def open_session() -> None:
    """Make the session's folder, which this process owns."""
    root = Path(tempfile.mkdtemp(prefix="ablation-tests-"))
    (root / "owner").write_text(str(os.getpid()))
    os.environ[VARIABLE] = str(root)


def close_session() -> None:
    """Remove it."""
    shutil.rmtree(os.environ.pop(VARIABLE), ignore_errors=True)


def session_alive() -> bool:
    """Whether the folder is there and its owner lives."""
    try:
        os.kill(int((Path(os.environ[VARIABLE]) / "owner").read_text()), 0)
    except OSError:
        return False
    return True


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """A folder of the session that `make` has filled; other workers wait for it."""
    root = Path(os.environ[VARIABLE])
    place, done = root / name, root / f"{name}.done"
    with exclusive_lock(root / f"{name}.lock", wait=True):
        if not done.exists():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            make(place)
            done.touch()
    return place


def put_store(folder: Path) -> Store:
    """An empty store that is ready, in `folder`; to make one takes MLflow more than a second."""
    from ablation.tracking.store import Store  # it imports mlflow, which most tests do without

    empty = made_once("store", lambda place: Store.of(f"sqlite:///{place / 'mlflow.db'}", None).prepare())
    shutil.copy(empty / "mlflow.db", folder)
    return Store.of(f"sqlite:///{folder / 'mlflow.db'}", None)


def copy_of(study: Path, folder: Path) -> Path:
    """A copy of a study's working folder, whose store knows where it is now."""
    shutil.copytree(study, folder, dirs_exist_ok=True)
    with closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
        for table, column in (
            ("experiments", "artifact_location"),
            ("runs", "artifact_uri"),
            ("tags", "value"),
        ):
            change = f"UPDATE {table} SET {column} = replace({column}, ?, ?)"
            database.execute(change, (str(study), str(folder)))
    return folder
