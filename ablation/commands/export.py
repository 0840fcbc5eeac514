"""A trained run's network for other programs: Darknet, a PyTorch state dict, ONNX."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ablation.errors import AblationError, UsageError, one_line
from ablation.files import write_atomic, write_json, write_text
from ablation.model.base import Detector
from ablation.model.darknet_cfg import darknet_cfg
from ablation.model.weights import write_darknet, write_state_dict
from ablation.training.trained_run import TrainedRun

log = logging.getLogger(__name__)

LARGEST_DIFFERENCE = 1e-4
"""Between ONNX Runtime's outputs and ours, in units of our outputs' standard deviation."""

_EXTRA = ("onnx", "onnxscript", "onnxruntime")


def export(run: TrainedRun, format: str, to: Path | None) -> Path:
    """Write the network, and beside it FILE.json with what is needed to use it.

    That file names the classes in order, the anchors, the strides and masks of the heads,
    scale_x_y, and how an image becomes an input: none of the formats carries it.

    Args:
        format: darknet (Darknet's .weights, and the .cfg that fits), pth (state dict under the keys of
            the seed implementation), onnx (raw heads; needs the extra `onnx`).
        to: file; None: network.<ending> in the run's folder.

    Returns:
        The file that was written.

    Raises:
        UsageError: no such format, the extra is missing, or `to` is a folder.
    """
    if format not in FORMATS:
        raise UsageError(f"format={format}: must be one of {', '.join(FORMATS)}")
    suffix, write = FORMATS[format]
    path = run.folder.file(f"network{suffix}") if to is None else to
    if path.is_dir():
        raise UsageError(f"to={path}: is a folder; name a file, as in to={path / ('network' + suffix)}")
    write(run, path)
    write_json(path.with_name(path.name + ".json"), description(run, format))
    return path


def description(run: TrainedRun, format: str) -> dict[str, Any]:
    """What a program must know to use the network."""
    layout, size_px = run.network.layout, run.config.train.size_px
    return {
        "format": format,
        "model": type(run.config.model).__name__,
        "width": run.config.model.width,
        "depth": run.config.model.depth,
        "classes": list(run.classes),
        "size_px": size_px,
        "input": "RGB, letterboxed with grey 128, divided by 255, (batch, 3, size_px, size_px)",
        "outputs": [
            {
                "stride": stride,
                "anchors_px": [list(layout.anchors_px[i]) for i in mask],
                "scale_x_y": scale,
            }
            for stride, mask, scale in zip(layout.strides, layout.masks, layout.scale_xy, strict=True)
        ],
        "fields": "for each anchor: x, y, w, h, objectness, classes; all raw (before sigmoid and exp)",
    }


def _darknet(run: TrainedRun, path: Path) -> None:
    """The weights, and beside them the .cfg that Darknet needs to read them."""
    train = run.config.train
    text = darknet_cfg(run.network, train.size_px, train.nms_iou)
    write_darknet(run.network, path)
    if text is None:
        log.warning("%s: no .cfg for this architecture; write one that fits", path)
    else:
        write_text(cfg_path(path), text)


def cfg_path(weights: Path) -> Path:
    """Where the .cfg of a weights file is written: network.weights -> network.cfg."""
    return (
        weights.with_suffix(".cfg") if weights.suffix != ".cfg" else weights.with_name(f"{weights.name}.cfg")
    )


def _state_dict(run: TrainedRun, path: Path) -> None:
    write_state_dict(run.network, path)


def _onnx(run: TrainedRun, path: Path) -> None:
    """Export with a free batch size, compare with ONNX Runtime, then write."""
    onnxruntime = _extra()["onnxruntime"]
    example = torch.rand(2, 3, *[run.config.train.size_px] * 2, generator=torch.Generator().manual_seed(0))
    names = [f"stride_{stride}" for stride in run.network.layout.strides]
    try:
        with _silent():
            program = torch.onnx.export(
                run.network,
                (example,),
                input_names=["images"],
                output_names=names,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except Exception as error:  # the exporter's own errors have many kinds and many lines
        raise AblationError(
            f"format=onnx: torch could not export the network: {one_line(error, 300)}"
        ) from error
    assert program is not None
    content = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    check_outputs(run.network, example[:1], session.run(names, {"images": example[:1].numpy()}))
    write_atomic(path, lambda file: file.write(content))


@contextmanager
def _silent() -> Iterator[None]:
    """Keep the exporter's remarks on its own rewriting, dozens of lines, from the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _extra() -> dict[str, Any]:
    packages = {}
    for name in _EXTRA:
        try:
            packages[name] = importlib.import_module(name)
        except ImportError:
            raise UsageError(
                f"format=onnx: needs the package {name}: pip install 'yolov4-focal-ablation[onnx]'"
            ) from None
    return packages


@torch.no_grad()
def check_outputs(network: Detector, images: torch.Tensor, outputs: list[Any]) -> None:
    """Raise AblationError unless another program's outputs for these images are the network's own."""
    for stride, ours, theirs in zip(network.layout.strides, network(images), outputs, strict=True):
        difference = float((ours - torch.as_tensor(theirs)).abs().max() / ours.std())
        if not difference <= LARGEST_DIFFERENCE:
            raise AblationError(
                f"the exported network is not the same: at stride {stride} it differs by "
                f"{difference:.2g} standard deviations, at most {LARGEST_DIFFERENCE:g} may be; not written"
            )


FORMATS: dict[str, tuple[str, Callable[[TrainedRun, Path], None]]] = {
    "darknet": (".weights", _darknet),
    "pth": (".pth", _state_dict),
    "onnx": (".onnx", _onnx),
}
"""Format -> (ending, writer)."""
