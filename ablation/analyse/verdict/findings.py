"""Everything that the sentence and the limitations of a study are written from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ablation.analyse.statistics.image_resampling import ImageLevel
from ablation.analyse.statistics.paired import Comparison
from ablation.analyse.verdict.comparisons import ArmRuns
from ablation.analyse.verdict.confirmation import StudyConfirmation
from ablation.analyse.verdict.declaration import DeclaredTerms
from ablation.analyse.verdict.headline import Headline
from ablation.analyse.view import StudyView


@dataclass(frozen=True)
class Findings:
    """The decided comparisons of a study, and what they rest on.

    Attributes:
        arms: every arm with its valid runs, in the order of the arms table.
        comparisons: every other arm against the baseline, with its verdict.
        headline: best focal arm against best BCE arm; None where one of them has no valid run.
        images: AP of the runs on resampled images.
        family: number of arms that are tested together.
        refused: why there is no verdict; empty where there is one.
        confirmation: of the study on fresh seeds; None: it was not confirmed.
    """

    view: StudyView
    declaration: DeclaredTerms
    arms: Sequence[ArmRuns]
    comparisons: Sequence[Comparison]
    headline: Headline | None
    images: ImageLevel
    family: int
    refused: str
    confirmation: StudyConfirmation | None = None
