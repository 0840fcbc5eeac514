"""Large imports: torch, mlflow."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def large_import() -> Iterator[None]:
    """While it lasts nothing is searched for garbage, which takes a seventh of the time of importing torch.

    What was made by then is passed over by later searches: modules stay.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
            gc.freeze()
