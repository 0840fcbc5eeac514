"""Where runs' files are now, in a project that may have been moved, copied or mounted elsewhere.

What lies below the folder of the store's database is named relative to that folder. Absolute paths,
which a server's store and stores of version 0.1.0 hold, are looked for below that folder first.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit


def portable(folder: str, base: Path | None) -> str:
    """A run's folder as the store keeps it: relative to the database's folder where it lies below it."""
    path = Path(os.path.normpath(folder))
    for candidate in (path, path.resolve()):
        if base is not None and candidate.is_absolute() and candidate.is_relative_to(base):
            return candidate.relative_to(base).as_posix()
    return str(path)


class RunPlaces:
    """Finds the folders of runs.

    Args:
        base: folder of the store's database; None for a server.
        roots: folders that may hold <study>/<arm>/seed<k>-<key>, such as the command's out=.
    """

    def __init__(self, base: Path | None, roots: Sequence[Path] = ()) -> None:
        self.base = base
        self.roots = list(dict.fromkeys([*roots, *([] if base is None else [base / "runs"]), Path("runs")]))
        self._by_name: dict[str, list[Path]] | None = None

    def find(self, recorded: str, seed: int, key: str, started_ms: int | None) -> Path | None:
        """The folder of a run; None where it is not on this machine.

        A folder in another place than the recorded one is the run's if its name has the run's seed
        and key and it was started at the same millisecond.

        Args:
            recorded: the folder as the store has it.
        """
        name, place = f"seed{seed}-{key[:8]}", Path(recorded)
        if recorded and not place.is_absolute() and self.base is not None and (self.base / place).is_dir():
            return self.base / place
        moved = list(_suffixes(place, self.base, 3)) if place.is_absolute() and self.base else []
        for folder in moved:
            if folder.name == name and _started(folder) == started_ms:
                return folder
        if recorded and place.is_absolute() and place.is_dir():
            return place
        for folder in self._named(name):
            if _started(folder) == started_ms:
                return folder
        return None

    def with_key(self, prefix: str) -> list[Path]:
        """The run folders below the roots whose key begins with `prefix`."""
        folders = [folder for name in self._index() for folder in self._named(name)]
        return [folder for folder in folders if str(_value(folder / "run.json", "key")).startswith(prefix)]

    def _named(self, name: str) -> list[Path]:
        return self._index().get(name, [])

    def _index(self) -> dict[str, list[Path]]:
        if self._by_name is None:
            self._by_name = {}
            for root in self.roots:
                for path in sorted(root.glob("*/*/seed*/run.json")):
                    self._by_name.setdefault(path.parent.name, []).append(path.parent)
        return self._by_name


def _started(folder: Path) -> object:
    return _value(folder / "state.json", "started_ms")


def _value(path: Path, name: str) -> object:
    """An entry of a small JSON file; None where there is none or the file is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8")).get(name)
    except (OSError, ValueError, AttributeError, RecursionError):
        return None


def _suffixes(path: Path, base: Path | None, shortest: int) -> Iterator[Path]:
    """`base` followed by the last parts of `path`: all of them but the root, then fewer."""
    parts = path.parts[1:]
    if base is not None:
        for start in range(len(parts) - shortest + 1):
            yield base.joinpath(*parts[start:])


def local_path(uri: str) -> Path | None:
    """The path of an artifact URI on this machine; None where a server keeps the artifacts."""
    if uri.startswith("file:"):
        return Path(unquote(urlsplit(uri).path))
    return Path(uri) if uri.startswith("/") else None


def current_location(location: Path, base: Path | None, run_ids: Collection[str] = ()) -> Path:
    """Where the artifacts of an experiment are now, which a store has at `location`.

    Below `base` already: there. Moved or copied with the database: in the folder below `base` that
    ends like `location` and holds artifacts of one of its runs, or any if the former is gone.
    MLflow's default place beside the database, where nothing is left of either: beside the database
    as it is now. Anything else is where the user put it.
    """
    if base is None or location.is_relative_to(base):
        return location
    gone = not location.is_dir()
    for folder in _suffixes(location, base, 2):
        if folder.is_dir() and (gone or any((folder / run_id).is_dir() for run_id in run_ids)):
            return folder
    return base / ARTIFACTS / location.name if gone and location.parent.name == ARTIFACTS else location


def current_artifacts(uri: str, base: Path | None) -> Path | None:
    """The folder of one run's artifacts; None where a server keeps them.

    Args:
        uri: as the store has it: <experiment's location>/<run id>/artifacts.
    """
    path = local_path(uri)
    if path is None or base is None:
        return path
    location, run_id = path.parent.parent, path.parent.name
    return current_location(location, base, [run_id]) / run_id / path.name


ARTIFACTS = "mlartifacts"
"""Folder of the artifacts, beside an SQLite store."""
