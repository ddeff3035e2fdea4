"""What a video network reached: its metrics, frame by frame, beside trivial predictors, and pictures that move."""

import functools
from collections.abc import Callable, Container, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dfn_jax import metrics, trivial, visualize
from dfn_jax.parallel import filled
from dfn_jax.progress import progress
from dfn_jax.report import Picture, Row, Table, comparison_table
from dfn_jax.tasks.task import Batch, Evaluation

STRIPS_SHOWN, MOVIES_SHOWN, FLOWS_SHOWN = 4, 6, 3
STRIP_WIDTH = 1200  # pixels, about
MEASURES = {
    "bce_nats_per_frame": ("cross-entropy, nats a frame", "lower"),
    "mse_per_frame": ("squared error, summed over the frame", "lower"),
    "psnr": ("PSNR, dB", "higher"),
    "ssim": ("SSIM", "higher"),
    "flow_epe": ("flow error, px", "lower"),
    "flow_epe_noc": ("… of what was seen before", "lower"),
}
STILL = {"last frame": "baseline_last_frame_", "mean frame": "baseline_mean_frame_"}
BLURRED = "baseline_blurred_frame_"
RIVALS = {**STILL, "blurred last frame": BLURRED}
ZERO_FLOW = {"no motion": "baseline_zero_flow_"}
REGIONS = {
    "within_reach": "seen in the frame before, within the filter's window",
    "beyond_reach": "seen in the frame before, beyond the window",
    "hidden": "not seen in the frame before",
}
EVENTS = {"overlap": "where digits overlap", "bounce": "where a digit bounces"}


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
        if sum(len(frames) for frames, *_ in shown) < MOVIES_SHOWN:
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
    examples = [None if part[0] is None else np.concatenate(part)[:MOVIES_SHOWN] for part in zip(*shown, strict=True)]
    measure = _measure_that_counts(results)
    return Evaluation(
        data,
        _headline(results, data),
        results | curves,
        [*_pictures(*examples, known), _curve(per_frame), *_tables(results, data)],
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
    rivals = {
        prefix: np.broadcast_to(frame, targets.shape) for prefix, frame in zip(STILL.values(), still, strict=True)
    }
    guesses = {"": guess.frames, **rivals}
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
    guess = jax.device_get(predict(filled(inputs, size)))
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


def _measure_that_counts(measured: Container[str]) -> str:
    return "bce_nats_per_frame" if "bce_nats_per_frame" in measured else "mse_per_frame"


def _headline(results: dict[str, float], data: str) -> str:
    name = _measure_that_counts(results)
    unit = "nats" if name == "bce_nats_per_frame" else "squared error"
    rival = min(RIVALS, key=lambda title: results[RIVALS[title] + name])  # both measures: the lower the better
    text = f"{results[name]:.2f} {unit} a frame, where the {rival} has {results[RIVALS[rival] + name]:.2f}"
    if "target_entropy_nats" in results:
        text += f" and no predictor less than {results['target_entropy_nats']:.2f}, the entropy of grey targets"
    if "flow_epe_noc" in results:
        text += (
            f"; the flow read off the filters is off by {results['flow_epe_noc']:.2f} px, where no motion is off by "
            f"{results['baseline_zero_flow_flow_epe_noc']:.2f} px"
        )
    return f"{text}.\n\nMeasured on {data}."


def _tables(results: dict[str, float], data: str) -> list[Table]:
    of_frames = {name: measure for name, measure in MEASURES.items() if not name.startswith("flow")}
    caption = (
        f"On {data}. The last frame is blurred as is best for this very test set, for each measure and predicted frame "
        "by itself."
    )
    tables = [comparison_table(results, of_frames, RIVALS, title="How good it is", caption=caption)]
    if "flow_epe" in results:
        of_flow = {name: measure for name, measure in MEASURES.items() if name.startswith("flow")}
        caption = "Flow from each predicted frame back to the one before it; the network never saw a flow."
        tables.append(comparison_table(results, of_flow, ZERO_FLOW, title="Motion", caption=caption))
    if "share_hidden" in results:
        tables.append(_regions_table(results))
    if any(f"_at_{event}" in name for event in EVENTS for name in results):
        tables.append(_events_table(results))
    return tables


def _regions_table(results: dict[str, float]) -> Table:
    rows = [
        Row(
            f"{words}: {results[f'share_{region}']:.0%} of the pixels",
            [results[f"{prefix}mse_per_frame_{region}"] for prefix in ("", *STILL.values())],
        )
        for region, words in REGIONS.items()
    ]
    caption = f"{MEASURES['mse_per_frame'][0]}, in parts: a filter can fetch what lies in its window, and nothing else."
    return Table("Where it loses", ["this network", *STILL], rows, caption=caption)


def _events_table(results: dict[str, float]) -> Table:
    name = _measure_that_counts(results)
    places = {event: words for event, words in EVENTS.items() if f"{name}_at_{event}" in results}
    rows = [Row(words, [results[f"{name}_at_{event}"]]) for event, words in places.items()]
    rows += [Row("in all other frames", [results[f"{name}_at_neither"]])] if f"{name}_at_neither" in results else []
    return Table(
        "Where it fails", ["this network"], rows, caption=f"{MEASURES[name][0]}; a frame may be of both kinds."
    )


def _curve(per_frame: dict[str, np.ndarray]) -> Picture:
    name = _measure_that_counts(per_frame)
    rivals = {title: per_frame[prefix + name] for title, prefix in RIVALS.items()}
    lines = {"this network": per_frame[name], **rivals}
    if "target_entropy_nats" in per_frame:
        lines["entropy of the targets"] = per_frame["target_entropy_nats"]
    records = [
        {"step": index + 1, **{title: values[index] for title, values in lines.items()}}
        for index in range(len(per_frame[name]))
    ]
    label = MEASURES[name][0]
    return Picture(
        "per_frame",
        "How far ahead it sees",
        visualize.curve_png(records, list(lines), label=label, horizontal="predicted frame"),
        f"{label}, by predicted frame",
        wide=True,
    )


def _pictures(
    frames: np.ndarray,
    prediction: np.ndarray,
    flow: np.ndarray | None,
    truth: np.ndarray | None,
    known: int,
) -> list[Picture]:
    """A movie of the first sequences, their frames in strips, and the motion in their filters."""
    real, guessed = visualize.images_to_rgb(frames), visualize.images_to_rgb(prediction)
    pictures = [_movie(real, guessed, known), _strips(real[:STRIPS_SHOWN], guessed[:STRIPS_SHOWN], known)]
    if flow is not None:
        shown = slice(FLOWS_SHOWN)
        true = None if truth is None else truth[shown]
        pictures.append(_flows(real[shown], guessed[shown], flow[shown], true, known))
    return pictures


def _movie(real: np.ndarray, guessed: np.ndarray, known: int) -> Picture:
    before, scale = np.concatenate([real[:, :known], guessed], axis=1), max(1, 128 // real.shape[3])
    images = [
        visualize.panel(
            [[*real[:, time]], [*before[:, time]]],
            row_titles=("what happens", "given" if time < known else "predicted"),
            scale=scale,
        )
        for time in range(real.shape[1])
    ]
    # The words differ in width; the frames of a movie must not.
    width = max(image.shape[1] for image in images)
    images = [np.pad(i, ((0, 0), (width - i.shape[1], 0), (0, 0)), constant_values=255) for i in images]
    caption = (
        f"Top: the true sequence. Bottom: the {known} given frames, then predictions, each made of the last frame."
    )
    return Picture("movie", "It moves", visualize.to_gif(np.stack(images)), caption, wide=True)


def _strips(real: np.ndarray, guessed: np.ndarray, known: int) -> Picture:
    rows = []
    for truth, guess in zip(real, guessed, strict=True):
        rows += [[*truth], [*[None] * known, *guess]]
    scale = max(1, STRIP_WIDTH // (real.shape[1] * real.shape[3]))
    titles = [f"{index - known + 1:+d}" if index >= known else str(index - known + 1) for index in range(real.shape[1])]
    panel = visualize.panel(rows, column_titles=titles, row_titles=["true", "predicted"] * len(real), scale=scale)
    caption = f"The network saw the frames up to 0 and predicted +1 to +{real.shape[1] - known}."
    return Picture("strips", "What comes next", visualize.to_png(panel), caption, wide=True)


def _flows(real: np.ndarray, guessed: np.ndarray, flow: np.ndarray, truth: np.ndarray | None, known: int) -> Picture:
    """Frame before, filters as flow, predicted frame and true one, for the first and the last prediction."""
    largest = visualize.full_colour(flow, truth)
    times = sorted({0, flow.shape[1] - 1})
    rows, titles = [], []
    for example in range(len(real)):
        for time in times:
            before = real[example, known - 1] if time == 0 else guessed[example, time - 1]
            row = [before, visualize.flow_to_rgb(flow[example, time], largest)]
            row += [] if truth is None else [visualize.flow_to_rgb(truth[example, time], largest)]
            rows.append([*row, guessed[example, time], real[example, known + time]])
            titles.append(f"+{time + 1}")
    wheel = visualize.flow_wheel(real.shape[2])
    rows.append([None, wheel, *[None] * (len(rows[0]) - 2)])
    columns = [
        "filtered frame",
        "filters, as flow",
        *(["true flow"] if truth is not None else []),
        "prediction",
        "true frame",
    ]
    panel = visualize.panel(
        rows, column_titles=columns, row_titles=[*titles, "legend"], scale=max(1, 128 // real.shape[3])
    )
    caption = (
        "Where each pixel of the prediction was fetched from: the hue is the direction, white is no motion, full "
        f"colour {largest:g} px, as in the wheel; longer is darker."
    )
    return Picture("flow", "What the filters do", visualize.to_png(panel), caption, wide=True)
