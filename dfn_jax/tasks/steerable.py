"""Steerable filters (Section 4.1): from pairs of images, the oriented filter of every angle."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from dfn_jax import config as configs
from dfn_jax import losses, metrics, visualize
from dfn_jax.data import steerable
from dfn_jax.models.steerable import SteerableDFN, Steered
from dfn_jax.report import Picture, Row, Table
from dfn_jax.tasks.sources import bind
from dfn_jax.tasks.steerable_data import SOURCES
from dfn_jax.tasks.task import Batch, Evaluation, Params, Task

KERNEL_SIZE = 2 * steerable.REACH + 1
RING = 12
EXAMPLES_SHOWN = 5


def make_task(config: ConfigDict) -> Task:
    """Binds the steerable filter task.

    Args:
        config: of `experiments/steerable.py`.

    Returns:
        The task.

    Raises:
        InputError: a name in the config, its seed or the data cannot be used.
    """
    data = bind(config, SOURCES)
    network = SteerableDFN(KERNEL_SIZE, configs.PRECISIONS[config.precision])

    def loss(params: Params, batch: Batch) -> jax.Array:
        output = network.apply(params, batch["images"], batch["angles"])
        return losses.mean_squared_error(output.prediction, batch["targets"])

    apply = jax.jit(network.apply)  # Training may evaluate many times: all is compiled once.
    return Task(
        init=lambda key: network.init(key, jnp.zeros((1, *config.data.image_size, 1)), jnp.zeros(1)),
        loss=loss,
        train_batch=data.trained.train_batch,
        evaluate=lambda params: _evaluate(*data.tested.test_set(), apply, params),
        loss_name="squared error, mean over pixels",
        check_test=data.check_test,
        fingerprint=data.trained.fingerprint,
    )


def _evaluate(data: str, images: jax.Array, apply: Callable[..., Steered], params: Params) -> Evaluation:
    """Compares the learned filters with the true ones, and what both make of test images [N, H, W, 1]."""
    count = len(images)
    angles = (jnp.arange(count) + 0.5) * (2 * jnp.pi / count)
    pixels = jax.jit(steerable.centred)(images)
    output = apply(params, pixels, angles)
    targets, truth = jax.jit(steerable.steer)(pixels, angles), jax.jit(steerable.oriented_filters)(angles)
    textured = (targets != 0).any(axis=(1, 2, 3))  # A crop of one grey has nothing that an error could be relative to.
    results = {
        "filter_relative_error": float(_relative_error(output.filters, truth).mean()),
        "filter_relative_error_worst": float(_relative_error(output.filters, truth).max()),
        "output_relative_error": float(_relative_error(output.prediction, targets).mean(where=textured)),
        "mse_per_image": float(metrics.squared_error_per_image(output.prediction, targets).mean()),
        "baseline_zero_mse_per_image": float(metrics.squared_error_per_image(0 * targets, targets).mean()),
    }
    headline = (
        f"The learned filters differ from the true ones by {100 * results['filter_relative_error']:.2f} % on average "
        f"over {count} angles ({100 * results['filter_relative_error_worst']:.2f} % at worst)."
        f"\n\nThe network saw images and filtered images, never a filter. Tested on {data}."
    )
    in_words = "filter error, relative, mean over angles"
    table = Table(
        "How good it is",
        ["this network"],
        [
            Row(in_words, [results["filter_relative_error"]]),
            Row("filter error, relative, worst angle", [results["filter_relative_error_worst"]]),
            Row("output error, relative, mean over images", [results["output_relative_error"]]),
            Row("squared error, summed over the image", [results["mse_per_image"]]),
        ],
        caption=f"Errors are norms of differences over norms of the truth. Images: {data}.",
    )
    return Evaluation(
        data,
        headline,
        results,
        lambda: [_ring(params, apply), _examples(pixels, output, targets), table],
        "filter_relative_error",
        in_words,
    )


def _relative_error(found: jax.Array, truth: jax.Array) -> jax.Array:
    """Norm of the difference over the norm of the truth, for each example; [N]."""
    found, truth = (values.reshape(len(truth), -1) for values in (found, truth))
    return jnp.linalg.norm(found - truth, axis=1) / jnp.linalg.norm(truth, axis=1)


def _ring(params: Params, apply: Callable[..., Steered]) -> Picture:
    """Learned and true filters at angles all around."""
    angles = jnp.arange(RING) * (2 * jnp.pi / RING)
    learned = apply(params, jnp.zeros((RING, 1, 1, 1)), angles).filters
    truth = jax.jit(steerable.oriented_filters)(angles)
    size, scale = (KERNEL_SIZE, KERNEL_SIZE), float(jnp.abs(truth).max())
    rows = [list(visualize.filters_to_rgb(np.asarray(taps), size, maximum=scale)) for taps in (learned, truth)]
    titles = [f"{round(float(jnp.degrees(angle)))}°" for angle in angles]
    panel = visualize.panel(rows, column_titles=titles, row_titles=["learned", "true"], scale=8)
    caption = f"{KERNEL_SIZE}x{KERNEL_SIZE} taps, as cross-correlation; red is positive, blue negative, white zero."
    return Picture("filters", "The filters of a ring of angles", visualize.to_png(panel), caption)


def _examples(pixels: jax.Array, output: Steered, targets: jax.Array) -> Picture:
    """Images, and what the learned and the true filter make of them."""
    shown = np.linspace(0, len(pixels) - 1, EXAMPLES_SHOWN).astype(int)
    largest = float(jnp.abs(targets[shown]).max()) or 1.0
    signed = [0.5 + 0.5 * values[shown] / largest for values in (output.prediction, targets)]
    columns = [visualize.images_to_rgb(np.asarray(values)) for values in (0.5 + pixels[shown], *signed)]
    titles = ["image", "filtered by the network", "filtered by the truth"]
    panel = visualize.panel(list(zip(*columns, strict=True)), column_titles=titles)
    return Picture("examples", "What it does to images", visualize.to_png(panel), "Grey is zero.")
