"""Training steps on demand, in a process of its own: `step_child.py CHECKOUT CASE THREADS`.

Imports the package from CHECKOUT, so that two versions can be timed side by side. Reads a number of steps a
line from standard input and answers each with a line of JSON: seconds, processor seconds and the last loss.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CASES: dict[str, dict[str, Any]] = {
    "yolov4": {"model": "yolov4", "size_px": 416, "batch_size": 4, "boxes": 13},
    "tiny_small": {"model": "yolov4_tiny_small", "size_px": 256, "batch_size": 8, "boxes": 13},
    "demo": {"model": "yolov4_tiny_small", "size_px": 64, "batch_size": 8, "boxes": 3},
    "small": {"model": "yolov4_small", "size_px": 96, "batch_size": 16, "boxes": 5},
}


def training(case: str, threads: int) -> Any:
    """(run, batch) of a case: its network, criterion and optimizer, and random images with boxes."""
    import torch

    from ablation.config import OptimConfig, RunConfig, TrainConfig
    from ablation.data.loader import Batch
    from ablation.data.shapes import Shapes
    from ablation.losses.focal import Focal
    from ablation.machine import resolve_precision, set_up_torch
    from ablation.model.yolov4 import YOLOv4
    from ablation.model.yolov4_tiny import YOLOv4Tiny
    from ablation.objective.assigner import AssignerConfig
    from ablation.objective.criterion import CriterionConfig
    from ablation.tracking.run_folder import RunFolder
    from ablation.training.run import Run

    models = {
        "yolov4": YOLOv4(),
        "yolov4_small": YOLOv4(width=0.25, depth=0.33, anchors_at_px=416),
        "yolov4_tiny_small": YOLOv4Tiny(width=0.5, anchors_at_px=416),
    }
    settings = CASES[case]
    size, batch = settings["size_px"], settings["batch_size"]
    set_up_torch(threads, True)
    data = Shapes(train_images=batch, val_images=1, test_images=1, size_px=64, cache="none")
    demo = case == "demo"
    config = RunConfig(
        data=data,
        model=models[settings["model"]],
        loss=Focal(),
        criterion=CriterionConfig(),
        assigner=AssignerConfig(0.7, 0.213) if demo else AssignerConfig(),
        optim=OptimConfig(name="adamw", lr=1e-4, momentum=0.9) if demo else OptimConfig(lr=1e-4),
        train=TrainConfig(
            epochs=3,
            batch_size=batch,
            size_px=size,
            **({"channels_last": False} if demo else {}),  # else what the checkout has by default
            precision=resolve_precision("auto", torch.device("cpu")),
            device="cpu",
        ),
    )
    run = Run(config, data.open(), RunFolder(Path(tempfile.mkdtemp())), lambda epoch, metrics: None)
    run.model.train()
    images, truth, labels, present = batch_of(case)
    return run, Batch(images, truth, labels, present, torch.arange(batch))


def batch_of(case: str) -> tuple[Any, Any, Any, Any]:
    """Images, boxes_cxcywh_px, labels and present of a case: the same on every call."""
    import torch

    settings = CASES[case]
    size, batch, boxes = settings["size_px"], settings["batch_size"], settings["boxes"]
    g = torch.Generator().manual_seed(0)
    centre = torch.rand(batch, boxes, 2, generator=g) * (size - 1)
    sides = 4 + torch.rand(batch, boxes, 2, generator=g) * size * 0.4
    return (
        torch.randint(0, 256, (batch, 3, size, size), generator=g, dtype=torch.uint8),
        torch.cat([centre, sides], -1),
        torch.randint(0, 3, (batch, boxes), generator=g),
        torch.ones(batch, boxes, dtype=torch.bool),
    )


def answer(step: Callable[[], float]) -> None:
    """Take as many steps as each line of standard input says, and print what they took."""
    for line in sys.stdin:
        began, cpu = time.perf_counter(), time.process_time()
        loss = 0.0
        for _ in range(int(line)):
            loss = step()
        result = {
            "wall_s": time.perf_counter() - began,
            "cpu_s": time.process_time() - cpu,
            "loss": loss,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        print(json.dumps(result), flush=True)


def main() -> None:
    """Answer until standard input ends."""
    root, case, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    sys.path[0] = root
    import ablation

    assert Path(str(ablation.__file__)).is_relative_to(root), f"{ablation.__file__} is not below {root}"
    run, batch = training(case, threads)
    answer(lambda: float(run.step(batch, 0, 0)["loss"].detach()))


if __name__ == "__main__":
    main()
