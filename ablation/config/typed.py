"""A composed configuration -> a RunConfig whose every value has its declared type and range."""

from __future__ import annotations

import dataclasses
import importlib
import math
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ablation.config.schema import OPEN_GROUPS, RunConfig
from ablation.data.dataset import DataSource
from ablation.errors import UsageError, one_line
from ablation.tracking.credentials import NO_CREDENTIALS, holds_credentials
from ablation.yaml_files import LARGEST_INT


def register() -> None:
    """Give Hydra the schema of the spine, under the name that conf/train.yaml starts from."""
    ConfigStore.instance().store(name="schema", node=RunConfig)


def typed(config: DictConfig) -> RunConfig:
    """A composed configuration -> a RunConfig whose every value has its declared type and range.

    Raises:
        UsageError: one line that names the key, what was found and what would be right.
    """
    schema = {f.name: f for f in dataclasses.fields(RunConfig)}
    values = _container("", config)
    built: dict[str, Any] = {}
    scalars: dict[str, Any] = {}
    for key, value in values.items():
        if key not in schema:
            raise UsageError(f"{key}: no such key; the keys are {', '.join(schema)}")
        if key in OPEN_GROUPS:
            built[key] = typed_group(key, value, OPEN_GROUPS[key])
            if isinstance(built[key], DataSource):
                built[key] = built[key].resolved()
        elif dataclasses.is_dataclass(schema[key].default_factory):
            built[key] = filled(key, schema[key].default_factory, value)
        else:
            scalars[key] = value
    for group in OPEN_GROUPS:
        if group not in built:
            raise UsageError(f"{group}: missing; name a file of conf/{group}/, as in {group}=NAME")
    run: RunConfig = filled("", RunConfig, scalars)
    try:
        return dataclasses.replace(run, **built)
    except ValueError as error:
        raise UsageError(one_line(error)) from None


def _container(group: str, node: Any) -> dict[str, Any]:
    try:
        _refuse_calls(group, OmegaConf.to_container(node, resolve=False))
        values: Any = OmegaConf.to_container(node, resolve=True)
        _refuse_numbers(group, values)
        return dict(values)
    except OmegaConfBaseException as error:
        raise UsageError(_message(group, error)) from None


def _refuse_calls(key: str, value: Any) -> None:
    """Refuse ${name:...}: what a resolver such as oc.env returns would be stored with the run.

    References to other settings, ${train.size_px}, are fine. Refuse addresses with passwords too, but the
    tracking store's, which loses them instead.
    """
    if isinstance(value, dict):
        for name, item in value.items():
            _refuse_calls(f"{key}.{name}" if key else str(name), item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_calls(f"{key}[{index}]", item)
    elif isinstance(value, str) and _calls_a_resolver(value):
        raise UsageError(
            f"{key}: found {one_line(value, 80)!r}; what the environment or another resolver holds would be "
            "stored with the run. Write the value itself, and keep secrets out of the configuration"
        )
    elif isinstance(value, str) and key != "tracking.uri" and holds_credentials(value):
        raise UsageError(f"{key}: {NO_CREDENTIALS}")


def _refuse_numbers(key: str, value: Any) -> None:
    """Refuse numbers that config.yaml could not be read back with: not finite, or beyond 64 bits."""
    if isinstance(value, dict):
        for name, item in value.items():
            _refuse_numbers(f"{key}.{name}" if key else str(name), item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_numbers(f"{key}[{index}]", item)
    elif isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{key}: found {value}, must be a finite number")
    elif isinstance(value, int) and abs(value) > LARGEST_INT:
        raise UsageError(f"{key}: found a number of {len(str(abs(value)))} digits, must be below 2^63")


def _calls_a_resolver(text: str) -> bool:
    """Whether any ${...} of the text has a colon of its own: ${oc.env:NAME}, ${${x}:NAME}."""
    open_braces = 0
    position = 0
    while position < len(text):
        if text.startswith("${", position):
            open_braces += 1
            position += 2
            continue
        if text[position] == "}":
            open_braces = max(0, open_braces - 1)
        elif text[position] == ":" and open_braces:
            return True
        position += 1
    return False


def filled(group: str, cls: Any, values: Any) -> Any:
    """An instance of dataclass `cls` from plain values, every one of them checked and converted."""
    if not isinstance(values, dict):
        raise UsageError(f"{group}: found {values!r}, must be a mapping")
    schema = OmegaConf.structured(cls)
    OmegaConf.set_readonly(schema, False)
    known = [f.name for f in dataclasses.fields(cls)]
    prefix = f"{group}." if group else ""
    try:
        for key, value in values.items():
            if key not in known:
                raise UsageError(
                    f"{prefix}{key}: {cls.__name__} has no such setting; it has: {', '.join(known)}"
                )
            if value == "???":  # OmegaConf's word for missing; assigning it would change nothing
                raise UsageError(f"{prefix}{key}: missing, and has no default; give {prefix}{key}=VALUE")
            # Key by key: merging would refuse an int in a list of lists of floats.
            schema[key] = value
        if cls is RunConfig:
            for name in OPEN_GROUPS:
                schema[name] = None
        return OmegaConf.to_object(schema)
    except (OmegaConfBaseException, ValueError) as error:
        raise UsageError(_message(group, error)) from None


def typed_group(group: str, node: Any, base: type) -> Any:
    """An open group's plain values -> an instance of the class it names, checked against that class's fields.

    Only classes of the project's own kind are built: `_target_` must name a subclass of `base`,
    so a configuration file cannot make the program call anything else.
    """
    if not isinstance(node, dict) or not node.get("_target_"):
        raise UsageError(f"{group}: no class named; a file of conf/{group}/ has a line `_target_: ...`")
    cls = _find_class(group, str(node["_target_"]), base)
    return filled(group, cls, {key: value for key, value in node.items() if key != "_target_"})


def _find_class(group: str, target: str, base: type) -> Any:
    module_name, _, class_name = target.rpartition(".")
    if module_name.split(".")[0] != "ablation" and not _already_trusted(target, base):
        # Importing a module runs it, so the check comes before the import.
        raise UsageError(f"{group}._target_: {target} is not a class of this project's ablation package")
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError):
        raise UsageError(f"{group}._target_: {target} not found") from None
    if not (isinstance(cls, type) and issubclass(cls, base) and dataclasses.is_dataclass(cls)):
        raise UsageError(f"{group}._target_: {target} is not a dataclass derived from {base.__name__}")
    return cls


def _already_trusted(target: str, base: type) -> bool:
    """Whether the user's own program has itself defined and imported that subclass."""
    pending: list[type] = list(base.__subclasses__())
    while pending:
        cls = pending.pop()
        if f"{cls.__module__}.{cls.__qualname__}" == target:
            return True
        pending += cls.__subclasses__()
    return False


def _message(group: str, error: Exception) -> str:
    """One line that starts with the full key."""
    text = str(getattr(error, "msg", None) or error).split("\n")[0]
    key = str(getattr(error, "full_key", None) or "")
    prefix = f"{group}." if group else ""
    return one_line(f"{prefix}{key}: {text}" if key else f"{prefix}{text}")
