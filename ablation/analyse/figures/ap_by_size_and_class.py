"""AP by the size of the objects and by class."""

from __future__ import annotations

from collections import Counter

import numpy as np
from matplotlib.figure import Figure as Canvas

from ablation.analyse.figures.shared.artifact_figures import ArtifactFigure, PlottedArm, legend, plotted_arms
from ablation.analyse.figures.shared.style import MUTED, WIDTH_IN
from ablation.analyse.view import StudyView

SIZES = {
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, float("inf")),
}
BY_SIZE, BY_CLASS = "val/AP_", "val/AP_class/"
CLASSES = 12


class ApBySizeAndClass(ArtifactFigure):
    name = "ap_by_size_and_class"
    title = "Which objects: AP by size and by class"
    files = ()
    caption = (
        "COCO's AP on the validation images for objects of one size (small: area below 32 x 32 original "
        "pixels; large: above 96 x 96) and of one class, with the number of objects where it is known. "
        "Filled markers are means over seeds, {n}, small dots the single seeds. Read along a row: the arms "
        "see the same objects. AP of few objects moves a lot by luck alone. {held}"
    )

    def applies(self, view: StudyView) -> str | None:
        return None if _parts(view) else "no finished run has an AP by size or by class"

    def arms(self, view: StudyView) -> list[PlottedArm]:
        return plotted_arms(view)

    def draw(self, view: StudyView) -> Canvas:
        arms, parts, counts = self.arms(view), _parts(view), _counts(view)
        height = 0.5 + max(0.13 * len(arms) + 0.08, 0.3) * len(parts) + 0.16 * -(-len(arms) // 2)
        canvas = Canvas(figsize=(WIDTH_IN, height), layout="constrained")
        ax = canvas.add_subplot()
        runs = view.runs.set_index("run_id")
        step = 0.8 / len(arms)
        for row, (_, metric) in enumerate(parts):
            for index, arm in enumerate(arms):
                values = runs.loc[[run_id for _, run_id in arm.runs], metric].to_numpy(np.float64)
                y = row - 0.4 + step * (index + 0.5)
                ax.plot(values, np.full(len(values), y), ".", color=arm.colour, markersize=3, alpha=0.5)
                if np.isfinite(values).any():
                    mean = float(np.nanmean(values))
                    ax.plot([0, mean], [y, y], color=arm.colour, linewidth=1.1, linestyle=arm.style)
                    ax.plot([mean], [y], "o", color=arm.colour, markersize=4)
            if row:
                ax.axhline(row - 0.5, color=MUTED, linewidth=0.3)
        labels = [f"{name}\n{counts[metric]} objects" if metric in counts else name for name, metric in parts]
        ax.set_yticks(range(len(parts)), labels)
        ax.set(ylim=(len(parts) - 0.5, -0.5), xlabel="AP (IoU .5 to .95)")
        ax.set_xlim(left=0)
        ax.grid(axis="x")
        legend(canvas, arms)
        return canvas


def _parts(view: StudyView) -> list[tuple[str, str]]:
    """(label, metric) of the sizes, then of the classes, that some run has a value of."""
    runs = view.runs[view.runs["valid"]]
    known = [name for name in runs.columns if runs[name].notna().any()] if len(runs) else []
    sizes = [(size, BY_SIZE + size) for size in SIZES if BY_SIZE + size in known]
    classes = [(name.removeprefix(BY_CLASS), name) for name in known if name.startswith(BY_CLASS)]
    return sizes + classes[:CLASSES]


def _counts(view: StudyView) -> dict[str, int]:
    """Objects on val behind each metric, from the first run that stored the ground truth."""
    for run_id in view.runs.loc[view.runs["valid"], "run_id"]:
        truth = view.artifacts.ground_truth(run_id) if view.artifacts is not None else None
        if truth is not None:
            objects = [item for item in truth["annotations"] if not item.get("iscrowd")]
            names = {item["id"]: item["name"] for item in truth["categories"]}
            counts = Counter(f"{BY_CLASS}{names[item['category_id']]}" for item in objects)
            for size, (low, high) in SIZES.items():
                counts[f"{BY_SIZE}{size}"] = sum(low <= item["area"] < high for item in objects)
            return dict(counts)
    return {}
