"""Is this run done already? A run is known by a key made from everything that can change its result."""

from __future__ import annotations

from typing import Any

from ablation import __version__
from ablation.config import RunConfig, plain
from ablation.files import canonical_json, sha256_text


def run_key(config: RunConfig, fingerprint: str, weights: str | None = None) -> str:
    """SHA-256 of the typed configuration, the content of data and weights, and the major.minor version.

    Left out are the fields that cannot change a result (paths, devices, workers, tracking, names;
    each is marked where it is declared). The precision must have been resolved: "auto" is not the
    same thing on every machine. Two spellings of one configuration have one key, because the key
    is made from typed values and not from what was typed. For the same reason anchors that are to be
    made from the data must have been made.

    Args:
        fingerprint: of the data set.
        weights: SHA-256 of the file that training starts from; None: it starts from scratch.
    """
    assert config.train.precision != "auto" and config.model.anchors != "auto"
    identity = plain(config, identity=True)
    return sha256_text(
        canonical_json({"config": identity, "data": fingerprint, "weights": weights, "version": _version()})
    )


def command_key(identity: dict[str, Any], fingerprint: str) -> str:
    """The same of a run that a command trains: of what the command can depend on, and of nothing else.

    Args:
        identity: see CommandTrainer.identity.
        fingerprint: of the data that the study names.
    """
    return sha256_text(canonical_json({"command": identity, "data": fingerprint, "version": _version()}))


def _version() -> str:
    return ".".join(__version__.split(".")[:2])
