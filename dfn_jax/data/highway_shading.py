"""How bright the things of a highway scene are: paint, texture, light and fog.

Only what a ray hits first is textured. The texture is lattice noise whose finest cells are two to four pixels wide at
whatever distance the surface lies, so that there is something to match everywhere and nothing to alias. As in
`highway_geometry.py`, all is elementwise and free of calls into the C library.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dfn_jax.data.highway_geometry import (
    FAR,
    FOCAL,
    GROUND,
    LEFT_RAIL,
    LEFT_SIDE,
    ROOF,
    SKY,
    TUNNEL_HEIGHT,
    Hits,
    Rays,
    View,
    in_tunnel,
    pick,
    repetition,
    road_coordinates,
)
from dfn_jax.data.highway_noise import noise, noise_line
from dfn_jax.data.highway_scene import BOXES, LANE_WIDTH, MEDIAN, ROAD_EDGE, SHADOW_CASTERS, VEHICLES, Boxes, Scene


def _texture(u: Array, v: Array, pixel: Array, steepness: Array, seed: Array) -> Array:
    """Three octaves of noise, the finest with cells of two to four pixels, blended so that no level pops in.

    Args:
        u: [...] first surface coordinate, metres.
        v: [...] second surface coordinate, metres.
        pixel: [...] metres across a pixel where the surface faces the camera.
        steepness: [...] where the surface slants away along v, metres of v that a pixel spans, over `pixel`²; else 0.
        seed: [...] uint32 of the surface.

    Returns:
        [...] float32, mostly within [-1, 1].
    """
    # The finest cell is the power of two below four pixels: the exponent without the mantissa.
    exponent = jax.lax.bitcast_convert_type(4.0 * pixel, jnp.int32) >> 23
    cell = jax.lax.bitcast_convert_type(exponent << 23, jnp.float32)
    blend = 4.0 * pixel / cell - 1.0
    inverse = 1.0 / cell
    flatten = 3.0 / steepness
    total = jnp.zeros_like(u)
    for octave, weight in enumerate((1.2 - 1.2 * blend, 1.0 + 0.2 * blend, blend)):
        scale = inverse * 0.5**octave
        stretched = jnp.where(steepness > 0, flatten * scale, 1.0)
        octave_seed = seed + (exponent + octave).astype(jnp.uint32) * jnp.uint32(131)
        total += weight * noise(u * scale, v * scale * stretched, octave_seed)
    return total


def _stripe(position: Array, centre: float, half_width: float, pixel: Array) -> Array:
    """Share of a pixel, centred at position and `pixel` metres wide, that a stripe along the road covers."""
    low = jnp.maximum(position - pixel / 2, centre - half_width)
    high = jnp.minimum(position + pixel / 2, centre + half_width)
    return jnp.maximum(high - low, 0.0) / pixel


def _ground_albedo(lateral: Array, along: Array, pixel: Array) -> Array:
    """Asphalt, grass, solid edge lines and dashed lane lines."""
    own = _stripe(lateral, 0.5 * (MEDIAN + 1.2 + ROAD_EDGE), 0.5 * (ROAD_EDGE - MEDIAN - 1.2), pixel)
    oncoming = _stripe(lateral, MEDIAN - 0.5 * (1.2 + ROAD_EDGE), 0.5 * (ROAD_EDGE - 1.2), pixel)
    albedo = 0.42 - 0.12 * (own + oncoming)
    half = LANE_WIDTH / 2
    solid = (-half, 2 * LANE_WIDTH + half, MEDIAN - half, MEDIAN - 2 * LANE_WIDTH - half)
    dashed = (half, LANE_WIDTH + half, MEDIAN - LANE_WIDTH - half)
    paint = sum(_stripe(lateral, line, 0.09, pixel) for line in dashed)
    paint = jnp.where(repetition(along, 12.0)[1] < 5.0, paint, 0.0)
    paint += sum(_stripe(lateral, line, 0.11, pixel) for line in solid)
    return albedo + (0.9 - albedo) * paint


def _ground_shadow(view: View, x: Array, z: Array) -> Array:
    """1 in the open, less under vehicles and bridges."""
    boxes, shaded = view.scene.boxes, False
    for k in SHADOW_CASTERS:
        shaded |= (jnp.abs(z - view.centre[2, k]) < boxes.half_length[k] + 0.2) & (
            jnp.abs(x - view.centre[0, k]) < boxes.half_width[k] + 0.1
        )
    return jnp.where(shaded, 0.35, 1.0)


def _sky(scene: Scene, rays: Rays) -> Array:
    """Brightness of the sky, without clouds, and of the hills before it."""
    x, y, _ = rays.direction
    row = jnp.uint32(0)
    skyline = 0.05 * noise_line(6.0 * x, row, scene.seed + 3) + 0.02 * noise_line(25.0 * x, row, scene.seed + 4)
    glow = scene.sun[1] * jnp.exp(-8.0 * ((x - scene.sun[0]) ** 2 + (y + 0.3) ** 2))
    return jnp.where(-y < 0.03 + skyline, 0.55 * scene.overcast, scene.overcast * (1.0 + 0.4 * y) + glow)


class _Spots(NamedTuple):
    """Where on its surface each hit lies; fields [...].

    Attributes:
        lateral: metres from the road's centre line, or from the middle of the box.
        height: metres above the road, or above the bottom of the box.
        along: metres along the road, or from the middle of the box.
        half_width: of the box.
        half_length: of the box.
        facing: bool, whether the surface faces the camera: rears of boxes, the sky.
        flat: bool, whether it lies flat: ground, roof, tops and bottoms of boxes.
    """

    lateral: Array
    height: Array
    along: Array
    half_width: Array
    half_length: Array
    facing: Array
    flat: Array


def _spots(view: View, rays: Rays, hits: Hits) -> _Spots:
    surface, boxes = hits.surface, view.scene.boxes
    is_box, is_sky = surface < BOXES, surface == SKY
    point = rays.at(hits.depth)
    half_width, half_height, half_length = (
        pick(half, surface) for half in (boxes.half_width, boxes.half_height, boxes.half_length)
    )
    x, y, z = (p - pick(middle, surface) for p, middle in zip(point, view.centre, strict=True))
    # A point of a box lies on the face that it is nearest to.
    from_side, from_top, from_rear = half_width - jnp.abs(x), half_height - jnp.abs(y), half_length - jnp.abs(z)
    lateral, height, along = road_coordinates(view, point)
    dx, dy, _ = rays.direction
    return _Spots(
        lateral=jnp.where(is_box, x, jnp.where(is_sky, FAR * dx, lateral)),
        height=jnp.where(is_box, half_height - y, jnp.where(is_sky, -FAR * dy, height)),
        along=jnp.where(is_box, z, along),
        half_width=half_width,
        half_length=half_length,
        facing=is_sky | (is_box & (from_rear < jnp.minimum(from_side, from_top))),
        flat=(surface == GROUND) | (surface == ROOF) | (is_box & (from_top < jnp.minimum(from_side, from_rear))),
    )


def _box_albedo(boxes: Boxes, surface: Array, spots: _Spots) -> Array:
    """Paint with windows, lamps, number plate, wheels and a dark underside; plain concrete for the bridge."""
    is_body, is_cabin = surface < VEHICLES, (surface >= VEHICLES) & (surface < 2 * VEHICLES)
    rear = spots.facing
    across, lengthwise, height = jnp.abs(spots.lateral), jnp.abs(spots.along), spots.height
    lamp = (jnp.abs(height - 0.75) < 0.1) & (across > 0.68 * spots.half_width)
    plate = (jnp.abs(height - 0.55) < 0.08) & (across < 0.3)
    wheel = jnp.where(rear, across > spots.half_width - 0.25, jnp.abs(lengthwise - spots.half_length + 0.9) < 0.34)
    underside = (height < 0.3) | (wheel & (height < 0.6))
    pane = jnp.where(rear, across < 0.85 * spots.half_width, jnp.abs(lengthwise / spots.half_length - 0.5) < 0.4)
    albedo = jnp.where(is_cabin & pane & ~spots.flat, 0.08, pick(boxes.albedo, surface))
    albedo = jnp.where(is_body & underside, 0.06, albedo)
    return jnp.where(is_body & rear & (lamp | plate), 0.9, albedo)


def _faces_right(surface: Array, spots: _Spots) -> Array:
    return jnp.where(surface < BOXES, spots.lateral > 0, (surface == LEFT_SIDE) | (surface == LEFT_RAIL))


def _side_albedo(scene: Scene, on_left: Array, height: Array) -> Array:
    """Concrete, or foliage that gets darker towards the ground."""
    trees = jnp.where(on_left, scene.side_ragged[0], scene.side_ragged[1])
    top = jnp.where(on_left, scene.side_height[0], scene.side_height[1])
    return 0.55 - trees * (0.4 - 0.22 * jnp.minimum(height / jnp.maximum(top, 1.0), 1.0))


def shade(view: View, rays: Rays, hits: Hits, width: int) -> Array:
    """Brightness of what the rays met.

    Args:
        view: the view.
        rays: the rays, each field [...].
        hits: what they met.
        width: of the image in pixels, which sets the finest texture.

    Returns:
        [...] float32 in [0, 1].
    """
    scene, focal, surface = view.scene, FOCAL * width, hits.surface
    is_ground, is_roof, is_box, is_sky = surface == GROUND, surface == ROOF, surface < BOXES, surface == SKY
    hits = hits._replace(depth=jnp.minimum(hits.depth, FAR))
    pixel = hits.depth / focal
    spots = _spots(view, rays, hits)
    on_left = _faces_right(surface, spots)

    sunny = 1 + jnp.where(on_left == (scene.sun[0] < 0), -0.5, 0.5) * scene.sun[1]
    sunny = jnp.where(spots.facing, 0.85, jnp.where(spots.flat, 1.0, sunny))
    x, _, z = rays.at(hits.depth)
    ground = _ground_albedo(spots.lateral, spots.along, pixel) * _ground_shadow(view, x, z)
    upright = jnp.where(surface >= LEFT_RAIL, 0.7, _side_albedo(scene, on_left, spots.height))
    upright = jnp.where(is_box, _box_albedo(scene.boxes, surface, spots), upright)
    albedo = sunny * jnp.where(is_ground, ground, jnp.where(is_roof, 0.4, upright))

    along = z + view.travelled
    lights = jnp.where(repetition(along, 10.0)[1] < 1.6, 0.9, 0.4)
    light = jnp.where(in_tunnel(scene, along), lights, 1.0)
    fog = jnp.exp(-scene.haze * hits.depth)
    lit = light * albedo * fog + 0.8 * scene.overcast * (1 - fog)
    brightness = jnp.where(is_sky, _sky(scene, rays), lit)

    edge = jnp.where(is_box, pick(scene.boxes.lateral, surface), spots.lateral) - scene.lateral
    level = jnp.where(is_roof, TUNNEL_HEIGHT, 0.0) - scene.height
    away = jnp.maximum(jnp.abs(jnp.where(spots.flat, level, edge)), 1.0)
    texture = _texture(
        jnp.where(spots.flat | spots.facing, spots.lateral, spots.height),
        jnp.where(spots.facing, spots.height, spots.along),
        pixel,
        jnp.where(spots.facing, 0.0, focal / away),
        scene.seed + surface.astype(jnp.uint32) * jnp.uint32(7919),
    )
    amount = scene.contrast * jnp.where(is_sky, 0.45, jnp.where(is_box, 0.65, 1.0))
    exposure = scene.exposure * jnp.where(in_tunnel(scene, view.travelled), 1.6, 1.0)
    return _film(exposure * brightness * (1 + amount * texture))


def _film(light: Array) -> Array:
    """Brightness in [0, 1] that bends gently into white, as cameras' do, so that bright skies keep their clouds."""
    light = jnp.clip(light, 0.0, 1.5)
    return light - 4 / 27 * light**3
