import io
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure
from PIL import Image

from dfn_jax import visualize


def decode(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def count_of(colour, rgb, tolerance=0):
    return int((np.abs(rgb.astype(int) - colour).max(axis=-1) <= tolerance).sum())


def block(colour, height=4, width=6):
    return np.broadcast_to(np.uint8(colour), (height, width, 3))


def test_images():
    grey = np.float32([[-0.5, 0, 0.5, 0.2509804, 1, 1.5]])[..., None]
    rgb = visualize.images_to_rgb(grey)
    assert rgb.dtype == np.uint8
    assert rgb.tolist() == [[[v, v, v] for v in (0, 0, 128, 64, 255, 255)]]
    assert visualize.images_to_rgb(np.float32([[[[1, 0.2, 0]]]])).tolist() == [[[[255, 51, 0]]]]
    with pytest.raises(ValueError, match="1 or 3"):
        visualize.images_to_rgb(np.zeros((4, 4, 2)))


def test_near_is_bright():
    rgb = visualize.disparity_to_rgb(np.linspace(0, 8, 20)[None], 8)
    brightness = rgb[0] @ [0.299, 0.587, 0.114]
    assert (np.diff(brightness) > 0).all()
    np.testing.assert_allclose(rgb[0, [0, -1]], [(0, 0, 4), (252, 253, 191)], atol=1)
    assert visualize.disparity_to_rgb(np.float32([[16]]), 8).tolist() == rgb[:, -1:].tolist()


def test_unknown_disparity_is_grey():
    mask = np.array([[[1, 0]], [[0, 1]]])
    rgb = visualize.disparity_to_rgb(np.where(mask, 0, np.nan), 8, mask=mask)
    assert rgb.shape == (2, 1, 2, 3)
    assert (rgb[mask == 0] == 128).all()
    assert (rgb[mask == 1] < 5).all()
    with pytest.raises(ValueError, match="mask"):
        visualize.disparity_to_rgb(np.zeros((2, 2)), 8, mask=np.ones((2, 3)))
    with pytest.raises(ValueError, match="positive"):
        visualize.disparity_to_rgb(np.zeros((2, 2)), 0)


@pytest.mark.parametrize(
    ("flow", "colour"),
    [
        ((0, 0), (255, 255, 255)),
        ((2, 0), (255, 0, 0)),
        ((1, 0), (255, 127.5, 127.5)),
        ((0, 2), (255, 229.5, 0)),  # entry 13.5 of the wheel's 55: 13.5 / 15 from red to yellow
        ((-2, 0), (0, 208.6, 255)),  # entry 27: 2 / 11 from cyan to blue
        ((0, -2), (88.3, 0, 255)),  # entry 40.5: 4.5 / 13 from blue to magenta
        ((4, 0), (191.25, 0, 0)),  # beyond the maximum: three quarters as bright
    ],
)
def test_flow_colours(flow, colour):
    rgb = visualize.flow_to_rgb(np.float32(flow).reshape(1, 1, 2), 2)
    assert rgb.dtype == np.uint8
    np.testing.assert_allclose(rgb[0, 0], colour, atol=1)


def test_what_is_no_flow_is_refused():
    with pytest.raises(ValueError, match=r"H, W, 2"):
        visualize.flow_to_rgb(np.zeros((4, 4, 3)), 1)


def test_flow_wheel():
    wheel = visualize.flow_wheel(41)
    assert wheel.shape == (41, 41, 3)
    assert (wheel[20, 20] == 255).all()
    assert (wheel[[0, 0, -1, -1], [0, -1, 0, -1]] == 255).all()
    np.testing.assert_allclose(wheel[20, 40], (255, 6, 6), atol=2)
    np.testing.assert_allclose(wheel[40, 20], (255, 229, 6), atol=3)


def test_filters():
    filters = np.float32([[-2, 0, 0, 0, 0, 2], [0, 0, 1, 0, 0, 0]])
    rgb = visualize.filters_to_rgb(filters, (2, 3))
    assert rgb.shape == (2, 2, 3, 3)
    np.testing.assert_allclose(rgb[0, 0, 0], (5, 48, 97), atol=1)
    np.testing.assert_allclose(rgb[0, 1, 2], (103, 0, 31), atol=1)
    assert (rgb[0, 0, 1] > 240).all()
    red, _, blue = rgb[1, 0, 2].astype(int)
    assert red > blue + 80
    assert visualize.filters_to_rgb(filters, (2, 3), maximum=1)[1, 0, 2].tolist() == rgb[0, 1, 2].tolist()
    assert (visualize.filters_to_rgb(np.zeros(4), (2, 2)) > 240).all()
    with pytest.raises(ValueError, match="9 taps"):
        visualize.filters_to_rgb(filters, (3, 3))


def test_panel_enlarges_and_places_images():
    red, green, blue = block((200, 0, 0)), block((0, 200, 0)), block((0, 0, 200), 2, 3)
    rgb = visualize.panel([[red, green], [None, blue]], scale=3)
    assert rgb.dtype == np.uint8
    assert [count_of(colour, rgb) for colour in ((200, 0, 0), (0, 200, 0), (0, 0, 200))] == [216, 216, 54]
    where = {i: np.argwhere(rgb[..., i] * (rgb.sum(-1) == 200)).mean(0) for i in range(3)}
    assert where[0][0] == where[1][0] < where[2][0]
    assert where[0][1] < where[1][1] == pytest.approx(where[2][1], abs=1)


def test_panel_labels():
    images = [[block((200, 0, 0), 20, 40)] * 2] * 2
    plain = visualize.panel(images)
    labelled = visualize.panel(images, column_titles=["left view", "right view"], row_titles=["scene 1", "scene\n2"])
    assert labelled.shape[0] > plain.shape[0]
    assert labelled.shape[1] > plain.shape[1]
    assert count_of((200, 0, 0), labelled) == 4 * 20 * 40 * 9
    ink = np.argwhere(labelled.max(-1) < 60)
    first_image_pixel = np.argwhere((labelled == (200, 0, 0)).all(-1))[0]
    assert (ink < first_image_pixel).any(axis=1).all()
    assert (ink < first_image_pixel).any(axis=0).all()
    other = visualize.panel(images, column_titles=["left view", "right vieu"], row_titles=["scene 1", "scene\n2"])
    assert (other != labelled).any()


def test_a_long_column_title_is_wrapped():
    images = [[block((200, 0, 0), 20, 40)]]
    short = visualize.panel(images, column_titles=["true"])
    long = visualize.panel(images, column_titles=["disparity from the filters"])
    assert long.shape[1] == short.shape[1]
    assert long.shape[0] > short.shape[0] + 10


def test_panel_refuses_what_does_not_fit():
    image = block((0, 0, 0))
    with pytest.raises(ValueError, match="one length"):
        visualize.panel([[image], [image, image]])
    with pytest.raises(ValueError, match="one length"):
        visualize.panel([])
    with pytest.raises(ValueError, match="2 columns need 2 titles"):
        visualize.panel([[image, image]], column_titles=["one"])
    with pytest.raises(ValueError, match="uint8"):
        visualize.panel([[np.zeros((4, 4, 3))]])


def test_curve_draws_lines_and_leaves_pyplot_alone():
    before = pyplot.get_fignums(), dict(matplotlib.rcParams)
    records = [{"step": i, "loss": 10 / (i + 1)} for i in range(50)] + [
        {"step": 20, "test": 3},
        {"step": 40, "test": 1},
    ]
    rgb = decode(visualize.curve_png(records, ["loss", "test"], label="error"))
    plain = decode(visualize.curve_png(records, ["loss"], label="error"))
    assert (pyplot.get_fignums(), dict(matplotlib.rcParams)) == before
    blue, orange = (31, 119, 180), (255, 127, 14)
    assert min(count_of(blue, rgb, 8), count_of(orange, rgb, 8)) > 300
    assert count_of(blue, plain, 8) > 300
    assert count_of(orange, plain, 8) == 0


def test_noisy_curve_is_averaged():
    axes = Figure().add_subplot()
    steps = np.arange(400)
    visualize._draw_curve(axes, np.stack([steps, 5 + (-1.0) ** steps], axis=1), "loss", colour="C0")
    raw, mean = axes.lines
    assert len(raw.get_xdata()) == 400
    np.testing.assert_allclose(mean.get_ydata(), 5, atol=1e-12)
    assert abs(np.mean(mean.get_xdata()) - np.mean(steps)) <= 1


def test_curve_without_records_says_what_there_is():
    with pytest.raises(ValueError, match=r"'psnr'.*\['loss'\]"):
        visualize.curve_png([{"step": 1, "loss": 2.0}], ["psnr"])


def test_png_round_trip():
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    assert (decode(visualize.to_png(rgb)) == rgb).all()
    with pytest.raises(ValueError, match="uint8"):
        visualize.to_png(rgb[..., 0])


def test_gif_moves_at_its_pace_and_for_ever():
    frames = np.zeros((3, 4, 6, 3), np.uint8)
    frames[0, :, :2], frames[1, :, 2:4], frames[2, :, 4:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    with Image.open(io.BytesIO(visualize.to_gif(frames))) as movie:
        assert movie.n_frames == 3
        assert movie.info["loop"] == 0
        for index, duration in enumerate((200, 200, 1200)):
            movie.seek(index)
            assert movie.info["duration"] == duration
            assert (np.asarray(movie.convert("RGB")) == frames[index]).all()
    with pytest.raises(ValueError, match=r"\[T, H, W, 3\], got \[4, 6, 3\]"):
        visualize.to_gif(frames[0])


def test_heavy_imports_wait():
    code = (
        "import sys, dfn_jax.visualize as v, dfn_jax.report\n"
        "assert not {'matplotlib', 'PIL', 'jax'} & set(sys.modules), sys.modules.keys()\n"
        "v.curve_png([{'step': 1, 'loss': 1.0}], ['loss'])\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_frames_are_named_from_the_last_that_is_given():
    assert visualize.frame_titles(3, 2) == ["-2", "-1", "0", "+1", "+2"]
