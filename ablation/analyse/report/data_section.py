"""What is known about a study's data: from what its runs wrote, and from `ablation check`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ablation.analyse.detections.run_files import TEST_GROUND_TRUTH, RunArtifacts
from ablation.analyse.report.formats import Table
from ablation.analyse.view import StudyView

SPLITS = ("train", "val")
_FAULTS_LISTED = 30


@dataclass(frozen=True)
class Part:
    """A table with its title and notes; any of them may be missing."""

    title: str = ""
    table: Table | None = None
    notes: tuple[str, ...] = ()


def data_section(view: StudyView, artifacts: RunArtifacts, checks: Path | None = None) -> list[Part]:
    """The data sets of a study's runs, as parts of the page.

    Args:
        checks: the folder in which `ablation check` leaves <name>/check.json. A check is used only if its
            fingerprint says that it looked at the same images and boxes.
    """
    descriptions = _descriptions(view, artifacts)
    if not descriptions:
        missing = "The folders of the runs were not found, so nothing is known about their data."
        return [Part(notes=(missing,))]
    fingerprints = sorted({run["fingerprint"] for run in descriptions.values()})
    parts: list[Part] = []
    for number, fingerprint in enumerate(fingerprints, 1):
        run_ids = [key for key, run in descriptions.items() if run["fingerprint"] == fingerprint]
        run_id = run_ids[0]
        title = "" if len(fingerprints) == 1 else f"Data set {number} of {len(fingerprints)}"
        check = _check(checks, fingerprint)
        test = next((row for row in (_test_split(artifacts, key) for key in run_ids) if row), None)
        parts.append(_profile(title, descriptions[run_id], test, check is not None))
        if faults := artifacts.json("faults.json", run_id):
            parts.append(_faults(faults))
        if check is not None:
            parts += _checked(check)
    if len(fingerprints) > 1:
        warning = (
            f"The runs were trained on {len(fingerprints)} different data sets: their differences are not "
            "only the loss's."
        )
        parts[0] = replace(parts[0], notes=(warning, *parts[0].notes))
    elif len(descriptions) > 1:
        own = view.held.command
        what = "with exactly these files" if own else "on exactly these images and boxes"
        same = f"All {len(descriptions)} runs were trained {what}"
        parts.append(Part(notes=(f"{same}; {_who_read_test(view)}.",)))
    return parts


def _descriptions(view: StudyView, artifacts: RunArtifacts) -> dict[str, dict[str, Any]]:
    """run.json of every valid run that still has its folder."""
    run_ids = view.runs.loc[view.runs["valid"], "run_id"]
    contents = {run_id: artifacts.json("run.json", run_id) for run_id in run_ids}
    return {run_id: run for run_id, run in contents.items() if run and "fingerprint" in run}


def _who_read_test(view: StudyView) -> str:
    if not view.test_runs:
        return "none read the test split"
    return f"{view.test_runs} of them {'was' if view.test_runs == 1 else 'were'} evaluated on the test split"


def _test_split(artifacts: RunArtifacts, run_id: str) -> tuple[int, int] | None:
    """Images and boxes of the test split, where the run was evaluated on it."""
    truth = artifacts.json(TEST_GROUND_TRUTH, run_id)
    return None if truth is None else (len(truth["images"]), len(truth["annotations"]))


def _profile(title: str, run: Mapping[str, Any], test: tuple[int, int] | None, checked: bool) -> Part:
    """The sizes of the splits and the classes, from one run of the data set."""
    profile = run.get("data_profile", {})
    counts = {
        name: (profile.get(f"{name}_images"), profile.get(f"{name}_boxes")) for name in ("train", "val")
    }
    counts["test"] = test or (None, None)
    rows = [
        [split, f"{images:,}", f"{boxes:,}", f"{boxes / images:.1f}"]
        for split, (images, boxes) in counts.items()
        if images
    ]
    classes = [str(name) for name in profile.get("classes", [])]
    count = f"{len(classes)} {'class' if len(classes) == 1 else 'classes'}"
    if run.get("data", {}).get("read_by") == "trainer":
        known = f"{count}{': ' * bool(classes)}{', '.join(classes)}"
        notes = [
            f"Read by the study's own trainer. The study names {run['data']['name']}, with {known}. "
            f"Fingerprint of the files that it names: {run['fingerprint'][:16]}."
        ]
    else:
        notes = _notes(run, f"{count}: {', '.join(classes)}", checked)
    table = Table.of(["split", "images", "boxes", "boxes per image"], rows) if rows else None
    return Part(title, table, tuple(notes))


def _notes(run: Mapping[str, Any], classes: str, checked: bool) -> list[str]:
    faults = run.get("data_profile", {}).get("faults", 0)
    notes = [
        f"Read as {run.get('data', {}).get('name', 'unknown')}; {classes}.",
        f"Faults found in the data: {faults}. Fingerprint of all images and boxes of train and val: "
        f"{run['fingerprint'][:16]}.",
    ]
    if not checked:
        notes.append(
            "ablation check adds class balance, box sizes and the positives of each scale to this page."
        )
    return notes


def _faults(faults: list[Mapping[str, Any]]) -> Part:
    listed = faults[:_FAULTS_LISTED]
    rows = [[Path(str(fault["file"])).name, str(fault["what"]), str(fault["action"])] for fault in listed]
    rest = len(faults) - len(listed)
    notes = (f"And {rest} more, in faults.json of every run.",) if rest else ()
    return Part("Faults", Table.of(["file", "what", "action"], rows), notes)


def _check(folder: Path | None, fingerprint: str) -> Mapping[str, Any] | None:
    """The audit of exactly this data set, if one was made."""
    for path in sorted(folder.glob("*/check.json")) if folder is not None else ():
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # a report does without a damaged file, which the next check writes anew
        if isinstance(content, dict) and content.get("fingerprint") == fingerprint:
            return content
    return None


def _checked(check: Mapping[str, Any]) -> list[Part]:
    """Class balance, and the cells of each head where they were counted."""
    train, val = (check["splits"][split]["boxes_per_class"] for split in SPLITS)
    total = max(1, sum(train.values()))
    rows = []
    for name in check["classes"]:
        boxes = train.get(name, 0)
        rows.append([str(name), f"{boxes:,}", f"{100 * boxes / total:.1f}%", f"{val.get(name, 0):,}"])
    parts = [Part("Classes", Table.of(["class", "train boxes", "share of train", "val boxes"], rows))]
    cells = check.get("cells", {}).get("train")
    return [*parts, _cells(cells, check["size_px"])] if cells else parts


def _cells(train: Mapping[str, Any], size_px: int) -> Part:
    rows = []
    for head in train["heads"]:
        others = head["ignored"] + head["negatives"]
        ratio = f"{others / head['positives']:,.0f}" if head["positives"] else ""
        counts = [f"{head[kind]:,}" for kind in ("positives", "ignored", "negatives")]
        rows.append([str(head["stride"]), *counts, ratio])
    note = (
        f"Focal loss is about this imbalance. Cells of the train images at {size_px} px, letterboxed and not "
        f"augmented. {train['boxes_lost']} of {train['boxes']:,} boxes lost their only cell to a later box."
    )
    columns = ["stride", "positives", "ignored", "negatives", "others per positive"]
    return Part("Positive and negative cells", Table.of(columns, rows), (note,))
