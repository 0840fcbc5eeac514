"""A study's folder below out=, and the plan that lies in it."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from ablation.errors import StoreError
from ablation.files import safe_name, sha256_text
from ablation.records import Plan


def study_name(study: str) -> str:
    """A study's name as one path component, another one for every study.

    A name that has to be changed gets a part of its hash, so that two names stay two.
    """
    name = safe_name(study)
    return name if name == study else f"{name[:100]}-{sha256_text(study)[:8]}"


def study_folder(out: Path, study: str) -> Path:
    """out/<study>. Folders of version 0.1.0, whose names had no hash, are still found."""
    folder, former = out / study_name(study), out / safe_name(study)
    if folder != former and not folder.exists() and _holds_runs_of(former, study):
        return former
    return folder


def run_log(out: Path, study: str, arm: str, seed: int) -> Path:
    """What a run's process on this machine writes to."""
    return study_folder(out, study) / "logs" / f"{safe_name(arm)}-seed{seed}.log"


def studies_in(folder: Path) -> list[str]:
    """The studies whose runs lie in a folder, as they say themselves; 0.1.0 could put two into one."""
    return sorted({name for path in folder.glob("*/*/run.json") if (name := _study_of(path))})


@cache
def _holds_runs_of(folder: Path, study: str) -> bool:
    return any(_study_of(path) == study for path in folder.glob("*/*/run.json"))


def _study_of(run_json: Path) -> str:
    """The study that a run's run.json names; "" where it names none."""
    try:
        return str(json.loads(run_json.read_text(encoding="utf-8"))["study"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def read_plan(path: Path) -> Plan:
    """The plan; an empty one where there is none yet.

    Raises:
        StoreError: the file is no plan.
    """
    try:
        return Plan.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Plan()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise StoreError(f"{path}: not a plan ({reason}); delete it and launch the study again") from None
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror})") from None
