"""Planted studies and the verdict on them."""

from __future__ import annotations

import dataclasses
from typing import Any

from ablation.analyse.verdict.verdict import StudyVerdict, judge
from ablation.analyse.view import study_view
from ablation.records import Declaration, StudyRecord
from ablation.rng import generator
from helpers.synthetic import bce, focal, run

MARGIN = Declaration("val/AP", 0.01, 0.95)


def say(record: StudyRecord, partial: bool = False, **more: Any) -> StudyVerdict:
    view = study_view(record)
    return judge(view, partial=partial, generator=generator(0, "verdict"), **more)


def declared(record: StudyRecord, *declarations: Declaration) -> StudyRecord:
    return dataclasses.replace(record, declared=declarations or (MARGIN,))


def pairs(*differences: float) -> StudyRecord:
    """A study of BCE and one focal arm with these paired differences."""
    records = []
    for seed, d in enumerate(differences):
        base = 0.4 + 0.01 * seed
        records += [run(bce(), seed, base), run(focal(0.5, 1), seed, base + d)]
    return declared(StudyRecord("s", records))
