"""A finished run, found and rebuilt: its configuration from config.yaml, its network from weights.pt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ablation.config import RunConfig, typed
from ablation.errors import StoreError, UsageError, one_line
from ablation.model.base import Detector
from ablation.tracking.run_folder import RunFolder
from ablation.tracking.store import Store
from ablation.tracking.study_record import find_folders


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


def find_run(wanted: str, store: Store) -> RunFolder:
    """The folder of a run.

    Args:
        wanted: the folder itself, or the beginning of the run's key or of its MLflow run id, as
            long as only one run begins so.
        store: where runs are looked up.

    Raises:
        UsageError: there is no such run, there are several, or its folder is elsewhere.
    """
    path = Path(wanted)
    if path.is_dir():
        if not (path / "config.yaml").is_file():
            raise UsageError(
                f"run={wanted}: no config.yaml there; a run's folder is runs/<study>/<arm>/seed<k>-<key>"
            )
        return RunFolder(path)
    folders = find_folders(store, wanted)
    if not folders:
        raise UsageError(f"run={wanted}: no folder, and no run's key or MLflow id begins so in {store.uri}")
    if len(folders) > 1:
        shown = ", ".join(map(str, folders[:3])) + (", ..." if len(folders) > 3 else "")
        raise UsageError(
            f"run={wanted}: {len(folders)} runs begin so ({shown}); give more of it, or a folder"
        )
    path = folders[0]
    if not (path / "config.yaml").is_file():
        raise UsageError(f"run={wanted}: its folder {path} is not on this machine; give run=FOLDER")
    return RunFolder(path)


def load_run(folder: RunFolder) -> TrainedRun:
    """Rebuild the network of a run. Neither its data set nor its pretrained weights are needed.

    Raises:
        UsageError: the run has no weights (yet).
        StoreError: a file of the folder is damaged, or does not belong to the others.
    """
    path = folder.file("weights.pt")
    if not path.is_file():
        why = f" ({folder.reason})" if folder.reason else ""
        raise UsageError(
            f"{folder.path}: the run is {folder.state}{why} and has no weights.pt; it is written at the end"
        )
    config = _config(folder.file("config.yaml"))
    state = _state(path)
    classes = tuple(str(name) for name in state["classes"])
    network = config.model.build(len(classes), config.train.size_px, config.seed)
    try:
        network.load_state_dict(state["model"])
    except RuntimeError as error:
        raise StoreError(
            f"{path}: does not fit the network of config.yaml beside it: {one_line(error, 200)}"
        ) from None
    return TrainedRun(folder, config, classes, network.eval())


def _config(path: Path) -> RunConfig:
    try:
        content = OmegaConf.load(path)
    except (OSError, UnicodeError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise StoreError(f"{path}: not readable: {one_line(error, 200)}") from None
    if not isinstance(content, DictConfig):
        raise StoreError(f"{path}: not a run's configuration")
    try:
        return typed(content)
    except UsageError as error:
        raise StoreError(f"{path}: {error}") from None


def _state(path: Path) -> Mapping[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises almost anything
        raise StoreError(f"{path}: not readable: {one_line(error, 200)}") from None
    if not isinstance(state, Mapping) or not {"model", "classes"} <= set(state):
        raise StoreError(f"{path}: not a run's weights")
    return state
