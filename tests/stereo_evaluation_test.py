"""The evaluation of stereo prediction against plain NumPy."""

import numpy as np
import pytest

from dfn_jax.tasks.stereo_evaluation import evaluate_stereo
from dfn_jax.tasks.task import TEST_BATCH
from tests import reference

COUNT, SIZE, LARGEST = 19, (12, 15), 2  # not a multiple of TEST_BATCH
SHIFTS = np.arange(0, LARGEST + 0.25, 0.25)


@pytest.fixture(scope="module")
def examples():
    random = np.random.default_rng(0)
    left, right = (random.random((COUNT, *SIZE, 1)).astype(np.float32) for _ in range(2))
    return {
        "left": left,
        "right": right,
        "disparity": random.uniform(0, 40, (COUNT, *SIZE)).astype(np.float32),
        "valid": random.random((COUNT, *SIZE)) < 0.7,
        "visible": random.random((COUNT, *SIZE)) < 0.6,
    }


def darker(left):
    """Predicts half the left view, and a disparity that differs from pixel to pixel."""
    assert len(left) == TEST_BATCH, "the last batch is to be filled up"
    return left / 2, 30 * left[..., 0]


def shifted(view, shift):
    """The left view as the right one would be, were everything at one disparity; the edge goes on."""
    place = np.clip(np.arange(SIZE[1]) + shift, 0, SIZE[1] - 1)
    before, rest = np.floor(place).astype(int), (place % 1)[:, None]
    after = np.minimum(before + 1, SIZE[1] - 1)
    return (1 - rest) * view[:, :, before] + rest * view[:, :, after]


def disparity_metrics(estimate, examples, mask):
    error = np.abs(estimate - examples["disparity"])[mask]
    outlier = (error >= 3) & (error >= 0.05 * examples["disparity"][mask])
    return {"epe": error.mean(), "bad1": (error > 1).mean(), "d1": outlier.mean()}


def test_metrics(examples):
    evaluation = evaluate_stereo("noise", examples, darker, largest_shift=LARGEST, independent=True)
    found = evaluation.metrics
    left, right = examples["left"].astype(np.float64), examples["right"]
    for prefix, guess in {"": left / 2, "baseline_copy_": left}.items():
        squares = (guess - right) ** 2
        np.testing.assert_allclose(found[f"{prefix}mse_per_image"], squares.sum((1, 2, 3)).mean(), rtol=1e-5)
        psnr = -10 * np.log10(squares.mean((1, 2, 3)))
        np.testing.assert_allclose(found[f"{prefix}psnr"], psnr.mean(), rtol=1e-5)
    masks = {"": examples["valid"], "_noc": examples["valid"] & examples["visible"]}
    for suffix, mask in masks.items():
        estimates = {"": 30 * left[..., 0], "baseline_copy_": 0.0}
        for prefix, estimate in estimates.items():
            for name, value in disparity_metrics(estimate, examples, mask).items():
                np.testing.assert_allclose(found[f"{prefix}disparity_{name}{suffix}"], value, rtol=1e-5)
        best = min(disparity_metrics(shift, examples, mask)["epe"] for shift in SHIFTS)
        np.testing.assert_allclose(found[f"baseline_shift_disparity_epe{suffix}"], best, rtol=1e-5)
    errors = ((left / 2 - right) ** 2).sum((1, 2, 3))
    np.testing.assert_allclose(evaluation.examples["mse_per_image"], errors, rtol=1e-5)
    of_one_drive = evaluate_stereo("noise", examples, darker, largest_shift=LARGEST, independent=False)
    assert not of_one_drive.examples


def test_what_a_screen_cannot_show_counts_for_the_squared_error_alone(examples):
    guess, right = 3 * examples["left"] - 1, examples["right"]
    assert guess.min() < 0 < 1 < guess.max()
    found = evaluate_stereo(
        "noise", examples, lambda left: (3 * left - 1, None), largest_shift=LARGEST, independent=True
    ).metrics
    np.testing.assert_allclose(found["mse_per_image"], ((guess - right) ** 2).sum((1, 2, 3)).mean(), rtol=1e-5)
    shown = np.clip(guess, 0, 1)
    psnr = -10 * np.log10(((shown - right) ** 2).mean((1, 2, 3)))
    np.testing.assert_allclose(found["psnr"], psnr.mean(), rtol=1e-5)
    ssim = [reference.ssim(*pair) for pair in zip(shown, right, strict=True)]
    np.testing.assert_allclose(found["ssim"], np.mean(ssim), rtol=1e-4)


def test_images_smaller_than_the_window_have_no_structural_similarity(examples):
    small = {name: field[:, :10, :10] for name, field in examples.items()}
    found = evaluate_stereo("noise", small, darker, largest_shift=LARGEST, independent=True).metrics
    assert "ssim" not in found
    assert found["psnr"] > 0


def test_the_best_shifts_are_found(examples):
    """Rows that are shifted by two pixels and by one: the shift per row explains all but the edges."""
    random = np.random.default_rng(1)
    left = random.random((3, *SIZE, 1)).astype(np.float32)
    rows = np.arange(SIZE[0]) < 8
    right = np.where(rows[:, None, None], shifted(left, 2), shifted(left, 1))
    disparity = np.broadcast_to(np.where(rows, 2.0, 1.0)[:, None], (3, *SIZE)).astype(np.float32)
    everywhere = np.ones((3, *SIZE), bool)
    scenes = {"left": left, "right": right, "disparity": disparity, "valid": everywhere, "visible": everywhere}
    found = evaluate_stereo("steps", scenes, darker, largest_shift=LARGEST, independent=True).metrics
    np.testing.assert_allclose(found["baseline_row_shift_mse_per_image"], 0, atol=1e-6)
    np.testing.assert_allclose(found["baseline_row_shift_disparity_epe"], 0, atol=1e-6)
    expected = min(((shifted(left, shift) - right) ** 2).sum((1, 2, 3)).mean() for shift in SHIFTS)
    np.testing.assert_allclose(found["baseline_shift_mse_per_image"], expected, rtol=1e-5)
    np.testing.assert_allclose(found["baseline_shift_disparity_epe"], 4 / SIZE[0], rtol=1e-5)


def test_a_network_without_disparity_and_pairs_without_truth(examples):
    views = {name: examples[name] for name in ("left", "right")}
    evaluation = evaluate_stereo("pairs", views, lambda left: (left / 2, None), largest_shift=LARGEST, independent=True)
    assert not any("disparity" in name for name in evaluation.metrics)
    assert "disparity" not in evaluation.headline.split("\n")[0]
