"""What is shown of a video network: what each measure is in words, tables, curves, and pictures that move."""

from collections.abc import Container

import numpy as np

from dfn_jax import visualize
from dfn_jax.report import Picture, Row, Table, comparison_table

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
TRIVIAL = {**STILL, "blurred last frame": BLURRED}
ZERO_FLOW = {"no motion": "baseline_zero_flow_"}
REGIONS = {
    "within_reach": "seen in the frame before, within the filter's window",
    "beyond_reach": "seen in the frame before, beyond the window",
    "hidden": "not seen in the frame before",
}
EVENTS = {"overlap": "where digits overlap", "bounce": "where a digit bounces"}


def measure_that_counts(measured: Container[str]) -> str:
    """The one by which networks are compared, of those that were taken."""
    return "bce_nats_per_frame" if "bce_nats_per_frame" in measured else "mse_per_frame"


def headline(results: dict[str, float], data: str) -> str:
    """What was reached, in a sentence.

    Args:
        results: each metric, the trivial predictors' with their prefix.
        data: what the sequences are, in words.
    """
    name = measure_that_counts(results)
    unit = "nats" if name == "bce_nats_per_frame" else "squared error"
    best = min(TRIVIAL, key=lambda title: results[TRIVIAL[title] + name])  # both measures: the lower the better
    text = f"{results[name]:.2f} {unit} a frame, where the {best} has {results[TRIVIAL[best] + name]:.2f}"
    if "target_entropy_nats" in results:
        text += f" and no predictor less than {results['target_entropy_nats']:.2f}, the entropy of grey targets"
    if "flow_epe_noc" in results:
        text += (
            f"; the flow read off the filters is off by {results['flow_epe_noc']:.2f} px, where no motion is off by "
            f"{results['baseline_zero_flow_flow_epe_noc']:.2f} px"
        )
    return f"{text}.\n\nMeasured on {data}."


def tables(results: dict[str, float], data: str) -> list[Table]:
    """How good it is, what its motion is worth, and where it loses; arguments as in `headline`."""
    of_frames = {name: measure for name, measure in MEASURES.items() if not name.startswith("flow")}
    caption = (
        f"On {data}. The last frame is blurred as is best for this very test set, for each measure and predicted frame "
        "by itself."
    )
    found = [comparison_table(results, of_frames, TRIVIAL, title="How good it is", caption=caption)]
    if "flow_epe" in results:
        of_flow = {name: measure for name, measure in MEASURES.items() if name.startswith("flow")}
        caption = "Flow from each predicted frame back to the one before it; the network never saw a flow."
        found.append(comparison_table(results, of_flow, ZERO_FLOW, title="Motion", caption=caption))
    if "share_hidden" in results:
        found.append(_regions_table(results))
    if any(f"_at_{event}" in name for event in EVENTS for name in results):
        found.append(_events_table(results))
    return found


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
    name = measure_that_counts(results)
    places = {event: words for event, words in EVENTS.items() if f"{name}_at_{event}" in results}
    rows = [Row(words, [results[f"{name}_at_{event}"]]) for event, words in places.items()]
    rows += [Row("in all other frames", [results[f"{name}_at_neither"]])] if f"{name}_at_neither" in results else []
    return Table(
        "Where it fails", ["this network"], rows, caption=f"{MEASURES[name][0]}; a frame may be of both kinds."
    )


def curve(per_frame: dict[str, np.ndarray]) -> Picture:
    """The measure that counts by predicted frame: `per_frame` has each metric [F]."""
    name = measure_that_counts(per_frame)
    baselines = {title: per_frame[prefix + name] for title, prefix in TRIVIAL.items()}
    lines = {"this network": per_frame[name], **baselines}
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
    )


def pictures(
    frames: np.ndarray,
    prediction: np.ndarray,
    flow: np.ndarray | None,
    truth: np.ndarray | None,
    known: int,
) -> list[Picture]:
    """A movie of the first sequences, their frames in strips, and the motion in their filters.

    Args:
        frames: [N, T, H, W, C] in [0, 1].
        prediction: [N, F, H, W, C] in [0, 1].
        flow: [N, F, H, W, 2] in pixels, read off the filters; None where there is none.
        truth: the true flow, of the same shape; None where it is not known.
        known: how many frames were given.
    """
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
    return Picture("movie", "It moves", visualize.to_gif(np.stack(images)), caption)


def _strips(real: np.ndarray, guessed: np.ndarray, known: int) -> Picture:
    rows = []
    for truth, guess in zip(real, guessed, strict=True):
        rows += [[*truth], [*[None] * known, *guess]]
    scale = max(1, STRIP_WIDTH // (real.shape[1] * real.shape[3]))
    titles = visualize.frame_titles(known, real.shape[1] - known)
    panel = visualize.panel(rows, column_titles=titles, row_titles=["true", "predicted"] * len(real), scale=scale)
    caption = f"The network saw the frames up to 0 and predicted +1 to +{real.shape[1] - known}."
    return Picture("strips", "What comes next", visualize.to_png(panel), caption)


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
    return Picture("flow", "What the filters do", visualize.to_png(panel), caption)
