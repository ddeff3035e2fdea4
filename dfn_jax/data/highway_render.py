"""From a highway scene to pixels: rays, what they hit, and how bright it is. Exact depth, by construction.

One ray through each sample is cut with every surface in closed form: the road and the tunnel's roof are parabolic
cylinders (hill, grade), walls and rails follow the same parabola sideways (bend), vehicles and bridges are boxes. The
nearest cut wins and alone is textured. The texture is lattice noise whose finest cells are two to four pixels wide at
whatever distance the surface lies, so that there is something to match everywhere and nothing to alias.

Everything here is elementwise over the rays and free of calls into the C library (no `mod`, no `log2`), so that XLA
makes one vectorised loop of it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dfn_jax.data.highway_scene import BOXES, LANE_WIDTH, MEDIAN, ROAD_EDGE, SHADOW_CASTERS, VEHICLES, Boxes, Scene

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


def project(
    view: View, point: tuple[Array, Array, Array], eye: Array | float, image_size: tuple[int, int]
) -> tuple[Array, Array, Array]:
    """Finds where a camera sees points: the inverse of `camera_rays`.

    Args:
        view: the view.
        point: x, y, z in levelled axes, each [...].
        eye: 0 for the left camera, 1 for the right.
        image_size: (H, W) in pixels.

    Returns:
        rows, columns: [...] in pixels; meaningless where the depth is not positive.
        depth: [...] metres along the optical axis.
    """
    height, width = image_size
    x, y, depth = (sum(p * r for p, r in zip(point, axis, strict=True)) for axis in view.turn.T)
    focal = FOCAL * width / depth
    return focal * y + HORIZON * height - 0.5, focal * (x - BASELINE * eye) + 0.5 * width - 0.5, depth


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
    moving = (p + _pick(step, surface) for p, step in zip(point, end.centre - start.centre, strict=True))
    moved = (jnp.where(surface < BOXES, m, s) for m, s in zip(moving, standing, strict=True))
    return tuple(jnp.where(surface == SKY, p, m) for p, m in zip(point, moved, strict=True))


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


def _in_tunnel(scene: Scene, along: Array) -> Array:
    return (along > scene.tunnel[0]) & (along < scene.tunnel[1])


def _repeat(position: Array, period: float) -> tuple[Array, Array]:
    """Which repetition a position is in, and how far into it: `mod` without its call into the C library."""
    index = jnp.floor(position / period)
    return index, position - period * index


def _tree_top(scene: Scene, side: int, along: Array) -> Array:
    """Height of a side's upper edge: level for a wall, a row of crowns for trees."""
    tree, offset = _repeat(along, TREE_SPACING)
    size = _hash(_lattice(tree), jnp.uint32(0), scene.seed + jnp.uint32(7 + side))
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
        return jnp.where(height < jnp.where(_in_tunnel(scene, along), TUNNEL_HEIGHT, top), depth, jnp.inf)

    def rail(index: int, lateral: float) -> Array:
        depth = sideways(lateral)
        _, height, along = road_coordinates(view, rays.at(depth))
        post = _repeat(along, 4.0)[1] < 0.24
        seen = (height < RAIL[1]) & ((height > RAIL[0]) | post) & (scene.rail[index] > 0)
        return jnp.where(seen, depth, jnp.inf)

    roof = vertical(TUNNEL_HEIGHT)
    roof = jnp.where(_in_tunnel(scene, road_coordinates(view, rays.at(roof))[2]), roof, jnp.inf)
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


def _lattice(x: Array) -> Array:
    return x.astype(jnp.int32).astype(jnp.uint32)


def _hash(column: Array, row: Array, seed: Array) -> Array:
    """A number in [-1, 1] for each cell of the lattice."""
    h = column * jnp.uint32(0x9E3779B1) ^ row * jnp.uint32(0x85EBCA77) ^ seed
    h = (h ^ (h >> 15)) * jnp.uint32(0x2C1B3C6D)
    h = (h ^ (h >> 13)) * jnp.uint32(0x297A2D39)
    return (h >> 8).astype(jnp.float32) * (2.0 / (1 << 24)) - 1.0


def _ramp(x: Array) -> Array:
    return x * x * (3 - 2 * x)


def _noise_line(u: Array, row: Array, seed: Array) -> Array:
    """Value noise in [-1, 1] along one row of the lattice: hashed corners, joined by cubic ramps."""
    floor = jnp.floor(u)
    column = _lattice(floor)
    left, right = _hash(column, row, seed), _hash(column + jnp.uint32(1), row, seed)
    return left + (right - left) * _ramp(u - floor)


def _noise(u: Array, v: Array, seed: Array) -> Array:
    """Value noise in [-1, 1] on the unit lattice."""
    floor = jnp.floor(v)
    row = _lattice(floor)
    upper, lower = _noise_line(u, row, seed), _noise_line(u, row + jnp.uint32(1), seed)
    return upper + (lower - upper) * _ramp(v - floor)


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
        total += weight * _noise(u * scale, v * scale * stretched, octave_seed)
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
    paint = jnp.where(_repeat(along, 12.0)[1] < 5.0, paint, 0.0)
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
    skyline = 0.05 * _noise_line(6.0 * x, row, scene.seed + 3) + 0.02 * _noise_line(25.0 * x, row, scene.seed + 4)
    glow = scene.sun[1] * jnp.exp(-8.0 * ((x - scene.sun[0]) ** 2 + (y + 0.3) ** 2))
    return jnp.where(-y < 0.03 + skyline, 0.55 * scene.overcast, scene.overcast * (1.0 + 0.4 * y) + glow)


def _pick(values: Array, index: Array) -> Array:
    """`values[index]`, 0 beyond the end, as selections: faster than a gather, and XLA fuses it."""
    result = jnp.zeros(index.shape)
    for k in range(len(values)):
        result = jnp.where(index == k, values[k], result)
    return result


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
        _pick(half, surface) for half in (boxes.half_width, boxes.half_height, boxes.half_length)
    )
    x, y, z = (p - _pick(middle, surface) for p, middle in zip(point, view.centre, strict=True))
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
    albedo = jnp.where(is_cabin & pane & ~spots.flat, 0.08, _pick(boxes.albedo, surface))
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
    lights = jnp.where(_repeat(along, 10.0)[1] < 1.6, 0.9, 0.4)
    light = jnp.where(_in_tunnel(scene, along), lights, 1.0)
    fog = jnp.exp(-scene.haze * hits.depth)
    lit = light * albedo * fog + 0.8 * scene.overcast * (1 - fog)
    brightness = jnp.where(is_sky, _sky(scene, rays), lit)

    edge = jnp.where(is_box, _pick(scene.boxes.lateral, surface), spots.lateral) - scene.lateral
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
    exposure = scene.exposure * jnp.where(_in_tunnel(scene, view.travelled), 1.6, 1.0)
    return _film(exposure * brightness * (1 + amount * texture))


def _film(light: Array) -> Array:
    """Brightness in [0, 1] that bends gently into white, as cameras' do, so that bright skies keep their clouds."""
    light = jnp.clip(light, 0.0, 1.5)
    return light - 4 / 27 * light**3
