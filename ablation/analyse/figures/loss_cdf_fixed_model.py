"""RetinaNet's figure 4: the cumulative loss for each focusing parameter, on one and the same model."""

from __future__ import annotations

from matplotlib.colors import to_hex
from matplotlib.figure import Figure as Canvas

from ablation.analyse.figures.shared.artifact_figures import DiagnosticFigure, PlottedArm, plot_curves
from ablation.analyse.figures.shared.cdf import curves, hardest, panels
from ablation.analyse.figures.shared.style import DASHES
from ablation.analyse.view import StudyView

FAMILY = "focal"
COLOURS_BY_GAMMA = ("#000000", "#3B0F70", "#8C2981", "#DE4968", "#FE9F6D")


class LossCdfFixedModel(DiagnosticFigure):
    name = "loss_cdf_fixed_model"
    title = "Focusing by itself: the loss of one model's cells for each gamma"
    files = ("diagnostics/loss_cdf.json",)
    caption = (
        "As figure 4 of the RetinaNet paper (arXiv 1708.02002): the models are fixed (the baseline's, one "
        "per seed; without a baseline those of the first arm, named above the figure), only the loss that "
        "their cells are given changes; {n}. gamma = 0 is binary cross-entropy. The further a curve lies "
        "towards the lower right, the more the easy cells are ignored; in the paper positives hardly react "
        "to gamma and negatives strongly. Thick lines are means over seeds. {held}"
    )

    def arms(self, view: StudyView) -> list[PlottedArm]:
        return super().arms(view)[:1]

    def applies(self, view: StudyView) -> str | None:
        reason = super().applies(view)
        if reason is not None:
            return reason
        records = self.records(view, self.arms(view)[0])
        if not all(record["families"].get(FAMILY) for record in records):
            return f"the runs did not measure their models' loss under each setting of {FAMILY}"
        return None

    def draw(self, view: StudyView) -> Canvas:
        arm = self.arms(view)[0]
        records = self.records(view, arm)
        canvas, axes = panels(1)
        handles = []
        for index, label in enumerate(records[0]["families"][FAMILY]):
            colour = to_hex(COLOURS_BY_GAMMA[index % len(COLOURS_BY_GAMMA)])
            line = PlottedArm(arm.arm, label, arm.runs, arm.planned, colour, DASHES[index % len(DASHES)])
            family = [record["families"][FAMILY][label] for record in records]
            for ax, part in zip(axes, ("positives", "negatives", "negatives"), strict=True):
                x, shares = curves(family, records[0]["fractions"], part)
                plot_curves(ax, line, *(hardest(x, shares) if ax is axes[2] else (x, shares)))
            handles.append((axes[0].lines[-1] if axes[0].lines else axes[1].lines[-1], label))
        names = [label.replace("=", " = ") for _, label in handles]
        canvas.legend([line for line, _ in handles], names, loc="outside lower center", ncols=5)
        canvas.suptitle(f"models: {arm.legend}", fontsize=8, x=0.01, ha="left")
        return canvas
