"""Digits drawn by a shaky pen: what stands in for MNIST where there is none.

Each digit is one or two strokes, curves through a few points. Every drawing moves the points a little, slants, turns
and stretches the whole, and takes a pen of its own width. As in MNIST, the ink fills 20x20 of 28x28 pixels.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

SIZE, INK = 28, 20
BETWEEN = 4  # line segments from one point of a stroke to the next
# Points (x, y) of each stroke in the unit square, y down.
STROKES = (
    (((0.55, 0.0), (0.15, 0.2), (0.05, 0.6), (0.4, 1.0), (0.85, 0.75), (0.95, 0.3), (0.55, 0.0)),),
    (((0.35, 0.2), (0.55, 0.0), (0.52, 0.5), (0.5, 1.0)),),
    (((0.1, 0.25), (0.4, 0.0), (0.8, 0.15), (0.75, 0.45), (0.4, 0.75), (0.05, 1.0), (0.5, 0.93), (0.95, 0.97)),),
    (
        ((0.1, 0.12), (0.5, 0.0), (0.85, 0.2), (0.7, 0.42), (0.4, 0.48)),
        ((0.4, 0.48), (0.8, 0.55), (0.9, 0.8), (0.5, 1.0), (0.05, 0.88)),
    ),
    (((0.3, 0.0), (0.12, 0.35), (0.1, 0.58), (0.5, 0.58), (0.95, 0.52)), ((0.75, 0.1), (0.7, 0.5), (0.66, 1.0))),
    (((0.9, 0.02), (0.3, 0.03), (0.22, 0.42), (0.6, 0.4), (0.9, 0.68), (0.6, 0.98), (0.1, 0.92)),),
    (((0.7, 0.0), (0.3, 0.3), (0.08, 0.7), (0.4, 1.0), (0.85, 0.85), (0.7, 0.55), (0.2, 0.68)),),
    (((0.05, 0.05), (0.5, 0.06), (0.95, 0.03), (0.65, 0.5), (0.4, 1.0)),),
    (
        (
            (0.8, 0.12), (0.4, 0.0), (0.2, 0.22), (0.5, 0.47), (0.85, 0.75),
            (0.5, 1.0), (0.12, 0.8), (0.45, 0.5), (0.8, 0.12),
        ),
    ),
    (((0.85, 0.2), (0.45, 0.0), (0.12, 0.28), (0.45, 0.52), (0.85, 0.2), (0.82, 0.6), (0.65, 1.0)),),
)  # fmt: skip
POINTS = max(sum(map(len, strokes)) for strokes in STROKES)
BLOCK = 1000  # digits that one call of the compiled program draws, however many are wanted

_exact = functools.partial(jnp.matmul, precision="highest")  # the same digits on every device, but for rounding


def drawn_digits(seed: int, count: int) -> np.ndarray:
    """Draws digits, as many of each kind.

    Args:
        seed: other seeds draw others.
        count: D.

    Returns:
        uint8 [D, 28, 28], white on black.
    """
    key = jax.random.fold_in(jax.random.key(2016), seed)
    blocks = [np.asarray(_draw_block(jax.random.fold_in(key, start))) for start in range(0, count, BLOCK)]
    return np.concatenate(blocks)[:count]


@jax.jit
def _draw_block(key: Array) -> Array:
    kinds = jnp.arange(BLOCK) % len(STROKES)
    return jax.lax.map(lambda item: _draw(*item), (jax.random.split(key, BLOCK), kinds), batch_size=50)


def _draw(key: Array, kind: Array) -> Array:
    points, starts, ends = (jnp.asarray(table)[kind] for table in _tables())
    shake_key, shape_key = jax.random.split(key)
    turn, slant, narrow, pen, soft = jax.random.uniform(shape_key, (5,))
    points = points - 0.5 + 0.03 * jax.random.normal(shake_key, points.shape)
    angle = 0.4 * (turn - 0.5)
    turned = jnp.array([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]])
    slanted = jnp.array([[0.6 + 0.35 * narrow, -0.6 * (slant - 0.3)], [0.0, 1.0]])
    points = _exact(points, _exact(turned, slanted).T)
    width = 1.0 + 1.1 * pen
    # The ink, pen included, fills its box.
    places = _exact(jnp.concatenate([starts, ends]), points)
    low, high = jnp.min(places, 0), jnp.max(places, 0)
    points = (points - (low + high) / 2) * (INK - 2 * width) / jnp.max(high - low) + (SIZE - 1) / 2
    distance = _distance(_exact(starts, points), _exact(ends, points))
    return jnp.round(255 * jax.nn.sigmoid((width - distance) * (2.5 + 2 * soft))).astype(jnp.uint8)


def _distance(starts: Array, ends: Array) -> Array:
    """Distance of every pixel to the nearest of the line segments, [28, 28] pixels."""
    y, x = jnp.mgrid[:SIZE, :SIZE].astype(jnp.float32)

    def nearer(nearest: Array, segment: tuple[Array, Array]) -> tuple[Array, None]:
        (left, top), (right, bottom) = segment
        width, height = right - left, bottom - top
        share = ((x - left) * width + (y - top) * height) / jnp.maximum(width**2 + height**2, 1e-6)
        share = jnp.clip(share, 0, 1)
        square = (x - left - share * width) ** 2 + (y - top - share * height) ** 2
        return jnp.minimum(nearest, square), None

    return jnp.sqrt(jax.lax.scan(nearer, jnp.full((SIZE, SIZE), jnp.inf), (starts, ends))[0])


@functools.cache
def _tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each digit its points [10, P, 2], and what makes of them where segments start and end [10, S, P]."""
    points = np.zeros((len(STROKES), POINTS, 2), np.float32)
    starts = np.zeros((len(STROKES), POINTS * BETWEEN, POINTS), np.float32)
    ends = starts.copy()
    for kind, strokes in enumerate(STROKES):
        point = segment = 0
        for stroke in strokes:
            curve = _curve(len(stroke))
            more = len(curve) - 1
            points[kind, point : point + len(stroke)] = stroke
            starts[kind, segment : segment + more, point : point + len(stroke)] = curve[:-1]
            ends[kind, segment : segment + more, point : point + len(stroke)] = curve[1:]
            point, segment = point + len(stroke), segment + more
        # Segments that are not needed repeat the first.
        starts[kind, segment:], ends[kind, segment:] = starts[kind, 0], ends[kind, 0]
    return points, starts, ends


def _curve(count: int) -> np.ndarray:
    """The Catmull-Rom spline through `count` points as a matrix from them to places along it."""
    unit = np.pad(np.eye(count), ((1, 1), (0, 0)), mode="edge")
    t = np.arange(BETWEEN)[:, None] / BETWEEN
    parts = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(unit, unit[1:], unit[2:], unit[3:], strict=False)
    ]
    return np.concatenate([*parts, unit[-1:]])
