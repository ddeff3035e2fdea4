"""Image files: reading 8-bit grey or RGB images and 16-bit disparity, with one-line errors."""

import contextlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dfn_jax.errors import InputError, in_one_line

if TYPE_CHECKING:
    from PIL import Image

_ORIENTATION = 0x0112  # of EXIF: 1 is as stored; from 5 on height and width change places
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error)  # what PIL raises on a broken file


def unit_range(pixels: np.ndarray) -> np.ndarray:
    """Maps uint8 pixels of any shape to float32 in [0, 1]."""
    return pixels.astype(np.float32) / np.float32(255)


def check_channels(channels: int) -> None:
    """Raises InputError unless `channels` is 1 (grey) or 3 (RGB)."""
    if channels not in (1, 3):
        raise InputError(f"images of {channels} channels were asked for; choose 1 (grey) or 3 (RGB)")


def header_size(path: Path) -> tuple[int, int]:
    """Reads (height, width), as it is shown, from the header of an 8-bit grey or RGB image.

    Raises:
        InputError: The file is unreadable or holds anything but 8-bit grey or RGB.
    """
    with _opened(path) as image:
        mode, (width, height), on_its_side = image.mode, image.size, _orientation(image) > 4
    _check_8_bit(path, mode)
    return (width, height) if on_its_side else (height, width)


def read_image(path: Path, channels: int) -> "Image.Image":
    """Reads an 8-bit grey or RGB image file as grey (Rec. 601 luma) or RGB, turned as its camera says.

    Args:
        path: The file.
        channels: 1 for grey, 3 for RGB.

    Returns:
        A PIL image in mode "L" or "RGB".

    Raises:
        InputError: The file is unreadable or holds anything but 8-bit grey or RGB.
    """
    from PIL import ImageOps

    header_size(path)
    with _opened(path) as image:
        turned = ImageOps.exif_transpose(image) if _orientation(image) > 1 else image
        return turned.convert("L" if channels == 1 else "RGB")


def _orientation(image: "Image.Image") -> int:
    """How a camera was held, in EXIF's numbers; of JPEG alone, as for that of a PNG all its pixels would be decoded."""
    return image.getexif().get(_ORIENTATION, 1) if image.format in ("JPEG", "MPO") else 1


def read_pixels(path: Path, channels: int) -> np.ndarray:
    """Reads an 8-bit image file as `read_image` does, to uint8 [H, W, C]."""
    pixels = np.asarray(read_image(path, channels))
    return pixels.reshape(*pixels.shape[:2], channels)


def shrunk(image: "Image.Image", image_size: tuple[int, int]) -> np.ndarray:
    """Resizes an image by Pillow's box filter, to the means of the pixels covered: what a coarser sensor would see.

    It is antialiased, and has no overshoot at edges, which filters of positive weights could not make of another image.

    Args:
        image: in mode "L" or "RGB".
        image_size: (H, W) in pixels, whatever the image's shape.

    Returns:
        uint8 [H, W, 1 or 3].
    """
    from PIL import Image

    height, width = image_size
    return np.asarray(image.resize((width, height), Image.Resampling.BOX)).reshape(height, width, -1)


def _check_8_bit(path: Path, mode: str) -> None:
    if _is_16_bit_png(path):
        mode = "16-bit"
    if mode not in ("L", "RGB"):
        raise InputError(f"{path} is a {mode} image; wanted 8-bit grey or RGB: convert it or remove it")


def _is_16_bit_png(path: Path) -> bool:
    """Tells a 16-bit PNG by its header, because PIL opens a 16-bit RGB file as mode RGB without a word."""
    with path.open("rb") as file:
        header = file.read(25)
    return header.startswith(b"\x89PNG") and header[24:] == b"\x10"


@contextlib.contextmanager
def _opened(path: Path) -> Iterator["Image.Image"]:
    """Opens an image file with PIL and turns whatever a broken file raises into one line."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            yield image
    except (*_UNREADABLE, Image.DecompressionBombError) as error:
        reason = in_one_line(error) or type(error).__name__
        raise InputError(f"cannot read {path} as an image ({reason}); replace it or remove it") from error


def read_disparity(path: Path) -> np.ndarray:
    """Reads a disparity map in KITTI's encoding: 16-bit grey PNG, disparity = value / 256, 0 where unknown.

    Args:
        path: The PNG file.

    Returns:
        Disparity in pixels, float32 [H, W], 0 where unknown.

    Raises:
        InputError: The file is unreadable or not a 16-bit grey PNG.

    Source: KITTI stereo 2012 and 2015 development kits.
    """
    with _opened(path) as image:
        mode = image.mode
        values = np.asarray(image)
    if values.ndim != 2 or not _is_16_bit_png(path):
        raise InputError(
            f"disparity {path} is no 16-bit grey PNG but of mode {mode}; wanted KITTI's encoding, 256 x disparity "
            "and 0 for none: convert it"
        )
    return values.astype(np.float32) / np.float32(256)
