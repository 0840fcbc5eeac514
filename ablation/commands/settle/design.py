"""The declared procedure of a `settle`: its looks, its seeds, its bounds."""

from __future__ import annotations

LOOKS = (4, 5, 6, 8, 10, 12, 16)
SPENDING = 1.0
