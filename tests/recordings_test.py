"""The authors' HDF5 files: both views come out upright, in time, and apart in training and test."""

import subprocess
import sys

import h5py
import numpy as np
import pytest

from dfn_jax.data import recordings, video
from dfn_jax.errors import InputError
from dfn_jax.tasks import make_task
from experiments import highway, stereo
from tests.architecture_test import ROOT

COUNTS = {"train": 11, "test": 7}


@pytest.fixture
def views():
    """uint8 [T, H, W] of each view, by part."""
    rng = np.random.default_rng(0)
    return {
        part: {view: rng.integers(0, 256, (count, 16, 16), dtype=np.uint8) for view in "LR"}
        for part, count in COUNTS.items()
    }


def write_files(folder, views, kind=np.float32):
    """As the authors have them: columns before rows, one channel."""
    paths = {}
    for part, both in views.items():
        paths[part] = folder / f"highwayDriving_{part}.h5"
        with h5py.File(paths[part], "w") as file:
            for view, frames in both.items():
                pixels = frames if kind == np.uint8 else (frames / 255).astype(kind)
                file[f"highway_{view}"] = np.transpose(pixels, (0, 2, 1))[:, None]
    return paths


@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64])
def test_the_readers_find_each_frame_at_its_place(tmp_path, views, kind):
    recordings.write_folders(write_files(tmp_path, views, kind), tmp_path / "recordings")
    clips = video.load_clips(tmp_path / "recordings", image_size=(16, 16), channels=1)
    assert clips.keys() == {f"{part}/{side}" for part in COUNTS for side in ("left", "right")}
    for part, both in views.items():
        np.testing.assert_array_equal(clips[f"{part}/left"][..., 0], both["L"])
        np.testing.assert_array_equal(clips[f"{part}/right"][..., 0], both["R"])


def test_stereo_and_video_train_on_one_file_and_are_tested_on_the_other(tmp_path, views):
    folder = tmp_path / "recordings"
    recordings.write_folders(write_files(tmp_path, views), folder)
    pairs = stereo.get_config("smoke")
    pairs.data.name, pairs.data.dir = "pairs", str(folder)
    pairs.data.test_sequences, pairs.data.test_fraction = ("test",), 1.0
    clips = highway.get_config("smoke")
    clips.data.name, clips.data.dir, clips.data.test_fraction = "video", str(folder / "train" / "left"), 0.0
    clips.eval.name, clips.eval.dir = "video", str(folder / "test" / "left")
    trained = {tuple(frame.ravel()) for frame in views["train"]["L"]}
    left = np.rint(255 * make_task(pairs).train_batch(0)["left"]).astype(np.uint8)
    frames = np.rint(255 * make_task(clips).train_batch(0)["frames"]).astype(np.uint8)
    assert {tuple(frame.ravel()) for frame in (*left, *frames.reshape(-1, 256))} <= trained
    for config, said in ((pairs, "7 of the 7 real pairs"), (clips, "1 segments")):
        task = make_task(config)
        assert task.check_test()[0].startswith(said), task.check_test()[0]
    (segments,) = make_task(clips).check_test()[1]
    np.testing.assert_array_equal(np.rint(255 * segments["frames"][0, ..., 0]), views["test"]["L"][:5])


def left(value):
    """Makes all pixels of the left view the same."""
    return lambda file: file["highway_L"].write_direct(np.full((7, 1, 16, 16), value))


def right(*shape, kind="f4"):
    """Gives the right view another shape, or type."""

    def spoil(file):
        del file["highway_R"]
        file["highway_R"] = np.zeros(shape, kind)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda file: file.pop("highway_R"), "cannot read highway_L and highway_R from .*highwayDriving_test.h5"),
        (left(255.0), "from .* to 255.0; wanted numbers from 0 to 1"),
        (left(np.nan), "from nan to nan; wanted numbers from 0 to 1"),
        (right(6, 1, 16, 16), "differ in shape"),
        (right(7, 1, 16, 16, kind="S1"), "has the type .*; wanted uint8"),
        (right(7, 16, 16), r"wanted \[T, 1, W, H\]"),
    ],
)
def test_other_files_are_refused_and_leave_nothing(tmp_path, views, spoil, told):
    paths = write_files(tmp_path, views)
    with h5py.File(paths["test"], "a") as file:
        spoil(file)
    with pytest.raises(InputError, match=told):
        recordings.write_folders(paths, tmp_path / "recordings")
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in paths.values()}


def test_the_command_tells_in_one_line_what_is_wrong(tmp_path):
    words = ("--train=no.h5", "--test=none.h5", f"--folder={tmp_path}/made")
    run = subprocess.run(
        [sys.executable, "-m", "dfn_jax.data.recordings", *words], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 1
    assert run.stderr.startswith(f"recordings: error: cannot read highway_L and highway_R from {ROOT}/no.h5")
    assert len(run.stderr.splitlines()) == 1


def test_what_would_be_lost_or_senseless_is_refused(tmp_path, views):
    paths = write_files(tmp_path, views)
    with pytest.raises(InputError, match="is there already"):
        recordings.write_folders(paths, tmp_path / "new" / "..")
    with pytest.raises(InputError, match="train and test are the same file"):
        recordings.write_folders({"train": paths["test"], "test": paths["test"]}, tmp_path / "recordings")
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in paths.values()}
