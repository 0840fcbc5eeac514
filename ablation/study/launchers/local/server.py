"""The process that runs are forked from, which has imported what every run needs and used none of it."""

from __future__ import annotations

import multiprocessing
from multiprocessing import forkserver
from typing import Any

# What every run would import anyway, some of it late: the server does it once. One that does not exist in
# some version is passed over.
PRELOADED = [
    "ablation.study.launchers.local.child",
    "mlflow.store.tracking.sqlalchemy_store",
]


def context() -> Any:
    """The multiprocessing context of runs. If the server is killed, the next start brings up a new one."""
    server: Any = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(PRELOADED)
    return server


def start_early() -> None:
    """Start the server now: it imports in a process of its own while the launcher imports and plans."""
    context()
    forkserver.ensure_running()
