"""What a stereo network reached: its metrics beside three trivial predictors, and what it sees, in pictures."""

from collections.abc import Callable

import jax
import numpy as np

from dfn_jax import metrics, trivial, visualize
from dfn_jax.parallel import pad_batch
from dfn_jax.report import Picture, comparison_table
from dfn_jax.tasks.task import TEST_BATCH, Batch, Evaluation

EXAMPLES_SHOWN = 6
MEASURES = {
    "mse_per_image": ("squared error, summed over the image", "lower"),
    "psnr": ("PSNR, dB", "higher"),
    "ssim": ("SSIM", "higher"),
    "disparity_epe": ("disparity error, px", "lower"),
    "disparity_epe_noc": ("… where both cameras see", "lower"),
    "disparity_bad1": ("off by more than 1 px, share", "lower"),
    "disparity_bad1_noc": ("… where both cameras see", "lower"),
    "disparity_d1": ("off by 3 px and 5 % or more (D1), share", "lower"),
    "disparity_d1_noc": ("… where both cameras see", "lower"),
}
TRIVIAL = {
    "left view itself": "baseline_copy_",
    "best single shift": "baseline_shift_",
    "best shift per row": "baseline_row_shift_",
}
# Prediction of the right view, and the disparity where the network has one, from the left view.
Predict = Callable[[np.ndarray], tuple[jax.Array, jax.Array | None]]


def evaluate_stereo(
    data: str, examples: Batch, predict: Predict, *, largest_shift: int, independent: bool
) -> Evaluation:
    """Measures a stereo network and the trivial predictors on the same examples.

    Args:
        data: what the examples are, in words.
        examples: left, right [N, H, W, C] float32; with ground truth also disparity [N, H, W] float32 in pixels on
            the grid of the right view, and valid, visible [N, H, W] bool.
        predict: left [TEST_BATCH, H, W, C] -> prediction of the right view, disparity [TEST_BATCH, H, W] or None.
        largest_shift: pixels, how far the trivial predictors may shift.
        independent: whether the examples are independent of each other, not of one drive.

    Returns:
        Metrics, pictures and a table.
    """
    left, right = examples["left"], examples["right"]
    prediction, estimate = _apply_in_batches(predict, left)
    known = "disparity" in examples and bool(examples["valid"].any())
    shifts = trivial.candidate_shifts(largest_shift)

    own = _image_metrics(prediction, right)
    results = _means(own)
    errors = _sum_in_batches(lambda *views: trivial.shift_errors(*views, shifts), left, right)
    for prefix, shift in _fit(errors, shifts).items():
        shifted = _apply_in_batches(lambda view, shift=shift: trivial.shift_images(view, shift), left)
        results |= _means(_image_metrics(shifted, right), prefix)
    for suffix, mask in (("", examples["valid"]), ("_noc", examples["valid"] & examples["visible"])) if known else ():
        if estimate is not None:
            results |= _disparity_metrics(estimate, examples["disparity"], mask, "", suffix)
        errors = _sum_in_batches(
            lambda *maps: trivial.disparity_shift_errors(*maps, shifts), examples["disparity"], mask
        )
        for prefix, shift in _fit(errors, shifts).items():
            constant = np.broadcast_to(np.reshape(shift, (-1, 1)), mask.shape)
            results |= _disparity_metrics(constant, examples["disparity"], mask, prefix, suffix)
    table = comparison_table(
        results,
        MEASURES,
        TRIVIAL,
        title="How good it is",
        caption=f"On {data}. Shifts are fitted to this very test set, by squared error (disparity: absolute error). "
        f"Pixels are those of images of {left.shape[1]}x{left.shape[2]}, whatever their size was before.",
    )
    return Evaluation(
        data,
        _headline(results, data),
        results,
        lambda: [_picture(examples, prediction, estimate, known, largest_shift), table],
        measure="mse_per_image",
        measure_in_words=MEASURES["mse_per_image"][0],
        examples=own if independent else {},
    )


def _apply_in_batches(function: Callable, *arrays: np.ndarray):
    """Applies a function to TEST_BATCH examples at a time, the last ones repeated to fill the last batch.

    Args:
        function: arrays [TEST_BATCH, ...] -> array, or a tuple of arrays or None, each [TEST_BATCH, ...].
        *arrays: [N, ...].

    Returns:
        What the function returns, for all N, as NumPy arrays.
    """
    count, parts = len(arrays[0]), []
    for start in range(0, count, TEST_BATCH):
        chosen = (pad_batch(array[start : start + TEST_BATCH], TEST_BATCH) for array in arrays)
        parts.append(jax.device_get(function(*chosen)))
    return jax.tree.map(lambda *batches: np.concatenate(batches)[:count], *parts)


def _sum_in_batches(function: Callable, *arrays: np.ndarray) -> np.ndarray:
    parts = (slice(start, start + TEST_BATCH) for start in range(0, len(arrays[0]), TEST_BATCH))
    return sum(np.asarray(function(*(array[part] for array in arrays)), np.float64) for part in parts)


def _fit(errors: np.ndarray, shifts: np.ndarray) -> dict[str, np.ndarray | float]:
    """The disparity of each trivial predictor, a number or [H], by the prefix of its results."""
    best = (0.0, trivial.best_shift(errors, shifts), trivial.best_shift_per_row(errors, shifts))
    return dict(zip(TRIVIAL.values(), best, strict=True))


def _image_metrics(prediction: np.ndarray, right: np.ndarray) -> dict[str, np.ndarray]:
    """Each metric [N]."""
    measures = {"mse_per_image": metrics.squared_error_per_image, "psnr": metrics.psnr, "ssim": metrics.ssim}
    if min(right.shape[1:3]) < metrics.SSIM_WINDOW:
        del measures["ssim"]
    # The squared error is of all that was predicted, the other two of what a screen would show.
    shown = {"mse_per_image": prediction, "psnr": (clipped := np.clip(prediction, 0, 1)), "ssim": clipped}
    return {name: _apply_in_batches(measure, shown[name], right) for name, measure in measures.items()}


def _means(values: dict[str, np.ndarray], prefix: str = "") -> dict[str, float]:
    return {prefix + name: float(found.mean(dtype=np.float64)) for name, found in values.items()}


def _disparity_metrics(
    estimate: np.ndarray, truth: np.ndarray, mask: np.ndarray, prefix: str, suffix: str
) -> dict[str, float]:
    means = metrics.mean_over_valid(_apply_in_batches(metrics.disparity_errors, estimate, truth, mask))
    return {f"{prefix}disparity_{name}{suffix}": value for name, value in means.items()}


def _headline(results: dict[str, float], data: str) -> str:
    best = min(TRIVIAL.values(), key=lambda prefix: results[f"{prefix}mse_per_image"])
    text = (
        f"Squared error {results['mse_per_image']:.2f} an image, where the best trivial predictor has "
        f"{results[f'{best}mse_per_image']:.2f}"
    )
    if "disparity_epe_noc" in results:
        best = min(results[f"{prefix}disparity_epe_noc"] for prefix in TRIVIAL.values())
        text += (
            f"; where both cameras see, the disparity that it applies is off by {results['disparity_epe_noc']:.2f} px, "
            f"that of the best trivial predictor by {best:.2f} px"
        )
    return f"{text}.\n\nMeasured on {data}. The network was given the left view alone, and never a disparity."


def _picture(
    examples: Batch, prediction: np.ndarray, estimate: np.ndarray | None, known: bool, largest: int
) -> Picture:
    """Some examples, evenly spaced, in rows: what goes in, what the filters say, what comes out, what should."""
    shown = np.linspace(0, len(prediction) - 1, min(EXAMPLES_SHOWN, len(prediction))).astype(int)
    columns = {"left view (given)": visualize.images_to_rgb(examples["left"][shown])}
    if estimate is not None:
        columns["disparity, the network's"] = visualize.disparity_to_rgb(estimate[shown], largest)
    if known:
        mask = examples["valid"][shown]
        columns["true disparity"] = visualize.disparity_to_rgb(examples["disparity"][shown], largest, mask=mask)
    columns["right view, predicted"] = visualize.images_to_rgb(prediction[shown])
    columns["right view, true"] = visualize.images_to_rgb(examples["right"][shown])
    panel = visualize.panel(list(zip(*columns.values(), strict=True)), column_titles=list(columns))
    caption = f"Disparity: black is 0 px, far away; the brightest is {largest} px, near; grey is unknown."
    return Picture("examples", "What it sees, and what it predicts", visualize.to_png(panel), caption)
