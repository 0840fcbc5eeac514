"""A typed configuration as plain values: for config.yaml, for the key of a run, for MLflow's parameters."""

from __future__ import annotations

import dataclasses
from typing import Any

from ablation.config.schema import OPEN_GROUPS, RunConfig


def arm_name(config: RunConfig) -> str:
    """The label of an arm, made from its loss and the settings that are not null: bce-pos_weight=4."""
    parts = [type(config.loss).name()]
    for f in dataclasses.fields(config.loss):
        value = getattr(config.loss, f.name)
        if value is not None:
            parts.append(f"{f.name}={value:g}" if isinstance(value, float) else f"{f.name}={value}")
    return "-".join(parts)


def plain(value: Any, identity: bool = False) -> Any:
    """A typed configuration as plain dicts, lists and numbers.

    Args:
        identity: leave out everything that cannot change a result, and spell equal values equally.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        result: dict[str, Any] = {}
        if isinstance(value, tuple(OPEN_GROUPS.values())):
            kind = type(value)
            result["name" if identity else "_target_"] = f"{kind.__module__}.{kind.__qualname__}"
        for f in dataclasses.fields(value):
            if identity and not f.metadata.get("identity", True):
                continue
            if identity and f.metadata.get("keyed_if_changed") and getattr(value, f.name) == f.default:
                continue
            result[f.name] = plain(getattr(value, f.name), identity)
        return result
    if isinstance(value, dict):
        return {str(key): plain(item, identity) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, identity) for item in value]
    if identity and isinstance(value, float):
        return value + 0.0  # -0.0 and 0.0 are one value
    return value


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts -> one level, keys joined by dots; lists stay whole."""
    result: dict[str, Any] = {}
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, dict) and item:
            result |= flat(item, f"{name}.")
        else:
            result[name] = item
    return result
