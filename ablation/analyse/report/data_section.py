"""What is known about a study's data: from what its runs wrote, and from `ablation check`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablation.analyse.detections.run_files import RunArtifacts
from ablation.analyse.report.formats import Table
from ablation.analyse.view import StudyView

_FAULTS_SHOWN = 30


@dataclass(frozen=True)
class Part:
    """A table with its title and what is to be said about it; either may be missing."""

    title: str
    table: Table | None = None
    notes: tuple[str, ...] = ()


def about_data(view: StudyView, artifacts: RunArtifacts, checks: Path | None = None) -> list[Part]:
    """The audit as it goes into a report.

    Args:
        checks: the folder in which `ablation check` leaves <name>/check.json. One is used only if its
            fingerprint says that it looked at the same images and boxes.
    """
    about = _of_the_runs(view, artifacts)
    if not about:
        return [
            Part(
                "", None, ("The runs' folders are not here, and with them what they wrote about their data.",)
            )
        ]
    prints = sorted({one["fingerprint"] for one in about.values()})
    parts = []
    for number, fingerprint in enumerate(prints, 1):
        run_id, one = next((key, one) for key, one in about.items() if one["fingerprint"] == fingerprint)
        title = "" if len(prints) == 1 else f"Data set {number} of {len(prints)}"
        check = _check(checks, fingerprint)
        parts.append(_profile(title, one, fingerprint, check))
        faults = artifacts.json("faults.json", run_id)
        if faults:
            parts.append(_faults(faults))
        if check is not None:
            parts += _checked(check)
    if len(prints) == 1 and len(about) > 1:
        parts.append(
            Part(
                "",
                None,
                (f"All {len(about)} runs read exactly these images and boxes; none read the test split.",),
            )
        )
    if len(prints) > 1:
        parts[0] = Part(parts[0].title, parts[0].table, (
            f"The runs were trained on {len(prints)} different data sets: their differences are not only the "
            "loss's.", *parts[0].notes))  # fmt: skip
    return parts


def _of_the_runs(view: StudyView, artifacts: RunArtifacts) -> dict[str, dict[str, Any]]:
    """run.json of every run that counts and still has its folder."""
    rows = view.runs[view.runs["valid"]]
    found = {run_id: artifacts.json("run.json", run_id) for run_id in rows["run_id"]}
    return {run_id: one for run_id, one in found.items() if one and "fingerprint" in one}


def _profile(title: str, about: Mapping[str, Any], fingerprint: str, check: Mapping[str, Any] | None) -> Part:
    profile = about.get("data_profile", {})
    head = ["split", "images", "boxes", "boxes per image"]
    rows = []
    for split in ("train", "val"):
        images, boxes = profile.get(f"{split}_images"), profile.get(f"{split}_boxes")
        if images:
            rows.append([split, f"{images:,}", f"{boxes:,}", f"{boxes / images:.1f}"])
    classes = profile.get("classes", [])
    notes = [
        f"Read as {about.get('data', {}).get('name', 'unknown')}; {len(classes)} "
        f"{'class' if len(classes) == 1 else 'classes'}: {', '.join(map(str, classes))}.",
        f"Faults found in the data: {profile.get('faults', 0)}. Fingerprint of all images and boxes of train "
        f"and val: {fingerprint[:16]}.",
    ]  # fmt: skip
    if check is None:
        notes.append(
            "ablation check adds class balance, box sizes and the positives of each scale to this page."
        )
    return Part(title, Table.of(head, rows) if rows else None, tuple(notes))


def _faults(faults: list[Mapping[str, Any]]) -> Part:
    rows = [
        [Path(str(fault["file"])).name, str(fault["what"]), str(fault["action"])]
        for fault in faults[:_FAULTS_SHOWN]
    ]
    rest = len(faults) - _FAULTS_SHOWN
    notes = (f"And {rest} more, in faults.json of every run.",) if rest > 0 else ()
    return Part("Faults", Table.of(["file", "what", "action"], rows), notes)


def _check(folder: Path | None, fingerprint: str) -> Mapping[str, Any] | None:
    """The audit of exactly this data set, if one was made."""
    for path in sorted(folder.glob("*/check.json")) if folder is not None else ():
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # a report does without a damaged file that any check writes anew
        if isinstance(content, dict) and content.get("fingerprint") == fingerprint:
            return content
    return None


def _checked(check: Mapping[str, Any]) -> list[Part]:
    splits = {name: check["splits"][name] for name in ("train", "val")}
    total = max(1, sum(splits["train"]["boxes_per_class"].values()))
    rows = [
        [str(name), f"{splits['train']['boxes_per_class'].get(name, 0):,}",
         f"{100 * splits['train']['boxes_per_class'].get(name, 0) / total:.1f}%",
         f"{splits['val']['boxes_per_class'].get(name, 0):,}"]
        for name in check["classes"]
    ]  # fmt: skip
    parts = [Part("Classes", Table.of(["class", "train boxes", "share of train", "val boxes"], rows))]
    train = check.get("cells", {}).get("train")
    if train:
        rows = []
        for head in train["heads"]:
            others = head["ignored"] + head["negatives"]
            ratio = f"{others / head['positives']:,.0f}" if head["positives"] else ""
            rows.append([str(head["stride"]), f"{head['positives']:,}", f"{head['ignored']:,}",
                         f"{head['negatives']:,}", ratio])  # fmt: skip
        notes = (
            "Focal loss is about this imbalance. Cells of the train images at "
            f"{check['size_px']} px, letterboxed and not augmented; boxes that lost their only cell to a "
            f"later box: {train['boxes_lost']} of {train['boxes']:,}.",
        )
        names = ["stride", "positives", "ignored", "negatives", "others per positive"]
        parts.append(Part("Positive and negative cells", Table.of(names, rows), notes))
    return parts
