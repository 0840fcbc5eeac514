"""Training steps of the seed method's own code on demand: `seed_step.py CHECKOUT CASE THREADS`.

CHECKOUT is a copy of the seed method's PyTorch repository, with nets/yolo.py and nets/yolo_training.py. Its
network and loss run under the autocast of step_child.py, on the same images and boxes, with SGD and Nesterov
momentum. The protocol is that of step_child.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from step_child import CASES, answer, batch_of

MASKS = [[6, 7, 8], [3, 4, 5], [0, 1, 2]]
ANCHORS = [12, 16, 19, 36, 40, 28, 36, 75, 76, 55, 72, 146, 142, 110, 192, 243, 459, 401]


def stepper(case: str) -> Callable[[], float]:
    """One step of the seed's network and loss; returns the loss."""
    import numpy as np
    import torch

    networks: Any = __import__("nets.yolo", fromlist=["YoloBody"])
    training: Any = __import__("nets.yolo_training", fromlist=["YOLOLoss"])
    size = CASES[case]["size_px"]
    images, boxes, labels, _ = batch_of(case)
    model = networks.YoloBody(MASKS, 3, pretrained=False).train()
    anchors = np.array(ANCHORS, dtype=np.float64).reshape(-1, 2)
    loss_of = training.YOLOLoss(anchors, 3, [size, size], False, MASKS, 0, True, 0.25, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.937, nesterov=True)
    pixels = images.float() / 255
    targets = [
        torch.cat([box / size, label[:, None].float()], 1) for box, label in zip(boxes, labels, strict=True)
    ]

    def step() -> float:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            outputs = model(pixels)
        losses = [loss_of(head, output.float(), targets) for head, output in enumerate(outputs)]
        total: Any = sum(losses)
        total.backward()
        optimizer.step()
        return float(total)

    return step


def main() -> None:
    """Answer until standard input ends."""
    import torch

    root, case, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    torch.set_num_threads(threads)
    sys.path.insert(0, root)
    answer(stepper(case))


if __name__ == "__main__":
    main()
