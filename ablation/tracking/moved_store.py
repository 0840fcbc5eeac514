"""An SQLite store that was moved or copied with its artifacts: the absolute addresses in it are made right.

MLflow writes the address of every experiment's and run's artifacts into its database, and takes no
relative ones. Reading looks for them beside the database (run_places.current_artifacts); the first
writer rewrites them, so that MLflow's own pages show them too.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from functools import cache
from pathlib import Path

from ablation.tracking.run_places import current_location, local_path

log = logging.getLogger(__name__)


@cache
def follow_moved_artifacts(database: Path) -> None:
    """Rewrite the addresses of artifacts that were moved with the database; once in a process.

    Raises:
        sqlite3.Error: the database cannot be read or written.
    """
    base = database.parent
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        rows = connection.execute("SELECT experiment_id, name, artifact_location FROM experiments").fetchall()
        for experiment, name, address in rows:
            former = local_path(address or "")
            if former is None or name == "Default" or former.is_relative_to(base):
                continue
            ids = connection.execute("SELECT run_uuid FROM runs WHERE experiment_id = ?", [experiment])
            location = current_location(former, base, {run_id for (run_id,) in ids})
            if location == former:
                continue
            log.info("study %s: the store was moved; its artifacts are now those in %s", name, location)
            with connection:
                connection.execute(
                    "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?",
                    [location.as_uri(), experiment],
                )
                connection.execute(
                    "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
                    "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
                    [location.as_uri(), len(address) + 1, experiment, len(address), address],
                )
