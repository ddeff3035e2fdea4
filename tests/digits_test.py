import functools
import gzip
import io
import os
import socket
import struct
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from dfn_jax.data import digits
from dfn_jax.data.digits import choose_source, load_digits, read_idx
from dfn_jax.data.drawn_digits import _draw_block, drawn_digits
from dfn_jax.errors import InputError
from tests.reference import of_few_bits

DATA = Path(os.environ.get("DFN_DATA", "no such folder")).expanduser()
needs_mnist = pytest.mark.skipif(not (DATA / "mnist").is_dir(), reason="DFN_DATA names no folder with mnist")


def random_digits(count=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28), dtype=np.uint8)


def idx(pixels, magic=0x803, shape=None):
    """An IDX file: magic number and sizes as big-endian 32-bit integers, then the bytes."""
    return struct.pack(">4I", magic, *(shape or pixels.shape)) + pixels.tobytes()


def message_of(function, *arguments):
    with pytest.raises(InputError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


WHOLE = idx(random_digits())


# IDX files


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("name", ["digits", "digits.gz", "digits.idx3-ubyte"])
def test_idx_files_are_read_whatever_their_name(tmp_path, name, pack):
    (tmp_path / name).write_bytes(pack(idx(random_digits())))
    found = read_idx(tmp_path / name)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, random_digits())


def damaged_gzip(place):
    content = bytearray(gzip.compress(WHOLE))
    content[place] ^= 255
    return bytes(content)


BAD_IDX = {
    "empty": (b"", ["0 bytes", "header of 16"]),
    "short header": (WHOLE[:15], ["15 bytes", "header of 16"]),
    "no pixels": (WHOLE[:16], ["0 bytes", "3 images need 2352"]),
    "truncated": (WHOLE[:-1], ["2351 bytes", "2352"]),
    "too long": (WHOLE + b"\0", ["2353 bytes", "2352"]),
    "labels": (struct.pack(">2I", 0x801, 100) + bytes(100), ["0x00000801", "0x00000803"]),
    "little-endian": (struct.pack("<4I", 0x803, 3, 28, 28) + WHOLE[16:], ["0x03080000", "0x00000803"]),
    "sizes": (idx(np.zeros((3, 28, 27), np.uint8)), ["3 images of 28x27", "28x28"]),
    "flat": (idx(random_digits(), shape=(3, 784, 1)), ["784x1", "28x28"]),
    "zero images": (idx(random_digits(0)), ["0 images", "one or more"]),
    "text": (b"<html>404 Not Found, and no digits</html>", ["0x3c68746d", "0x00000803"]),
    "damaged gzip header": (damaged_gzip(2), ["cannot read"]),
    "damaged gzip block": (damaged_gzip(10), ["cannot read"]),
    "damaged gzip sum": (damaged_gzip(-5), ["cannot read"]),
    "truncated gzip": (gzip.compress(WHOLE)[:-100], ["cannot read"]),
    "gzip without its end": (gzip.compress(WHOLE)[:-4], ["cannot read"]),
    "gzip header alone": (b"\x1f\x8b", ["cannot read"]),
    "gzip of a truncated file": (gzip.compress(WHOLE[:-1]), ["2351 bytes", "2352"]),
}


@pytest.mark.parametrize(("content", "words"), BAD_IDX.values(), ids=BAD_IDX)
def test_bad_idx_files_are_told_in_one_line(tmp_path, content, words):
    path = tmp_path / "digits-idx3"
    path.write_bytes(content)
    message = message_of(read_idx, path)
    for word in [str(path), *words]:
        assert word in message


def test_missing_files_and_folders_are_told_in_one_line(tmp_path):
    assert str(tmp_path / "digits") in message_of(read_idx, tmp_path / "digits")
    assert "cannot read" in message_of(read_idx, tmp_path)
    message = message_of(load_digits, "mnist", str(tmp_path), "test")
    for word in (str(tmp_path), "t10k-images-idx3-ubyte.gz"):
        assert word in message
    assert "does not exist" in message_of(load_digits, "mnist", str(tmp_path / "nowhere"), "train")


@pytest.mark.parametrize("suffix", ["-images-idx3-ubyte", "-images-idx3-ubyte.gz", "-images.idx3-ubyte"])
def test_mnist_is_found_in_its_folder(tmp_path, suffix):
    pack = gzip.compress if suffix.endswith("gz") else bytes
    (tmp_path / f"train{suffix}").write_bytes(pack(idx(random_digits(4, seed=1))))
    (tmp_path / f"t10k{suffix}").write_bytes(pack(idx(random_digits(2, seed=2))))
    np.testing.assert_array_equal(load_digits("mnist", str(tmp_path), "train"), random_digits(4, seed=1))
    np.testing.assert_array_equal(load_digits("mnist", str(tmp_path), "test"), random_digits(2, seed=2))


def test_a_folder_of_the_files_name_is_passed_over(tmp_path):
    # Kaggle's archive of MNIST has both `train-images.idx3-ubyte` and a folder `train-images-idx3-ubyte`.
    (tmp_path / "train-images-idx3-ubyte").mkdir()
    (tmp_path / "train-images.idx3-ubyte").write_bytes(WHOLE)
    np.testing.assert_array_equal(load_digits("mnist", str(tmp_path), "train"), random_digits())


@needs_mnist
@pytest.mark.parametrize(("split", "count", "mean"), [("train", 60_000, 0.1307), ("test", 10_000, 0.1325)])
def test_mnist_has_its_known_number_and_mean(split, count, mean):
    found = load_digits("mnist", str(DATA / "mnist"), split)
    assert found.shape == (count, 28, 28)
    assert found.dtype == np.uint8
    assert found.mean() / 255 == pytest.approx(mean, abs=5e-5)


# Where the digits come from


SOURCES = {
    # named, folder, what DFN_DATA is: source and folder
    "nothing": (("", "", None), ("drawn", "")),
    "no mnist in DFN_DATA": (("", "", "bare"), ("drawn", "")),
    "empty DFN_DATA": (("", "", ""), ("drawn", "")),
    "DFN_DATA": (("", "", "data"), ("mnist", "data/mnist")),
    "DFN_DATA at home": (("", "", "~/data"), ("mnist", "{home}/data/mnist")),
    "folder": (("", "mine", None), ("mnist", "mine")),
    "folder before DFN_DATA": (("", "mine", "data"), ("mnist", "mine")),
    "mnist in DFN_DATA": (("mnist", "", "data"), ("mnist", "data/mnist")),
    "mnist in folder": (("mnist", "mine", "data"), ("mnist", "mine")),
    "tfds": (("tfds", "", "data"), ("tfds", "")),
    "tfds in folder": (("tfds", "mine", "data"), ("tfds", "mine")),
    "drawn": (("drawn", "", "data"), ("drawn", "")),
}


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Works in a folder where `data` has MNIST, as the folder itself has, and `bare` has none."""
    for name in ("mnist", "data/mnist", "bare"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "bare" / "mnist").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))


def set_data(monkeypatch, data):
    if data is None:
        monkeypatch.delenv("DFN_DATA", raising=False)
    else:
        monkeypatch.setenv("DFN_DATA", data)


@pytest.mark.parametrize(("asked", "expected"), SOURCES.values(), ids=SOURCES)
def test_where_digits_come_from(places, monkeypatch, asked, expected):
    named, folder, data = asked
    set_data(monkeypatch, data)
    source, found = expected
    assert choose_source(named, folder) == (source, found.format(home=os.environ["HOME"]))


BAD_SOURCES = {
    "unknown": (("fashion", "", None), ["'fashion'", "mnist, tfds, drawn"]),
    "drawn from a folder": (("drawn", "mine", None), ["'mine'", "drawn"]),
    "mnist from nowhere": (("mnist", "", None), ["--config.data.dir=FOLDER", "DFN_DATA"]),
    "no mnist in DFN_DATA": (("mnist", "", "bare"), ["--config.data.dir=FOLDER", "DFN_DATA"]),
}


@pytest.mark.parametrize(("asked", "words"), BAD_SOURCES.values(), ids=BAD_SOURCES)
def test_contradictions_are_told_in_one_line(places, monkeypatch, asked, words):
    named, folder, data = asked
    set_data(monkeypatch, data)
    message = message_of(choose_source, named, folder)
    for word in words:
        assert word in message


# TFDS


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    for name in ("create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def prepared(tmp_path, monkeypatch, no_network):
    """A folder with TFDS's own mnist as array_record, of random digits, and those digits by split."""
    import tensorflow_datasets as tfds

    def png(pixels):  # of an array TFDS would make one with TensorFlow
        Image.fromarray(pixels).save(file := io.BytesIO(), "png")
        return file.getvalue()

    def examples(pixels):
        return ((index, {"image": png(digit), "label": 0}) for index, digit in enumerate(pixels))

    written = {"train": random_digits(5, seed=1), "test": random_digits(2, seed=2)}
    builder = tfds.builder("mnist", data_dir=tmp_path / "tfds", file_format="array_record")
    splits = {split: examples(pixels) for split, pixels in written.items()}
    monkeypatch.setattr(type(builder), "_split_generators", lambda *_: splits)
    builder.download_and_prepare()
    return tmp_path / "tfds", written


def test_tfds_gives_the_digits_that_were_prepared(prepared):
    folder, written = prepared
    for split, pixels in written.items():
        found = load_digits("tfds", str(folder), split)
        assert found.dtype == np.uint8
        assert found.shape == pixels.shape
        # TFDS shuffles what it writes.
        assert {digit.tobytes() for digit in found} == {digit.tobytes() for digit in pixels}


def test_unprepared_tfds_is_told_in_one_line_without_the_network(tmp_path, no_network):
    message = message_of(load_digits, "tfds", str(tmp_path), "train")
    for word in (str(tmp_path), "array_record", "download_and_prepare", "IDX"):
        assert word in message


def test_tfds_prepared_in_its_default_format_is_told_in_one_line(prepared):
    folder, _ = prepared
    (info,) = folder.rglob("dataset_info.json")
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    message = message_of(load_digits, "tfds", str(folder), "train")
    for word in (str(folder), "array_record"):
        assert word in message


# Drawn digits

COUNT = 320  # 32 of each kind; one number, so that it compiles once


@functools.cache
def drawn(split):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "DRAWN", {name: (seed, COUNT) for name, (seed, _) in digits.DRAWN.items()})
        return load_digits("drawn", "", split)


@pytest.mark.parametrize("split", ["train", "test"])
def test_drawn_digits_are_white_on_black_and_no_two_alike(split):
    found = drawn(split)
    assert isinstance(found, np.ndarray)
    assert found.shape == (COUNT, 28, 28)
    assert found.dtype == np.uint8
    assert found[:, [0, 0, -1, -1], [0, -1, 0, -1]].max() == 0
    assert found.max((1, 2)).min() > 200
    assert (found > 127).mean((1, 2)).min() > 0.05
    assert (found > 127).mean((1, 2)).max() < 0.4
    assert len(np.unique(found.reshape(COUNT, -1), axis=0)) == COUNT


@pytest.mark.parametrize("split", ["train", "test"])
def test_ink_fills_a_box_of_20_pixels_in_the_middle(split):
    ink = drawn(split) > 127
    outside = np.pad(np.zeros((20, 20), bool), 4, constant_values=True)
    spilt = (ink & outside).any((1, 2)).reshape(-1, 10).mean(0)
    np.testing.assert_array_equal(spilt, 0, err_msg="share of drawings that leave the box, by digit")
    longer = np.maximum(ink.any(2).sum(1), ink.any(1).sum(1))
    assert longer.min() >= 19


def test_train_and_test_share_no_digit():
    seen = {digit.tobytes() for digit in drawn("train")}
    assert not any(digit.tobytes() in seen for digit in drawn("test"))


def test_ten_kinds_can_be_told_apart():
    kinds = np.arange(COUNT) % 10
    means = np.stack([drawn("train")[kinds == kind].mean(0) for kind in range(10)])
    distance = ((drawn("test")[:, None] - means) ** 2).sum((2, 3))
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (kinds, distance.argmin(1)), 1)
    assert np.diag(confusion).sum() > 0.9 * COUNT
    assert np.diag(confusion).min() > 0.7 * COUNT / 10


def test_drawn_digits_are_a_pure_function_of_the_seed():
    first = np.asarray(drawn_digits(7, COUNT))
    assert np.mean((first != drawn_digits(8, COUNT)).any((1, 2))) == 1
    np.testing.assert_array_equal(drawn_digits(7, COUNT), first)


def test_drawn_digits_are_the_same_on_every_device():
    assert of_few_bits(_draw_block, jax.random.key(0)) == []
