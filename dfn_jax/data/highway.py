"""Stereo pairs and video of a highway, drawn on the device, with exact disparity, flow and occlusion: embedded data."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from dfn_jax.data.highway_geometry import (
    BASELINE,
    FAR,
    FOCAL,
    SKY,
    Hits,
    View,
    camera_rays,
    carry,
    project,
    trace,
    view_at,
)
from dfn_jax.data.highway_scene import Scene, sample_scenes
from dfn_jax.data.highway_shading import shade

SUPERSAMPLING = 2  # samples a pixel, each way, as `_pixels` weighs them


def _views(scenes: Scene, time: Array | float) -> View:
    return jax.vmap(view_at)(scenes, jnp.broadcast_to(time, scenes.seed.shape))


def _over_scenes(function: Callable[[Any], Any], items: Any) -> Any:
    """Applies a function to each scene's items, stacked along the first axis of all arrays.

    On CPU one by one: a scene's numbers are scalars to the loop over its samples, which XLA then fuses into one. Other
    devices are too wide for one scene at a time. Either way what comes of it is kept: XLA would compute it again
    wherever something is read from it.
    """

    def at_once(items: Any) -> Any:
        return lax.optimization_barrier(jax.vmap(function)(items))

    return lax.platform_dependent(items, cpu=functools.partial(lax.map, function), default=at_once)


def _pixel_grid(image_size: tuple[int, int]) -> tuple[Array, Array]:
    """Rows [H, 1] and columns [W] of the pixels' centres."""
    rows, columns = (jnp.arange(size, dtype=jnp.float32) for size in image_size)
    return rows[:, None], columns


def _pixels(samples: Array, axis: int) -> Array:
    """Weighs two samples a pixel [2, ...] along an axis by a tent two pixels wide, to [...].

    A plain mean lets frequencies above half the sampling rate through, which then look different in either view.
    """
    first, second = samples
    size = first.shape[axis]
    before = jnp.concatenate(
        [lax.slice_in_dim(first, 0, 1, axis=axis), lax.slice_in_dim(second, 0, size - 1, axis=axis)], axis
    )
    after = jnp.concatenate(
        [lax.slice_in_dim(first, 1, size, axis=axis), lax.slice_in_dim(second, size - 1, size, axis=axis)], axis
    )
    return 0.375 * (first + second) + 0.125 * (before + after)


def _same(depth: Array, expected: Array) -> Array:
    """Whether two depths are of one point; both may be infinite."""
    return jnp.abs(1 / depth - 1 / expected) < 0.01 / expected + 1e-4


@functools.partial(jax.jit, static_argnames=("image_size", "eyes"))
def render_views(
    scenes: Scene, *, image_size: tuple[int, int], time: Array | float = 0.0, eyes: tuple[int, ...] = (0, 1)
) -> tuple[Array, ...]:
    """Draws views of each scene, anti-aliased.

    Args:
        scenes: N scenes.
        image_size: (H, W) in pixels.
        time: [] or [N] float32, seconds since each scene began.
        eyes: which views: 0 is the left camera, 1 the right.

    Returns:
        For each eye, [N, H, W, 1] float32 in [0, 1].
    """
    rows, columns = _pixel_grid(image_size)
    shifts = (jnp.arange(SUPERSAMPLING) + 0.5) / SUPERSAMPLING - 0.5
    rows = rows + shifts[:, None, None, None, None]
    columns = columns + shifts[:, None, None, None]
    cameras = jnp.array(eyes, jnp.float32)[:, None, None]

    def draw(view: View) -> Array:
        rays = camera_rays(view, rows, columns, cameras, image_size)
        return shade(view, rays, trace(view, rays), image_size[1])

    samples = jnp.moveaxis(_over_scenes(draw, _views(scenes, time)), 0, 3)
    images = _pixels(_pixels(samples, axis=-2), axis=-1)[..., None]
    return tuple(images)


@functools.partial(jax.jit, static_argnames="image_size")
def right_disparity(scenes: Scene, *, image_size: tuple[int, int]) -> tuple[Array, Array]:
    """Computes the exact disparity of the right view as each scene begins, and which pixels the left camera sees too.

    Args:
        scenes: N scenes.
        image_size: (H, W) in pixels.

    Returns:
        disparity: [N, H, W] float32 in pixels, 0 in the sky: the right view's pixel (y, x) shows the point that the
            left view shows at (y, x + disparity).
        visible: [N, H, W] bool, False where something hides that point from the left camera or it lies beyond the
            left image.
    """
    rows, columns = _pixel_grid(image_size)
    width = image_size[1]

    def one(view: View) -> tuple[Array, Array]:
        depth = trace(view, camera_rays(view, rows, columns, 1.0, image_size)).depth
        disparity = FOCAL * width * BASELINE / depth
        matched = columns + disparity
        left = trace(view, camera_rays(view, rows, matched, 0.0, image_size))
        return disparity, _same(left.depth, depth) & (matched <= width - 1)

    return _over_scenes(one, _views(scenes, 0.0))


@functools.partial(jax.jit, static_argnames="image_size")
def optical_flow(
    scenes: Scene,
    *,
    image_size: tuple[int, int],
    time: Array | float,
    later: Array | float,
) -> tuple[Array, Array]:
    """Computes the exact flow from a later left view back to an earlier one: where to fetch each pixel of the later.

    This is what filters that predict the frame at `later` from the frame at `time` should fetch by.

    Args:
        scenes: N scenes.
        image_size: (H, W) in pixels.
        time: [] or [N] float32, seconds since each scene began, of the frame to fetch from.
        later: [] or [N] float32, of the frame on whose grid the flow is.

    Returns:
        flow: [N, H, W, 2] float32 in pixels, (x to the right, y down), 0 in the sky: the frame at `later` shows at
            (y, x) the point that the frame at `time` shows at (y + flow[..., 1], x + flow[..., 0]).
        visible: [N, H, W] bool, False where something hides that point in the frame at `time` or it lies beyond it.
    """
    rows, columns = _pixel_grid(image_size)
    height, width = image_size

    def look(now: View) -> Hits:
        return trace(now, camera_rays(now, rows, columns, 0.0, image_size))

    def go_back(item: tuple[View, View, Hits]) -> tuple[Array, Array, Array]:
        earlier, now, hits = item
        rays = camera_rays(now, rows, columns, 0.0, image_size)
        point = carry(rays.at(jnp.minimum(hits.depth, FAR)), hits.surface, now, earlier)
        y, x, depth = project(earlier, point, image_size)
        return y, x, jnp.where(hits.surface == SKY, jnp.inf, depth)

    def check(item: tuple[View, Array, Array, Array]) -> Array:
        earlier, y, x, depth = item
        before = trace(earlier, camera_rays(earlier, y, x, 0.0, image_size))
        margin = 0.01  # pixels, for rounding
        inside = (x > -margin) & (x < width - 1 + margin) & (y > -margin) & (y < height - 1 + margin) & (depth > 0)
        return _same(before.depth, depth) & inside

    # Three times: in one, XLA traces the later frame anew wherever the earlier one's tracing uses a position.
    earlier, now = _views(scenes, time), _views(scenes, later)
    hits = _over_scenes(look, now)
    y, x, depth = _over_scenes(go_back, (earlier, now, hits))
    visible = _over_scenes(check, (earlier, y, x, depth))
    return jnp.stack([x - columns, y - rows], -1), visible


@functools.partial(jax.jit, static_argnames=("batch_size", "image_size", "with_truth"))
def stereo_batch(
    key: Array,
    *,
    batch_size: int,
    image_size: tuple[int, int],
    with_truth: bool = False,
    indices: Array | None = None,
) -> dict[str, Array]:
    """Draws one batch of stereo pairs, or a part of it.

    Args:
        key: typed PRNG key; the same key gives the same batch.
        batch_size: number of pairs in the batch.
        image_size: (H, W) in pixels.
        with_truth: whether to compute the disparity too.
        indices: [N] int, which pairs to draw; None for all.

    Returns:
        left, right: [N, H, W, 1] float32 in [0, 1]; with the truth also disparity [N, H, W] float32 in pixels,
        visible [N, H, W] bool (see `right_disparity`), and valid [N, H, W] bool, everywhere True.
    """
    scenes = sample_scenes(key, batch_size, indices)
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


@functools.partial(jax.jit, static_argnames=("batch_size", "frames", "image_size", "flows"))
def video_batch(
    key: Array,
    *,
    batch_size: int,
    frames: int,
    interval: float,
    image_size: tuple[int, int],
    flows: int = 0,
    indices: Array | None = None,
) -> dict[str, Array]:
    """Draws one batch of video, as the left camera sees it, or a part of it.

    Args:
        key: typed PRNG key; the same key gives the same batch.
        batch_size: number of sequences in the batch.
        frames: T.
        interval: seconds from one frame to the next.
        image_size: (H, W) in pixels.
        flows: for how many of the last frames to compute the flow too, less than T.
        indices: [N] int, which sequences to draw; None for all.

    Returns:
        frames: [N, T, H, W, 1] float32 in [0, 1]; with flows F > 0 also flow [N, F, H, W, 2] float32 in pixels, from
        each of the last F frames back to the one before it, and visible [N, F, H, W] bool (see `optical_flow`).
    """
    scenes = sample_scenes(key, batch_size, indices)
    times = interval * jnp.arange(frames)
    images = lax.map(lambda time: render_views(scenes, image_size=image_size, time=time, eyes=(0,))[0], times)
    batch = {"frames": jnp.moveaxis(images, 0, 1)}
    if not flows:
        return batch
    flow, visible = lax.map(
        lambda time: optical_flow(scenes, image_size=image_size, time=time - interval, later=time), times[-flows:]
    )
    return batch | {"flow": jnp.moveaxis(flow, 0, 1), "visible": jnp.moveaxis(visible, 0, 1)}
