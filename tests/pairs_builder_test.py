import os
import re
import signal
import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfn_jax.data import pairs, pairs_builder
from dfn_jax.errors import InputError
from dfn_jax.preemption import PreemptedError
from tests.stereo_folders import (
    GREY,
    SIZE,
    TOLERANCE,
    assert_batches_equal,
    halved,
    random_pixels,
    save,
    values,
    write_disparity,
    write_pairs,
    write_sequence,
)

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("cache")


def prepared(cache):
    return sorted(path.name for path in (cache / "stereo_pairs").glob("*"))


def test_prepares_once_quietly_and_leaves_the_source_alone(folder, cache, capfd):
    write_pairs(folder)
    before = sorted(folder.rglob("*"))
    first = list(pairs.examples(folder, **GREY))
    out, err = capfd.readouterr()
    assert out.startswith("preparing 3 pairs")
    assert out.count("\n") == 1
    assert not err
    second = list(pairs.examples(folder, **GREY))
    assert capfd.readouterr() == ("", "")
    for one, other in zip(first, second, strict=True):
        assert_batches_equal(one, other)
    assert sorted(folder.rglob("*")) == before
    assert len(prepared(cache)) == 1
    assert [path.name for path in cache.iterdir()] == ["stereo_pairs"]


def test_a_changed_folder_size_or_channels_is_prepared_anew(folder, cache):
    write_pairs(folder)
    old = pairs.examples(folder, **GREY)[0]["left"]
    pixels = random_pixels(np.random.default_rng(9))
    save(folder / "left" / "000000_10.png", pixels)
    os.utime(folder / "left" / "000000_10.png", ns=(1, 1))
    new = pairs.examples(folder, **GREY)[0]["left"]
    assert not np.array_equal(old, new)
    np.testing.assert_allclose(new, halved(pixels), atol=TOLERANCE)
    pairs.examples(folder, image_size=SIZE, channels=3)
    pairs.examples(folder, image_size=(3, 5), channels=1)
    assert len(prepared(cache)) == 4


def test_many_parts_keep_the_order(folder, monkeypatch):
    write_sequence(folder / "b", 15, 100)
    write_sequence(folder / "a", 6, 0)
    monkeypatch.setattr(pairs_builder, "_PART_BYTES", 5 * SIZE[0] * SIZE[1] * 6)
    assert values(pairs.examples(folder, **GREY)) == [*range(6), *range(100, 115)]


def test_asks_no_network(folder, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    for name in ("create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    write_pairs(folder)
    pairs.examples(folder, **GREY)


def run_python(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("moment", ["_resized_views", "_read_back"])
def test_a_killed_preparation_is_never_taken_for_whole(folder, cache, moment):
    written = write_pairs(folder)
    killed = run_python(
        """
import os, signal, sys
from dfn_jax.data import epochs, pairs, pairs_builder
work = getattr(pairs_builder, sys.argv[2])
def work_and_die(first, *rest):
    result = work(first, *rest)
    if not str(getattr(first, "left", "")).endswith("000000_10.png"):  # the first pair still gets through
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(pairs_builder, sys.argv[2], work_and_die)
pairs.examples(sys.argv[1], image_size=(6, 10), channels=1)
""",
        folder,
        moment,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not prepared(cache)
    (left_behind,) = cache.iterdir()

    np.testing.assert_allclose(pairs.examples(folder, **GREY)[0]["left"], halved(written[0][0]), atol=TOLERANCE)
    assert left_behind.is_dir()  # may belong to a preparation that still runs

    os.utime(left_behind, (0, 0))
    pairs.examples(folder, image_size=(3, 5), channels=1)
    assert not left_behind.exists()


def test_a_full_disk_is_one_line_and_leaves_nothing(folder, cache):
    write_pairs(folder, size=(80, 80))
    code = """
import resource, sys
from dfn_jax.data import epochs, pairs
from dfn_jax.errors import InputError
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    pairs.examples(sys.argv[1], image_size=(80, 80), channels=1)
except InputError as error:
    print(error)
"""
    lines = run_python(code, folder).stdout.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith(f"cannot write prepared pairs to {cache}")
    assert "(File too large); make room" in lines[1]
    assert not list(cache.iterdir())
    assert len(pairs.examples(folder, image_size=(80, 80), channels=1)) == 3


def test_a_short_record_file_is_noticed(folder, cache, monkeypatch):
    write_pairs(folder)
    prepare = pairs_builder.StereoPairs.download_and_prepare

    def prepare_and_cut(self, **options):
        prepare(self, **options)
        (records,) = Path(self.data_dir).glob("*.array_record*")
        os.truncate(records, records.stat().st_size // 2)

    monkeypatch.setattr(pairs_builder.StereoPairs, "download_and_prepare", prepare_and_cut)
    with pytest.raises(InputError, match="cannot write prepared pairs") as caught:
        pairs.examples(folder, **GREY)
    assert "\n" not in str(caught.value)
    assert not list(cache.iterdir())


def test_an_overwritten_record_is_told_and_never_read(folder, cache):
    write_pairs(folder)
    options = {"image_size": (32, 48), "channels": 1}
    whole = [pair["left"] for pair in pairs.examples(folder, **options)]
    (records,) = cache.rglob("*.array_record*")
    intact, told = records.read_bytes(), 0
    for place in range(0, len(intact), len(intact) // 40):
        records.write_bytes(intact[:place] + bytes([intact[place] ^ 16]) + intact[place + 1 :])
        try:
            read = [pair["left"] for pair in pairs.examples(folder, **options)]
        except InputError as error:
            assert re.search(f"{cache}.* cannot be read", str(error))
            told += 1
        else:
            np.testing.assert_array_equal(read, whole)  # A byte between records: nothing is lost.
    assert told


def test_who_asks_for_the_end_is_not_told_of_a_disk(folder, cache, monkeypatch):
    def be_asked_to_end(config, staging):
        raise PreemptedError("asked to end")

    write_pairs(folder)
    monkeypatch.setattr(pairs_builder, "_read_back", be_asked_to_end)
    with pytest.raises(PreemptedError):
        pairs.examples(folder, **GREY)
    assert not list(cache.iterdir())


def test_another_process_may_finish_first(folder, cache, monkeypatch):
    write_pairs(folder)
    read_back = pairs_builder._read_back

    def let_the_other_finish(config, staging):
        read_back(config, staging)
        monkeypatch.setattr(pairs_builder, "_read_back", read_back)
        pairs_builder._prepare(config, cache)

    monkeypatch.setattr(pairs_builder, "_read_back", let_the_other_finish)
    assert len(pairs.examples(folder, **GREY)) == 3
    assert [path.name for path in cache.iterdir()] == ["stereo_pairs"]


def png_16_bit_rgb(path):
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = zlib.compress(b"".join(b"\0" + bytes(20 * 6) for _ in range(12)))
    header = struct.pack(">IIBBBBB", 20, 12, 16, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


FIRST = "000000_10.png"
BAD_FILES = {
    "no pairs": (lambda folder: [path.unlink() for path in folder.rglob("*.png")], ["no stereo pairs", "image_0"]),
    "no right folder": (lambda folder: (folder / "right").rename(folder / "r"), ["left without its partner right"]),
    "no right folder beside pairs": (
        lambda folder: (folder / "other" / "left").mkdir(parents=True),
        ["other/left without its partner right"],
    ),
    "no right file": (lambda folder: (folder / "right" / FIRST).unlink(), [f"left/{FIRST}", f"right/{FIRST}"]),
    "no left file": (lambda folder: (folder / "left" / FIRST).unlink(), [f"right/{FIRST}", f"left/{FIRST}"]),
    "sizes": (
        lambda folder: save(folder / "right" / FIRST, np.zeros((12, 21), np.uint8)),
        [FIRST, "20 x 12", "21 x 12"],
    ),
    "truncated": (lambda folder: truncate(folder / "right" / FIRST), ["cannot read", FIRST]),
    "no image": (lambda folder: (folder / "left" / FIRST).write_text("hello"), ["cannot read", FIRST]),
    "empty file": (lambda folder: (folder / "left" / FIRST).write_text(""), ["cannot read", FIRST]),
    "16-bit grey": (
        lambda folder: save(folder / "left" / FIRST, np.zeros((12, 20), np.uint16)),
        [FIRST, "16-bit image", "8-bit"],
    ),
    "16-bit colour": (lambda folder: png_16_bit_rgb(folder / "left" / FIRST), [FIRST, "16-bit image", "8-bit"]),
    "palette": (
        lambda folder: Image.new("P", (20, 12)).save(folder / "left" / FIRST),
        [FIRST, "P image", "8-bit grey or RGB"],
    ),
    "8-bit disparity": (
        lambda folder: save(folder / "disparity" / FIRST, np.zeros((12, 20), np.uint8)),
        [f"disparity/{FIRST}", "16-bit", "256"],
    ),
    "disparity size": (
        lambda folder: write_disparity(folder / "disparity" / FIRST, np.zeros((12, 21))),
        [f"disparity/{FIRST}", "21 x 12", "20 x 12"],
    ),
    "disparity alone": (
        lambda folder: write_disparity(folder / "disparity" / "9.png", np.zeros((12, 20))),
        ["disparity/9.png", "no left image"],
    ),
    "disparity format": (
        lambda folder: (folder / "disparity").mkdir() or (folder / "disparity" / "000000_10.npy").touch(),
        ["000000_10.npy", "16-bit PNG"],
    ),
}


def test_ground_truth_lies_on_a_photograph_as_it_is_shown(folder):
    exif = Image.Exif()
    exif[0x0112] = 6  # held upright
    for view in ("left", "right"):
        (folder / view).mkdir(parents=True)
        Image.new("L", (20, 12), 128).save(folder / view / "0.jpg", exif=exif)
    write_disparity(folder / "disparity" / "0.png", np.full((20, 12), 3.0))
    example = pairs.examples(folder, image_size=(20, 12), channels=1)[0]
    assert example["left"].shape == (20, 12, 1)
    np.testing.assert_array_equal(example["disparity"][:, :9], 3)


@pytest.mark.parametrize(("spoil", "words"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files_are_told_in_one_line(folder, cache, spoil, words):
    write_pairs(folder)
    spoil(folder)
    with pytest.raises(InputError) as caught:
        pairs.examples(folder, **GREY)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    assert not cache.exists() or not list(cache.iterdir())


def test_a_cache_that_is_no_folder(folder, tmp_path, monkeypatch):
    write_pairs(folder)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"cannot write prepared pairs to .*file"):
        pairs.examples(folder, **GREY)
