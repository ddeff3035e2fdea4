import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfn_jax.data import epochs, image_files
from dfn_jax.data.crops import crops
from dfn_jax.errors import InputError

DATA = Path(os.environ.get("DFN_DATA", "no such folder")).expanduser()
needs_train400 = pytest.mark.skipif(
    not (DATA / "train400_gray").is_dir(), reason="DFN_DATA names no folder with train400_gray"
)


def random_image(seed, size=(20, 24)):
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "images"
    for index, name in enumerate(["a.png", "b.bmp", "deep/down/c.png", "deep/d.tif"]):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random_image(index)).save(root / name)
    (root / "notes.txt").write_text("no image")
    return root


def test_crops_are_cut_from_the_images(folder):
    images = np.stack([random_image(index) for index in range(4)])
    found_crops = crops(folder, image_size=(7, 9), seed=0)
    corners = set()
    for step in range(8):
        batch = epochs.batch(found_crops, step, batch_size=4)["image"]
        assert batch.shape == (4, 7, 9, 1)
        assert batch.dtype == np.float32
        pixels = np.round(batch[..., 0] * 255).astype(np.uint8)
        np.testing.assert_allclose(batch[..., 0], pixels / 255, atol=1e-6)
        found = [_find(crop, images) for crop in pixels]
        assert sorted(image for image, *_ in found) == [0, 1, 2, 3]  # an epoch visits every image
        corners |= {(top, left) for _, top, left in found}
    assert len(corners) > 16


def _find(crop, images):
    windows = np.lib.stride_tricks.sliding_window_view(images, crop.shape, (1, 2))
    matches = np.argwhere((windows == crop).all((-2, -1)))
    assert len(matches) == 1
    return tuple(matches[0])


def test_crops_are_a_pure_function_of_seed_and_step(folder):
    def draw(found_crops, step, indices=None):
        return epochs.batch(found_crops, step, batch_size=6, indices=indices)["image"]

    one, again, other = (crops(folder, seed=seed, image_size=(7, 9)) for seed in (3, 3, 4))
    seventh, third = draw(one, 7), draw(one, 3)
    np.testing.assert_array_equal(draw(again, 3), third)
    np.testing.assert_array_equal(draw(again, 7), seventh)
    np.testing.assert_array_equal(draw(again, 7, range(2, 5)), seventh[2:5])
    assert not np.array_equal(seventh, third)
    assert not np.array_equal(draw(other, 3), third)


def test_crops_of_colour_images_are_grey(tmp_path):
    pixels = random_image(0, (8, 8, 3))
    Image.fromarray(pixels).save(tmp_path / "colour.png")
    grey = crops(tmp_path, image_size=(8, 8), seed=0)[0]["image"]
    np.testing.assert_allclose(grey[..., 0], pixels @ np.array([0.299, 0.587, 0.114]) / 255, atol=1.01 / 255)


def save_16_bit(folder):
    Image.fromarray(np.zeros((20, 20), np.uint16)).save(folder / "x.png")


BAD_FOLDERS = {
    "too small": (lambda folder: Image.new("L", (8, 30)).save(folder / "x.png"), ["x.png", "30 x 8", "10 x 12"]),
    "16-bit": (save_16_bit, ["x.png", "16-bit image", "8-bit"]),
    "palette": (lambda folder: Image.new("P", (20, 20)).save(folder / "x.png"), ["x.png", "P image"]),
    "unreadable": (lambda folder: (folder / "x.jpg").write_text("hello"), ["cannot read", "x.jpg"]),
    "no images": (lambda folder: [path.unlink() for path in folder.rglob("*.*")], ["no images", ".png"]),
}


@pytest.mark.parametrize(("spoil", "words"), BAD_FOLDERS.values(), ids=BAD_FOLDERS)
def test_bad_images_are_told_in_one_line(folder, spoil, words):
    spoil(folder)
    with pytest.raises(InputError) as caught:
        crops(folder, image_size=(10, 12), seed=0)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_truncated_image_is_told_when_it_is_decoded(tmp_path):
    path = tmp_path / "x.png"
    Image.fromarray(random_image(0)).save(path)
    os.truncate(path, path.stat().st_size // 2)
    found = crops(tmp_path, image_size=(10, 12), seed=0)
    with pytest.raises(InputError, match=r"cannot read .*x\.png") as caught:
        found[0]
    assert "\n" not in str(caught.value)


def test_an_image_that_vanishes_is_told_by_name(folder):
    found = crops(folder, image_size=(8, 8), seed=0)
    for path in folder.rglob("*.*"):
        path.unlink()
    with pytest.raises(InputError, match=f"cannot read .*{folder.name}"):
        epochs.batch(found, 0, batch_size=1)


def test_photographs_are_turned_as_their_camera_says(tmp_path):
    stored = np.zeros((16, 32, 1), np.uint8)
    stored[:, 16:] = 255  # the right half, which is below when the camera was held as 6 says
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored[..., 0]).save(tmp_path / "upright.jpg", exif=exif, quality=100)
    assert image_files.header_size(tmp_path / "upright.jpg") == (32, 16)
    shown = image_files.read_pixels(tmp_path / "upright.jpg", 1)
    assert shown.shape == (32, 16, 1)
    assert shown[:16].mean() < 5
    assert shown[16:].mean() > 250


def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        crops(tmp_path / "nowhere", image_size=(4, 4), seed=0)


@needs_train400
def test_crops_of_natural_images():
    found = crops(DATA / "train400_gray", image_size=(64, 64), seed=0)
    batch = epochs.batch(found, 0, batch_size=64)["image"]
    assert batch.shape == (64, 64, 64, 1)
    assert 0.2 < batch.mean() < 0.7
    assert batch.std() > 0.1
