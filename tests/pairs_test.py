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

from dfn_jax.data import epochs, pairs, pairs_builder
from dfn_jax.data.disparity import resize_disparity, to_right_grid
from dfn_jax.data.pair_folders import find_sequences
from dfn_jax.errors import InputError

ROOT = Path(__file__).parents[1]
SIZE = (6, 10)
GREY = {"image_size": SIZE, "channels": 1}
TOLERANCE = 1.01 / 255  # PIL resizes in two passes and rounds to 8 bit after each

DATA = Path(os.environ.get("DFN_DATA", "no such folder"))
needs_odometry = pytest.mark.skipif(
    not (DATA / "kitti_odometry").is_dir(), reason="DFN_DATA names no folder with kitti_odometry"
)
needs_kitti_2015 = pytest.mark.skipif(
    not (DATA / "kitti_2015").is_dir(), reason="DFN_DATA names no folder with kitti_2015"
)

VIEWS = [
    # folder of the sequence, left, right, ground truth, mode
    (".", "image_0", "image_1", None, "L"),
    ("00", "image_0", "image_1", None, "L"),
    ("sequences/07", "image_2", "image_3", None, "RGB"),
    ("2011_09_26/2011_09_26_drive_0001_sync", "image_02/data", "image_03/data", None, "RGB"),
    ("2011_09_26/2011_09_26_drive_0001_sync", "image_00/data", "image_01/data", None, "L"),
    ("training", "image_2", "image_3", "disp_occ_0", "RGB"),
    ("training", "image_0", "image_1", "disp_occ", "L"),
    ("training", "colored_0", "colored_1", "disp_occ", "RGB"),
    (".", "left", "right", None, "RGB"),
    ("a/b", "left", "right", "disparity", "L"),
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "dfn_jax" / "pairs"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data"


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def random_pixels(rng, mode="L", size=(12, 20)):
    return rng.integers(0, 256, size if mode == "L" else (*size, 3), dtype=np.uint8)


def write_pairs(folder, left="left", right="right", count=3, mode="L", size=(12, 20)):
    """Writes random pairs and returns them as a list of (left, right) pixels."""
    rng = np.random.default_rng(count)
    written = []
    for index in range(count):
        views = random_pixels(rng, mode, size), random_pixels(rng, mode, size)
        save(folder / left / f"{index:06d}_10.png", views[0])
        save(folder / right / f"{index:06d}_10.png", views[1])
        written.append(views)
    return written


def write_sequence(folder, length, first_value):
    """Writes a sequence whose frames are told apart by their one grey value."""
    for index in range(length):
        for view in ("left", "right"):
            save(folder / view / f"{index}.png", np.full((4, 4), first_value + index, np.uint8))


def write_disparity(path, disparity):
    save(path, np.round(np.asarray(disparity) * 256).astype(np.uint16))


def halved(pixels):
    """The mean of each 2 x 2 block, in [0, 1], with a channel axis."""
    pixels = pixels.reshape(*pixels.shape[:2], -1).astype(np.float64)
    height, width, channels = pixels.shape
    return pixels.reshape(height // 2, 2, width // 2, 2, channels).mean((1, 3)) / 255


def values(dataset):
    return [round(float(example["left"].mean()) * 255) for example in dataset]


def assert_batches_equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize(("sequence", "left", "right", "truth", "mode"), VIEWS)
def test_every_layout_gives_its_pixels(folder, sequence, left, right, truth, mode):
    written = write_pairs(folder / sequence, left, right, mode=mode)
    if truth:
        write_disparity(folder / sequence / truth / "000001_10.png", np.full((12, 20), 4.0))
    channels = 1 if mode == "L" else 3
    assert [found.name for found in find_sequences(folder, channels=channels)] == [sequence]

    dataset = pairs.examples(folder, image_size=SIZE, channels=channels)

    assert len(dataset) == 3
    for example, views in zip(dataset, written, strict=True):
        assert set(example) == {"left", "right"} | ({"disparity", "valid", "visible"} if truth else set())
        for name, view in zip(("left", "right"), views, strict=True):
            assert example[name].shape == (*SIZE, channels)
            assert example[name].dtype == np.float32
            np.testing.assert_allclose(example[name], halved(view), atol=TOLERANCE)
    if truth:
        assert [bool(example["valid"].any()) for example in dataset] == [False, True, False]
        example = dataset[1]
        assert example["disparity"].dtype == np.float32
        assert example["valid"].dtype == example["visible"].dtype == bool
        np.testing.assert_array_equal(example["visible"], example["valid"])
        np.testing.assert_array_equal(example["valid"][:, :8], True)
        np.testing.assert_array_equal(example["disparity"], np.where(example["valid"], 2.0, 0.0))


def test_colour_becomes_grey_by_rec_601(folder):
    (views,) = write_pairs(folder, mode="RGB", count=1)
    example = pairs.examples(folder, **GREY)[0]
    expected = halved(views[0] @ np.array([0.299, 0.587, 0.114]))
    np.testing.assert_allclose(example["left"], expected, atol=2 * TOLERANCE)


def test_grey_is_repeated_to_rgb(folder):
    (views,) = write_pairs(folder, count=1)
    example = pairs.examples(folder, image_size=SIZE, channels=3)[0]
    np.testing.assert_allclose(example["right"], np.repeat(halved(views[1]), 3, -1), atol=TOLERANCE)


def test_pairs_of_different_sizes_are_all_resized(folder):
    write_pairs(folder / "one")
    write_pairs(folder / "two", size=(30, 17))
    assert len(pairs.examples(folder, **GREY)) == 6


def test_grey_or_colour_views_follow_the_channels(folder):
    write_pairs(folder, "image_0", "image_1")
    write_pairs(folder, "image_2", "image_3", mode="RGB")
    for channels, view in ((1, "image_0"), (3, "image_2")):
        (sequence,) = find_sequences(folder, channels=channels)
        assert {pair.left.parent.name for pair in sequence.pairs} == {view}


def test_views_with_ground_truth_come_first_and_noc_before_occ(folder):
    write_pairs(folder, "image_0", "image_1")
    write_pairs(folder, "image_2", "image_3", mode="RGB")
    for truth in ("disp_occ_0", "disp_noc_0"):
        write_disparity(folder / truth / "000000_10.png", np.ones((12, 20)))
    (sequence,) = find_sequences(folder, channels=1)
    assert sequence.pairs[0].left.parent.name == "image_2"
    assert sequence.pairs[0].disparity.parent.name == "disp_noc_0"


def test_links_are_followed_but_not_in_circles(folder, tmp_path):
    write_pairs(tmp_path / "elsewhere")
    folder.mkdir()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "circle").symlink_to(folder)
    assert [sequence.name for sequence in find_sequences(folder, channels=1)] == ["linked"]


# Ground truth


def test_right_grid_of_a_step():
    left = np.full((1, 32), 2.0, np.float32)
    left[0, 10:16] = 6.0
    expected = np.zeros(32)
    expected[0:4] = 2.0
    expected[4:10] = 6.0  # the near surface hides what is behind it
    expected[14:30] = 2.0  # 10 to 13 only the right view sees; 30 and 31 lie outside the left view
    np.testing.assert_array_equal(to_right_grid(left)[0], expected)


def test_right_grid_of_a_slanted_plane():
    offset, slope = 3.0, 0.1
    columns = np.arange(64)
    left = np.tile((offset + slope * columns).astype(np.float32), (2, 1))
    exact = (columns + offset) / (1 - slope) - columns  # solves x_left - d(x_left) = x_right
    right = to_right_grid(left)
    known = right[0] > 0
    assert known[:54].mean() > 0.85
    np.testing.assert_allclose(right[0, known], exact[known], atol=0.5 * slope / (1 - slope) + 1e-4)

    small = resize_disparity(to_right_grid(np.tile(left, (8, 1))), (4, 16))
    centres = exact.reshape(16, 4).mean(1) / 4
    np.testing.assert_allclose(small[1, :13], centres[:13], atol=2 * slope / 4)


def test_right_grid_against_a_loop():
    rng = np.random.default_rng(0)
    left = (rng.uniform(0.5, 9.5, (5, 30)) * (rng.random((5, 30)) < 0.4)).astype(np.float32)
    expected = np.zeros_like(left)
    for y, x in np.argwhere(left > 0):
        target = round(float(x - left[y, x]))
        if target >= 0:
            expected[y, target] = max(expected[y, target], left[y, x])
    np.testing.assert_array_equal(to_right_grid(left), expected)


@pytest.mark.parametrize("size", [(4, 5), (7, 13), (21, 40), (25, 9), (40, 64)])
def test_resized_disparity_against_a_loop(size):
    rng = np.random.default_rng(1)
    height, width = 21, 40
    disparity = (rng.uniform(1, 20, (height, width)) * (rng.random((height, width)) < 0.3)).astype(np.float32)
    resized = resize_disparity(disparity, size)
    scale = np.float32(size[1] / width)
    for y, x in np.ndindex(size):
        covered = disparity[_covered(y, size[0], height)][:, _covered(x, size[1], width)]
        known = np.sort(covered[covered > 0])
        share = known.size / (max(height / size[0], 1) * max(width / size[1], 1))
        expected = known[known.size // 2] * scale if share >= 0.05 else 0.0
        assert resized[y, x] == pytest.approx(expected), (y, x)


def _covered(index, new, old):
    """Pixels whose centres a new pixel covers; where the image grows, the one in which parts of it lie."""
    repeat = -(-new // old)
    return sorted({p // repeat for p in range(old * repeat) if index <= (p + 0.5) * new / (old * repeat) < index + 1})


def test_resized_disparity_mixes_no_surfaces_and_needs_enough_known():
    disparity = np.zeros((20, 40), np.float32)
    disparity[:, :25] = 2.0
    disparity[:, 25:] = 30.0
    assert set(np.unique(resize_disparity(disparity, (5, 9)))) <= {np.float32(2 * 9 / 40), np.float32(30 * 9 / 40)}
    stray = np.zeros((40, 40), np.float32)
    stray[3, 3] = 5.0
    assert not resize_disparity(stray, (4, 4)).any()


def test_prepared_disparity_explains_the_right_view(folder):
    rng = np.random.default_rng(3)
    left = random_pixels(rng, size=(16, 48))
    disparity = np.repeat([4, 8, 4, 12], 4)  # multiples of the resize, so that the small views match exactly
    right = np.stack([np.roll(row, -shift) for row, shift in zip(left, disparity, strict=True)])
    save(folder / "left" / "0.png", left)
    save(folder / "right" / "0.png", right)
    write_disparity(folder / "disparity" / "0.png", np.tile(disparity[:, None], (1, 48)))

    example = pairs.examples(folder, image_size=(4, 12), channels=1)[0]

    for y, shift in enumerate([1, 2, 1, 3]):
        inside = 12 - shift
        np.testing.assert_array_equal(example["valid"][y], np.arange(12) < inside)
        np.testing.assert_array_equal(example["disparity"][y, :inside], shift)
        np.testing.assert_array_equal(example["right"][y, :inside], example["left"][y, shift:])


# Splits and batches


@pytest.fixture
def three_sequences(folder):
    write_sequence(folder / "b", 15, 100)
    write_sequence(folder / "a", 6, 0)
    write_sequence(folder / "c", 3, 200)
    return folder


def test_without_names_the_end_of_every_sequence_is_tested(three_sequences):
    train = values(pairs.examples(three_sequences, **GREY, split="train"))
    test = values(pairs.examples(three_sequences, **GREY, split="test"))
    assert test == [4, 5, 112, 113, 114, 202]
    assert train == [*range(4), *range(100, 112), 200, 201]
    assert values(pairs.examples(three_sequences, **GREY)) == [*range(6), *range(100, 115), *range(200, 203)]


def test_named_sequences_are_held_out_and_their_end_is_tested(three_sequences):
    options = {**GREY, "test_sequences": ("b",), "test_fraction": 0.4}
    assert values(pairs.examples(three_sequences, split="test", **options)) == [*range(109, 115)]
    assert values(pairs.examples(three_sequences, split="train", **options)) == [*range(6), *range(200, 203)]


def test_batches_are_a_pure_function_of_seed_and_step(three_sequences):
    def draw(examples, step, rows=None):
        return epochs.batch(examples, step, batch_size=4, rows=rows)

    one, again, other = (pairs.train_examples(three_sequences, seed=seed, **GREY) for seed in (5, 5, 6))
    seventh, third = draw(one, 7), draw(one, 3)
    assert_batches_equal(draw(again, 3), third)
    assert_batches_equal(draw(again, 7), seventh)
    assert_batches_equal(draw(again, 7, range(1, 3)), {name: field[1:3] for name, field in seventh.items()})
    assert third["left"].shape == third["right"].shape == (4, *SIZE, 1)
    assert third["left"].dtype == np.float32
    assert any(not np.array_equal(draw(other, step)["left"], draw(one, step)["left"]) for step in range(3))
    assert draw(one, 10**9)["left"].shape == (4, *SIZE, 1)


def test_epochs_visit_every_pair_once_in_changing_order(three_sequences):
    train = values(pairs.examples(three_sequences, **GREY, split="train"))
    found = pairs.train_examples(three_sequences, **GREY, seed=0)
    visits = [values(found[step * len(train) + index] for index in range(len(train))) for step in range(3)]
    assert [sorted(visit) for visit in visits] == [train] * 3
    assert visits[0] != visits[1] != visits[2] != train


def test_a_batch_may_be_larger_than_the_set(folder):
    write_sequence(folder, 1, 7)
    batch = epochs.batch(pairs.train_examples(folder, **GREY, seed=0, split="all"), 2, batch_size=5)
    assert batch["left"].shape == (5, *SIZE, 1)


# Preparation


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


def test_cache_dir_is_where_it_goes(folder, cache, tmp_path):
    write_pairs(folder)
    pairs.examples(folder, **GREY, cache_dir=tmp_path / "other")
    assert len(prepared(tmp_path / "other")) == 1
    assert not cache.exists()


def test_many_parts_keep_the_order(three_sequences, monkeypatch):
    monkeypatch.setattr(pairs_builder, "_PART_BYTES", 5 * SIZE[0] * SIZE[1] * 6)
    assert values(pairs.examples(three_sequences, **GREY)) == [*range(6), *range(100, 115), *range(200, 203)]


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
            assert re.search(f"cannot be read .*{cache}", str(error))
            told += 1
        else:
            np.testing.assert_array_equal(read, whole)  # A byte between records: nothing is lost.
    assert told


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


# Errors


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


BAD_OPTIONS = {
    "unknown sequence": ({"test_sequences": ("d",)}, ["'d'", "a, b, c"]),
    "empty test": ({"split": "test", "test_fraction": 0.0}, ["test split", "empty", "a (6 pairs)"]),
    "empty train": ({"split": "train", "test_sequences": ("a", "b", "c")}, ["train split", "empty"]),
    "fraction": ({"test_fraction": 1.5}, ["1.5", "between 0 and 1"]),
    "split": ({"split": "valid"}, ["'valid'", "train, test or all"]),
    "channels": ({"channels": 2}, ["2", "1 (grey) or 3 (RGB)"]),
}


@pytest.mark.parametrize(("options", "words"), BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_bad_options_are_told_in_one_line(three_sequences, cache, options, words):
    with pytest.raises(InputError) as caught:
        pairs.examples(three_sequences, **{**GREY, **options})
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    assert not cache.exists()


def test_missing_folder_and_file_for_a_folder(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        pairs.examples(tmp_path / "nowhere", **GREY)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="not a folder"):
        pairs.examples(tmp_path / "file", **GREY)


def test_a_cache_that_is_no_folder(folder, tmp_path):
    write_pairs(folder)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write prepared pairs to .*file"):
        pairs.examples(folder, **GREY, cache_dir=tmp_path / "file")


# Real data


@needs_odometry
def test_kitti_odometry():
    options = {"image_size": (64, 64), "channels": 1}
    sequences = find_sequences(DATA / "kitti_odometry", channels=1)
    held_out = sequences[-1]
    split = {**options, "test_sequences": (held_out.name,)}
    test = pairs.examples(DATA / "kitti_odometry", split="test", **split)
    train = pairs.examples(DATA / "kitti_odometry", split="train", **split)
    assert len(test) == -(-len(held_out.pairs) // 5)
    assert len(train) == sum(len(sequence.pairs) for sequence in sequences[:-1])
    batch = epochs.batch(pairs.train_examples(DATA / "kitti_odometry", seed=0, **split), 0, batch_size=16)
    shifts = [np.abs(batch["left"][:, 40:, 4 + s : 60 + s] - batch["right"][:, 40:, 4:60]).mean() for s in range(-3, 4)]
    assert np.argmin(shifts) > 3  # the road is to be found to the right in the left view


@needs_kitti_2015
def test_kitti_2015_disparity_explains_the_right_view():
    example = pairs.examples(DATA / "kitti_2015", image_size=(64, 64), channels=1)[0]
    left, right = example["left"][..., 0], example["right"][..., 0]
    columns = np.indices(left.shape)[1]
    source = columns + example["disparity"]
    inside = example["valid"] & (source <= 63)
    warped = np.stack([np.interp(source[y], columns[y], left[y]) for y in range(64)])
    assert inside.mean() > 0.4
    error, unwarped = (np.abs(image - right)[inside].mean() for image in (warped, left))
    assert error < 0.5 * unwarped
