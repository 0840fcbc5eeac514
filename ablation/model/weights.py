"""Pretrained weights: load what others published, and write files that others read.

Read: state dicts of the seed implementation (bubbliiiing's yolov4-pytorch and yolov4-tiny-pytorch,
also inside {"model": ...} or {"state_dict": ...}, also with a `module.` prefix), Darknet's .weights
(both forms of the header) and the partial yolov4.conv.137 and yolov4-tiny.conv.29. The format is
told by the content, not by the name. Nothing but tensors is unpickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ablation.errors import DataError, UsageError, one_line
from ablation.files import write_atomic
from ablation.model.base import Detector
from ablation.model.darknet_file import looks_like_darknet, read_darknet
from ablation.model.darknet_file import write_darknet as write_darknet

WRAPPERS = ("model", "state_dict", "model_state_dict")
COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class LoadReport:
    """What became of each tensor, by state dict key of the seed implementation.

    Attributes:
        file: the file that was read.
        taken: tensors of the network that now hold the file's values.
        left: tensors of the network that the file has nothing for; they keep their values.
            (Batch norm's counters of batches are not mentioned: Darknet's files have none.)
        refused: tensors of the file that were not used, and why; the network's own keep theirs.
    """

    file: str
    taken: tuple[str, ...]
    left: tuple[str, ...]
    refused: dict[str, str]

    def summary(self) -> str:
        """One line for the log."""
        reasons = sorted(set(self.refused.values()))
        why = f" ({'; '.join(reasons)})" if reasons else ""
        return (
            f"{self.file}: {len(self.taken)} tensors taken, {len(self.left)} left as they were, "
            f"{len(self.refused)} refused{why}"
        )


def load_weights(detector: Detector, path: Path | str, load_heads: bool = False) -> LoadReport:
    """Load a file into `detector`, wholly or, where it is refused, not at all.

    The last convolution of each head is taken only where `load_heads` is set and the number of
    classes is the same; it keeps its initial weights otherwise. (A head that was trained with BCE
    would favour the BCE arm.) The head's hidden layer before it is taken like the rest.

    Raises:
        UsageError: no such file.
        DataError: a file of no known format, damaged, or of another architecture.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"model.weights={path}: no such file")
    with path.open("rb") as file:
        start = file.read(16)
    if start[:4] == b"PK\x03\x04" or start[:1] == b"\x80":
        state_dict = _read_state_dict(path)
    elif looks_like_darknet(start):
        state_dict = read_darknet(detector, path)
    elif not start:
        raise DataError(
            f"{path}: an empty file; a PyTorch state dict or a Darknet weights file would be right"
        )
    else:
        raise DataError(f"{path}: neither a PyTorch state dict nor a Darknet weights file")
    return _assign(detector, state_dict, path, load_heads)


def state_dict_of(detector: Detector) -> dict[str, Tensor]:
    """The network's tensors under the seed implementation's keys, in its order, on the CPU."""
    return {
        key: live.detach().cpu().clone() for slot in detector.darknet_convs() for key, live in slot.tensors()
    }


def write_state_dict(detector: Detector, path: Path) -> None:
    """Write `state_dict_of` with torch.save, atomically."""
    tensors = state_dict_of(detector)
    write_atomic(path, lambda file: torch.save(tensors, file))


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a pickled state dict, unwrapped, without a `module.` prefix."""
    try:
        state_dict: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises almost anything, from EOFError to KeyError
        if "weights_only" in str(error) or "Unsupported global" in str(error):
            raise DataError(
                f"{path}: holds code or objects besides tensors and was not opened; "
                "save a plain state dict: torch.save(model.state_dict(), file)"
            ) from error
        raise DataError(
            f"{path}: a PyTorch file that is cut off or damaged: {one_line(error, 80)}; fetch it again"
        ) from error
    for wrapper in WRAPPERS:
        if isinstance(state_dict, Mapping) and isinstance(state_dict.get(wrapper), Mapping):
            state_dict = state_dict[wrapper]
            break
    if not isinstance(state_dict, Mapping) or not state_dict:
        raise DataError(f"{path}: holds a {type(state_dict).__name__}, not a state dict")
    for key, value in state_dict.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise DataError(f"{path}: '{one_line(key, 80)}' is a {type(value).__name__}, not a tensor")
        why = why_not_plain(value, integers=key.endswith(COUNTER))
        if why:
            raise DataError(f"{path}: '{one_line(key, 80)}' is {why}; save plain tensors of numbers")
    if all(key.startswith("module.") for key in state_dict):
        state_dict = {key.removeprefix("module."): value for key, value in state_dict.items()}
    return dict(state_dict)


def why_not_plain(value: Tensor, integers: bool = False) -> str:
    """Why a tensor cannot be the weights of a network; empty where it can.

    Args:
        integers: whether whole numbers will do as well: batch norm's counters, an average's steps.
    """
    if value.layout != torch.strided or value.is_quantized or value.is_meta:
        return f"no dense tensor with numbers ({str(value.layout).removeprefix('torch.')}, {value.device})"
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return f"a tensor of {value.numel():,} numbers of which the file holds fewer"
    whole = value.dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
    if not (value.is_floating_point() or (integers and whole)):
        return f"of type {str(value.dtype).removeprefix('torch.')}, which weights never are"
    return ""


def _assign(detector: Detector, state_dict: dict[str, Tensor], path: Path, load_heads: bool) -> LoadReport:
    """Check everything, then copy."""
    slots = detector.darknet_convs()
    network = {key: live for slot in slots for key, live in slot.tensors()}
    ends = {key for slot in slots if slot.ends_head for key, _ in slot.tensors()}
    refused: dict[str, str] = {}
    for key, value in state_dict.items():
        live = network.get(key)
        if live is None:
            raise DataError(f"{path}: another architecture: this network has no '{key}'")
        if not torch.isfinite(value.to(live.dtype)).all():
            raise DataError(f"{path}: '{key}' holds numbers that are not finite: a damaged file")
        if key.endswith("running_var") and (value < 0).any():
            raise DataError(f"{path}: '{key}' has negative variances: a damaged file or another architecture")
        if key in ends and value.shape[1:] == live.shape[1:]:
            if value.shape != live.shape:
                classes = detector.layout.num_classes
                refused[key] = f"a head of another number of classes than {classes}"
            elif not load_heads:
                refused[key] = "load_heads=false"
        elif value.shape != live.shape:
            raise DataError(
                f"{path}: another architecture, width or depth: '{key}' is {tuple(value.shape)}, "
                f"this network's is {tuple(live.shape)}"
            )
    _require_whole(detector, state_dict, path)
    taken = [key for key in network if key in state_dict and key not in refused]
    with torch.no_grad():
        for key in taken:
            network[key].copy_(state_dict[key])
    left = tuple(key for key in network if key not in state_dict and not key.endswith(COUNTER))
    return LoadReport(str(path), tuple(taken), left, refused)


def _require_whole(detector: Detector, state_dict: dict[str, Tensor], path: Path) -> None:
    """Refuse a file that holds only a part of the network, unless it is the published part."""
    # A file from before PyTorch 0.4.1, and any of Darknet's, has no counters of batches.
    keys = [
        [key for key, _ in slot.tensors() if not key.endswith(COUNTER)] for slot in detector.darknet_convs()
    ]
    first = {key for slot in keys[: detector.darknet_partial_convs] for key in slot}
    lacking = [key for slot in keys for key in slot if key not in state_dict]
    only_the_first = (
        all(key in first or key.endswith(COUNTER) for key in state_dict) and first <= state_dict.keys()
    )
    if lacking and not only_the_first:
        raise DataError(
            f"{path}: another architecture or an incomplete file: "
            f"{len(lacking)} tensors are missing, the first is '{lacking[0]}'"
        )
