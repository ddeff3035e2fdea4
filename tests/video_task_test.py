"""The evaluation of video prediction against plain NumPy, and which sequences a config means."""

import hashlib
import struct

import jax
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from dfn_jax.data import moving_mnist as sequences
from dfn_jax.errors import InputError
from dfn_jax.tasks import make_task, video_networks
from dfn_jax.tasks.task import TEST_SEED
from dfn_jax.tasks.video_data import SOURCES
from dfn_jax.tasks.video_evaluation import Guess, evaluate_video
from dfn_jax.tasks.video_networks import make_network
from experiments import highway, moving_mnist
from tests import reference
from tests.stereo_folders import save

KNOWN, AHEAD, SIZE = 2, 3, (12, 13)


@pytest.fixture
def batches():
    """Two batches, the last one smaller, with flow of 1 to 2 pixels."""
    random = np.random.default_rng(0)
    found = []
    for count in (3, 2):
        flow = random.uniform(1, 2, (count, AHEAD, *SIZE, 2)).astype(np.float32)
        visible = random.random((count, AHEAD, *SIZE)) < 0.7
        frames = random.random((count, KNOWN + AHEAD, *SIZE, 1)).astype(np.float32)
        found.append({"frames": frames, "flow": flow, "visible": visible})
    return found


def halfway(frames):
    """Predicts half the last frame, and a flow of half a pixel to the right."""
    assert len(frames) == 3, "the last batch is to be filled up"
    prediction = np.repeat(frames[:, -1:] / 2, AHEAD, axis=1)
    flow = np.zeros((*prediction.shape[:4], 2), np.float32) + np.float32([0.5, 0])
    entropy = np.arange(3 * AHEAD, dtype=np.float32).reshape(3, AHEAD)
    return Guess(prediction, flow, entropy)


def test_errors_are_told_for_what_happens_in_the_frames(batches):
    random = np.random.default_rng(1)
    for batch in batches:
        batch |= {name: random.random((len(batch["frames"]), AHEAD)) < 0.4 for name in ("overlap", "bounce")}
    evaluation = evaluate_video("noise", batches, halfway, known=KNOWN, reach=4, probabilities=True, independent=True)
    frames, overlap, bounce = (np.concatenate([b[name] for b in batches]) for name in ("frames", "overlap", "bounce"))
    errors = ((frames[:, KNOWN - 1 : KNOWN] / 2 - frames[:, KNOWN:]).astype(np.float64) ** 2).sum((2, 3, 4))
    for event, mask in {"overlap": overlap, "bounce": bounce, "neither": ~overlap & ~bounce}.items():
        assert mask.any()
        np.testing.assert_allclose(evaluation.metrics[f"mse_per_frame_at_{event}"], errors[mask].mean(), rtol=1e-5)
    assert [row.label for row in evaluation.sections()[-1].rows] == [
        "where digits overlap", "where a digit bounces", "in all other frames"
    ]  # fmt: skip
    # The second batch was filled up by its last example.
    np.testing.assert_allclose(
        evaluation.metrics["filter_entropy_nats_curve"], [(0 + 3 + 6 + 0 + 3) / 5 + t for t in range(3)]
    )
    np.testing.assert_allclose(evaluation.examples["mse_per_frame"], errors.mean(1), rtol=1e-5)


def test_a_network_that_gives_no_numbers_is_evaluated_all_the_same(batches):
    """Training may look at one before the loss of its next step tells."""

    def none(frames):
        return Guess(*(np.full_like(found, np.nan) for found in halfway(frames)))

    evaluation = evaluate_video("noise", batches, none, known=KNOWN, reach=4, probabilities=False, independent=True)
    assert np.isnan([evaluation.metrics["mse_per_frame"], evaluation.metrics["flow_epe"]]).all()
    assert evaluation.metrics["baseline_last_frame_mse_per_frame"] > 0
    assert {section.title for section in evaluation.sections()} >= {"It moves", "What the filters do", "Motion"}


def test_metrics(batches):
    frames, flow, visible = (np.concatenate([batch[name] for batch in batches]) for name in batches[0])
    found = evaluate_video(
        "noise", batches, halfway, known=KNOWN, reach=4, probabilities=True, independent=True
    ).metrics
    target, last, mean = frames[:, KNOWN:], frames[:, KNOWN - 1 : KNOWN], frames[:, :KNOWN].mean(1, keepdims=True)
    guesses = {"": last / 2, "baseline_last_frame_": last, "baseline_mean_frame_": mean}
    for prefix, guess in guesses.items():
        squares = ((guess - target) ** 2).astype(np.float64)
        mse = squares.sum((2, 3, 4)).mean(0)
        psnr = (-10 * np.log10(squares.mean((2, 3, 4)))).mean(0)
        p = np.clip(guess, 2.0**-23, 1 - 2.0**-23).astype(np.float64)
        bce = -(target * np.log(p) + (1 - target) * np.log(1 - p)).sum((2, 3, 4)).mean(0)
        for name, curve in {"mse_per_frame": mse, "psnr": psnr, "bce_nats_per_frame": bce}.items():
            np.testing.assert_allclose(found[f"{prefix}{name}_curve"], curve, rtol=1e-5)
            np.testing.assert_allclose(found[prefix + name], curve.mean(), rtol=1e-5)
        pairs = zip(*(np.broadcast_to(one, target.shape).reshape(-1, *SIZE, 1) for one in (guess, target)), strict=True)
        ssim = np.mean([reference.ssim(*pair) for pair in pairs])
        np.testing.assert_allclose(found[f"{prefix}ssim"], ssim, atol=2e-5)
    entropy = -(target * np.log(target) + (1 - target) * np.log(1 - target)).sum((2, 3, 4)).mean()
    np.testing.assert_allclose(found["target_entropy_nats"], entropy, rtol=1e-5)
    for name, guess in {"flow_epe": [0.5, 0], "baseline_zero_flow_flow_epe": [0, 0]}.items():
        error = np.sqrt(((flow - guess) ** 2).sum(-1))
        np.testing.assert_allclose(found[name], error.mean(), rtol=1e-5)
        np.testing.assert_allclose(found[f"{name}_noc"], error[visible].mean(), rtol=1e-5)


def test_the_blur_is_the_best_of_each_predicted_frame(batches):
    """The last frame comes back as it was, then blurred, then other noise comes."""
    widths = (0, 0.5, 1, 2, 3, 4, 6, 8, 12, 16, 24)
    for batch in batches:
        last = batch["frames"][:, KNOWN - 1]
        batch["frames"][:, KNOWN] = last
        batch["frames"][:, KNOWN + 1] = gaussian_filter(last, (0, 2, 2, 0), mode="nearest")
    frames = np.concatenate([batch["frames"] for batch in batches]).astype(np.float64)
    target, last = frames[:, KNOWN:], frames[:, KNOWN - 1 : KNOWN]
    guesses = [gaussian_filter(last, (0, 0, width, width, 0), mode="nearest") for width in widths]
    errors = np.stack([((guess - target) ** 2).sum((2, 3, 4)).mean(0) for guess in guesses])
    assert len(set(errors.argmin(0))) == AHEAD
    evaluation = evaluate_video("noise", batches, halfway, known=KNOWN, reach=4, probabilities=True, independent=True)
    found = evaluation.metrics
    np.testing.assert_allclose(found["baseline_blurred_frame_mse_per_frame_curve"], errors.min(0), rtol=1e-3, atol=1e-3)
    p = [np.clip(guess, 2.0**-23, 1 - 2.0**-23) for guess in guesses]
    bce = np.stack([-(target * np.log(q) + (1 - target) * np.log(1 - q)).sum((2, 3, 4)).mean(0) for q in p])
    np.testing.assert_allclose(found["baseline_blurred_frame_bce_nats_per_frame_curve"], bce.min(0), rtol=1e-3)
    assert found["baseline_blurred_frame_psnr"] > found["baseline_last_frame_psnr"]


def test_the_error_is_told_in_parts_of_what_a_filter_can_fetch(batches):
    for batch in batches:
        batch["flow"][..., 1] += 2  # y 3 to 4 pixels, x 1 to 2
        batch["flow"][:, 1, :5] = [-2.5, 2.5]
        batch["flow"][:, 2, :5] = [-4.5, 0]
    found = dict.fromkeys(("within_reach", "beyond_reach", "hidden"), 0.0)
    shares, count = dict(found), 0
    evaluation = evaluate_video("noise", batches, halfway, known=KNOWN, reach=3, probabilities=False, independent=False)
    for batch in batches:
        for n, t, y, x in np.ndindex(batch["visible"].shape):
            right, down = batch["flow"][n, t, y, x]
            fetched = abs(right) <= 3 and abs(down) <= 3
            region = "hidden" if not batch["visible"][n, t, y, x] else "within_reach" if fetched else "beyond_reach"
            error = batch["frames"][n, KNOWN + t, y, x, 0] - batch["frames"][n, KNOWN - 1, y, x, 0] / 2
            found[region] += float(error) ** 2
            shares[region] += 1
            count += 1
    images = count / np.prod(SIZE)
    for region in found:
        assert shares[region] > 0
        np.testing.assert_allclose(evaluation.metrics[f"share_{region}"], shares[region] / count, rtol=1e-5)
        np.testing.assert_allclose(evaluation.metrics[f"mse_per_frame_{region}"], found[region] / images, rtol=1e-5)
    rows = next(s for s in evaluation.sections() if s.title == "Where it loses").rows
    parts = np.array([row.values for row in rows]).sum(0)
    wholes = [evaluation.metrics[f"{who}mse_per_frame"] for who in ("", "baseline_last_frame_", "baseline_mean_frame_")]
    np.testing.assert_allclose(parts, wholes, rtol=1e-5)


def test_pictures_and_words(batches):
    evaluation = evaluate_video("noise", batches, halfway, known=KNOWN, reach=4, probabilities=False, independent=False)
    pictures = {section.name: section.kind for section in evaluation.sections() if hasattr(section, "kind")}
    assert pictures == {"movie": "gif", "strips": "png", "flow": "png", "per_frame": "png"}
    assert "bce_nats_per_frame" not in evaluation.metrics
    assert "where the blurred last frame has" in evaluation.headline
    assert not evaluation.examples  # pieces of one recording

    # The flows that are read off are 0.5 px long, the true ones 1.4 to 2.8 px, few of them more than 2.4.
    assert "full colour 2 px" in next(s.caption for s in evaluation.sections() if s.name == "flow")

    without = [{"frames": batch["frames"]} for batch in batches]
    evaluation = evaluate_video(
        "noise",
        without,
        lambda f: Guess(halfway(f).frames),
        known=KNOWN,
        reach=4,
        probabilities=False,
        independent=False,
    )
    assert not any("flow" in name for name in evaluation.metrics)
    assert [s.name for s in evaluation.sections() if hasattr(s, "kind")] == ["movie", "strips", "per_frame"]


def mnist_config(**changes):
    config = moving_mnist.get_config("smoke")
    config.data.digits = "drawn"
    config.update_from_flattened_dict(changes)
    return config


def test_moving_mnist_is_tested_on_as_many_sequences_as_asked_for():
    config = mnist_config(**{"eval.examples": 21, "eval.digit_count": 3, "eval.target_frames": 5})
    words, found = SOURCES["moving_mnist"].bind(config).test_set()
    assert len(found) == 2, "the progress bar's total"
    assert [batch["frames"].shape for batch in found] == [(16, 7, 16, 16, 1), (5, 7, 16, 16, 1)]
    assert "21 sequences of 3 moving digits" in words
    assert "not MNIST" in words


def test_missing_test_digits_are_told_before_training(tmp_path, monkeypatch):
    folder = tmp_path / "mnist"
    folder.mkdir()
    header = struct.pack(">IIII", 2051, 1, 28, 28)
    (folder / "train-images-idx3-ubyte").write_bytes(header + bytes(28 * 28))
    task = make_task(mnist_config(**{"data.digits": "mnist", "data.dir": str(folder)}))
    task.train_batch(0)
    with pytest.raises(InputError, match="t10k-images-idx3-ubyte"):
        task.check_test()


def test_the_published_test_set_is_used_for_what_it_holds(monkeypatch, tmp_path):
    for name in ("train", "t10k"):
        pixels = np.full(28 * 28, 200, np.uint8).tobytes()
        (tmp_path / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, 1, 28, 28) + pixels)
    published = np.random.default_rng(0).integers(0, 256, (20, 3, 64, 64), dtype=np.uint8)
    np.save(tmp_path / sequences.TEST_FILE, published)
    monkeypatch.setattr(sequences, "TEST_SHAPE", published.shape)
    content = (tmp_path / sequences.TEST_FILE).read_bytes()
    monkeypatch.setattr(sequences, "TEST_SHA256", hashlib.sha256(content).hexdigest())
    config = moving_mnist.get_config()
    config.update_from_flattened_dict({"data.dir": str(tmp_path), "eval.examples": 2, "eval.target_frames": 7})
    words, batches = SOURCES["moving_mnist"].bind(config).test_set()
    assert words == "2 sequences of the published test set, mnist_test_seq.npy"
    (batch,) = batches
    np.testing.assert_allclose(batch["frames"], published[:17, :2].swapaxes(0, 1)[..., None] / 255, rtol=1e-6)
    for changes in ({"eval.digit_count": 3}, {"eval.target_frames": 11}, {"data.digit_size": 14}):
        config = moving_mnist.get_config()
        config.update_from_flattened_dict({"data.dir": str(tmp_path), "eval.examples": 2} | changes)
        assert "generated with a fixed seed from the MNIST" in SOURCES["moving_mnist"].bind(config).test_set()[0]


def test_where_the_digits_came_from_is_written_into_the_config(monkeypatch, tmp_path):
    """So that a run that goes on without DFN_DATA is refused, and does not change its digits."""
    (tmp_path / "mnist").mkdir()
    for folder, source in ((tmp_path, "mnist"), (tmp_path / "empty", "drawn")):
        monkeypatch.setenv("DFN_DATA", str(folder))
        config = mnist_config(**{"data.digits": ""})
        SOURCES["moving_mnist"].bind(config)
        assert config.data.digits == source


def test_predictions_are_cut_to_what_a_screen_can_show():
    task = make_task(mnist_config(**{"model.name": "twin"}))
    params = jax.tree.map(lambda leaf: 100 * leaf, jax.jit(task.init)(jax.random.key(0)))
    assert 0 < task.evaluate(params).metrics["mse_per_frame"] < 16 * 16


def test_training_sequences_follow_from_seed_and_step():
    for name, config in (("moving_mnist", mnist_config()), ("highway", highway.get_config("smoke"))):
        data = SOURCES[name].bind(config)
        frames = np.asarray(data.train_batch(3)["frames"])
        np.testing.assert_array_equal(frames, data.train_batch(3)["frames"])
        assert not np.array_equal(frames, data.train_batch(4)["frames"])
        config.seed = 1
        assert not np.array_equal(frames, SOURCES[name].bind(config).train_batch(3)["frames"])


def test_the_horizon_doubles_as_often_as_asked_for():
    """And the loss is that of the frames which are shown: here the cross-entropy of the first one, by NumPy."""
    config = mnist_config(**{"data.input_frames": 3, "data.target_frames": 5, "train.double_horizon_every": 4})
    task = make_task(config)
    batch = task.train_batch(0)
    shown = [task.curriculum.shown(batch, step)["frames"] for step in (0, 3, 4, 8, 11, 12, 10**6)]
    assert [frames.shape[1] - 3 for frames in shown] == [1, 1, 2, 4, 4, 5, 5]
    assert task.curriculum.ends == 12
    params = task.init(jax.random.key(0))
    predicted = np.asarray(make_network(config).rollout(params, batch["frames"][:, :3], 1).frame, np.float64)
    predicted, true = predicted.clip(1e-6, 1 - 1e-6), np.asarray(batch["frames"][:, 3:4], np.float64)
    wanted = -(true * np.log(predicted) + (1 - true) * np.log(1 - predicted)).mean()
    assert float(task.loss(params, {"frames": shown[0]})) == pytest.approx(wanted, rel=1e-4)
    config.train.double_horizon_every = 0
    assert make_task(config).curriculum.shown(batch, 0)["frames"].shape[1] == 8


@pytest.mark.parametrize(
    ("name", "config"), [("moving_mnist", mnist_config()), ("highway", highway.get_config("smoke"))]
)
def test_training_draws_no_sequence_that_is_tested_on(name, config):
    config.train.batch_size = config.eval.examples = 16
    (test,) = SOURCES[name].bind(config).test_set()[1]
    drawn = [test["frames"][:, 0]]
    for seed in (0, TEST_SEED):
        config.seed = seed
        drawn.append(np.asarray(SOURCES[name].bind(config).train_batch(0)["frames"][:, 0]))
    assert len(np.unique(np.concatenate(drawn), axis=0)) == 48


def test_every_seed_is_tested_on_the_same_sequences():
    config = mnist_config()
    (test,) = SOURCES["moving_mnist"].bind(config).test_set()[1]
    config.seed = 1
    (again,) = SOURCES["moving_mnist"].bind(config).test_set()[1]
    np.testing.assert_array_equal(test["frames"], again["frames"])


def test_training_minimises_the_squared_error_of_the_frames_that_follow():
    config = highway.get_config("smoke")
    task, known = make_task(config), config.data.input_frames
    batch, params = task.train_batch(0), task.init(jax.random.key(0))
    frames = np.asarray(batch["frames"], np.float64)
    ahead = frames.shape[1] - known
    predicted = np.asarray(make_network(config).rollout(params, batch["frames"][:, :known], ahead).frame, np.float64)
    wanted = ((predicted - frames[:, known:]) ** 2).mean()
    assert float(task.loss(params, batch)) == pytest.approx(wanted, rel=1e-5)


def test_training_on_real_video_leaves_the_end_of_each_clip_to_the_test(folder):
    """Results on pieces of one recording have no interval of confidence."""
    for index in range(40):
        save(folder / "clip" / f"{index:02d}.png", np.full((16, 16), 6 * index, np.uint8))
    config = highway.get_config("smoke")
    config.data.name, config.data.dir, config.data.image_size = "video", str(folder), (16, 16)
    task, length = make_task(config), config.data.input_frames + config.data.target_frames

    def numbers(batch):
        return np.rint(batch["frames"].mean((2, 3, 4)) * 255 / 6).astype(int)

    shown = np.concatenate([numbers(task.train_batch(step)) for step in range(60)])
    np.testing.assert_array_equal(shown, shown[:, :1] + np.arange(length))
    assert set(shown.ravel()) == set(range(32))
    words, batches = SOURCES["video"].bind(config).test_set()
    (tested,) = (numbers(batch) for batch in batches)
    np.testing.assert_array_equal(tested, [np.arange(32, 32 + length)])
    assert words.endswith("the end of each clip, which training never sees")
    assert not task.evaluate(task.init(jax.random.key(0))).examples
    first, config.seed = numbers(task.train_batch(0)), 1
    assert not np.array_equal(numbers(make_task(config).train_batch(0)), first)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.input_frames": 0}, "config.data.input_frames is 0"),
        ({"data.target_frames": 0}, "config.data.target_frames is 0"),
        ({"train.double_horizon_every": -1}, "config.train.double_horizon_every is -1"),
        ({"data.target_frames": 2**40}, "config.data.target_frames is 1099511627776"),
        ({"data.input_frames": 2**31 - 1}, r"below 2\*\*30"),
        ({"model.kernel_size": 4}, "must be odd"),
        ({"model.name": "twin", "model.refinement": 8}, "the twin has no filtered frame"),
        ({"model.name": "unet"}, "choose one of: dfn, twin"),
        ({"model.name": "lstm"}, "config.model has no 'patch'; take the presets fc_lstm and conv_lstm"),
        ({"model.name": "cdna"}, "config.model has no 'masks'; take the preset cdna"),
        ({"loss": "hinge"}, "choose one of: binary_cross_entropy, squared_error"),
        ({"data.channels": 3}, "config.data.channels is 3"),
        ({"data.digit_count": 0}, "config.data.digit_count is 0"),
        ({"data.image_size": (6, 16)}, "too small for digits of 7 pixels"),
        ({"data.digits": "mnist", "data.dir": "nowhere/at/all"}, "nowhere/at/all does not exist"),
        ({"eval.name": "video"}, "moving_mnist has one test set"),
    ],
)
def test_what_cannot_be_is_named(changes, message):
    with pytest.raises(InputError, match=message):
        make_task(mnist_config(**changes)).train_batch(0)


@pytest.mark.parametrize("name", ["coarse", "rematerialise"])
def test_an_entry_of_the_network_that_a_recipe_lacks_is_told(name):
    config = highway.get_config("smoke")
    with config.unlocked():
        del config.model[name]
    with pytest.raises(InputError, match=f"config.model has no '{name}'; take another preset, such as paper"):
        make_task(config)


@pytest.mark.parametrize("name", ["highway", "mine"])
def test_a_folder_for_embedded_data_is_refused(name, monkeypatch):
    monkeypatch.setitem(SOURCES, "mine", SOURCES["highway"])
    monkeypatch.setitem(SOURCES, "files", SOURCES["highway"]._replace(reads_folder=True))
    config = highway.get_config("smoke")
    config.data.name = name
    make_task(config)
    config.data.dir = "somewhere"
    with pytest.raises(InputError, match=f"{name} reads no folder; give --config.data.name=video or files too"):
        make_task(config)
    config.data.name = "files"
    make_task(config)


def test_filters_need_neither_a_flow_nor_a_window(monkeypatch):
    dfn = video_networks.NETWORKS["dfn"]
    bare = {"dfn": lambda config: dfn(config)._replace(flow=None, reach=None)}
    config = highway.get_config("smoke")
    whole = make_task(config)
    params = whole.init(jax.random.key(0))
    monkeypatch.setattr(video_networks, "NETWORKS", bare)
    found, wanted = (task.evaluate(params).metrics for task in (make_task(config), whole))
    assert found["filter_entropy_nats"] == wanted["filter_entropy_nats"]
    assert not any(word in name for name in found for word in ("flow", "reach", "hidden"))
    assert found.items() <= wanted.items()
