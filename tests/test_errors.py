"""Numbers of things in messages."""

from __future__ import annotations

import pytest

from ablation.errors import counted


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((1, "run"), "1 run"),
        ((0, "run"), "0 runs"),
        ((2, "class", "classes"), "2 classes"),
        ((1, "image is", "images are"), "1 image is"),
        ((5000, "image is", "images are"), "5,000 images are"),
    ],
)
def test_one_thing_and_several(arguments: tuple[int, str], text: str) -> None:
    assert counted(*arguments) == text
