"""Darknet's .cfg -> the layers that helpers.darknet_reference runs, as Darknet's own parser takes them."""

from __future__ import annotations

from typing import Any

from helpers.darknet_reference import Layer


def sections(text: str) -> list[tuple[str, dict[str, str]]]:
    """Every [name] with its options."""
    found: list[tuple[str, dict[str, str]]] = []
    for line in text.splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("["):
            found.append((line.strip("[]"), {}))
        elif line:
            key, sign, value = line.partition("=")
            assert sign and found, line
            assert key not in found[-1][1], f"{key} stands twice"
            found[-1][1][key] = value
    return found


def layers(text: str) -> list[Layer]:
    """The layers after [net], every source by its absolute number."""
    (first, _), *rest = sections(text)
    assert first == "net"
    return [_layer(number, name, options) for number, (name, options) in enumerate(rest)]


def _layer(number: int, name: str, options: dict[str, Any]) -> Layer:
    def absolute(text: str) -> int:
        source = int(text)
        result = source if source >= 0 else number + source
        assert 0 <= result < number
        return result

    if name == "convolutional":
        assert options["pad"] == "1"
        normed = options.get("batch_normalize") == "1"
        shape = [int(options[key]) for key in ("filters", "size", "stride")]
        return ("conv", *shape, options["activation"], normed)
    if name == "route":
        sources = [absolute(text) for text in options["layers"].split(",")]
        if "groups" in options:
            assert (options["groups"], options["group_id"]) == ("2", "1")
            return ("half", *sources)
        return ("route", *sources)
    if name == "shortcut":
        assert options["activation"] == "linear"
        return ("shortcut", absolute(options["from"]))
    if name == "maxpool":
        return ("max", int(options["size"]), int(options["stride"]))
    if name == "upsample":
        assert options["stride"] == "2"
        return ("up",)
    assert name == "yolo", name
    return ("yolo",)


def numbers(layer_list: list[Layer]) -> int:
    """How many numbers the weights file of these layers holds, from the layers alone."""
    channels: list[int] = []
    inputs, total = 3, 0
    for layer in layer_list:
        kind = layer[0]
        if kind == "conv":
            _, filters, size, _, _, normed = layer
            total += filters * (4 if normed else 1) + filters * inputs * size * size
            inputs = filters
        elif kind == "route":
            inputs = sum(channels[source] for source in layer[1:])
        elif kind == "half":
            inputs = channels[layer[1]] // 2
        channels.append(inputs)
    return total
