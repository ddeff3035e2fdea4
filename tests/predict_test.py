"""Networks applied to images and clips of which nothing else is known, against the truth of rendered scenes."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from dfn_jax import experiment, pretrained
from dfn_jax.data import highway
from dfn_jax.errors import InputError
from dfn_jax.tasks.task import TEST_BATCH
from tests.programs import fail, succeed
from tests.recipes import get_config


def write_images(folder, images):
    """Images [N, H, W, 1] in [0, 1] as PNG files called 0.png, 1.png and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        pixels = np.rint(255 * np.asarray(image)[..., 0]).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")


@pytest.fixture(scope="module")
def pairs():
    batch = highway.stereo_batch(jax.random.key(3), batch_size=TEST_BATCH + 2, image_size=(64, 64), with_truth=True)
    return jax.device_get(batch)


@pytest.fixture(scope="module")
def clips():
    options = {"batch_size": 4, "image_size": (64, 64), "interval": 0.04, "frames": 6, "flows": 3}
    return jax.device_get(highway.video_batch(jax.random.key(3), **options))


def test_right_views_and_disparity_of_left_views(pairs, tmp_path):
    noise = np.random.default_rng(0).integers(2, size=(64, 64, 1))
    write_images(tmp_path / "drive" / "left", [*pairs["left"], noise])
    done = succeed(
        "--mode=predict", "--pretrained=stereo", f"--input={tmp_path / 'drive'}", f"--workdir={tmp_path / 'out'}"
    )
    (drive,) = (tmp_path / "out" / "predictions").iterdir()
    assert drive.name.startswith("drive-")
    assert str(drive) in done.stdout
    folder = drive / "left"
    assert len(list(folder.iterdir())) == 2 * 19
    of_noise = np.load(folder / "18.npz")["right"]
    assert (of_noise.min(), of_noise.max()) == (0, 1), "the network itself goes beyond"
    found = [dict(np.load(folder / f"{index}.npz")) for index in range(18)]
    right, disparity = (np.stack([one[name] for one in found]) for name in ("right", "disparity"))
    assert (
        np.square(right - pairs["right"]).sum((1, 2, 3)).max()
        < 5
        < np.square(pairs["left"] - pairs["right"]).sum() / 18
    )
    seen = pairs["valid"] & pairs["visible"]
    assert np.abs(disparity - pairs["disparity"])[seen].mean() < 0.2
    with Image.open(folder / "17.png") as picture:
        assert picture.width > 3 * 64 * 3


def test_frames_after_the_end_of_clips(clips, tmp_path):
    for index, frames in enumerate(clips["frames"]):
        write_images(tmp_path / "clips" / str(index), frames[:3])
    config, _, _ = pretrained.load("highway")
    config.eval.target_frames = 4
    folder = experiment.predict_by_pretrained("highway", tmp_path / "out", tmp_path / "clips", config)
    record = json.loads((folder / "predictions.json").read_text())
    assert record["pretrained"] == "highway"
    assert record["inputs"] == ["0", "1", "2", "3"]
    found = [dict(np.load(folder / f"{index}.npz")) for index in range(4)]
    predicted, flow = (np.stack([one[name] for one in found]) for name in ("predicted", "flow"))
    assert predicted.shape == (4, 4, 64, 64, 1)
    given, following = clips["frames"][:, :3], clips["frames"][:, 3:]
    assert np.abs(np.stack([one["given"] for one in found]) - given).max() < 0.5 / 255 + 1e-6
    assert np.square(predicted[:, :3] - following).sum() < 0.5 * np.square(given[:, 2:] - following).sum()
    seen, truth = clips["visible"], clips["flow"]
    error, motion = (np.linalg.norm(field, axis=-1)[seen].mean() for field in (flow[:, :3] - truth, truth))
    assert error < 0.8 * motion


def test_of_a_long_clip_the_last_frames_count(clips, tmp_path):
    write_images(tmp_path / "whole", clips["frames"][0])
    write_images(tmp_path / "end", clips["frames"][0, 3:])
    whole, end = (
        np.load(experiment.predict_by_pretrained("highway", tmp_path / f"of_{name}", tmp_path / name) / f"{name}.npz")
        for name in ("whole", "end")
    )
    np.testing.assert_array_equal(whole["predicted"], end["predicted"])


def test_the_network_of_a_run_on_one_image(pairs, tmp_path):
    write_images(tmp_path / "images", pairs["left"][:1])
    run = ("--config=experiments/stereo.py:smoke", "--config.model.name=twin", f"--workdir={tmp_path / 'run'}")
    assert "no run began there" in fail(*run, "--mode=predict", f"--input={tmp_path}")
    succeed(*run)
    succeed(*run, "--mode=predict", f"--input={tmp_path / 'images' / '0.png'}")
    (folder,) = (tmp_path / "run" / "predictions").iterdir()
    assert json.loads((folder / "predictions.json").read_text())["steps"] == 4
    found = np.load(folder / "0.npz")
    size = tuple(get_config("stereo", "smoke").data.image_size)
    assert {name: values.shape for name, values in found.items()} == {"left": (*size, 1), "right": (*size, 1)}


def test_moving_digits_need_none_of_mnist(tmp_path, capfd, monkeypatch):
    monkeypatch.delenv("DFN_DATA", raising=False)
    write_images(tmp_path / "clip", np.random.default_rng(0).random((10, 28, 28, 1)))
    config, _, _ = pretrained.load("moving_mnist")
    config.data.dir = str(tmp_path / "another machine's")
    folder = experiment.predict_by_pretrained("moving_mnist", tmp_path / "out", tmp_path / "clip", config)
    assert np.load(folder / "clip.npz")["predicted"].shape == (10, 64, 64, 1)
    assert "drawn" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("network", "source", "wanted"),
    [
        ("stereo", "nothing", "nothing does not exist; give an image or clip"),
        ("stereo", "empty", "no images under"),
        ("stereo", "twice", "from 2 inputs would be called 0; rename"),
        ("stereo", "in_the_way", "has a folder 0.npz, as a prediction from it would be called"),
        ("stereo", "cut_short", "cannot read .*1.png as an image"),
        ("stereo", "not\udce9utf8", "which is not UTF-8"),
        ("stereo", "words.txt", "cannot read"),
        ("stereo", f"{240 * 'x'}.png", "has a name of more than 230 bytes"),
        ("stereo", "leads_nowhere", "cannot read .*1.png as an image"),
        ("stereo", "mixed", "1.png is a RGBA image"),
        ("stereo", ".", "where predictions go; give one that does not"),
        ("highway", "words.txt", "is no video file"),
        ("highway", "empty", "holds neither a video file"),
        ("highway", "short", "short has 2 frames, the network reads 3; remove it"),
        ("steerable", "twice", "predicts nothing from images alone"),
    ],
)
def test_inputs_that_cannot_be_used_are_told_before_anything_is_written(network, source, wanted, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "words.txt").write_text("no image")
    write_images(tmp_path / "short", np.zeros((2, 8, 8, 1)))
    write_images(tmp_path / "twice", np.zeros((1, 8, 8, 1)))
    Image.new("L", (8, 8)).save(tmp_path / "twice" / "0.bmp")
    write_images(tmp_path / "in_the_way", np.zeros((1, 8, 8, 1)))
    write_images(tmp_path / "in_the_way" / "0.npz", np.zeros((1, 8, 8, 1)))
    write_images(tmp_path / "cut_short", np.random.default_rng(0).random((2, 64, 64, 1)))
    whole = (tmp_path / "cut_short" / "1.png").read_bytes()
    (tmp_path / "cut_short" / "1.png").write_bytes(whole[: len(whole) // 2])
    write_images(tmp_path / "mixed", np.zeros((1, 8, 8, 1)))
    Image.new("RGBA", (8, 8)).save(tmp_path / "mixed" / "1.png")
    Image.new("L", (8, 8)).save(tmp_path / f"{240 * 'x'}.png")
    write_images(tmp_path / "leads_nowhere", np.zeros((1, 8, 8, 1)))
    (tmp_path / "leads_nowhere" / "1.png").symlink_to(tmp_path / "no such file")
    with pytest.raises(InputError, match=wanted):
        experiment.predict_by_pretrained(network, tmp_path / "out", tmp_path / source)
    assert not (tmp_path / "out").exists()


def test_links_have_the_names_that_the_user_gave_them(pairs, tmp_path):
    write_images(tmp_path / "store", pairs["left"][:1])
    (tmp_path / "view.png").symlink_to(tmp_path / "store" / "0.png")
    folder = experiment.predict_by_pretrained("stereo", tmp_path / "out", tmp_path / "view.png")
    assert (folder / "view.npz").exists()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError, match="loop does not exist"):
        experiment.predict_by_pretrained("stereo", tmp_path / "out", tmp_path / "loop")


def test_predictions_are_never_mixed(pairs, tmp_path):
    for name in ("a", "b"):
        write_images(tmp_path / name / "data", pairs["left"][:3])
    ours, theirs = (
        experiment.predict_by_pretrained("stereo", tmp_path / "out", tmp_path / name / "data") for name in ("a", "b")
    )
    assert ours != theirs
    with pytest.raises(InputError, match="already; remove or rename it"):
        experiment.predict_by_pretrained("stereo", tmp_path / "out", tmp_path / "a" / "data")
    with pytest.raises(InputError, match="belongs to a run with another config"):
        experiment.predict_by_pretrained("highway", tmp_path / "out", tmp_path / "a")
