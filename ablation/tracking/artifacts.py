"""Files that runs logged, for where a run's folder is on another machine; without mlflow itself."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from ablation.tracking.address import cache_folder, sqlite_file
from ablation.tracking.run_places import current_artifacts

Place = tuple[str, int | None]
"""Where a run's files are, as MLflow names it, and when the run ended."""

_places: dict[tuple[str, str], Place] = {}


def remember(uri: str, runs: list[Any]) -> None:
    """Keep where the files of these runs are, so that they need not be asked for one by one."""
    for run in runs:
        _places[uri, str(run.info.run_id)] = (str(run.info.artifact_uri), run.info.end_time)


def fetch(client: Any, uri: str, run_id: str, path: str) -> Path | None:
    """The file `path` of a run; None where it has none.

    A file of this machine is read where it lies. Others are downloaded once into cache_folder.

    Args:
        client: an MlflowClient of the store at `uri`.
    """
    if (uri, run_id) not in _places:
        remember(uri, [client.get_run(run_id)])
    place, ended_ms = _places[uri, run_id]
    database = sqlite_file(uri)
    folder = current_artifacts(place, None if database is None else database.parent)
    if folder is not None:
        return folder / path if (folder / path).is_file() else None
    file = cache_folder(uri, run_id, ended_ms) / path
    if not file.is_file():
        if path not in _listed(client, run_id, str(PurePosixPath(path).parent).lstrip("."), ended_ms):
            return None
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as half:
            Path(client.download_artifacts(run_id, path, half)).replace(file)
    return file


@cache
def _listed(client: Any, run_id: str, folder: str, ended_ms: int | None) -> frozenset[str]:
    """The files of one folder of a run, asked for once, and again when the run has ended anew."""
    return frozenset(str(file.path) for file in client.list_artifacts(run_id, folder))
