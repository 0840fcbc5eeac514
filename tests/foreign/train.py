"""A small detector in plain PyTorch that knows nothing of `ablation`: one scale, one box a cell.

python train.py --train train.json --val val.json --out DIR [--loss focal --alpha 0.25 --gamma 2] [--seed 0]

Writes DIR/metrics.csv (a line an epoch), DIR/last.pth (from which it goes on), DIR/val.json (COCO results).
With --evaluate FILE it only writes DIR/test.json for that ground truth.
"""

import argparse
import csv
import json
import random
import time
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

STRIDE, KEPT = 8, 20


class Coco(torch.utils.data.Dataset):
    """Images and boxes of a COCO file; images lie beside it."""

    def __init__(self, path):
        content = json.loads(Path(path).read_text())
        self.folder, self.images = Path(path).parent, content["images"]
        self.categories = sorted(category["id"] for category in content["categories"])
        self.objects = {image["id"]: [] for image in self.images}
        for annotation in content["annotations"]:
            label = self.categories.index(annotation["category_id"])
            self.objects[annotation["image_id"]].append((*annotation["bbox"], label))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image = self.images[index]
        pixels = cv2.imread(str(self.folder / image["file_name"]))
        tensor = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
        height, width = tensor.shape[1] // STRIDE, tensor.shape[2] // STRIDE
        target = torch.zeros(6, height, width)  # objectness, x, y, log w, log h, label
        for x, y, w, h, label in self.objects[image["id"]]:
            cx, cy = (x + w / 2) / STRIDE, (y + h / 2) / STRIDE
            column, row = min(int(cx), width - 1), min(int(cy), height - 1)
            sizes = np.log(w / STRIDE), np.log(h / STRIDE)
            target[:, row, column] = torch.tensor([1, cx - column, cy - row, *sizes, label])
        return tensor, target


def network(classes):
    layers, channels = [], 3
    for out, stride in ((16, 2), (32, 2), (32, 2), (32, 1)):
        layers += [nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.SiLU()]
        channels = out
    return nn.Sequential(*layers, nn.Conv2d(channels, 5 + classes, 1))


def objectness_loss(logits, labels, args):
    """Mean binary cross-entropy, or focal loss where --loss focal."""
    loss = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    if args.loss == "bce":
        return loss.mean()
    p = logits.sigmoid()
    wrong = labels * (1 - p) + (1 - labels) * p
    weight = labels * args.alpha + (1 - labels) * (1 - args.alpha)
    return 10 * (weight * wrong**args.gamma * loss).mean()


def batch_loss(out, target, args):
    labels = target[:, 0]
    positive = labels > 0
    loss = objectness_loss(out[:, 0], labels, args)
    if positive.any():
        cells, wanted = out.permute(0, 2, 3, 1)[positive], target.permute(0, 2, 3, 1)[positive]
        loss = loss + F.mse_loss(cells[:, 1:3].sigmoid(), wanted[:, 1:3])
        loss = loss + F.mse_loss(cells[:, 3:5], wanted[:, 3:5])
        loss = loss + F.cross_entropy(cells[:, 5:], wanted[:, 5].long())
    return loss


@torch.no_grad()
def detections(model, data):
    """COCO results: the best cells of each image; no suppression, as one cell has one box."""
    model.eval()
    results = []
    for image, (pixels, _) in zip(data.images, data, strict=True):
        out = model(pixels[None])[0]
        classes = out[5:].softmax(0)
        scores = (out[0].sigmoid() * classes.max(0).values).flatten()
        for cell in scores.argsort(descending=True)[:KEPT].tolist():
            row, column = divmod(cell, out.shape[2])
            x, y, w, h = out[1:5, row, column].tolist()
            x, y = column + 1 / (1 + np.exp(-x)), row + 1 / (1 + np.exp(-y))
            w, h = np.exp(w), np.exp(h)
            box = [STRIDE * value for value in (x - w / 2, y - h / 2, w, h)]
            label = int(classes[:, row, column].argmax())
            results.append(
                {
                    "image_id": image["id"],
                    "category_id": data.categories[label],
                    "bbox": box,
                    "score": float(scores[cell]),
                }
            )
    return results


def main():
    parser = argparse.ArgumentParser()
    for name in ("--train", "--val", "--out", "--evaluate"):
        parser.add_argument(name)
    parser.add_argument("--loss", choices=["bce", "focal"], default="bce")
    parser.add_argument("--alpha", type=float, default=0.25)
    parser.add_argument("--gamma", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds to wait after each epoch")
    args = parser.parse_args()
    out, last = Path(args.out), Path(args.out) / "last.pth"
    random.seed(args.seed)
    np.random.seed(args.seed)
    torch.manual_seed(args.seed)
    data = Coco(args.evaluate or args.train)
    model = network(len(data.categories))
    # By hand: torch.optim imports torch's compiler, which takes longer than this training.
    velocity = [torch.zeros_like(weight) for weight in model.parameters()]
    first = 0
    if last.exists():
        state = torch.load(last, weights_only=True)
        model.load_state_dict(state["model"])
        velocity = state["velocity"]
        first = state["epoch"]
        print(f"goes on after epoch {first}")
    if args.evaluate:
        (out / "test.json").write_text(json.dumps(detections(model, data)))
        return
    val = Coco(args.val)
    for epoch in range(first, args.epochs):
        order = torch.Generator().manual_seed(1000 * args.seed + epoch)
        loader = torch.utils.data.DataLoader(data, 8, shuffle=True, generator=order)
        model.train()
        losses = []
        for pixels, target in loader:
            loss = batch_loss(model(pixels), target, args)
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            with torch.no_grad():
                for weight, speed, gradient in zip(model.parameters(), velocity, gradients, strict=True):
                    speed.mul_(0.9).add_(gradient)
                    weight.sub_(0.05 * speed)
            losses.append(loss.item())
        with (out / "metrics.csv").open("a", newline="") as file:
            writer = csv.writer(file)
            if file.tell() == 0:
                writer.writerow(["epoch", "train/loss"])
            writer.writerow([epoch + 1, sum(losses) / len(losses)])
        state = {"model": model.state_dict(), "velocity": velocity, "epoch": epoch + 1}
        torch.save(state, last.with_suffix(".tmp"))
        last.with_suffix(".tmp").replace(last)
        print(f"epoch {epoch + 1}: loss {losses[-1]:.4f}")
        time.sleep(args.pause)
    (out / "val.json").write_text(json.dumps(detections(model, val)))


if __name__ == "__main__":
    main()
