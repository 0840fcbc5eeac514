"""Counter-based randomness: every random number is a function of (seed, stream, epoch, index).

Nothing depends on process, worker or call order, so that arms with one seed see the same data,
any number of loader workers gives the same batches, and a resumed run repeats.
"""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, stream: str, epoch: int = 0, index: int = 0) -> np.random.Generator:
    """An independent generator for one use.

    Philox takes a 128-bit key and a 256-bit counter. Seed and stream name form the key; epoch and
    index are the two high words of the counter, so two (epoch, index) pairs never overlap: the
    low words count 2**128 draws before they would.

    Args:
        seed: the run's seed, 0 <= seed < 2**63.
        stream: what the numbers are for ("order", "augment", "weights", ...).
        epoch, index: >= 0; the epoch and the image's position in the data set.
    """
    if min(seed, epoch, index) < 0:
        raise ValueError(f"seed, epoch and index must not be negative: {seed}, {epoch}, {index}")
    name = int.from_bytes(hashlib.blake2b(stream.encode(), digest_size=8).digest(), "little")
    key = np.array([seed, name], dtype=np.uint64)
    counter = np.array([0, 0, index, epoch], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def torch_seed(seed: int, stream: str) -> int:
    """A seed for torch.Generator.manual_seed, derived like everything else."""
    return int(generator(seed, stream).integers(0, 2**63 - 1))
