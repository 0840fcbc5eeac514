"""The letterbox's geometry is exact both ways, on each axis."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from ablation.data.letterbox import GREY, Letterbox, letterbox, resize


def test_a_hand_worked_case() -> None:
    geometry = Letterbox.fit(640, 480, 416)
    assert (geometry.resized_width_px, geometry.resized_height_px) == (416, 312)
    assert (geometry.pad_x_px, geometry.pad_y_px) == (0, 52)
    boxes = np.array([[0, 0, 640, 480], [320, 240, 480, 360]], np.float32)
    assert_allclose(geometry.to_input(boxes), [[0, 52, 416, 364], [208, 208, 312, 286]])


def test_each_axis_has_its_own_scale() -> None:
    """333 x 500 at 416: 277.056 becomes 277 columns, so the image's right edge lies at 277 + pad."""
    geometry = Letterbox.fit(333, 500, 416)
    assert (geometry.resized_width_px, geometry.resized_height_px) == (277, 416)
    moved = geometry.to_input(np.array([[0, 0, 333, 500]], np.float32))
    assert_array_equal(moved, [[69, 0, 69 + 277, 416]])


@given(
    st.integers(1, 5000),
    st.integers(1, 5000),
    st.sampled_from([96, 320, 416, 417, 608]),
    st.lists(st.floats(0, 1), min_size=4, max_size=4),
)
@settings(max_examples=300, deadline=None)
def test_round_trip(width: int, height: int, size: int, corners: list[float]) -> None:
    geometry = Letterbox.fit(width, height, size)
    box = (np.array(corners) * [width, height, width, height]).astype(np.float32)
    moved = geometry.to_input(box)
    # float32 in the square resolves size / 2**24, which the way back magnifies by the scale.
    grain = 4 * size * 2.0**-23 * max(1 / geometry.scale_x, 1 / geometry.scale_y, 1)
    assert_allclose(geometry.to_original(moved), box, rtol=1e-6, atol=grain)
    assert (moved >= -1e-3).all() and (moved <= size + 1e-3).all()
    full = geometry.to_input(np.array([0, 0, width, height], np.float32))
    assert_allclose(full[2:] - full[:2], [geometry.resized_width_px, geometry.resized_height_px], atol=1e-3)


@pytest.mark.parametrize("shape", [(101, 67), (67, 101), (50, 50), (1, 500), (300, 299)])
def test_pixels_go_where_the_geometry_says(shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 250, np.uint8)
    square, geometry = letterbox(image, 96)
    assert square.shape == (96, 96, 3)
    filled = np.argwhere((square == 250).all(axis=2))
    x1, y1, x2, y2 = geometry.to_input(np.array([0, 0, shape[1], shape[0]], np.float32)).tolist()
    assert_allclose([*filled.min(axis=0), *(filled.max(axis=0) + 1)], [y1, x1, y2, x2], atol=1e-3)
    assert (square[(square != 250).any(axis=2)] == GREY).all()


def test_shrinking_takes_the_mean_of_what_it_covers() -> None:
    """A single white pixel must not vanish: its share of the area remains."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[5, 9] = 240
    assert_array_equal(np.unique(resize(image, 16, 16)), [0, 15])
