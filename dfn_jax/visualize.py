"""Pictures of arrays: floats in, uint8 RGB out. Needs NumPy; matplotlib and Pillow only once a function uses them."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INVALID_GREY = 128
INK = (30, 30, 30)
PAPER = 255
GAP = 8  # pixels
FONT_SIZE = 16  # height of letters, pixels
FULL_COLOUR_PERCENTILE = 85  # of the lengths of the flows in a picture


def images_to_rgb(images: np.ndarray) -> np.ndarray:
    """Grey or colour images as RGB.

    Args:
        images: [..., H, W, 1 or 3] in [0, 1]; what lies outside is clipped.

    Returns:
        [..., H, W, 3] uint8.

    Raises:
        ValueError: neither one nor three channels.
    """
    images = np.asarray(images, np.float32)
    if images.ndim < 3 or images.shape[-1] not in (1, 3):
        raise ValueError(f"images must have shape [..., H, W, 1 or 3], got {images.shape}")
    values = np.rint(255 * np.clip(images, 0, 1)).astype(np.uint8)
    return np.broadcast_to(values, (*values.shape[:-1], 3)).copy()


def disparity_to_rgb(disparity: np.ndarray, maximum: float, *, mask: np.ndarray | None = None) -> np.ndarray:
    """Disparities in the colours of magma: far is black, near is bright, unknown is grey.

    Args:
        disparity: [..., H, W], pixels.
        maximum: the disparity, in pixels, that is drawn brightest; give the same to all pictures to be compared.
        mask: [..., H, W], true (or non-zero) where the disparity is known; None if it is everywhere.

    Returns:
        [..., H, W, 3] uint8.

    Raises:
        ValueError: `maximum` is not positive, or the mask has another shape.
    """
    disparity = np.asarray(disparity, np.float32)
    return _grey_where_unknown(_colours("magma", disparity / _positive(maximum)), mask)


def flow_to_rgb(flow: np.ndarray, maximum: float) -> np.ndarray:
    """Optical flow in the usual colours: the hue is the direction, the saturation the length.

    Args:
        flow: [..., H, W, 2], pixels, x to the right then y down.
        maximum: the length, in pixels, that is fully saturated; longer flow is darkened.

    Returns:
        [..., H, W, 3] uint8; no flow is white, flow to the right red, down yellow, left cyan, up violet.

    Raises:
        ValueError: `flow` has not two channels, or `maximum` is not positive.

    Source:
        Baker et al., "A database and evaluation methodology for optical flow", 2007, and its colour wheel.
    """
    flow = np.asarray(flow, np.float32)
    if flow.ndim < 3 or flow.shape[-1] != 2:
        raise ValueError(f"flow must have shape [..., H, W, 2], got {flow.shape}")
    wheel = _colour_wheel()
    flow = flow / _positive(maximum)
    length = np.linalg.norm(flow, axis=-1)[..., None]
    angle = np.arctan2(-flow[..., 1], -flow[..., 0]) / np.pi
    position = (angle + 1) / 2 * (len(wheel) - 1)
    index = np.nan_to_num(position).astype(int)
    fraction = (position - index)[..., None]
    hue = (1 - fraction) * wheel[index] + fraction * wheel[(index + 1) % len(wheel)]
    colour = np.where(length <= 1, 1 - length * (1 - hue), 0.75 * hue)
    return (255 * np.nan_to_num(colour)).astype(np.uint8)


def full_colour(*flows: np.ndarray | None) -> float:
    """A length that most flows stay below, for `flow_to_rgb`: at the borders of small images many are long.

    Args:
        flows: [..., 2] in pixels; None is passed over.

    Returns:
        Pixels, rounded to one digit, at least 0.1.
    """
    lengths = [np.linalg.norm(flow, axis=-1).ravel() for flow in flows if flow is not None]
    longest = float(np.percentile(np.concatenate(lengths), FULL_COLOUR_PERCENTILE))
    return float(f"{max(0.1, longest):.0e}")  # in this order, 0.1 where a network's flow is not a number


def flow_wheel(size: int) -> np.ndarray:
    """The legend of `flow_to_rgb`: every direction from the centre out to the maximum at the rim.

    Args:
        size: height and width, pixels.

    Returns:
        [size, size, 3] uint8, white outside the disc.
    """
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    flow = np.stack(np.meshgrid(axis, axis), axis=-1)
    flow[np.linalg.norm(flow, axis=-1) > 1] = 0
    return flow_to_rgb(flow, 1.0)


def filters_to_rgb(filters: np.ndarray, kernel_size: tuple[int, int], *, maximum: float | None = None) -> np.ndarray:
    """Signed filters as pictures: positive weights red, negative blue, zero white.

    Args:
        filters: [..., K], taps in row-major order.
        kernel_size: (kh, kw) with kh * kw = K.
        maximum: the weight of full colour; the largest magnitude of all `filters` if None.

    Returns:
        [..., kh, kw, 3] uint8.

    Raises:
        ValueError: the kernel has not K taps, or `maximum` is not positive.
    """
    filters = np.asarray(filters, np.float32)
    kh, kw = kernel_size
    if filters.shape[-1] != kh * kw:
        raise ValueError(f"a {kh}x{kw} kernel has {kh * kw} taps, the filters have {filters.shape[-1]}")
    if maximum is None:
        maximum = float(np.abs(filters).max()) or 1.0
    weights = filters.reshape(*filters.shape[:-1], kh, kw)
    return _colours("RdBu_r", (weights / _positive(maximum) + 1) / 2)


def frame_titles(given: int, predicted: int) -> list[str]:
    """What the frames of a video are called: up to 0, the last that the network is given, then +1 and so on."""
    return [f"{time:+d}" if time else "0" for time in range(1 - given, predicted + 1)]


def panel(
    rows: Sequence[Sequence[np.ndarray | None]],
    *,
    column_titles: Sequence[str] = (),
    row_titles: Sequence[str] = (),
    scale: int = 3,
) -> np.ndarray:
    """A labelled grid of images.

    Args:
        rows: the images of each row, uint8 [H, W, 3] of any size; None leaves a cell empty.
        column_titles: one for each column, wrapped to the column's width; none if empty.
        row_titles: one for each row, a line break where one is wanted; none if empty.
        scale: whole factor by which every image is enlarged, each pixel to a square.

    Returns:
        uint8 [H', W', 3], dark letters on white.

    Raises:
        ValueError: no images, rows of different lengths, or titles that are not one for each column or row.
    """
    if len(rows) == 0 or len(rows[0]) == 0 or len({len(row) for row in rows}) != 1:
        raise ValueError(f"rows must be of one length, at least 1, got lengths {[len(row) for row in rows]}")
    for what, titles, count in (("column", column_titles, len(rows[0])), ("row", row_titles, len(rows))):
        if len(titles) not in (0, count):
            raise ValueError(f"{count} {what}s need {count} titles or none, got {len(titles)}")
    grid = [[None if image is None else _enlarge(image, scale) for image in row] for row in rows]
    if column_titles:
        widths = [max(0 if image is None else image.shape[1] for image in column) for column in zip(*grid, strict=True)]
        grid = [[_text(*pair) for pair in zip(column_titles, widths, strict=True)], *grid]
    if row_titles:
        labels = [_text(title, None) for title in row_titles]
        corner = [None] if column_titles else []
        grid = [[label, *row] for label, row in zip(corner + labels, grid, strict=True)]
    return _tile(grid)


def curve_png(
    records: Sequence[Mapping[str, float]],
    names: Sequence[str],
    *,
    label: str = "",
    horizontal: str = "step",
) -> bytes:
    """Curves over steps, with a logarithmic vertical axis; a noisy one (100 records or more) with its running mean.

    Args:
        records: what the run logged; each has `step` and any of the quantities.
        names: the quantities to draw, one line each.
        label: of the vertical axis, with its unit.
        horizontal: label of the horizontal axis.

    Returns:
        A PNG file.

    Raises:
        ValueError: no record holds one of the names.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter

    figure = Figure(figsize=(8, 3.6), dpi=120, layout="constrained")
    axes = figure.add_subplot(xlabel=horizontal, ylabel=label, yscale="log")
    for i, name in enumerate(names):
        points = np.array([(record["step"], record[name]) for record in records if name in record], float)
        if not len(points):
            known = sorted({key for record in records for key in record} - {"step"})
            raise ValueError(f"no record holds {name!r}; they hold {known}")
        _draw_curve(axes, points, name, colour=f"C{i}")
    axes.yaxis.set_major_formatter(LogFormatter())
    axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
    axes.margins(x=0.02)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.25, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    with io.BytesIO() as file:
        figure.savefig(file, format="png")
        return file.getvalue()


def to_png(rgb: np.ndarray) -> bytes:
    """An image as a PNG file.

    Args:
        rgb: [H, W, 3] uint8.

    Returns:
        The file's bytes.

    Raises:
        ValueError: `rgb` is not such an image.
    """
    from PIL import Image

    with io.BytesIO() as file:
        Image.fromarray(_checked_rgb(rgb)).save(file, format="PNG", optimize=True)
        return file.getvalue()


def to_gif(frames: np.ndarray) -> bytes:
    """Images as an animated GIF of five frames a second, that runs for ever and rests for a second at the end.

    Args:
        frames: [T, H, W, 3] uint8.

    Returns:
        The file's bytes.

    Raises:
        ValueError: `frames` are no such images.
    """
    from PIL import Image

    if np.ndim(frames) != 4 or not len(frames):
        raise ValueError(f"a GIF needs frames [T, H, W, 3], got {list(np.shape(frames))}")
    images = [Image.fromarray(_checked_rgb(frame)) for frame in frames]
    durations = [200] * (len(images) - 1) + [1200]  # milliseconds
    with io.BytesIO() as file:
        images[0].save(file, format="GIF", save_all=True, append_images=images[1:], duration=durations, loop=0)
        return file.getvalue()


def _colours(name: str, values: np.ndarray) -> np.ndarray:
    from matplotlib import colormaps

    return colormaps[name](np.clip(values, 0, 1), bytes=True)[..., :3]


def _grey_where_unknown(rgb: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    if mask is None:
        return rgb
    if np.shape(mask) != rgb.shape[:-1]:
        raise ValueError(f"the mask must have shape {rgb.shape[:-1]}, got {np.shape(mask)}")
    return np.where(np.asarray(mask, bool)[..., None], rgb, np.uint8(INVALID_GREY))


def _positive(maximum: float) -> float:
    if not maximum > 0:
        raise ValueError(f"maximum must be positive, got {maximum}")
    return maximum


def _colour_wheel() -> np.ndarray:
    red, yellow, green, cyan, blue, magenta = np.array(
        [[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1]], float
    )
    # Steps between neighbouring hues follow how well people tell them apart (Baker et al.).
    arcs = [
        (red, yellow, 15),
        (yellow, green, 6),
        (green, cyan, 4),
        (cyan, blue, 11),
        (blue, magenta, 13),
        (magenta, red, 6),
    ]
    return np.concatenate([start + np.arange(n)[:, None] / n * (end - start) for start, end, n in arcs])


def _enlarge(rgb: np.ndarray, scale: int) -> np.ndarray:
    return np.repeat(np.repeat(_checked_rgb(rgb), scale, axis=0), scale, axis=1)


def _checked_rgb(rgb: np.ndarray) -> np.ndarray:
    rgb = np.asarray(rgb)
    if rgb.ndim != 3 or rgb.shape[-1] != 3 or rgb.dtype != np.uint8:
        raise ValueError(f"an RGB image is uint8 [H, W, 3], got {rgb.dtype} {list(rgb.shape)}")
    return rgb


def _text(text: str, width: int | None) -> np.ndarray:
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), FONT_SIZE)
    lines = [text] if width is None else [""]
    for word in text.split() if width is not None else []:
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    text = "\n".join(filter(None, lines))
    _, _, right, bottom = ImageDraw.Draw(Image.new("RGB", (1, 1))).multiline_textbbox((0, 0), text, font)
    label = Image.new("RGB", (int(np.ceil(right)) + 1, int(np.ceil(bottom)) + 1), (PAPER,) * 3)
    ImageDraw.Draw(label).multiline_text((0, 0), text, INK, font, align="center")
    return np.asarray(label)


def _tile(grid: Sequence[Sequence[np.ndarray | None]]) -> np.ndarray:
    empty = np.zeros((0, 0, 3), np.uint8)
    grid = [[empty if cell is None else cell for cell in row] for row in grid]
    heights = [max(cell.shape[0] for cell in row) + GAP for row in grid]
    widths = [max(cell.shape[1] for cell in column) + GAP for column in zip(*grid, strict=True)]
    rows = [
        np.concatenate([_centred(cell, height, width) for cell, width in zip(row, widths, strict=True)], axis=1)
        for row, height in zip(grid, heights, strict=True)
    ]
    return np.pad(np.concatenate(rows), ((GAP, GAP), (GAP, GAP), (0, 0)), constant_values=PAPER)


def _centred(image: np.ndarray, height: int, width: int) -> np.ndarray:
    above, before = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
    below, after = height - image.shape[0] - above, width - image.shape[1] - before
    return np.pad(image, ((above, below), (before, after), (0, 0)), constant_values=PAPER)


def _draw_curve(axes: "Axes", points: np.ndarray, name: str, *, colour: str) -> None:
    steps, values = points.T
    if len(points) < 100:
        axes.plot(steps, values, label=name, color=colour, marker="o" if len(points) == 1 else None)
        return
    span = len(points) // 40
    running_mean = np.convolve(values, np.ones(span) / span, mode="valid")
    middle = steps[(span - 1) // 2 :][: len(running_mean)]
    axes.plot(steps, values, color=colour, alpha=0.3, linewidth=0.8)
    axes.plot(middle, running_mean, label=name, color=colour)
