import numpy as np
import pytest

from dfn_jax.data.disparity import resize_disparity, to_right_grid


def test_right_grid_of_a_step():
    left = np.full((1, 32), 2.0, np.float32)
    left[0, 10:16] = 6.0
    expected = np.zeros(32)
    expected[0:4] = 2.0
    expected[4:10] = 6.0  # the near surface hides what is behind it
    expected[14:30] = 2.0  # 10 to 13 only the right view sees; 30 and 31 lie outside the left view
    np.testing.assert_array_equal(to_right_grid(left)[0], expected)


def test_right_grid_of_a_slanted_plane():
    offset, slope = 3.0, 0.1
    columns = np.arange(64)
    left = np.tile((offset + slope * columns).astype(np.float32), (2, 1))
    exact = (columns + offset) / (1 - slope) - columns  # solves x_left - d(x_left) = x_right
    right = to_right_grid(left)
    known = right[0] > 0
    assert known[:54].mean() > 0.85
    np.testing.assert_allclose(right[0, known], exact[known], atol=0.5 * slope / (1 - slope) + 1e-4)

    small = resize_disparity(to_right_grid(np.tile(left, (8, 1))), (4, 16))
    centres = exact.reshape(16, 4).mean(1) / 4
    np.testing.assert_allclose(small[1, :13], centres[:13], atol=2 * slope / 4)


def test_right_grid_against_a_loop():
    rng = np.random.default_rng(0)
    left = (rng.uniform(0.5, 9.5, (5, 30)) * (rng.random((5, 30)) < 0.4)).astype(np.float32)
    expected = np.zeros_like(left)
    for y, x in np.argwhere(left > 0):
        target = round(float(x - left[y, x]))
        if target >= 0:
            expected[y, target] = max(expected[y, target], left[y, x])
    np.testing.assert_array_equal(to_right_grid(left), expected)


@pytest.mark.parametrize("size", [(4, 5), (7, 13), (21, 40), (25, 9), (40, 64)])
def test_resized_disparity_against_a_loop(size):
    rng = np.random.default_rng(1)
    height, width = 21, 40
    disparity = (rng.uniform(1, 20, (height, width)) * (rng.random((height, width)) < 0.3)).astype(np.float32)
    resized = resize_disparity(disparity, size)
    scale = np.float32(size[1] / width)
    for y, x in np.ndindex(size):
        covered = disparity[_covered(y, size[0], height)][:, _covered(x, size[1], width)]
        known = np.sort(covered[covered > 0])
        share = known.size / (max(height / size[0], 1) * max(width / size[1], 1))
        expected = known[known.size // 2] * scale if share >= 0.05 else 0.0
        assert resized[y, x] == pytest.approx(expected), (y, x)


def _covered(index, new, old):
    """Pixels whose centres a new pixel covers; where the image grows, the one in which parts of it lie."""
    repeat = -(-new // old)
    return sorted({p // repeat for p in range(old * repeat) if index <= (p + 0.5) * new / (old * repeat) < index + 1})


def test_resized_disparity_mixes_no_surfaces_and_needs_enough_known():
    disparity = np.zeros((20, 40), np.float32)
    disparity[:, :25] = 2.0
    disparity[:, 25:] = 30.0
    assert set(np.unique(resize_disparity(disparity, (5, 9)))) <= {np.float32(2 * 9 / 40), np.float32(30 * 9 / 40)}
    stray = np.zeros((40, 40), np.float32)
    stray[3, 3] = 5.0
    assert not resize_disparity(stray, (4, 4)).any()
