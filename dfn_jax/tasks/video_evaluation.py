"""What a video network reached: its metrics, frame by frame, beside trivial predictors."""

import functools
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dfn_jax import metrics, trivial
from dfn_jax.parallel import pad_batch
from dfn_jax.progress import progress
from dfn_jax.tasks import video_report
from dfn_jax.tasks.task import Batch, Evaluation
from dfn_jax.tasks.video_report import BLURRED, EVENTS, MEASURES, REGIONS, STILL, ZERO_FLOW


class Guess(NamedTuple):
    """What a network says of the frames that follow.

    Attributes:
        frames: [N, F, H, W, C] in [0, 1].
        flow: [N, F, H, W, 2] in pixels, read off its filters; None where it has none.
        entropy: [N, F] in nats, of its filters, mean over pixels; None where it has none.
    """

    frames: jax.Array
    flow: jax.Array | None = None
    entropy: jax.Array | None = None


Predict = Callable[[np.ndarray], Guess]  # from the known frames


def evaluate_video(
    data: str,
    batches: Iterable[Batch],
    predict: Predict,
    *,
    known: int,
    reach: int | None,
    probabilities: bool,
    independent: bool,
) -> Evaluation:
    """Measures a video network and the trivial predictors on the same sequences, batch by batch.

    Args:
        data: what the sequences are, in words.
        batches: frames [N, T, H, W, C] float32 in [0, 1]; with ground truth also flow [N, F, H, W, 2] float32 in
            pixels from each predicted frame back to the one before, and visible [N, F, H, W] bool; of digits also
            overlap and bounce, [N, F] bool.
        predict: known frames -> Guess.
        known: how many of the frames the predictors may see.
        reach: pixels, each way, that the network's filters can fetch from; with ground truth, the squared error is also
            summed apart over what was there to be fetched and what was not. None where it fetches nothing.
        probabilities: whether pixels are probabilities, so that their cross-entropy says something.
        independent: whether the sequences are independent of each other, not pieces of one recording.

    Returns:
        Metrics, pictures and a table.
    """
    parts: list[Measured] = []
    shown: list[tuple] = []
    for batch in progress(batches, desc="evaluating", unit="batch", leave=False):
        guess = _predict_full(predict, batch["frames"][:, :known], size=len(shown[0][0]) if shown else 0)
        parts.append(_measure(batch, guess, known, reach, probabilities))
        if sum(len(frames) for frames, *_ in shown) < video_report.MOVIES_SHOWN:
            shown.append((batch["frames"], guess.frames, guess.flow, batch.get("flow")))
    measured = jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
    blurred, widths = _best_blur(measured.blurred)
    values = {**measured.values, **blurred}
    per_frame = {name: found.mean(axis=0, dtype=np.float64) for name, found in values.items()}
    results = {name: float(curve.mean()) for name, curve in per_frame.items()}
    curves = {f"{name}_curve": curve.tolist() for name, curve in per_frame.items()}
    curves |= {f"{name}_width_px_curve": chosen for name, chosen in widths.items()}
    results |= _at_events(values, measured.events)
    for (prefix, suffix), errors in measured.flow_errors.items():
        means = metrics.mean_over_valid(errors)
        results |= {f"{prefix}flow_{name}{suffix}": value for name, value in means.items()}
    examples = [
        None if part[0] is None else np.concatenate(part)[: video_report.MOVIES_SHOWN]
        for part in zip(*shown, strict=True)
    ]
    measure = video_report.measure_that_counts(results)
    return Evaluation(
        data,
        video_report.headline(results, data),
        results | curves,
        lambda: [
            *video_report.pictures(*examples, known),
            video_report.curve(per_frame),
            *video_report.tables(results, data),
        ],
        measure=measure,
        measure_in_words=MEASURES[measure][0],
        examples={name: values[name].mean(axis=1) for name in MEASURES if name in values} if independent else {},
    )


class Measured(NamedTuple):
    """What is measured of a batch.

    Attributes:
        values: [N, F] of each metric, the trivial predictors' with their prefix, those of a region with its name.
        blurred: [N, S, F] of each metric, of the last frame by each of the widths `trivial.BLURS`.
        flow_errors: sums of `metrics.flow_errors`, by prefix (whose flow) and suffix (over which pixels).
        events: [N, F] bool, whether each event happens.
    """

    values: dict[str, np.ndarray]
    blurred: dict[str, np.ndarray]
    flow_errors: dict[tuple[str, str], dict[str, np.ndarray]]
    events: dict[str, np.ndarray]


def _measure(batch: Batch, guess: Guess, known: int, reach: int | None, probabilities: bool) -> Measured:
    inputs, targets = batch["frames"][:, :known], batch["frames"][:, known:]
    still = (inputs[:, -1:], inputs.mean(axis=1, keepdims=True))
    baselines = {
        prefix: np.broadcast_to(frame, targets.shape) for prefix, frame in zip(STILL.values(), still, strict=True)
    }
    guesses = {"": guess.frames, **baselines}
    values = {
        prefix + name: found
        for prefix, frames in guesses.items()
        for name, found in _frame_metrics(frames, targets, probabilities).items()
    }
    for region, mask in _regions(batch, reach).items():
        values[f"share_{region}"] = mask.mean((2, 3))
        for prefix, frames in guesses.items():
            error = metrics.squared_error_per_image(frames * mask[..., None], targets * mask[..., None])
            values[f"{prefix}mse_per_frame_{region}"] = error
    if probabilities:
        values["target_entropy_nats"] = metrics.target_entropy_nats(targets)
    if guess.entropy is not None:
        values["filter_entropy_nats"] = guess.entropy
    flow_errors = {}
    if "flow" in batch and guess.flow is not None:
        flows = {"": guess.flow, **{prefix: np.zeros_like(guess.flow) for prefix in ZERO_FLOW.values()}}
        masks = {"": np.ones_like(batch["visible"]), "_noc": batch["visible"]}
        flow_errors = {
            (prefix, suffix): metrics.flow_errors(flow, batch["flow"], mask)
            for prefix, flow in flows.items()
            for suffix, mask in masks.items()
        }
    events = {event: batch[event] for event in EVENTS if event in batch}
    return jax.device_get(
        Measured(values, _blurred_metrics(inputs[:, -1], targets, probabilities), flow_errors, events)
    )


def _regions(batch: Batch, reach: int | None) -> dict[str, np.ndarray]:
    """Which pixels [N, F, H, W] of the predicted frames lie in each region; none without ground truth or window."""
    if "flow" not in batch or reach is None:
        return {}
    seen, near = batch["visible"], (np.abs(batch["flow"]) <= reach).all(-1)
    return dict(zip(REGIONS, (seen & near, seen & ~near, ~seen), strict=True))


def _at_events(values: dict[str, np.ndarray], events: dict[str, np.ndarray]) -> dict[str, float]:
    """The network's metrics [N, F] in the frames of each event, and in those of none."""
    places = {**events, "neither": ~np.logical_or.reduce(list(events.values()))} if events else {}
    return {
        f"{name}_at_{place}": float(values[name][mask].mean(dtype=np.float64))
        for name in (*MEASURES, "target_entropy_nats")
        for place, mask in places.items()
        if name in values and mask.any()
    }


def _predict_full(predict: Predict, inputs: np.ndarray, *, size: int) -> Guess:
    """Fills up a batch to the size of the ones before, so that the last one needs no compilation of its own."""
    guess = jax.device_get(predict(pad_batch(inputs, size)))
    return jax.tree.map(lambda values: values[: len(inputs)], guess)


@functools.partial(jax.jit, static_argnums=2)
def _frame_metrics(prediction: np.ndarray, target: np.ndarray, probabilities: bool) -> dict[str, jax.Array]:
    """Each metric [N, T]."""
    found = _pixel_metrics(prediction, target, probabilities)
    if min(target.shape[2:4]) >= metrics.SSIM_WINDOW:
        found["ssim"] = metrics.ssim(prediction, target)
    return found


def _pixel_metrics(prediction: jax.Array, target: jax.Array, probabilities: bool) -> dict[str, jax.Array]:
    """Each metric [N, T] that takes a pixel by itself."""
    measures = {"mse_per_frame": metrics.squared_error_per_image, "psnr": metrics.psnr}
    if probabilities:
        measures["bce_nats_per_frame"] = metrics.cross_entropy_nats_per_frame
    return {name: measure(prediction, target) for name, measure in measures.items()}


@functools.partial(jax.jit, static_argnums=2)
def _blurred_metrics(last: np.ndarray, target: np.ndarray, probabilities: bool) -> dict[str, jax.Array]:
    """Each metric [N, S, T] of the last known frame [N, H, W, C], by each of the widths that it may be blurred by."""

    def measure(frame: jax.Array) -> dict[str, jax.Array]:
        return _pixel_metrics(jnp.broadcast_to(frame[:, None], target.shape), target, probabilities)

    return {name: found.swapaxes(0, 1) for name, found in jax.lax.map(measure, trivial.blurred(last)).items()}


def _best_blur(measured: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, list[float]]]:
    """The best width for each metric and predicted frame: its values [N, F], and the widths [F] in pixels."""
    best, widths = {}, {}
    for name, values in measured.items():
        choose = np.argmax if MEASURES[name][1] == "higher" else np.argmin
        chosen = choose(values.mean(axis=0, dtype=np.float64), axis=0)
        best[BLURRED + name] = values[:, chosen, np.arange(len(chosen))]
        widths[BLURRED + name] = [trivial.BLURS[index] for index in chosen]
    return best, widths
