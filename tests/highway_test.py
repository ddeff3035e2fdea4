import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfn_jax.data import highway, highway_geometry
from dfn_jax.data.highway_geometry import BASELINE, BOXES, FAR, FOCAL, HORIZON, RAIL, TREE_SPACING, TUNNEL_HEIGHT
from dfn_jax.data.highway_noise import cell_value
from dfn_jax.data.highway_scene import MEDIAN, ROAD_EDGE, VEHICLES

SIZE = (64, 64)
SCENES = 64
STEP = 0.1  # seconds between two frames


def frames(scenes, time):
    """Left and right views of all scenes at a time or at one time each, [N, H, W]."""
    times = jnp.broadcast_to(jnp.float32(time), (SCENES,))
    return [np.asarray(view, np.float64)[..., 0] for view in highway.render_views(scenes, image_size=SIZE, time=times)]


@pytest.fixture(scope="module")
def scenes():
    return highway.sample_scenes(jax.random.key(5), SCENES)


@pytest.fixture(scope="module")
def batch():
    """A stereo batch of the same scenes."""
    return jax.device_get(highway.stereo_batch(jax.random.key(5), batch_size=SCENES, image_size=SIZE, with_truth=True))


@pytest.fixture(scope="module")
def views(batch):
    return [batch[name][..., 0].astype(np.float64) for name in ("left", "right")]


@pytest.fixture(scope="module")
def truth(batch):
    return batch["disparity"].astype(np.float64), batch["visible"]


@pytest.fixture(scope="module")
def later_views(scenes):
    return frames(scenes, STEP)


@pytest.fixture(scope="module")
def flow(scenes):
    flow, visible = highway.optical_flow(scenes, image_size=SIZE, time=0.0, later=STEP)
    return np.asarray(flow, np.float64), np.asarray(visible)


@pytest.fixture(scope="module")
def surfaces():
    """What each pixel of 200 small left views shows."""
    size = (32, 32)
    rows, columns = jnp.meshgrid(jnp.arange(32.0), jnp.arange(32.0), indexing="ij")

    def one(scene):
        view = highway_geometry.view_at(scene, 0.0)
        return highway_geometry.trace(view, highway_geometry.camera_rays(view, rows, columns, 0.0, size)).surface

    return np.asarray(jax.jit(jax.vmap(one))(highway.sample_scenes(jax.random.key(8), 200)))


def fetch(images, rows, columns):
    """Bilinear look-up of [N, H, W] images at [N, H, W] positions, clamped at the border."""
    count, height, width = images.shape
    rows, columns = np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)
    top, left = np.minimum(rows.astype(int), height - 2), np.minimum(columns.astype(int), width - 2)
    down, right, n = rows - top, columns - left, np.arange(count)[:, None, None]
    upper = images[n, top, left] * (1 - right) + images[n, top, left + 1] * right
    lower = images[n, top + 1, left] * (1 - right) + images[n, top + 1, left + 1] * right
    return upper * (1 - down) + lower * down


def warp(images, x, y=0.0):
    """Fetches for each pixel what lies x to the right of it and y below it."""
    rows, columns = np.meshgrid(*(np.arange(size, dtype=float) for size in images.shape[1:]), indexing="ij")
    return fetch(images, rows + y + 0 * x, columns + x)


# Batches


def test_a_batch_has_its_shapes(batch):
    assert {name: (array.shape, array.dtype) for name, array in batch.items()} == {
        "left": ((SCENES, *SIZE, 1), np.float32),
        "right": ((SCENES, *SIZE, 1), np.float32),
        "disparity": ((SCENES, *SIZE), np.float32),
        "visible": ((SCENES, *SIZE), np.bool_),
        "valid": ((SCENES, *SIZE), np.bool_),
    }
    assert batch["valid"].all()
    without = jax.eval_shape(lambda key: highway.stereo_batch(key, batch_size=2, image_size=(8, 12)), jax.random.key(0))
    assert {name: array.shape for name, array in without.items()} == {"left": (2, 8, 12, 1), "right": (2, 8, 12, 1)}


def test_a_batch_is_a_function_of_its_key_and_need_not_be_square():
    options = {"batch_size": 3, "image_size": (24, 40), "with_truth": True}
    first, again, other = (jax.device_get(highway.stereo_batch(jax.random.key(s), **options)) for s in (0, 0, 1))
    for name in ("left", "right", "disparity"):
        assert first[name].shape[:3] == (3, 24, 40)
        np.testing.assert_array_equal(first[name], again[name])
        for different in (other[name][0], first[name][1]):
            assert np.abs(first[name][0] - different).mean() > 0.05
    warped = warp(first["left"][..., 0], first["disparity"])
    assert np.abs(warped - first["right"][..., 0])[first["visible"]].mean() < 0.02


def test_brightness_stays_in_range_and_seldom_clips(views):
    images = np.stack(views)
    assert images.min() >= 0
    assert images.max() <= 1
    assert (images >= 0.999).mean() < 0.02
    assert (images <= 0.001).mean() < 0.02
    assert images.std((2, 3)).min() > 0.03


# Disparity


def test_exact_disparity_explains_the_right_view_and_wrong_ones_do_not(views, truth):
    (left, right), (disparity, visible) = views, truth

    def error(disparity, where=visible):
        return np.abs(warp(left, disparity) - right)[where].mean()

    assert visible.mean() > 0.9
    assert error(disparity) < 0.01
    assert error(disparity, ~visible) > 5 * error(disparity)
    for wrong in (0 * disparity, disparity + 1, disparity - 1):
        assert error(wrong) > 4 * error(disparity)
    for scale in (0.94, 0.97, 1.03, 1.06):
        assert error(scale * disparity) > 1.05 * error(disparity)
    by_row = np.broadcast_to(disparity.mean(2, keepdims=True), disparity.shape)
    off = visible & (np.abs(by_row - disparity) > 0.5)
    assert off.mean() > 0.05
    assert error(by_row, off) > 3 * error(disparity, off)


def test_disparity_stays_in_range(truth):
    disparity, visible = truth
    assert disparity.min() == 0
    assert 5 < disparity.max() < 6.5
    assert not visible[:, :, -1][disparity[:, :, -1] > 0].any()


def test_a_fixed_disparity_for_each_row_is_no_answer(truth):
    disparity, _ = truth
    for axes, share in (((0, 2), 0.25), (2, 0.1)):
        fixed = np.median(disparity, axes, keepdims=True)
        assert np.abs(disparity - fixed).mean() > share * disparity.mean()


def test_disparity_scales_with_the_image(scenes, truth):
    few = jax.tree.map(lambda field: field[:6], scenes)
    large, _ = highway.right_disparity(few, image_size=(3 * SIZE[0], 3 * SIZE[1]))
    # The centre of a pixel is also that of the middle one of the nine small ones that cover it.
    same = np.isclose(np.asarray(large)[:, 1::3, 1::3], 3 * truth[0][:6], rtol=1e-4, atol=1e-4)
    assert same.mean() > 0.998


# An independent ray caster: float64, marching and bisection, from the scene's fields and the trees' random sizes


def nth(scenes, n):
    return jax.tree.map(lambda field: np.asarray(field[n]).astype(np.float64), scenes)._replace(seed=scenes.seed[n])


def turned(scene):
    """The cameras' axes as columns, in levelled axes: rolled about z, then pitched about x."""
    roll, pitch = scene.roll, scene.pitch
    z_turn = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    x_turn = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    return x_turn @ z_turn


def road(scene, z, time):
    x = scene.heading * z + scene.bend * z**2 - scene.lateral - scene.drift * time
    return x, scene.height + scene.grade * z + scene.crest * z**2


def box_middles(scene, time):
    """[3, BOXES]."""
    boxes = scene.boxes
    z = boxes.along + (boxes.speed - scene.speed) * time
    x, y = road(scene, z, time)
    return np.array([x + boxes.lateral, y - boxes.base - boxes.half_height, z])


def tree_top(scene, side, along):
    """A parabola for each tree's crown, as far as the side is ragged."""
    tree = int(along // TREE_SPACING)
    size = float(cell_value(np.uint32(tree % 2**32), np.uint32(0), scene.seed + np.uint32(7 + side)))
    from_trunk = along / TREE_SPACING - tree - 0.5
    crown = 0.35 * size - 3 * from_trunk**2
    return scene.side_height[side] * (1 + scene.side_ragged[side] * crown)


def pixel_ray(scene, row, column, eye):
    (height, width), focal = SIZE, FOCAL * SIZE[1]
    pixel = [(column + 0.5 - width / 2) / focal, (row + 0.5 - HORIZON * height) / focal, 1]
    return turned(scene) @ [BASELINE * eye, 0, 0], turned(scene) @ pixel


def bisect(function, low, high):
    """Depths at which a function of depth changes its sign, each between one of low and one of high."""
    sign = np.sign(function(low))
    for _ in range(40):
        middle = (low + high) / 2
        same = np.sign(function(middle)) == sign
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    return high


def crossings(function):
    """Depths at which a function changes its sign, found by marching."""
    depths = np.arange(0.0, FAR, 0.1)
    signs = np.sign(function(depths))
    before = np.nonzero(signs[:-1] != signs[1:])[0]
    return bisect(function, depths[before], depths[before + 1])


def entries(function, count):
    """Depths at which convex functions turn negative, else infinity; marching would step over corners."""
    low, high = np.zeros(count), np.full(count, FAR)
    for _ in range(60):
        one, other = (2 * low + high) / 3, (low + 2 * high) / 3
        left = function(one) < function(other)
        low, high = np.where(left, low, one), np.where(left, other, high)
    start = np.zeros(count)
    enters = (function(low) < 0) & (function(start) > 0)
    return np.where(enters, bisect(function, start, low), np.inf)


def cast(scene, row, column, eye, time):
    """Depth along the optical axis of the first thing on the ray through a pixel, and the box that it is of, or None.

    The sky is infinitely far.
    """
    origin, direction = pixel_ray(scene, row, column, eye)
    boxes = scene.boxes

    def point(depth):
        return [start + depth * rate for start, rate in zip(origin, direction, strict=True)]

    def on_road(depth):
        x, y, z = point(depth)
        centre, surface = road(scene, z, time)
        return x - centre, surface - y, z + scene.speed * time

    middles, halves = box_middles(scene, time), np.array([boxes.half_width, boxes.half_height, boxes.half_length])

    def outside_boxes(depths):
        return np.max(np.abs(np.array(point(depths)) - middles) - halves, axis=0)

    def in_tunnel(depth):
        return scene.tunnel[0] < on_road(depth)[2] < scene.tunnel[1]

    def below_top(side, depth):
        _, height, along = on_road(depth)
        return height < (TUNNEL_HEIGHT if in_tunnel(depth) else tree_top(scene, side, along))

    def on_rail(side, depth):
        _, height, along = on_road(depth)
        return scene.rail[side] and height < RAIL[1] and (height > RAIL[0] or along % 4 < 0.24)

    edges = MEDIAN - ROAD_EDGE - scene.side_offset[0], ROAD_EDGE + scene.side_offset[1]
    surfaces = [
        (lambda depth: on_road(depth)[1], lambda depth: True),
        (lambda depth: on_road(depth)[1] - TUNNEL_HEIGHT, in_tunnel),
        (lambda depth: on_road(depth)[0] - edges[0], lambda depth: below_top(0, depth)),
        (lambda depth: on_road(depth)[0] - edges[1], lambda depth: below_top(1, depth)),
        (lambda depth: on_road(depth)[0] - MEDIAN, lambda depth: on_rail(0, depth)),
        (lambda depth: on_road(depth)[0] - ROAD_EDGE, lambda depth: on_rail(1, depth)),
    ]
    found = [(depth, None) for surface, seen in surfaces for depth in crossings(surface) if seen(depth)]
    found += [(depth, k) for k, depth in enumerate(entries(outside_boxes, BOXES)) if depth < FAR]
    return min(found, key=lambda item: item[0], default=(np.inf, None))


def random_pixels(where):
    """150 pixels (scene, row, column) out of those where it holds."""
    return np.random.default_rng(0).permutation(np.argwhere(where))[:150]


def beside_edges(disparity):
    """The pixels within four columns of where the disparity jumps."""
    jumps = np.abs(np.diff(disparity, axis=2, append=disparity[:, :, -1:])) > 0.3
    return np.any([np.roll(jumps, shift, axis=2) for shift in range(-4, 5)], axis=0)


@pytest.mark.parametrize("edges", [False, True])
def test_disparity_agrees_with_a_marching_ray_caster(scenes, truth, edges):
    width, agree = SIZE[1], []
    for n, row, column in random_pixels(beside_edges(truth[0]) == edges):
        scene = nth(scenes, n)
        depth, _ = cast(scene, row, column, 1, 0.0)
        disparity = BASELINE * FOCAL * width / depth
        seen = np.isclose(cast(scene, row, column + disparity, 0, 0.0)[0], depth, rtol=0.01)
        seen &= column + disparity <= width - 1
        close = np.isclose(truth[0][n, row, column], disparity, rtol=1e-3, atol=1e-6)
        agree.append((close, seen == truth[1][n, row, column]))
    assert np.mean(agree, axis=0).min() > 0.99


# Optical flow


def test_optical_flow_agrees_with_a_marching_ray_caster(scenes, flow):
    (height, width), agree = SIZE, []
    for n, row, column in random_pixels(np.ones((SCENES, *SIZE), bool)):
        scene = nth(scenes, n)
        origin, direction = pixel_ray(scene, row, column, 0)
        depth, box = cast(scene, row, column, 0, STEP)
        if np.isinf(depth):
            expected, seen = np.zeros(2), np.isinf(cast(scene, row, column, 0, 0.0)[0])
        else:
            x, y, z = point = origin + depth * direction
            if box is None:
                earlier = z + scene.speed * STEP
                (x1, y1), (x0, y0) = road(scene, z, STEP), road(scene, earlier, 0.0)
                point = np.array([x - x1 + x0, y - y1 + y0, earlier])
            else:
                point = point + (box_middles(scene, 0.0) - box_middles(scene, STEP))[:, box]
            x, y, depth = turned(scene).T @ point
            x, y = FOCAL * width * np.array([x, y]) / depth + [width / 2 - 0.5, HORIZON * height - 0.5]
            expected = x - column, y - row
            seen = depth > 0 and 0 <= x <= width - 1 and 0 <= y <= height - 1
            seen = seen and np.isclose(cast(scene, y, x, 0, 0.0)[0], depth, rtol=0.01)
        close = np.allclose(flow[0][n, row, column], expected, rtol=2e-3, atol=2e-3)
        agree.append((close, seen == flow[1][n, row, column]))
    assert np.mean(agree, axis=0).min() > 0.99


def test_optical_flow_explains_the_later_frame(views, later_views, flow):
    (flow, visible), later = flow, later_views[0]

    def error(scale, where=visible):
        return np.abs(warp(views[0], scale * flow[..., 0], scale * flow[..., 1]) - later)[where].mean()

    assert visible.mean() > 0.85
    assert error(1) < 0.025
    assert error(1, ~visible) > 3 * error(1)
    assert error(0) > 1.6 * error(1)
    assert error(-1) > 2 * error(1)


def test_nothing_flows_while_no_time_passes(scenes):
    flow, visible = highway.optical_flow(scenes, image_size=SIZE, time=STEP, later=STEP)
    assert np.abs(flow).max() < 0.02
    assert np.mean(visible) > 0.995


def test_a_batch_of_video_is_the_scenes_at_their_times_with_the_flow_into_its_last_frames():
    key, size = jax.random.key(3), (16, 16)
    batch = highway.video_batch(key, batch_size=2, frames=4, interval=STEP, image_size=size, flows=2)
    assert {name: field.shape for name, field in batch.items()} == {
        "frames": (2, 4, *size, 1),
        "flow": (2, 2, *size, 2),
        "visible": (2, 2, *size),
    }
    scenes = highway.sample_scenes(key, 2)
    for index in range(4):
        (view,) = highway.render_views(scenes, image_size=size, time=index * STEP, eyes=(0,))
        np.testing.assert_allclose(batch["frames"][:, index], view, atol=1e-4)
    for index, frame in enumerate((2, 3)):
        flow, visible = highway.optical_flow(scenes, image_size=size, time=(frame - 1) * STEP, later=frame * STEP)
        close = np.abs(batch["flow"][:, index] - flow).max(-1) < 1e-3
        assert close.mean() > 0.99
        assert (batch["visible"][:, index] == visible).mean() > 0.99


# Scenes and time


def test_time_moves_the_scene_without_jumps(scenes, views, later_views):
    at_once = np.abs(frames(scenes, 1e-3)[0] - views[0]).mean((1, 2))
    in_a_while = np.abs(later_views[0] - views[0]).mean((1, 2))
    assert at_once.max() < 0.01
    assert in_a_while.min() > 0.005


def test_each_scene_may_have_its_own_time(scenes, views, later_views):
    odd = np.arange(SCENES) % 2 == 1
    left, right = frames(scenes, STEP * odd)
    for drawn, start, later in zip((left, right), views, later_views, strict=True):
        np.testing.assert_allclose(drawn, np.where(odd[:, None, None], later, start), atol=1e-4)


def test_every_kind_of_thing_occurs(surfaces):
    def share(low, high):
        """Of the scenes that show one of these surfaces in at least three pixels."""
        return (((surfaces >= low) & (surfaces < high)).sum((1, 2)) >= 3).mean()

    r = highway_geometry
    for kind, surfaces_of_kind, least in (
        ("bodies", (0, VEHICLES), 0.9),
        ("cabins", (VEHICLES, 2 * VEHICLES), 0.4),
        ("bridge", (2 * VEHICLES, BOXES), 0.15),
        ("ground", (r.GROUND, r.ROOF), 0.99),
        ("tunnel", (r.ROOF, r.LEFT_SIDE), 0.1),
        ("walls and trees", (r.LEFT_SIDE, r.LEFT_RAIL), 0.7),
        ("rails", (r.LEFT_RAIL, r.SKY), 0.4),
        ("sky", (r.SKY, r.SKY + 1), 0.7),
    ):
        assert share(*surfaces_of_kind) > least, kind


def test_scenes_at_once_as_off_cpus_are_those_one_by_one(monkeypatch):
    key, options = jax.random.key(11), {"batch_size": 4, "image_size": (8, 12), "with_truth": True}
    one_by_one = jax.device_get(highway.stereo_batch(key, **options))
    at_once = []

    def platform_dependent(items, cpu, default):
        at_once.append(default)
        return default(items)

    monkeypatch.setattr(highway.lax, "platform_dependent", platform_dependent)
    jitted = (highway.stereo_batch, highway.render_views, highway.right_disparity)
    for function in jitted:
        function.clear_cache()
    try:
        found = jax.device_get(highway.stereo_batch(key, **options))
    finally:
        for function in jitted:
            function.clear_cache()
    assert at_once
    for name, field in one_by_one.items():
        np.testing.assert_allclose(found[name], field, rtol=1e-5, atol=1e-5)
