"""Files that runs logged, for where a run's folder is on another machine; without mlflow itself."""

from __future__ import annotations

import logging
import tempfile
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from ablation.errors import StoreError
from ablation.files import sha256_file, write_text
from ablation.tracking.address import cache_folder, sqlite_file
from ablation.tracking.run_places import current_artifacts

log = logging.getLogger(__name__)

Place = tuple[str, int | None]
"""Where a run's files are, as MLflow names it, and when the run ended."""

_places: dict[tuple[str, str], Place] = {}


def remember(uri: str, runs: list[Any]) -> None:
    """Keep where the files of these runs are, so that they need not be asked for one by one."""
    for run in runs:
        _places[uri, str(run.info.run_id)] = (str(run.info.artifact_uri), run.info.end_time)


def fetch(client: Any, uri: str, run_id: str, path: str) -> Path | None:
    """The file `path` of a run; None where it has none.

    A file of this machine is read where it lies. Others are downloaded once into cache_folder, and anew
    where the copy there does not have the hash that was kept with it.

    Args:
        client: an MlflowClient of the store at `uri`.

    Raises:
        StoreError: another number of bytes came than the server lists.
    """
    if (uri, run_id) not in _places:
        remember(uri, [client.get_run(run_id)])
    place, ended_ms = _places[uri, run_id]
    database = sqlite_file(uri)
    folder = current_artifacts(place, None if database is None else database.parent)
    if folder is not None:
        return folder / path if (folder / path).is_file() else None
    file = cache_folder(uri, run_id, ended_ms) / path
    if not _is_whole(file):
        sizes = _listed(client, run_id, str(PurePosixPath(path).parent).lstrip("."), ended_ms)
        if path not in sizes:
            return None
        _download(client, run_id, path, sizes[path], file)
    return file


def _download(client: Any, run_id: str, path: str, size: int | None, file: Path) -> None:
    """Put a file of a server into `file`, with its hash beside it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as half:
        loaded = Path(client.download_artifacts(run_id, path, half))
        if size is not None and loaded.stat().st_size != size:
            found = loaded.stat().st_size
            raise StoreError(
                f"{path} of MLflow's run {run_id} came with {found:,} of {size:,} bytes; try again"
            )
        digest = sha256_file(loaded)
        loaded.replace(file)
    write_text(_digest_file(file), f"{digest}\n")


def _digest_file(file: Path) -> Path:
    return file.with_name(f"{file.name}.sha256")


def _is_whole(file: Path) -> bool:
    """Whether a downloaded file is as it came: the cache is writable, and may have been damaged since."""
    try:
        recorded = _digest_file(file).read_text(encoding="ascii", errors="replace").strip()
        if sha256_file(file) == recorded:
            return True
        log.warning("%s: damaged since it was downloaded; downloaded anew", file)
    except FileNotFoundError:
        pass
    return False


@cache
def _listed(client: Any, run_id: str, folder: str, ended_ms: int | None) -> dict[str, int | None]:
    """Path -> bytes of the files in one folder of a run, asked for once, and again when it has ended anew."""
    return {str(file.path): file.file_size for file in client.list_artifacts(run_id, folder)}
