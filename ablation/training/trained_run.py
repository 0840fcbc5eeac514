"""A finished run, found and rebuilt: its configuration from config.yaml, its network from weights.pt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from ablation.config import RunConfig, typed
from ablation.errors import StoreError, UsageError, one_line
from ablation.model.base import Detector
from ablation.model.weights import COUNTER, why_not_plain
from ablation.tracking.run_folder import OWN_FOLDER, RunFolder
from ablation.tracking.store import Store
from ablation.tracking.study_record import find_folders
from ablation.yaml_files import checked_text


@dataclass(frozen=True)
class TrainedRun:
    """A run whose network can be used.

    Attributes:
        config: typed; as it was trained.
        classes: names in the order of their labels.
        network: the weights that were evaluated, on the CPU, in eval mode.
    """

    folder: RunFolder
    config: RunConfig
    classes: tuple[str, ...]
    network: Detector


def find_run(reference: str, store: Store) -> RunFolder:
    """The folder of a run.

    Args:
        reference: the folder itself, or the beginning of the run's key or of its MLflow run id, as
            long as only one run begins so.
        store: where runs are looked up.

    Raises:
        UsageError: there is no such run, there are several, or its folder is elsewhere.
    """
    path = Path(reference).expanduser()
    if path.is_dir():
        if not (path / "config.yaml").is_file():
            raise UsageError(
                f"run={reference}: no config.yaml there; a run's folder is runs/<study>/<arm>/seed<k>-<key>"
            )
        return RunFolder(path)
    folders = find_folders(store, reference)
    if not folders:
        raise UsageError(
            f"run={reference}: no folder, and no run's key or MLflow id begins so in {store.uri}"
        )
    if len(folders) > 1:
        listed = ", ".join(map(str, folders[:3])) + (", ..." if len(folders) > 3 else "")
        raise UsageError(
            f"run={reference}: {len(folders)} runs begin so ({listed}); give more of it, or a folder"
        )
    path = folders[0]
    if not (path / "config.yaml").is_file():
        raise UsageError(f"run={reference}: its folder {path} is not on this machine; give run=FOLDER")
    return RunFolder(path)


def load_run(folder: RunFolder) -> TrainedRun:
    """Rebuild the network of a run. Neither its data set nor its pretrained weights are needed.

    Raises:
        UsageError: the run has no weights (yet).
        StoreError: a file of the folder is damaged, or does not belong to the others.
    """
    if folder.file(OWN_FOLDER).is_dir():
        raise UsageError(
            f"{folder.path}: a trainer of your own made this run; its weights are in {OWN_FOLDER}/, and only "
            "that trainer can load them"
        )
    path = folder.file("weights.pt")
    if not path.is_file():
        why = f" ({folder.reason})" if folder.reason else ""
        raise UsageError(
            f"{folder.path}: the run is {folder.state}{why} and has no weights.pt; it is written at the end"
        )
    config = config_of(folder)
    state, classes = _state(path)
    network = config.model.build(len(classes), config.train.size_px, config.seed)
    for name, value in network.state_dict().items():
        if name in state and state[name].shape != value.shape:  # torch takes one number for a scalar
            shapes = f"{name} is {tuple(state[name].shape)}, must be {tuple(value.shape)}"
            raise StoreError(f"{path}: does not fit the network of config.yaml beside it: {shapes}")
    try:
        network.load_state_dict(state)
    except Exception as error:  # whatever torch makes of values that are none of ours
        raise StoreError(
            f"{path}: does not fit the network of config.yaml beside it: {one_line(error, 200)}"
        ) from None
    return TrainedRun(folder, config, classes, network.eval())


def config_of(folder: RunFolder) -> RunConfig:
    """A run's configuration.

    Raises:
        StoreError: config.yaml is missing or damaged.
    """
    path = folder.file("config.yaml")
    try:
        content = OmegaConf.create(checked_text(path, StoreError))
    except (OSError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise StoreError(f"{path}: not readable: {one_line(error, 200)}") from None
    if not isinstance(content, DictConfig):
        raise StoreError(f"{path}: not a run's configuration")
    try:
        return typed(content)
    except UsageError as error:
        raise StoreError(f"{path}: {error}") from None


def _state(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors and the names of the classes of a run's weights."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises almost anything
        raise StoreError(f"{path}: not readable: {one_line(error, 200)}") from None
    if not isinstance(content, Mapping) or not {"model", "classes"} <= set(content):
        raise StoreError(f"{path}: not a run's weights")
    state, classes = content["model"], content["classes"]
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise StoreError(f"{path}: not a run's weights: classes must be a list of names")
    if not isinstance(state, Mapping):
        raise StoreError(f"{path}: not a run's weights: model is a {type(state).__name__}")
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise StoreError(f"{path}: {one_line(key, 80)!r} is a {type(value).__name__}, not a tensor")
        why = why_not_plain(value, integers=str(key).endswith(COUNTER))
        if why or not torch.isfinite(value).all():
            raise StoreError(f"{path}: {one_line(key, 80)!r} is {why or 'not finite'}: a damaged file")
    return dict(state), tuple(classes)
