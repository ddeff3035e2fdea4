"""The operations written as plain loops over NumPy arrays in float64, to be trusted at sight."""

import math

import jax
import numpy as np
from skimage.metrics import structural_similarity


def of_few_bits(function, *arguments):
    """The products in a program for TPUs that would not be of float32, one in a line; such a program must have some."""
    program = jax.jit(function).trace(*arguments).lower(lowering_platforms=("tpu",)).as_text()
    products = [line for line in program.splitlines() if "dot_general" in line or "stablehlo.convolution" in line]
    assert products
    return [line for line in products if "HIGHEST" not in line]


def pixel(image, y, x, padding):
    """Reads image[y, x], for positions outside the image by the rule of `padding`."""
    height, width = image.shape[:2]
    if padding == "zero" and not (0 <= y < height and 0 <= x < width):
        return np.zeros(image.shape[2])
    if padding == "edge":
        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    if padding == "reflect":
        y, x = reflect(y, height), reflect(x, width)
    return image[y, x]


def reflect(position, size):
    """Mirrors a position at the border pixels until it lies inside; with one pixel there is only that one."""
    if size == 1:
        return 0
    while not 0 <= position < size:
        position = -position if position < 0 else 2 * (size - 1) - position
    return position


def dynamic_local_filter(
    images, filters, *, kernel_size, strides=(1, 1), dilation=(1, 1), padding="zero", upsampling=(1, 1)
):
    images, filters = np.asarray(images, np.float64), np.asarray(filters, np.float64)
    channels = images.shape[3]
    kh, kw = kernel_size
    centre_y, centre_x = (0, 0) if padding == "valid" else (kh // 2, kw // 2)
    output = np.zeros((*filters.shape[:3], filters.shape[5] if filters.ndim == 6 else channels))
    for n, y, x in np.ndindex(filters.shape[:3]):
        for i in range(kh):
            for j in range(kw):
                source_y = y // upsampling[0] * strides[0] + (i - centre_y) * dilation[0]
                source_x = x // upsampling[1] * strides[1] + (j - centre_x) * dilation[1]
                value = pixel(images[n], source_y, source_x, padding)
                tap = i * kw + j
                for c in range(channels):
                    if filters.ndim == 4:
                        output[n, y, x, c] += filters[n, y, x, tap] * value[c]
                    elif filters.ndim == 5:
                        group = c // (channels // filters.shape[3])
                        output[n, y, x, c] += filters[n, y, x, group, tap] * value[c]
                    else:
                        for f in range(filters.shape[5]):
                            output[n, y, x, f] += filters[n, y, x, tap, c, f] * value[c]
    return output


def dynamic_conv(images, filters, *, strides=(1, 1), dilation=(1, 1), padding=((0, 0), (0, 0)), groups=1):
    """Takes explicit padding only."""
    images, filters = np.asarray(images, np.float64), np.asarray(filters, np.float64)
    batch, height, width, channels = images.shape
    kh, kw, features = filters.shape[1], filters.shape[2], filters.shape[4]
    (top, bottom), (left, right) = padding
    out_height = len(range(-top, height + bottom - (kh - 1) * dilation[0], strides[0]))
    out_width = len(range(-left, width + right - (kw - 1) * dilation[1], strides[1]))
    output = np.zeros((batch, out_height, out_width, features))
    for n, y, x, f in np.ndindex(output.shape):
        first_channel = f // (features // groups) * (channels // groups)
        for i in range(kh):
            for j in range(kw):
                value = pixel(
                    images[n], y * strides[0] + i * dilation[0] - top, x * strides[1] + j * dilation[1] - left, "zero"
                )
                for c in range(channels // groups):
                    output[n, y, x, f] += filters[n, i, j, c, f] * value[first_channel + c]
    return output


def dynamic_separable_conv(images, vertical, horizontal, *, padding):
    """Filters vertically, then horizontally; takes explicit padding only."""
    channels = np.shape(images)[3]
    vertical = np.stack([vertical] * channels, axis=-1)[:, :, None, None, :]
    horizontal = np.stack([horizontal] * channels, axis=-1)[:, None, :, None, :]
    between = dynamic_conv(images, vertical, padding=(padding[0], (0, 0)), groups=channels)
    return dynamic_conv(between, horizontal, padding=((0, 0), padding[1]), groups=channels)


def softmax_filters(logits):
    logits = np.asarray(logits, np.float64)
    filters = np.zeros(logits.shape)
    for position in np.ndindex(logits.shape[:-1]):
        largest = max(logits[position])
        exponentials = [math.exp(logit - largest) for logit in logits[position]]
        filters[position] = [e / sum(exponentials) for e in exponentials]
    return filters


def separable_filters(vertical, horizontal):
    vertical, horizontal = np.asarray(vertical, np.float64), np.asarray(horizontal, np.float64)
    kh, kw = vertical.shape[-1], horizontal.shape[-1]
    filters = np.zeros((*vertical.shape[:-1], kh * kw))
    for position in np.ndindex(vertical.shape[:-1]):
        for i in range(kh):
            for j in range(kw):
                filters[position][i * kw + j] = vertical[position][i] * horizontal[position][j]
    return filters


def add_dynamic_bias(images, bias):
    output = np.array(images, np.float64)
    for n, y, x, c in np.ndindex(output.shape):
        output[n, y, x, c] += bias[n, y, x, c if np.shape(bias)[3] > 1 else 0]
    return output


def smoothness_penalty(filters):
    filters = np.asarray(filters, np.float64)
    batch, height, width = filters.shape[:3]
    distances = []
    for n in range(batch):
        for y in range(height):
            for x in range(width):
                if y + 1 < height:
                    distances.append(((filters[n, y, x] - filters[n, y + 1, x]) ** 2).sum())
                if x + 1 < width:
                    distances.append(((filters[n, y, x] - filters[n, y, x + 1]) ** 2).sum())
    return sum(distances) / len(distances) if distances else 0.0


def expected_displacement(filters, kernel_size, *, dilation=(1, 1)):
    filters = np.asarray(filters, np.float64)
    kh, kw = kernel_size
    displacement = np.zeros((*filters.shape[:-1], 2))
    for position in np.ndindex(filters.shape[:-1]):
        for i in range(kh):
            for j in range(kw):
                weight = filters[position][i * kw + j]
                displacement[position][0] += weight * (j - kw // 2) * dilation[1]
                displacement[position][1] += weight * (i - kh // 2) * dilation[0]
    return displacement


def filter_entropy(filters):
    filters = np.asarray(filters, np.float64)
    entropy = np.zeros(filters.shape[:-1])
    for position in np.ndindex(filters.shape[:-1]):
        entropy[position] = -sum(p * math.log(p) for p in filters[position] if p > 0)
    return entropy


def filter_confidence(filters):
    taps = np.shape(filters)[-1]
    if taps == 1:
        return np.ones(np.shape(filters)[:-1])
    return 1 - filter_entropy(filters) / math.log(taps)


def bouncing_positions(start, velocity, frames):
    """Places of one coordinate inside [0, 1]: each frame moves, then stops at the edge and turns back.

    Computes in the type of `start` and `velocity`.
    """
    position, places = start, []
    for _ in range(frames):
        position = position + velocity
        if position <= 0:
            position, velocity = type(start)(0), -velocity
        elif position >= 1:
            position, velocity = type(start)(1), -velocity
        places.append(position)
    return places


def pasted_digits(digits, corners, image_size):
    """uint8 [D, h, w] at (row, column) [T, D, 2] on black [T, H, W], the brighter winning."""
    height, width = digits.shape[1:]
    frames = np.zeros((len(corners), *image_size), np.uint8)
    for frame, places in zip(frames, corners, strict=True):
        for digit, (top, left) in zip(digits, places, strict=True):
            for y in range(height):
                for x in range(width):
                    frame[top + y, left + x] = max(frame[top + y, left + x], digit[y, x])
    return frames


def moving_corners(rng, *, free, count, frames):
    """Rows and columns [T, D, 2] of digits that start anywhere and move a tenth of the free range a frame."""
    corners = np.zeros((frames, count, 2), int)
    for digit in range(count):
        direction = rng.uniform(0, 2 * math.pi)
        for axis, speed in enumerate((0.1 * math.sin(direction), 0.1 * math.cos(direction))):
            for t, position in enumerate(bouncing_positions(rng.uniform(), speed, frames)):
                corners[t, digit, axis] = math.floor(position * free[axis])
    return corners


def ssim(prediction, target):
    """Of one image [H, W, C], by scikit-image with the window of Wang et al. (2004)."""
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1}
    return structural_similarity(prediction.astype(np.float64), target.astype(np.float64), channel_axis=-1, **options)
