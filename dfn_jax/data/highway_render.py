"""From a highway scene to pixels: rays, what they hit, and how bright it is. Exact depth, by construction.

One ray through each sample is cut with every surface in closed form: the road and the tunnel's roof are parabolic
cylinders (hill, grade), walls and rails follow the same parabola sideways (bend), vehicles and bridges are boxes. The
nearest cut wins and alone is textured. The texture is lattice noise whose finest cells are two to four pixels wide at
whatever distance the surface lies, so that there is something to match everywhere and nothing to alias.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dfn_jax.data.highway_scene import BOXES, LANE_WIDTH, MEDIAN, ROAD_EDGE, SHADOW_CASTERS, VEHICLES, Boxes, Scene

BASELINE = 0.22  # metres between the two cameras
FOCAL = 1.1  # focal length in image widths
HORIZON = 0.4  # height of the principal point in image heights, from the top
FAR = 300.0  # metres; beyond it all is sky
TUNNEL_HEIGHT = 5.2
RAIL = (0.35, 0.85)  # lower and upper edge of a guard rail, metres above the road

SKY, GROUND, ROOF, SIDE, RAIL_SURFACE, BOX = range(6)


class Rays(NamedTuple):
    """Rays `origin + depth * direction`, where depth is measured along the optical axis; fields [...] float32."""

    x: Array
    y: Array
    z: Array
    dx: Array
    dy: Array
    dz: Array


class Hits(NamedTuple):
    """What each ray meets first; fields [...].

    Attributes:
        depth: metres along the optical axis; infinite for the sky.
        surface: int32, one of SKY, GROUND, ROOF, SIDE, RAIL_SURFACE, BOX.
        box: int32, index into the scene's boxes where surface is BOX.
        lateral: metres from the road's centre line.
        height: metres above the road.
        along: metres along the road from where the camera was at time zero.
    """

    depth: Array
    surface: Array
    box: Array
    lateral: Array
    height: Array
    along: Array


def camera_rays(scene: Scene, rows: Array, columns: Array, eye: float | Array, image_size: tuple[int, int]) -> Rays:
    """Casts rays through image positions, in a frame that is levelled and moves with the left camera.

    Args:
        scene: the scene, whose roll and pitch turn the pair of cameras.
        rows: [...] float32, in pixels; the centre of the top row is 0.
        columns: [...] float32, in pixels.
        eye: 0 for the left camera, 1 for the right.
        image_size: (H, W) in pixels.

    Returns:
        The rays, each field [...].
    """
    height, width = image_size
    focal = FOCAL * width
    x = (columns + 0.5 - 0.5 * width) / focal
    y = (rows + 0.5 - HORIZON * height) / focal
    cos_roll, sin_roll = jnp.cos(scene.roll), jnp.sin(scene.roll)
    cos_pitch, sin_pitch = jnp.cos(scene.pitch), jnp.sin(scene.pitch)

    def level(x: Array, y: Array, z: float) -> tuple[Array, Array, Array]:
        x, y = cos_roll * x - sin_roll * y, sin_roll * x + cos_roll * y
        return x, cos_pitch * y + sin_pitch * z, cos_pitch * z - sin_pitch * y

    return Rays(*level(jnp.asarray(BASELINE * eye), jnp.zeros(()), 0.0), *level(x, y, 1.0))


def _parabola_cut(offset: Array, slope: Array, curvature: Array, start: Array, rate: Array, rays: Rays) -> Array:
    """Depth at which `start + depth * rate` meets `offset + slope z + curvature z²`; infinite where it never does."""
    a = curvature * rays.dz**2
    b = slope * rays.dz + 2 * curvature * rays.z * rays.dz - rate
    c = offset + slope * rays.z + curvature * rays.z**2 - start
    discriminant = b**2 - 4 * a * c
    root = jnp.sqrt(jnp.maximum(discriminant, 0.0))
    # The stable form of the quadratic formula that picks the nearest crossing from the side on which the ray starts.
    denominator = -b + jnp.where(c > 0, root, -root)
    depth = 2 * c / jnp.where(jnp.abs(denominator) > 1e-9, denominator, 1e-9)
    return jnp.where((discriminant >= 0) & (depth > 0) & (depth < FAR), depth, jnp.inf)


def _road(scene: Scene, z: Array) -> tuple[Array, Array]:
    """Position of the centre line (x) and of the road surface (y) at z."""
    x = -scene.lateral + scene.heading * z + scene.bend * z**2
    return x, scene.height + scene.grade * z + scene.crest * z**2


def _box_cuts(scene: Scene, rays: Rays, time: Array) -> tuple[Array, Array]:
    """Depth of the nearest box, infinite where there is none, and its index."""
    inverse = [1.0 / jnp.where(jnp.abs(d) > 1e-6, d, 1e-6) for d in (rays.dx, rays.dy, rays.dz)]
    depth, index = jnp.full_like(rays.dx, jnp.inf), jnp.zeros(rays.dx.shape, jnp.int32)
    for k in range(BOXES):  # Unrolled, all boxes become one pass over the rays: half the time of a loop.
        box = jax.tree.map(lambda field, k=k: field[k], scene.boxes)
        enter, leave = 0.0, FAR
        halves = (box.half_width, box.half_height, box.half_length)
        for middle, half, start, inv in zip(box_centre(scene, box, time), halves, rays[:3], inverse, strict=True):
            one, other = (middle - half - start) * inv, (middle + half - start) * inv
            enter = jnp.maximum(enter, jnp.minimum(one, other))
            leave = jnp.minimum(leave, jnp.maximum(one, other))
        hit = (enter > 0) & (enter < leave) & (enter < depth) & (box.half_height > 0)
        depth, index = jnp.where(hit, enter, depth), jnp.where(hit, k, index)
    return depth, index


def box_centre(scene: Scene, box: Boxes, time: Array) -> tuple[Array, Array, Array]:
    """Centre (x, y, z) of a box at a time, in the frame that moves with the left camera."""
    z = box.along + (box.speed - scene.speed) * time
    x, y = _road(scene, z)
    return x + box.lateral - scene.drift * time, y - box.base - box.half_height, z


def trace(scene: Scene, rays: Rays, time: Array) -> Hits:
    """Finds what each ray meets first.

    Args:
        scene: the scene.
        rays: the rays, each field [...].
        time: seconds since the scene began.

    Returns:
        The hits, each field [...].
    """
    scene = scene._replace(lateral=scene.lateral + scene.drift * time)
    travelled = scene.speed * time

    def vertical(height: float) -> Array:
        return _parabola_cut(scene.height - height, scene.grade, scene.crest, rays.y, rays.dy, rays)

    def sideways(lateral: Array) -> Array:
        return _parabola_cut(lateral - scene.lateral, scene.heading, scene.bend, rays.x, rays.dx, rays)

    def road_coordinates(depth: Array) -> tuple[Array, Array, Array]:
        z = rays.z + depth * rays.dz
        x, y = _road(scene, z)
        return rays.x + depth * rays.dx - x, y - rays.y - depth * rays.dy, z + travelled

    def keep(depth: Array, visible) -> Array:
        finite = jnp.where(jnp.isfinite(depth), depth, 1.0)
        return jnp.where(visible(*road_coordinates(finite)), depth, jnp.inf)

    def in_tunnel(along: Array) -> Array:
        return (along > scene.tunnel[0]) & (along < scene.tunnel[1])

    def below_top(side: int):
        def visible(lateral: Array, height: Array, along: Array) -> Array:
            ragged = scene.side_ragged[side] * _noise(along * 0.4, jnp.zeros_like(along), scene.seed + 7 + side)
            top = scene.side_height[side] * (1 + 0.6 * ragged)
            return height < jnp.where(in_tunnel(along), TUNNEL_HEIGHT + 1.0, top)

        return visible

    def on_rail(lateral: Array, height: Array, along: Array) -> Array:
        post = jnp.abs(jnp.mod(along, 4.0) - 2.0) < 0.12
        return (height < RAIL[1]) & ((height > RAIL[0]) | post)

    box_depth, box = _box_cuts(scene, rays, time)
    edges = jnp.array([MEDIAN - ROAD_EDGE, ROAD_EDGE]) + jnp.array([-1.0, 1.0]) * scene.side_offset
    candidates = [
        (GROUND, vertical(0.0)),
        (ROOF, keep(vertical(TUNNEL_HEIGHT), lambda lateral, height, along: in_tunnel(along))),
        (SIDE, keep(sideways(edges[0]), below_top(0))),
        (SIDE, keep(sideways(edges[1]), below_top(1))),
        (RAIL_SURFACE, jnp.where(scene.rail[0] > 0, keep(sideways(jnp.asarray(MEDIAN)), on_rail), jnp.inf)),
        (RAIL_SURFACE, jnp.where(scene.rail[1] > 0, keep(sideways(jnp.asarray(ROAD_EDGE)), on_rail), jnp.inf)),
        (BOX, box_depth),
    ]
    depth, surface = jnp.full_like(rays.dx, jnp.inf), jnp.full(rays.dx.shape, SKY, jnp.int32)
    for name, candidate in candidates:
        surface = jnp.where(candidate < depth, name, surface)
        depth = jnp.minimum(candidate, depth)
    finite = jnp.where(jnp.isfinite(depth), depth, FAR)
    return Hits(depth, surface, box, *road_coordinates(finite))


def _noise(u: Array, v: Array, seed: Array) -> Array:
    """Value noise in [-1, 1] on the unit lattice: hashed corners, joined by cubic ramps."""
    floor_u, floor_v = jnp.floor(u), jnp.floor(v)
    left, top = floor_u.astype(jnp.int32).astype(jnp.uint32), floor_v.astype(jnp.int32).astype(jnp.uint32)
    seed = jnp.asarray(seed).astype(jnp.uint32)

    def corner(du: int, dv: int) -> Array:
        h = (left + jnp.uint32(du)) * jnp.uint32(0x9E3779B1) ^ (top + jnp.uint32(dv)) * jnp.uint32(0x85EBCA77) ^ seed
        h = (h ^ (h >> 15)) * jnp.uint32(0x2C1B3C6D)
        h = (h ^ (h >> 13)) * jnp.uint32(0x297A2D39)
        return (h >> 8).astype(jnp.float32) * (2.0 / (1 << 24)) - 1.0

    def ramp(x: Array) -> Array:
        return x * x * (3 - 2 * x)

    a, b = ramp(u - floor_u), ramp(v - floor_v)
    upper = corner(0, 0) * (1 - a) + corner(1, 0) * a
    lower = corner(0, 1) * (1 - a) + corner(1, 1) * a
    return upper * (1 - b) + lower * b


def _texture(u: Array, v: Array, pixel: Array, stretch_u: Array, stretch_v: Array, seed: Array) -> Array:
    """Three octaves of noise, the finest with cells of two to four pixels, blended so that no level pops in.

    Args:
        u: [...] first surface coordinate, metres.
        v: [...] second surface coordinate, metres.
        pixel: [...] metres across a pixel where the surface faces the camera.
        stretch_u: [...] where the surface slants away along u, metres of u that a pixel spans, over `pixel`²; else 0.
        stretch_v: [...] likewise for v.
        seed: [...] uint32 of the surface.

    Returns:
        [...] float32, mostly within [-1, 1].
    """
    level = jnp.log2(4.0 * pixel)
    base = jnp.floor(level)
    blend = level - base
    total = jnp.zeros_like(u)
    for octave, weight in enumerate((1.0 - blend, 1.0, blend)):
        cell = jnp.exp2(base + octave)
        slant = cell * cell / 3.0
        size_u = jnp.where(stretch_u > 0, stretch_u * slant, cell)
        size_v = jnp.where(stretch_v > 0, stretch_v * slant, cell)
        octave_seed = seed + (base + octave).astype(jnp.int32).astype(jnp.uint32) * jnp.uint32(131)
        total += weight * _noise(u / size_u, v / size_v, octave_seed)
    return total


def _stripe(position: Array, centre: float, half_width: float, pixel: Array) -> Array:
    """Share of a pixel, centred at position and `pixel` metres wide, that a stripe along the road covers."""
    low = jnp.maximum(position - pixel / 2, centre - half_width)
    high = jnp.minimum(position + pixel / 2, centre + half_width)
    return jnp.maximum(high - low, 0.0) / pixel


def _ground_albedo(hits: Hits, pixel: Array) -> Array:
    """Asphalt, grass, solid edge lines and dashed lane lines."""
    own = _stripe(hits.lateral, 0.5 * (MEDIAN + 1.2 + ROAD_EDGE), 0.5 * (ROAD_EDGE - MEDIAN - 1.2), pixel)
    oncoming = _stripe(hits.lateral, MEDIAN - 0.5 * (1.2 + ROAD_EDGE), 0.5 * (ROAD_EDGE - 1.2), pixel)
    albedo = 0.42 - 0.12 * (own + oncoming)
    dash = (jnp.mod(hits.along, 12.0) < 5.0).astype(jnp.float32)
    half = LANE_WIDTH / 2
    solid = (-half, 2 * LANE_WIDTH + half, MEDIAN - half, MEDIAN - 2 * LANE_WIDTH - half)
    dashed = (half, LANE_WIDTH + half, MEDIAN - LANE_WIDTH - half)
    paint = sum(_stripe(hits.lateral, line, 0.11, pixel) for line in solid)
    paint += dash * sum(_stripe(hits.lateral, line, 0.09, pixel) for line in dashed)
    return albedo + (0.95 - albedo) * paint


def _ground_shadow(scene: Scene, hits: Hits, time: Array) -> Array:
    """1 in the open, less under vehicles and bridges."""
    boxes = scene.boxes
    shadow = jnp.ones_like(hits.along)
    for k in SHADOW_CASTERS:
        along = boxes.along[k] + boxes.speed[k] * time
        under = (jnp.abs(hits.along - along) < boxes.half_length[k] + 0.2) & (
            jnp.abs(hits.lateral - boxes.lateral[k]) < boxes.half_width[k] + 0.1
        )
        shadow = jnp.where(under, 0.35, shadow)
    return shadow


def _sky(scene: Scene, rays: Rays, width: int) -> tuple[Array, Array, Array]:
    """Brightness of the sky, without clouds, and its texture coordinates in pixels."""
    x, y = rays.dx / rays.dz, rays.dy / rays.dz
    skyline = 0.05 * _noise(6.0 * x, jnp.zeros_like(x), scene.seed + 3) + 0.02 * _noise(
        25.0 * x, jnp.zeros_like(x), scene.seed + 4
    )
    glow = scene.sun[1] * jnp.exp(-8.0 * ((x - scene.sun[0]) ** 2 + (y + 0.3) ** 2))
    brightness = jnp.where(-y < 0.03 + skyline, 0.55 * scene.overcast, scene.overcast * (1.0 + 0.4 * y) + glow)
    return brightness, FOCAL * width * x, FOCAL * width * y


def shade(scene: Scene, rays: Rays, hits: Hits, width: int, time: Array) -> Array:
    """Brightness of what the rays met.

    Args:
        scene: the scene.
        rays: the rays, each field [...].
        hits: what they met.
        width: of the image in pixels, which sets the finest texture.
        time: seconds since the scene began.

    Returns:
        [...] float32 in [0, 1].
    """
    focal = FOCAL * width
    finite = jnp.isfinite(hits.depth)
    depth = jnp.where(finite, hits.depth, FAR)
    pixel = depth / focal
    is_ground, is_roof, is_box = (hits.surface == s for s in (GROUND, ROOF, BOX))
    is_side = (hits.surface == SIDE) | (hits.surface == RAIL_SURFACE)
    is_left = hits.lateral < scene.lateral

    box = jax.tree.map(lambda field: field[hits.box], scene.boxes)
    across = (hits.lateral - box.lateral) / box.half_width
    upward = (hits.height - box.base - box.half_height) / box.half_height
    lengthwise = (hits.along - box.along - box.speed * time) / box.half_length
    box_rear = jnp.abs(lengthwise) > jnp.maximum(jnp.abs(across), jnp.abs(upward))
    box_top = jnp.abs(upward) > jnp.maximum(jnp.abs(across), jnp.abs(lengthwise))
    lamp = box_rear & (jnp.abs(across) > 0.7) & (jnp.abs(upward) < 0.35) & (hits.box < VEHICLES)
    bumper = box_rear & (upward < -0.55) & (hits.box < VEHICLES)

    sunny = jnp.where(is_left == (scene.sun[0] < 0), 1 - 0.5 * scene.sun[1], 1 + 0.5 * scene.sun[1])
    box_light = jnp.where(box_top, 1.2, jnp.where(box_rear, 0.85, sunny))
    box_albedo = jnp.where(lamp, 0.9, jnp.where(bumper, 0.1, box.albedo)) * box_light
    trees = jnp.where(is_left, scene.side_ragged[0], scene.side_ragged[1])
    side_albedo = jnp.where(hits.surface == RAIL_SURFACE, 0.7, 0.55 - 0.25 * trees) * sunny
    sky, sky_u, sky_v = _sky(scene, rays, width)
    ground = _ground_albedo(hits, pixel) * _ground_shadow(scene, hits, time)
    albedo = jnp.where(is_ground, ground, jnp.where(is_roof, 0.4, jnp.where(is_box, box_albedo, side_albedo)))

    in_tunnel = (hits.along > scene.tunnel[0]) & (hits.along < scene.tunnel[1])
    lights = 0.4 + 0.5 * (jnp.abs(jnp.mod(hits.along, 10.0) - 5.0) < 0.8)
    light = jnp.where(in_tunnel & finite, lights, 1.0)

    flat = is_ground | is_roof
    slanted = is_side | (is_box & ~box_rear & ~box_top)
    offset_along = jnp.where(is_box, hits.along - box.along - box.speed * time, hits.along)
    u = jnp.where(slanted, offset_along, jnp.where(is_box, hits.lateral - box.lateral, hits.lateral))
    v = jnp.where(flat | (is_box & box_top), offset_along, hits.height)
    seed = scene.seed + jnp.where(
        is_box, hits.box + 16, jnp.where(is_side, hits.surface + 8 * is_left, hits.surface)
    ).astype(jnp.uint32) * jnp.uint32(7919)
    texture = _texture(
        jnp.where(finite, u, sky_u),
        jnp.where(finite, v, sky_v),
        jnp.where(finite, pixel, 1.0),
        jnp.where(is_side, focal / jnp.maximum(jnp.abs(hits.lateral - scene.lateral), 1.0), 0.0),
        jnp.where(flat, focal / jnp.where(is_roof, TUNNEL_HEIGHT - scene.height, scene.height), 0.0),
        seed,
    )
    amount = scene.contrast * jnp.where(finite, 0.8, 0.35)
    fog = jnp.exp(-scene.haze * depth)
    surface = light * albedo * fog + 0.8 * scene.overcast * (1 - fog)
    brightness = jnp.where(finite, surface, sky) * (1 + amount * texture)
    inside = (scene.tunnel[0] < scene.speed * time) & (scene.tunnel[1] > scene.speed * time)
    exposure = scene.exposure * jnp.where(inside, 1.6, 1.0)
    return jnp.clip(exposure * brightness, 0.0, 1.0)


def sample_grid(image_size: tuple[int, int], factor: int) -> tuple[Array, Array]:
    """Rows and columns, in pixels, of factor² samples in each pixel of an (H, W) image; [factor H, factor W] each."""
    rows, columns = ((jnp.arange(size * factor) + 0.5) / factor - 0.5 for size in image_size)
    return jnp.meshgrid(rows, columns, indexing="ij")
