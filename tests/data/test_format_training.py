"""The same images and boxes as VOC, COCO and YOLO: not only equal data sets but one training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from helpers.format_copies import read_voc, write_coco, write_yolo
from helpers.voc_folder import Box, annotation, encode

from ablation.config import OptimConfig, RunConfig, TrainConfig
from ablation.data.augment import AugmentConfig
from ablation.data.coco import Coco
from ablation.data.dataset import DataSource
from ablation.data.shapes import Shapes
from ablation.data.voc import Voc
from ablation.data.yolo import Yolo
from ablation.losses.focal import Focal
from ablation.model.yolov4_tiny import YOLOv4Tiny
from ablation.study.identity import run_key
from ablation.tracking.run_folder import RunFolder
from ablation.training.run import Run


def write_shapes(root: Path) -> Path:
    """Generated images with whole-pixel boxes as a VOC folder: 16 to train on, 6 for val, 1 for test."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    data = Shapes(train_images=16, val_images=6, test_images=1, size_px=64, cache="none").open()
    splits = {"train": range(16), "val": range(6), "test": range(1)}
    for name, indices in splits.items():
        source = data.train if name == "train" else data.val
        stems = []
        for index in indices:
            example, stem = source.examples[index], f"{name}{index:02d}"
            boxes: list[Box] = []
            for label, corners in zip(example.labels, example.boxes_xyxy_px, strict=True):
                x1, y1 = np.floor(corners[:2]).astype(int).tolist()
                x2, y2 = np.ceil(corners[2:]).astype(int).tolist()
                boxes.append((data.classes[label], x1, y1, min(x2, 64), min(y2, 64)))
            (root / "JPEGImages" / f"{stem}.jpg").write_bytes(encode(source.read(index)))
            (root / "Annotations" / f"{stem}.xml").write_text(annotation(stem, boxes, (64, 64)))
            stems.append(f"{stem}\n")
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text("".join(stems))
    return root


def test_voc_coco_and_yolo_copies_train_to_the_same_weights_and_ap(tmp_path: Path) -> None:
    voc = write_shapes(tmp_path / "voc")
    images = read_voc(voc)
    coco, yolo = write_coco(images, tmp_path / "coco"), write_yolo(images, tmp_path / "yolo")
    files = {
        key: f"annotations/{split}.json"
        for split, key in (("train", "train_json"), ("val", "val_json"), ("test", "test_json"))
    }
    folders = {"train_images": "train", "val_images": "val", "test_images": "test"}
    sources: list[DataSource] = [
        Voc(root=str(voc), cache="none"),
        Coco(root=str(coco), cache="none", **files, **folders),
        Yolo(root=str(yolo), cache="none"),
    ]
    ended = []
    for source in sources:
        config = RunConfig(
            data=source,
            model=YOLOv4Tiny(width=0.125, anchors_at_px=416),
            loss=Focal(),
            augment=AugmentConfig(mosaic=0.5, mixup=0.5, scale_min=0.7, scale_max=1.3, flip=0.5, hue=0.1),
            optim=OptimConfig(name="adamw", lr=0.01),
            train=TrainConfig(
                epochs=3,
                batch_size=4,
                size_px=64,
                eval_every=1,
                precision="fp32",
                ema_decay=None,
                device="cpu",
            ),
        )
        data = source.open()
        folder = RunFolder(tmp_path / type(source).__name__)
        assert Run(config, data, folder, lambda epoch, metrics: None).fit() == "FINISHED"
        weights = torch.load(folder.file("weights.pt"), weights_only=True)["model"]
        lines = [
            json.loads(line)["metrics"] for line in folder.file("metrics.jsonl").read_text().splitlines()
        ]
        numbers = [{k: v for k, v in one.items() if not k.startswith("time/")} for one in lines]
        ended.append(
            (data.fingerprint(), numbers, json.loads(folder.file("detections/val.json").read_text()), weights)
        )
        assert run_key(config, data.fingerprint())
    (print_voc, metrics_voc, detections_voc, weights_voc), *others = ended
    assert len(metrics_voc) == 3 and len(detections_voc) > 0 and metrics_voc[-1]["val/AP"] >= 0
    for fingerprint, numbers, detections, weights in others:
        assert fingerprint == print_voc
        assert numbers == metrics_voc
        assert detections == detections_voc
        assert weights.keys() == weights_voc.keys()
        assert all(torch.equal(weights[key], weights_voc[key]) for key in weights)
