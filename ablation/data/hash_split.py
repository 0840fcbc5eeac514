"""Splits made by a hash of each image's name, where a data set brings none of its own.

Whether an image is in a split depends on its name and the share alone, so images that are added
later move none of the others, and neither does the order in which a folder lists them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

from ablation.data.file_split import RawExample
from ablation.errors import UsageError

SplitName = Literal["train", "val", "test"]


def position(name: str, purpose: str) -> float:
    """A number in [0, 1) that only `name` and `purpose` decide, uniform over names.

    u = first 53 bits of SHA-256("ablation split <purpose> <name>") / 2^53. Each purpose has its own
    hash, so that the images of one split are no special part of another.
    """
    digest = hashlib.sha256(f"ablation split {purpose} {name}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def part_of(name: str, val_share: float, test_share: float) -> SplitName:
    """The split of the image `name`: test first, then val from what test has left.

    Args:
        val_share: share of the images that are not in test, 0 <= val_share < 1.
        test_share: share of all images, 0 <= test_share < 1.
    """
    if position(name, "test") < test_share:
        return "test"
    return "val" if position(name, "val") < val_share else "train"


def take(
    raws: Sequence[RawExample], split: SplitName, val_share: float, test_share: float
) -> list[RawExample]:
    """The images that belong to `split`. Raises UsageError where there are none."""
    taken = [raw for raw in raws if part_of(raw.name, val_share, test_share) == split]
    if not taken:
        shares = f"data.val_share={val_share:g} and data.test_share={test_share:g}"
        raise UsageError(f"{shares} of {len(raws)} images leave none for {split}; change the shares")
    return taken
