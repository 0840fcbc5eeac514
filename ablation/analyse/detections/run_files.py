"""The files that runs left behind, for the figures that need more than numbers in a table."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ablation.errors import StoreError
from ablation.files import sha256_file
from ablation.records import StudyRecord

Result = TypeVar("Result")

Fetch = Callable[[str, str], Path | None]
"""(run_id, path within the run's folder) -> a local copy of that file, or None where there is none."""

DETECTIONS = "detections/val.json"
GROUND_TRUTH = "detections/ground_truth.json"
TEST_DETECTIONS = "detections/test.json"
TEST_GROUND_TRUTH = "detections/test_ground_truth.json"


def nowhere(run_id: str, path: str) -> Path | None:
    """A Fetch that finds nothing: only what lies in the runs' own folders is used."""
    return None


class RunArtifacts:
    """Files of the runs of a study: from the run's folder, else from where `fetch` finds them.

    Args:
        study: its records carry the folders.
        fetch: asked once for each file that is not in its run's folder.
    """

    def __init__(self, study: StudyRecord, fetch: Fetch = nowhere) -> None:
        self._folders = {run.run_id: Path(run.folder) for run in study.runs if run.folder}
        self._fetch = fetch
        self._paths: dict[tuple[str, str], Path | None] = {}
        self._json: dict[tuple[str, str], Any] = {}
        self._truths: dict[str, dict[str, Any]] = {}
        self._made: dict[tuple[str, str], Any] = {}

    def path(self, name: str, run_id: str) -> Path | None:
        """A file of a run, such as "diagnostics/gradients.json"; None where there is none."""
        key = run_id, name
        if key not in self._paths:
            folder = self._folders.get(run_id)
            local = folder / name if folder is not None else None
            self._paths[key] = local if local is not None and local.is_file() else self._fetch(run_id, name)
        return self._paths[key]

    def has(self, name: str, run_id: str) -> bool:
        """Whether the run left that file."""
        return self.path(name, run_id) is not None

    def json(self, name: str, run_id: str) -> Any | None:
        """The content of a small JSON file, read once; None where the run has none."""
        key = run_id, name
        if key not in self._json:
            self._json[key] = self._read(name, run_id)
        return self._json[key]

    def detections(self, run_id: str) -> list[dict[str, Any]] | None:
        """The run's detections on val in COCO's result format, with `objectness`; read anew at each call."""
        results: list[dict[str, Any]] | None = self._read(DETECTIONS, run_id)
        return results

    def ground_truth(self, run_id: str) -> dict[str, Any] | None:
        """What they are compared with, in COCO's format. Runs with equal files share one object."""
        path = self.path(GROUND_TRUTH, run_id)
        if path is None:
            return None
        digest = sha256_file(path)
        if digest not in self._truths:
            self._truths[digest] = dict(self._read(GROUND_TRUTH, run_id) or {})
        return self._truths[digest]

    def of_test_split(self) -> TestDetections:
        """The same for the test split, which the runs of a confirmation were evaluated on."""
        return TestDetections(self)

    def made(self, what: str, run_id: str, make: Callable[[], Result]) -> Result:
        """The result of `make`, computed once for each `what` and run: several figures share matches."""
        key = what, run_id
        if key not in self._made:
            self._made[key] = make()
        result: Result = self._made[key]
        return result

    def _read(self, name: str, run_id: str) -> Any | None:
        path = self.path(name, run_id)
        if path is None:
            return None
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise StoreError(f"{path}: not readable as JSON ({error})") from None


class TestDetections:
    """Detections and ground truth on the test split; see RunArtifacts.of_test_split."""

    __test__ = False  # not a class of tests, whatever pytest takes its name for

    def __init__(self, artifacts: RunArtifacts) -> None:
        self._artifacts = artifacts

    def detections(self, run_id: str) -> list[dict[str, Any]] | None:
        """The run's detections in COCO's result format."""
        results: list[dict[str, Any]] | None = self._artifacts.json(TEST_DETECTIONS, run_id)
        return results

    def ground_truth(self, run_id: str) -> dict[str, Any] | None:
        """What they are compared with, in COCO's format."""
        truth: dict[str, Any] | None = self._artifacts.json(TEST_GROUND_TRUTH, run_id)
        return truth


def number(value: float | None) -> float:
    """null, which stands for a number that was not finite, as NaN."""
    return math.nan if value is None else float(value)
