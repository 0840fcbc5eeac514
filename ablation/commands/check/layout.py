"""What `ablation check data=auto` recognised, as the overrides that say the same."""

from __future__ import annotations

import shlex

from omegaconf import DictConfig

from ablation.config import typed
from ablation.data.auto import Auto
from ablation.data.layouts import Layout, recognise
from ablation.study.command_line import quoted


def layout_lines(config: DictConfig) -> list[str]:
    """Lines to print for a composed configuration; none unless its data set is `auto`."""
    if config.data.get("_target_") != f"{Auto.__module__}.{Auto.__qualname__}":
        return []
    root = str(config.data.root)
    layout = Layout(recognise(root).title, typed(config).data)
    return [f"layout recognised: {layout.title}", f"as overrides: {override_line(layout, root)}"]


def override_line(layout: Layout, root: str) -> str:
    """`data=voc data.root=DIR data.images=images ...`, as a shell takes it."""
    words = [f"data={layout.source.name}", _override("data.root", root)]
    words += [_override(f"data.{name}", value) for name, value in layout.settings().items()]
    return " ".join(words)


def _override(key: str, value: object) -> str:
    plain = "null" if value is None else str(value)
    if (
        value is None
        or not isinstance(value, str)
        or all(letter.isalnum() or letter in "_./-" for letter in plain)
    ):
        return f"{key}={shlex.quote(plain)}"
    return quoted(key, plain)
