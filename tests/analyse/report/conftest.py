"""For tests of the page, the tables and the texts: figures that are not drawn."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers.one_picture import without_figures


@pytest.fixture
def same_picture() -> Iterator[None]:
    """Every figure that applies has the same picture: drawing them all takes many seconds."""
    with without_figures():
        yield
