"""Single values: what the tracking store wrote as text or number -> what a table can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping

BASELINE_LOSS = "bce"
LOSS = "loss."
GAIN = "criterion.confidence_gain"
"""The arm's own factor of its confidence term: with a swept gain, BCE is tuned as hard as focal loss."""

Setting = float | bool | str | None


def parse_setting(text: str | None) -> Setting:
    """A parameter as the store keeps it -> its value: '2' and '2.0' -> 2.0, 'None' -> None, 'true' -> True.

    Numbers that are not finite become None: a table has no use for them and figures choke on them.
    """
    if text is None:
        return None
    word = text.strip()
    if word.lower() in ("", "none", "null", "nan"):
        return None
    if word.lower() in ("true", "false"):
        return word.lower() == "true"
    try:
        number = float(word)
    except ValueError:
        return word
    return number if math.isfinite(number) else None


def parse_metric(name: str, value: float) -> float:
    """A metric as the store keeps it -> a finite number or NaN.

    MLflow's SQL store writes infinity as the largest double; pycocotools writes -1 for the AP of
    something that does not occur in the ground truth, which is "undefined", not a bad score.
    """
    number = float(value)
    if not math.isfinite(number) or abs(number) > 1e308:
        return math.nan
    if name.split("/")[-1].startswith("AP") or "/AP_" in name:
        return number if number >= 0 else math.nan
    return number


def format_setting(value: Setting) -> str:
    """A setting for people: 0.5, 2, none, true."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else value


def setting_name(params: Mapping[str, str]) -> str:
    """The loss and its settings for people: 'focal (alpha=0.25)'; plain BCE is just 'bce'."""
    name = params.get("loss.name", "unknown")
    settings = {
        key.removeprefix(LOSS): parse_setting(params[key]) for key in sorted(params) if is_setting(key)
    }
    if name == BASELINE_LOSS and settings.get("pos_weight") in (None, 1.0):
        settings.pop("pos_weight", None)
    if (gain := gain_of(params)) != 1.0:
        settings["gain"] = gain
    inside = ", ".join(f"{key}={format_setting(value)}" for key, value in settings.items())
    return f"{name} ({inside})" if inside else name


def gain_of(params: Mapping[str, str]) -> float:
    """The factor of the confidence term; 1 where none is recorded."""
    gain = parse_setting(params.get(GAIN))
    return gain if isinstance(gain, float) else 1.0


def is_setting(name: str) -> bool:
    """Whether a parameter is a setting of the loss (not its name, nor the class that made it)."""
    return name.startswith(LOSS) and name != "loss.name" and not name.startswith("loss._")
