import jax
import numpy as np
import pytest

from dfn_jax import trivial
from tests.reference import of_few_bits


def shifted_by_loop(left, disparity):
    height, width = left.shape[-3:-1]
    result = np.zeros(left.shape)
    for y in range(height):
        for x in range(width):
            position = min(max(x + disparity[y], 0), width - 1)
            i = int(position)
            fraction = position - i
            result[..., y, x, :] = (1 - fraction) * left[..., y, i, :]
            result[..., y, x, :] += fraction * left[..., y, min(i + 1, width - 1), :]
    return result


@pytest.fixture(scope="module")
def pairs():
    rng = np.random.default_rng(0)
    return rng.random((2, 5, 4, 9, 2), np.float32)


shift_images = jax.jit(trivial.shift_images)


@pytest.mark.parametrize("disparity", [0.0, 0.25, 3.0, 7.75, 8.5, 30.0, -0.75, -30.25])
def test_one_shift_against_loop(pairs, disparity):
    result = shift_images(pairs[0], disparity)
    np.testing.assert_allclose(result, shifted_by_loop(pairs[0], [disparity] * 4), atol=1e-6)


def test_shift_per_row_against_loop(pairs):
    disparity = np.float32([0, 1.25, 8.75, -2.5])
    result = shift_images(pairs[0], disparity)
    np.testing.assert_allclose(result, shifted_by_loop(pairs[0], disparity), atol=1e-6)


def test_blurs_are_of_float32_on_every_device():
    assert of_few_bits(trivial.blurred, np.zeros((1, 12, 12, 1), np.float32)) == []


def test_candidate_shifts():
    assert trivial.candidate_shifts(1).tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_errors_against_loop_and_streaming(pairs):
    left, right = pairs
    shifts = np.arange(0, 4.5, 0.5, np.float32)
    expected = [((shifted_by_loop(left, [d] * 4) - right) ** 2).sum((0, 2, 3)) for d in shifts]
    np.testing.assert_allclose(trivial.shift_errors(left, right, shifts), expected, rtol=1e-5)
    streamed = sum(np.asarray(trivial.shift_errors(left[i], right[i], shifts)) for i in (slice(0, 2), slice(2, 5)))
    np.testing.assert_allclose(streamed, expected, rtol=1e-5)


def test_disparity_errors_against_loop():
    rng = np.random.default_rng(1)
    truth = rng.uniform(0, 4, (3, 4, 6)).astype(np.float32)
    mask = rng.random(truth.shape) < 0.7
    truth[~mask] = np.nan
    shifts = trivial.candidate_shifts(4)
    expected = np.zeros((17, 4))
    for s, shift in enumerate(shifts):
        for n, y, x in zip(*np.nonzero(mask), strict=True):
            expected[s, y] += abs(shift - truth[n, y, x])
    np.testing.assert_allclose(trivial.disparity_shift_errors(truth, mask, shifts), expected, rtol=1e-5)


def test_best_shifts_are_found():
    left = np.random.default_rng(2).random((3, 4, 32, 1), np.float32)
    disparity = np.float32([2.25, 0.5, 2.25, 2.25])
    shifts = trivial.candidate_shifts(6)
    errors = np.asarray(trivial.shift_errors(left, shifted_by_loop(left, disparity), shifts), np.float64)
    assert trivial.best_shift_per_row(errors, shifts).tolist() == disparity.tolist()
    assert trivial.best_shift(errors, shifts) == 2.25


def test_best_shift_differs_by_measure():
    truth = np.float32([[[1, 1, 4]]])
    shifts = trivial.candidate_shifts(6)
    errors = np.asarray(trivial.disparity_shift_errors(truth, np.ones_like(truth), shifts))
    assert trivial.best_shift(errors, shifts) == 1  # the median, where least squares would have said 2


def test_rows_without_truth_are_not_shifted():
    truth = np.full((1, 2, 3), 2, np.float32)
    mask = np.array([[[0, 0, 0], [1, 1, 1]]])
    shifts = trivial.candidate_shifts(3)
    errors = trivial.disparity_shift_errors(truth, mask, shifts)
    assert trivial.best_shift_per_row(errors, shifts).tolist() == [0, 2]


def test_other_shapes_are_refused(pairs):
    left, right = pairs
    with pytest.raises(ValueError, match="scalar or have shape"):
        trivial.shift_images(left, np.zeros(5))
    with pytest.raises(ValueError, match="must be equal"):
        trivial.shift_errors(left, right[:, :2], np.zeros(1))
    with pytest.raises(ValueError, match=r"\[N, H, W\]"):
        trivial.disparity_shift_errors(left, right, np.zeros(1))
