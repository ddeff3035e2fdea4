"""Stereo pairs of a highway, drawn on the device: the embedded data set, with exact disparity and occlusion."""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from dfn_jax.data.highway_render import BASELINE, FOCAL, camera_rays, sample_grid, shade, trace
from dfn_jax.data.highway_scene import Scene, sample_scene

SUPERSAMPLING = 2  # samples a pixel, each way


def sample_scenes(key: Array, count: int) -> Scene:
    """Draws scenes.

    Args:
        key: typed PRNG key.
        count: number of scenes N.

    Returns:
        The scenes, each field [N, ...].
    """
    return jax.vmap(sample_scene)(jax.random.split(key, count))


@functools.partial(jax.jit, static_argnames="image_size")
def render_views(scenes: Scene, *, image_size: tuple[int, int], time: Array | float = 0.0) -> tuple[Array, Array]:
    """Draws the left and the right view of each scene, anti-aliased.

    Args:
        scenes: N scenes.
        image_size: (H, W) in pixels.
        time: [] or [N] float32, seconds since each scene began.

    Returns:
        left, right: [N, H, W, 1] float32 in [0, 1].
    """
    (height, width), count = image_size, len(scenes.seed)
    rows, columns = sample_grid(image_size, SUPERSAMPLING)
    both = jax.tree.map(lambda field: field.repeat(2, axis=0), scenes)
    eyes = jnp.tile(jnp.arange(2.0), count)
    times = jnp.broadcast_to(time, (count,)).repeat(2)

    def look(view: tuple[Scene, Array, Array]):
        scene, eye, time = view
        return trace(scene, camera_rays(scene, rows, columns, eye, image_size), time)

    def colour(view: tuple[Scene, Array, Array], hits) -> Array:
        scene, eye, time = view
        samples = shade(scene, camera_rays(scene, rows, columns, eye, image_size), hits, width, time)
        return samples.reshape(height, SUPERSAMPLING, width, SUPERSAMPLING).mean((1, 3))

    # Two loops over the views: as one expression XLA computes the hits anew for every use, at ten times the cost.
    views = (both, eyes, times)
    hits = jax.lax.map(look, views)
    images = jax.lax.map(lambda item: colour(*item), (views, hits)).reshape(count, 2, height, width, 1)
    return images[:, 0], images[:, 1]


@functools.partial(jax.jit, static_argnames="image_size")
def right_disparity(scenes: Scene, *, image_size: tuple[int, int], time: Array | float = 0.0) -> tuple[Array, Array]:
    """Computes the exact disparity of the right view and which of its pixels the left camera sees too.

    Args:
        scenes: N scenes.
        image_size: (H, W) in pixels.
        time: [] or [N] float32, seconds since each scene began.

    Returns:
        disparity: [N, H, W] float32 in pixels, 0 in the sky: the right view's pixel (y, x) shows the point that the
            left view shows at (y, x + disparity).
        visible: [N, H, W] bool, False where something hides that point from the left camera or it lies beyond the
            left image.
    """
    rows, columns = sample_grid(image_size, 1)
    pixels = FOCAL * image_size[1] * BASELINE

    def one(item: tuple[Scene, Array]) -> tuple[Array, Array]:
        scene, time = item
        right = trace(scene, camera_rays(scene, rows, columns, 1.0, image_size), time)
        disparity = pixels / right.depth
        matched = columns + disparity
        left = trace(scene, camera_rays(scene, rows, matched, 0.0, image_size), time)
        same = jnp.abs(pixels / left.depth - disparity) < 0.02 + 0.01 * disparity
        return disparity, same & (matched <= image_size[1] - 1)

    return jax.lax.map(one, (scenes, jnp.broadcast_to(time, scenes.seed.shape)))


@functools.partial(jax.jit, static_argnames=("batch_size", "image_size", "with_truth"))
def stereo_batch(
    key: Array, *, batch_size: int, image_size: tuple[int, int], with_truth: bool = False
) -> dict[str, Array]:
    """Draws one batch of stereo pairs.

    Args:
        key: typed PRNG key; the same key gives the same batch.
        batch_size: number of pairs N.
        image_size: (H, W) in pixels.
        with_truth: whether to compute the disparity too.

    Returns:
        left, right: [N, H, W, 1] float32 in [0, 1]; with the truth also disparity [N, H, W] float32 in pixels,
        visible [N, H, W] bool (see `right_disparity`), and valid [N, H, W] bool, everywhere True.
    """
    scenes = sample_scenes(key, batch_size)
    left, right = render_views(scenes, image_size=image_size)
    if not with_truth:
        return {"left": left, "right": right}
    disparity, visible = right_disparity(scenes, image_size=image_size)
    return {
        "left": left,
        "right": right,
        "disparity": disparity,
        "visible": visible,
        "valid": jnp.ones_like(visible),
    }
