"""What stands on the highway: a scene is a handful of random numbers, drawn from one key.

Coordinates are the camera's, levelled: x to the right, y down, z forward, in metres, from the left camera. *Road
coordinates* of a point are its lateral distance from the centre of the left own lane, its height above the road, and
its distance along the road from where the camera began. Time is in seconds.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

LANE_WIDTH = 3.6
VEHICLES = 6
BOXES = 2 * VEHICLES + 3
SHADOW_CASTERS = (*range(VEHICLES), *range(2 * VEHICLES, BOXES))
# Centre lines of the lanes, lateral; the two on the left carry oncoming traffic.
LANES = (-3.0 * LANE_WIDTH, -2.0 * LANE_WIDTH, 0.0, LANE_WIDTH, 2.0 * LANE_WIDTH)
MEDIAN = -LANE_WIDTH
ROAD_EDGE = 2.7 * LANE_WIDTH
NUMBERS = 96  # random numbers that a scene may take


class Boxes(NamedTuple):
    """Boxes that stand straight on the road, each field [BOXES] float32: bodies, cabins, then the bridge's three."""

    lateral: Array  # of the centre
    base: Array  # height of the lower face above the road
    along: Array  # of the centre
    half_width: Array
    half_height: Array  # 0 where there is no such box
    half_length: Array
    speed: Array  # along the road, m/s; 0 for the bridge
    albedo: Array


class Scene(NamedTuple):
    """One highway scene; scalars are float32 arrays of shape [] unless said otherwise."""

    seed: Array  # uint32, of the textures
    height: Array  # of the camera above the road
    pitch: Array  # radians, positive looks down
    roll: Array  # radians
    lateral: Array  # of the camera
    heading: Array  # slope of the centre line in the camera's frame
    bend: Array  # half the curvature of the centre line, 1/m
    grade: Array  # slope of the road in the camera's frame, positive down
    crest: Array  # half the vertical curvature, positive for a hill top, 1/m
    speed: Array  # of the camera, m/s
    drift: Array  # lateral speed of the camera, m/s
    side_offset: Array  # [2] distance of the wall, trees or bank beyond each road edge: left, right
    side_height: Array  # [2]
    side_ragged: Array  # [2] how much the height varies: 0 for a wall, about 1 for trees
    rail: Array  # [2] 1 where a guard rail stands at the median, at the right edge
    tunnel: Array  # [2] start and end along the road
    boxes: Boxes
    exposure: Array
    contrast: Array  # of the textures
    sun: Array  # [2] lateral position (image tangent) and strength
    haze: Array  # 1/m
    overcast: Array  # brightness of the sky


class _Dice:
    """Hands out the uniform random numbers of one scene, one after the other."""

    def __init__(self, numbers: Array):
        self._numbers, self._used = numbers, 0

    def uniform(self, low: float | Array, high: float | Array, shape: tuple[int, ...] = ()) -> Array:
        size = math.prod(shape)
        numbers = self._numbers[self._used : self._used + size].reshape(shape)
        if numbers.size != size:
            raise ValueError(f"a scene takes more than the {self._numbers.size} random numbers drawn for it")
        self._used += size
        return low + (high - low) * numbers

    def chance(self, probability: float, shape: tuple[int, ...] = ()) -> Array:
        return (self.uniform(0.0, 1.0, shape) < probability).astype(jnp.float32)


def _vehicles(dice: _Dice) -> Boxes:
    """Cars and trucks, each of two boxes (all bodies, then all cabins), further away from one to the next."""
    each = (VEHICLES,)
    truck = dice.chance(0.45, each)
    lateral = jnp.array(LANES)[dice.uniform(0.0, len(LANES), each).astype(jnp.int32)]
    half_length = jnp.where(truck > 0, dice.uniform(3.0, 5.0, each), 2.1)
    half_width = jnp.where(truck > 0, 1.25, 0.9)
    half_height = jnp.where(truck > 0, dice.uniform(1.4, 1.8, each), 0.38)
    along = 5.0 * 1.45 ** (jnp.arange(VEHICLES) + dice.uniform(0.0, 0.8, each)) + half_length
    speed = jnp.where(lateral < MEDIAN, -25.0, 25.0) + dice.uniform(-6.0, 6.0, each)
    albedo = dice.uniform(0.12, 0.95, each)
    body = Boxes(lateral, jnp.full(each, 0.25), along, half_width, half_height, half_length, speed, albedo)
    cabin = body._replace(
        base=0.25 + 2 * half_height,
        half_width=0.85 * half_width,
        half_height=jnp.where(truck > 0, 0.0, 0.27),
        half_length=0.55 * half_length,
        albedo=jnp.full(each, 0.08),
    )
    return jax.tree.map(lambda *fields: jnp.concatenate(fields), body, cabin)


def _bridge(dice: _Dice) -> Boxes:
    """A bridge across the road, a deck on two pillars; three scenes in ten have one in sight."""
    along = jnp.where(dice.chance(0.3) > 0, dice.uniform(14.0, 60.0), -1e4)
    clearance, half_length = dice.uniform(4.6, 6.0), dice.uniform(3.0, 6.0)
    pillar, zero = ROAD_EDGE + 1.0, jnp.zeros(())
    return Boxes(
        lateral=jnp.array([0.0, MEDIAN, pillar]),
        base=jnp.stack([clearance, zero, zero]),
        along=jnp.full(3, along),
        half_width=jnp.array([60.0, 0.6, 0.6]),
        half_height=jnp.stack([zero + 0.8, clearance / 2, clearance / 2]),
        half_length=half_length * jnp.array([1.0, 0.6, 0.6]),
        speed=jnp.zeros(3),
        albedo=jnp.full(3, dice.uniform(0.35, 0.7)),
    )


def sample_scenes(key: Array, count: int, indices: Array | None = None) -> Scene:
    """Draws scenes.

    Args:
        key: typed PRNG key.
        count: number of scenes.
        indices: [N] int, which of them to keep; None for all.

    Returns:
        The scenes, each field [N, ...].
    """
    # One draw for all: a generator for every field would cost more time, and far more to compile, than the rest here.
    bits = jax.random.bits(key, (count, 1 + NUMBERS))
    bits = bits if indices is None else bits[indices]
    return jax.vmap(_scene)(bits[:, 0], (bits[:, 1:] >> 8).astype(jnp.float32) * 2.0**-24)


def _scene(seed: Array, numbers: Array) -> Scene:
    dice = _Dice(numbers)
    tunnel = jnp.where(dice.chance(0.2) > 0, dice.uniform(-30.0, 25.0), 1e4)
    trees, present = dice.chance(0.5, (2,)), dice.chance(0.95, (2,))
    tall = jnp.where(trees > 0, dice.uniform(4.0, 12.0, (2,)), dice.uniform(2.0, 6.0, (2,)))
    boxes = jax.tree.map(lambda *fields: jnp.concatenate(fields), _vehicles(dice), _bridge(dice))
    return Scene(
        seed=seed,
        height=dice.uniform(1.9, 2.6),
        pitch=dice.uniform(-0.15, 0.15),
        roll=dice.uniform(-0.18, 0.18),
        lateral=dice.uniform(-0.6, 0.6) + LANE_WIDTH * jnp.floor(dice.uniform(0.0, 3.0)),
        heading=dice.uniform(-0.06, 0.06),
        bend=dice.uniform(-0.002, 0.002),
        grade=dice.uniform(-0.02, 0.02),
        crest=dice.uniform(-0.0006, 0.0006),
        speed=dice.uniform(18.0, 33.0),
        drift=dice.uniform(-0.5, 0.5),
        side_offset=dice.uniform(0.3, 2.5, (2,)),
        side_height=present * tall,
        side_ragged=trees * dice.uniform(0.5, 1.0, (2,)),
        rail=dice.chance(0.7, (2,)),
        tunnel=jnp.stack([tunnel, tunnel + dice.uniform(30.0, 90.0)]),
        boxes=boxes,
        exposure=dice.uniform(0.65, 1.15),
        contrast=dice.uniform(0.5, 0.8),
        sun=jnp.stack([dice.uniform(-1.0, 1.0), dice.uniform(0.0, 0.5)]),
        haze=dice.uniform(0.001, 0.006),
        overcast=dice.uniform(0.55, 0.9),
    )
