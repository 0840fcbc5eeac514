"""Damaged Darknet weights and PyTorch checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from helpers.fuzz import Reader, Result
from helpers.mutations import Damage

from ablation.model.darknet_file import stored_tensors, write_darknet
from ablation.model.weights import LoadReport, load_weights, write_state_dict
from ablation.model.yolov4_tiny import YOLOv4Tiny

Fuzz = Callable[[Reader, int], Result]
MODEL = YOLOv4Tiny(width=0.0625)


def network() -> Any:
    return MODEL.build(3, 64, 0)


def read(folder: Path) -> tuple[LoadReport, Any]:
    (path,) = folder.iterdir()
    detector = network()
    return load_weights(detector, path, load_heads=True), detector


# Darknet


def write_weights(folder: Path) -> None:
    write_darknet(MODEL.build(3, 64, 1), folder / "net.weights", seen=64)


def damage_weights(folder: Path, damage: Damage) -> None:
    damage.binary_file(folder / "net.weights")


def wrong_weights(folder: Path, value: tuple[LoadReport, Any], undamaged: Any) -> str | None:
    """The network must hold the file's numbers in the file's order, and they must be numbers."""
    content, (report, detector) = (folder / "net.weights").read_bytes(), value
    header = 20 if content[4] or content[0] else 16
    numbers = np.frombuffer(content[header : len(content) - (len(content) - header) % 4], "<f4")
    position, slots = 0, detector.darknet_convs()
    whole = {key for slot in slots for key, _ in stored_tensors(slot)} == set(report.taken)
    for slot in slots:
        for key, live in stored_tensors(slot):
            if key in report.taken:
                expected = numbers[position : position + live.numel()]
                if not np.array_equal(live.detach().numpy().ravel(), expected):
                    return f"{key} differs from the file"
                position += live.numel()
            elif whole or not (key in report.refused or key in report.left):
                return f"{key} is neither taken nor refused nor left"
    return None if np.isfinite(numbers).all() else "the file holds numbers that are not finite"


DARKNET = Reader(
    "Darknet weights",
    write_weights,
    damage_weights,
    read,
    wrong_weights,
    special={"empty": lambda folder: (folder / "net.weights").write_bytes(b"") and None},
    names=("net.weights",),
)


def test_darknet_weights(fuzz: Fuzz, mutations: int) -> None:
    assert fuzz(DARKNET, mutations).failures == []


# PyTorch


def write_pth(folder: Path) -> None:
    write_state_dict(MODEL.build(3, 64, 1), folder / "net.pth")


def damage_pth(folder: Path, damage: Damage) -> None:
    """The file, or one of the values in it."""
    path = folder / "net.pth"
    if damage.random.random() < 0.5:
        return damage.binary_file(path)
    state = torch.load(path, weights_only=True)
    key = damage.choose(sorted(state))
    tensor = state[key]
    odd = {
        "renamed": lambda: state.update({key + "x": state.pop(key)}),
        "missing": lambda: state.pop(key),
        "half": lambda: state.update({key: tensor.to(torch.float16)}),
        "whole": lambda: state.update({key: tensor.to(torch.int64)}),
        "bool": lambda: state.update({key: tensor.bool()}),
        "complex": lambda: state.update({key: tensor.to(torch.complex64)}),
        "double": lambda: state.update({key: tensor.double() * 1e300}),
        "nan": lambda: state.update({key: tensor * float("nan")}),
        "sparse": lambda: state.update({key: tensor.to_sparse()}),
        "meta": lambda: state.update({key: tensor.to("meta")}),
        "other shape": lambda: state.update(
            {key: tensor.flatten()[:-1] if tensor.numel() > 1 else tensor[None]}
        ),
        "expanded": lambda: state.update({key: torch.zeros(1).expand(2**40)}),
        "list": lambda: state.update({key: tensor.tolist()}),
        "number": lambda: state.update({damage.choose((1, None, (2,))): tensor}),
        "parameter": lambda: state.update({key: torch.nn.Parameter(tensor.float())}),
        "prefix": lambda: state.update({f"module.{key}": state.pop(key)}),
    }
    odd[damage.choose(sorted(odd))]()
    torch.save(state if damage.random.random() < 0.8 else {"model": state, "epoch": 1}, path)
    return None


def wrong_pth(folder: Path, value: tuple[LoadReport, Any], undamaged: Any) -> str | None:
    """Every tensor that was taken must be the file's, and finite."""
    report, detector = value
    state = torch.load(folder / "net.pth", weights_only=True)
    state = state.get("model", state)
    live = {key: tensor for slot in detector.darknet_convs() for key, tensor in slot.tensors()}
    for key in report.taken:
        stored = state[key] if key in state else state[f"module.{key}"]
        if stored.is_complex() or stored.dtype in (torch.bool, torch.qint8):
            return f"{key} was taken from a tensor of {stored.dtype}"
        if not torch.equal(live[key], stored.to(live[key].dtype)) or not torch.isfinite(live[key]).all():
            return f"{key} differs from the file, or is not finite"
    return None


PTH = Reader("PyTorch checkpoint", write_pth, damage_pth, read, wrong_pth, names=("net.pth",))


def test_pytorch_checkpoints(fuzz: Fuzz, mutations: int) -> None:
    assert fuzz(PTH, mutations).failures == []
