"""Where the things of a highway scene are: rays, what they hit, and where that goes. Exact depth, by construction.

One ray through each sample is cut with every surface in closed form: the road and the tunnel's roof are parabolic
cylinders (hill, grade), walls and rails follow the same parabola sideways (bend), vehicles and bridges are boxes. The
nearest cut wins.

Everything here is elementwise over the rays and free of calls into the C library (no `mod`, no `log2`), so that XLA
makes one vectorised loop of it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dfn_jax.data.highway_noise import cell_value, lattice
from dfn_jax.data.highway_scene import BOXES, MEDIAN, ROAD_EDGE, Scene

BASELINE = 0.24  # metres between the two cameras
FOCAL = 1.1  # focal length in image widths
HORIZON = 0.5  # height of the principal point in image heights, from the top
FAR = 300.0  # metres; beyond it all is sky
TUNNEL_HEIGHT = 5.2
RAIL = (0.35, 0.85)  # lower and upper edge of a guard rail, metres above the road
TREE_SPACING = 7.0  # metres

# Surfaces: 0 to BOXES - 1 are the scene's boxes.
GROUND, ROOF, LEFT_SIDE, RIGHT_SIDE, LEFT_RAIL, RIGHT_RAIL, SKY = range(BOXES, BOXES + 7)
_SURFACE_BITS = 31


class View(NamedTuple):
    """A scene at one time, seen from its cameras.

    Attributes:
        scene: the scene.
        travelled: [] metres along the road since time zero.
        lateral: [] of the left camera, metres.
        turn: [3, 3] rotation from the cameras' axes to the levelled ones.
        centre: [3, BOXES] of the boxes, in levelled axes from the left camera.
    """

    scene: Scene
    travelled: Array
    lateral: Array
    turn: Array
    centre: Array


class Rays(NamedTuple):
    """Rays `origin + depth * direction` in levelled axes; depth is measured along the optical axis.

    Attributes:
        origin: x, y, z, each [...] or [].
        direction: x, y, z, each [...].
    """

    origin: tuple[Array, Array, Array]
    direction: tuple[Array, Array, Array]

    def at(self, depth: Array) -> tuple[Array, Array, Array]:
        """Points (x, y, z) at these depths."""
        return tuple(start + depth * rate for start, rate in zip(self.origin, self.direction, strict=True))


class Hits(NamedTuple):
    """What each ray meets first; fields [...].

    Attributes:
        depth: metres along the optical axis; infinite for the sky.
        surface: int32, the index of a box, or GROUND, ROOF, LEFT_SIDE, RIGHT_SIDE, LEFT_RAIL, RIGHT_RAIL, SKY.
    """

    depth: Array
    surface: Array


def view_at(scene: Scene, time: Array | float) -> View:
    """Places the cameras and the boxes of one scene at a time, in seconds."""
    cos_roll, sin_roll, cos_pitch, sin_pitch = (f(a) for a in (scene.roll, scene.pitch) for f in (jnp.cos, jnp.sin))
    turn = jnp.array(
        [
            [cos_roll, -sin_roll, 0.0],
            [cos_pitch * sin_roll, cos_pitch * cos_roll, sin_pitch],
            [-sin_pitch * sin_roll, -sin_pitch * cos_roll, cos_pitch],
        ]
    )
    view = View(scene, scene.speed * time, scene.lateral + scene.drift * time, turn, jnp.zeros((3, BOXES)))
    boxes = scene.boxes
    z = boxes.along + boxes.speed * time - view.travelled
    x, y = road_at(view, z)
    return view._replace(centre=jnp.stack([x + boxes.lateral, y - boxes.base - boxes.half_height, z]))


def road_at(view: View, z: Array) -> tuple[Array, Array]:
    """Position of the centre line (x) and of the road surface (y) at z."""
    scene = view.scene
    return -view.lateral + z * (scene.heading + scene.bend * z), scene.height + z * (scene.grade + scene.crest * z)


def camera_rays(view: View, rows: Array, columns: Array, eye: Array | float, image_size: tuple[int, int]) -> Rays:
    """Casts rays through image positions.

    Args:
        view: the view.
        rows: [...] float32, in pixels; the centre of the top row is 0.
        columns: [...] float32, in pixels.
        eye: 0 for the left camera, 1 for the right.
        image_size: (H, W) in pixels.

    Returns:
        The rays, each field [...].
    """
    height, width = image_size
    x = (columns + 0.5 - 0.5 * width) / (FOCAL * width)
    y = (rows + 0.5 - HORIZON * height) / (FOCAL * width)
    return Rays(
        tuple(BASELINE * eye * axis[0] for axis in view.turn),
        tuple(x * axis[0] + y * axis[1] + axis[2] for axis in view.turn),
    )


def project(view: View, point: tuple[Array, Array, Array], image_size: tuple[int, int]) -> tuple[Array, Array, Array]:
    """Finds where the left camera sees points: the inverse of `camera_rays`.

    Args:
        view: the view.
        point: x, y, z in levelled axes, each [...].
        image_size: (H, W) in pixels.

    Returns:
        rows, columns: [...] in pixels; meaningless where the depth is not positive.
        depth: [...] metres along the optical axis.
    """
    height, width = image_size
    x, y, depth = (sum(p * r for p, r in zip(point, axis, strict=True)) for axis in view.turn.T)
    focal = FOCAL * width / depth
    return focal * y + HORIZON * height - 0.5, focal * x + 0.5 * width - 0.5, depth


def carry(point: tuple[Array, Array, Array], surface: Array, start: View, end: View) -> tuple[Array, Array, Array]:
    """Moves points with what they belong to, from one view's time to another's.

    Args:
        point: x, y, z in levelled axes, each [...], at the time of `start`.
        surface: [...] int32, what they belong to, as in `Hits`; the sky goes with the cameras.
        start: the view of the scene that the points come from.
        end: the same scene at another time.

    Returns:
        x, y, z in levelled axes, each [...], at the time of `end`.
    """
    z = point[2] + start.travelled - end.travelled
    (x0, y0), (x1, y1) = road_at(start, point[2]), road_at(end, z)
    standing = (point[0] + x1 - x0, point[1] + y1 - y0, z)
    moving = (p + pick(step, surface) for p, step in zip(point, end.centre - start.centre, strict=True))
    moved = (jnp.where(surface < BOXES, m, s) for m, s in zip(moving, standing, strict=True))
    return tuple(jnp.where(surface == SKY, p, m) for p, m in zip(point, moved, strict=True))


def pick(values: Array, index: Array) -> Array:
    """`values[index]`, 0 beyond the end, as selections: faster than a gather, and XLA fuses it."""
    result = jnp.zeros(index.shape)
    for k in range(len(values)):
        result = jnp.where(index == k, values[k], result)
    return result


def _parabola_cut(offset: Array, slope: Array, curvature: Array, start: Array, rate: Array, rays: Rays) -> Array:
    """Depth at which `start + depth * rate` meets `offset + slope z + curvature z²`; infinite where it never does."""
    z, dz = rays.origin[2], rays.direction[2]
    a = curvature * dz**2
    b = slope * dz + 2 * curvature * z * dz - rate
    c = offset + slope * z + curvature * z**2 - start
    discriminant = b**2 - 4 * a * c
    root = jnp.sqrt(discriminant)
    # The stable form of the quadratic formula that picks the nearest crossing from the side on which the ray starts.
    depth = 2 * c / (jnp.where(c > 0, root, -root) - b)
    return jnp.where((discriminant >= 0) & (depth > 0) & (depth < FAR), depth, jnp.inf)


def _box_cut(middle: Array, half: tuple[Array, Array, Array], rays: Rays) -> Array:
    """Depth at which rays enter a box, infinite where they miss it."""
    enter, leave = [], []
    for m, h, start, rate in zip(middle, half, rays.origin, rays.direction, strict=True):
        inverse = 1.0 / rate
        at, reach = (m - start) * inverse, h * jnp.abs(inverse)
        enter.append(at - reach)
        leave.append(at + reach)
    entry = jnp.maximum(jnp.maximum(enter[0], enter[1]), enter[2])
    exit_ = jnp.minimum(jnp.minimum(leave[0], leave[1]), leave[2])
    return jnp.where((entry > 0) & (entry < exit_) & (entry < FAR), entry, jnp.inf)


def in_tunnel(scene: Scene, along: Array) -> Array:
    """Whether positions along the road, in metres, are inside the scene's tunnel."""
    return (along > scene.tunnel[0]) & (along < scene.tunnel[1])


def repetition(position: Array, period: float) -> tuple[Array, Array]:
    """Which repetition a position is in, and how far into it: `mod` without its call into the C library."""
    index = jnp.floor(position / period)
    return index, position - period * index


def _tree_top(scene: Scene, side: int, along: Array) -> Array:
    """Height of a side's upper edge: level for a wall, a row of crowns for trees."""
    tree, offset = repetition(along, TREE_SPACING)
    size = cell_value(lattice(tree), jnp.uint32(0), scene.seed + jnp.uint32(7 + side))
    crown = 1 + 0.35 * size - 0.75 * (2 / TREE_SPACING * offset - 1) ** 2
    return scene.side_height[side] * (1 + scene.side_ragged[side] * (crown - 1))


def trace(view: View, rays: Rays) -> Hits:
    """Finds what each ray meets first.

    Args:
        view: the view.
        rays: the rays, each field [...].

    Returns:
        The hits, each field [...]; depth is rounded to 4e-6 of itself.
    """
    scene = view.scene
    (x, y, _), (dx, dy, _) = rays

    def vertical(height: float) -> Array:
        return _parabola_cut(scene.height - height, scene.grade, scene.crest, y, dy, rays)

    def sideways(lateral: Array | float) -> Array:
        return _parabola_cut(lateral - view.lateral, scene.heading, scene.bend, x, dx, rays)

    def side(index: int, lateral: Array) -> Array:
        depth = sideways(lateral)
        _, height, along = road_coordinates(view, rays.at(depth))
        top = _tree_top(scene, index, along)
        return jnp.where(height < jnp.where(in_tunnel(scene, along), TUNNEL_HEIGHT, top), depth, jnp.inf)

    def rail(index: int, lateral: float) -> Array:
        depth = sideways(lateral)
        _, height, along = road_coordinates(view, rays.at(depth))
        post = repetition(along, 4.0)[1] < 0.24
        seen = (height < RAIL[1]) & ((height > RAIL[0]) | post) & (scene.rail[index] > 0)
        return jnp.where(seen, depth, jnp.inf)

    roof = vertical(TUNNEL_HEIGHT)
    roof = jnp.where(in_tunnel(scene, road_coordinates(view, rays.at(roof))[2]), roof, jnp.inf)
    halves = (scene.boxes.half_width, scene.boxes.half_height, scene.boxes.half_length)
    candidates = {k: _box_cut(view.centre[:, k], [half[k] for half in halves], rays) for k in range(BOXES)} | {
        GROUND: vertical(0.0),
        ROOF: roof,
        LEFT_SIDE: side(0, MEDIAN - ROAD_EDGE - scene.side_offset[0]),
        RIGHT_SIDE: side(1, ROAD_EDGE + scene.side_offset[1]),
        LEFT_RAIL: rail(0, MEDIAN),
        RIGHT_RAIL: rail(1, ROAD_EDGE),
    }
    # Depth and surface as one integer that sorts by depth: the surface takes the last bits of the mantissa. As two
    # arrays XLA would search the nearest cut twice.
    packed = jnp.full(dx.shape, jnp.iinfo(jnp.int32).max)
    for surface, cut in candidates.items():
        bits = jax.lax.bitcast_convert_type(cut, jnp.int32)
        packed = jnp.minimum(packed, bits & ~_SURFACE_BITS | surface)
    depth = jax.lax.bitcast_convert_type(packed & ~_SURFACE_BITS, jnp.float32)
    return Hits(depth, jnp.where(depth < FAR, packed & _SURFACE_BITS, SKY))


def road_coordinates(view: View, point: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    """Lateral position, height and distance along the road of points in levelled axes."""
    x, y, z = point
    centre, surface = road_at(view, z)
    return x - centre, surface - y, z + view.travelled
