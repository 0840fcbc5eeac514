"""Where a tracking store is: what a person writes -> an absolute address."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote

from ablation.errors import UsageError
from ablation.files import sha256_text
from ablation.tracking.credentials import NO_CREDENTIALS, holds_credentials, without_credentials
from ablation.tracking.run_places import ARTIFACTS

SQLITE = "sqlite:///"


def resolve(uri: str | None, artifacts: str | None) -> tuple[str, str | None]:
    """(tracking URI, root of the artifacts), both absolute.

    Args:
        uri: None: mlflow.db in the working folder, where `mlflow ui` finds it.
        artifacts: None: mlartifacts/ beside an SQLite file; a server has its own.

    Raises:
        UsageError: MLflow has no store of that kind; the artifacts' address holds a password.
    """
    uri = None if uri is None else without_credentials(uri)
    if artifacts is not None and holds_credentials(artifacts):
        raise UsageError(f"tracking.artifacts: {NO_CREDENTIALS}")
    if uri is None:
        uri = f"{SQLITE}{Path('mlflow.db').resolve()}"
    elif uri.startswith(SQLITE):
        uri = f"{SQLITE}{Path(uri.removeprefix(SQLITE)).resolve()}"
    elif "://" not in uri or uri.startswith("file:"):
        raise UsageError(
            f"tracking.uri: found {uri}; MLflow 3 does not store runs in plain folders: "
            "give sqlite:///FILE or http://HOST:PORT, or null for sqlite in mlflow.db"
        )
    if uri.startswith(SQLITE) and ("?" in uri or unquote(uri) != uri):  # another file would be opened
        raise UsageError(
            f"tracking.uri: {uri.removeprefix(SQLITE)}: MLflow opens no file whose path has a `?` or an "
            "escape such as %20; rename the folder, or give sqlite:///FILE in another one, or tracking=none"
        )
    if artifacts is None and uri.startswith(SQLITE):
        artifacts = (Path(uri.removeprefix(SQLITE)).parent / ARTIFACTS).as_uri()
    elif artifacts is not None and "://" not in artifacts:
        artifacts = Path(artifacts).resolve().as_uri()
    return uri, artifacts


def sqlite_file(uri: str) -> Path | None:
    """The database's file, where it is one."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def cache_folder(uri: str, run_id: str, ended_ms: int | None) -> Path:
    """Where downloads of a run are kept: a run that has ended anew has another folder."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "ablation" / sha256_text(uri)[:16] / f"{run_id}-{ended_ms}"
