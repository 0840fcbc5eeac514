"""Writes a run's diagnostics into its folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ablation.model.head import CellGrid
from ablation.objective.criterion import CalibrationBatch, Criterion
from ablation.tracking.run_folder import RunFolder
from ablation.training.diagnostics.cells import Cells, objectness_histograms
from ablation.training.diagnostics.gradients import HARD, gradient_norms, gradient_record
from ablation.training.diagnostics.inversion import inversion_record
from ablation.training.diagnostics.loss_cdf import loss_cdf

PROBE_BATCHES = 2
"""Batches the gradients are measured on: the first of the training, the same for every arm of a seed."""


class Recorder:
    """The files of ablation/diagnostics of one run."""

    def __init__(self, folder: RunFolder, criterion: Criterion) -> None:
        self.folder, self.criterion = folder, criterion

    def gradients(self, epoch: int, batches: Sequence[CalibrationBatch], grid: CellGrid) -> None:
        """Set the record of an epoch (0: before training) in gradients.json.

        Later ones are dropped: a run that resumes trains those epochs again.
        """
        name = "diagnostics/gradients.json"
        former: list[dict[str, Any]] = self.folder.read_json(name).get("epochs", [])
        earlier = [record for record in former if record["epoch"] < epoch]
        record = {"epoch": epoch} | gradient_record(self.criterion, batches, grid)
        content = {
            "probe_batches": len(batches),
            "images": sum(len(batch[1]) for batch in batches),
            "hard_negative_above": HARD,
            "confidence_gain": self.criterion.gain,
            "epochs": [*earlier, record],
        }
        self.folder.write_json(name, content)

    def final(self, batches: Sequence[CalibrationBatch], grid: CellGrid, cells: Cells) -> None:
        """Write what is measured once, on the final model."""
        norms = gradient_norms(self.criterion, batches, grid)
        norms |= {"probe_batches": len(batches), "confidence_gain": self.criterion.gain}
        self.folder.write_json("diagnostics/gradient_norms.json", norms)
        self.folder.write_json("diagnostics/objectness.json", objectness_histograms(cells))
        self.folder.write_json("diagnostics/loss_cdf.json", loss_cdf(cells, self.criterion.loss))
        self.folder.write_json("diagnostics/score_inversion.json", inversion_record(self.criterion.loss))
