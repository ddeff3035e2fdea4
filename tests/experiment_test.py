"""What holds of a run whatever its experiment: data stay the same, results are never replaced by lesser ones."""

import json
import shutil
import struct

import jax
import numpy as np
import pytest
from PIL import Image

from dfn_jax import experiment, recorded, visualize
from dfn_jax.errors import InputError
from dfn_jax.records import read_records
from dfn_jax.tasks import make_task
from experiments import highway, moving_mnist, steerable, stereo
from tests.stereo_folders import save, write_pairs


@pytest.fixture
def folders(tmp_path):
    """Two folders of other images, whose names and sizes are the same."""
    for seed, name in enumerate(("one", "other")):
        (tmp_path / name).mkdir()
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name / "0.bmp")
    return tmp_path


def config(folder, steps, **changes):
    result = steerable.get_config("smoke")
    result.data.name, result.train.steps, result.eval.examples = "images", steps, 2
    result.data.dir = str(folder)
    result.update_from_flattened_dict(changes)
    return result


def test_a_run_goes_on_with_the_data_that_it_began_with_wherever_they_lie(folders):
    run = folders / "run"
    experiment.run(config(folders / "one", 2), run)
    assert read_records(run / "starts.jsonl")[0]["data"].startswith("1 files ")
    before = (run / "config.json").read_text(), (run / "results.json").read_text()
    with pytest.raises(InputError, match=r"run was begun with other data \(1 files .*give the folder"):
        experiment.run(config(folders / "other", 4), run)
    for changes in ({}, {"eval.name": "images"}):
        with pytest.raises(InputError, match="was begun with other data"):
            experiment.run(config(folders / "other", 2, **changes), run, training=False)
    # What is said of this test set depends on where the run's own data lie.
    with pytest.raises(InputError, match=r"data.dir \("):
        experiment.run(config(folders / "other", 2, **{"eval.dir": str(folders / "one")}), run, training=False)
    with pytest.raises(InputError, match="belongs to a run with another config: seed"):
        experiment.run(config(folders / "other", 4, seed=1), run)
    assert before == ((run / "config.json").read_text(), (run / "results.json").read_text())
    shutil.move(folders / "one", folders / "moved")
    experiment.run(config(folders / "moved", 4), run)
    assert json.loads((run / "results.json").read_text())["steps"] == 4


def test_a_report_shows_how_good_the_network_was_on_the_way(folders, monkeypatch):
    experiment.run(config(folders / "one", 2), folders / "short")
    run, watched = folders / "run", config(folders / "one", 3, **{"train.evaluate_every": 1})
    experiment.run(watched, run)
    looks = {one["step"]: one for one in read_records(run / "metrics.jsonl") if "test_filter_relative_error" in one}
    assert looks.keys() == {1, 2}
    of_two = json.loads((folders / "short" / "results.json").read_text())
    for name in ("filter_relative_error", "mse_per_image"):
        assert looks[2][f"test_{name}"] == pytest.approx(of_two[name], rel=1e-5)
    assert (run / "report" / "test_curve.png").exists()
    watched.eval.examples = 3  # Another test set, of which training took nothing.
    other, _ = experiment.run(watched, run, training=False)
    assert not (other / "report" / "test_curve.png").exists()
    drawn, draw = {}, visualize.curve_png

    def curve_png(points, names, **words):
        drawn[names[0]] = [point["step"] for point in points]
        return draw(points, names, **words)

    monkeypatch.setattr(visualize, "curve_png", curve_png)
    watched.train.steps = 5
    experiment.run(watched, run)
    assert drawn["test_filter_relative_error"] == [3, 4, 5]
    watched.train.steps, watched.precision = 7, "bfloat16"
    experiment.run(watched, run)
    assert drawn["test_filter_relative_error"] == [5, 6, 7]


def test_a_folder_that_has_grown_is_other_data(folders):
    experiment.run(config(folders / "one", 2), folders / "run")
    shutil.copy(folders / "one" / "0.bmp", folders / "one" / "1.bmp")
    with pytest.raises(InputError, match=r"was begun with other data \(1 files \w+ there, 2 files \w+ here\)"):
        experiment.run(config(folders / "one", 4), folders / "run")


def test_data_of_every_kind_have_fingerprints(tmp_path):
    write_pairs(tmp_path / "pairs", count=3)
    for index in range(5):
        save(tmp_path / "clips" / "clip" / f"{index}.png", np.full((8, 8), index, np.uint8))
    found = []
    for pixel in (0, 1):
        (tmp_path / f"digits {pixel}").mkdir()
        content = struct.pack(">IIII", 2051, 1, 28, 28) + bytes(28 * 28 - 1) + bytes([pixel])
        (tmp_path / f"digits {pixel}" / "train-images-idx3-ubyte").write_bytes(content)
    for module, changes in (
        (stereo, {}),
        (moving_mnist, {"data.digits": "drawn"}),
        (stereo, {"data.name": "pairs", "data.dir": str(tmp_path / "pairs")}),
        (highway, {"data.name": "video", "data.dir": str(tmp_path / "clips")}),
        (moving_mnist, {"data.digits": "mnist", "data.dir": str(tmp_path / "digits 0")}),
        (moving_mnist, {"data.digits": "mnist", "data.dir": str(tmp_path / "digits 1")}),
    ):
        settings = module.get_config("smoke")
        settings.update_from_flattened_dict(changes)
        found.append(make_task(settings).fingerprint())
    assert found[:2] == ["", ""]
    assert [words.rpartition(" ")[0] for words in found[2:]] == ["6 files", "5 files", "digits", "digits"]
    assert found[4] != found[5]


def test_what_a_run_finds_is_not_written_into_the_config_that_it_is_given(tmp_path, monkeypatch):
    monkeypatch.delenv("DFN_DATA", raising=False)
    settings = moving_mnist.get_config("smoke")
    settings.data.digits = ""
    with pytest.raises(InputError, match=r"no config\.json"):
        experiment.run(settings, tmp_path / "none", training=False)
    assert settings.data.digits == ""


def test_where_the_data_of_an_older_run_lie_may_not_change(folders):
    """Its starts do not tell what the data were."""
    run = folders / "run"
    experiment.run(config(folders / "one", 2), run)
    starts = [{key: start[key] for key in ("step", "commit")} for start in read_records(run / "starts.jsonl")]
    (run / "starts.jsonl").write_text("".join(json.dumps(start) + "\n" for start in starts))
    with pytest.raises(InputError, match=r"data.dir \("):
        experiment.run(config(folders / "other", 4), run)
    experiment.run(config(folders / "one", 4), run)


def test_the_precisions_of_all_steps_are_told(folders):
    for steps, precision in ((2, "bfloat16"), (4, "float32")):
        experiment.run(config(folders / "one", steps, precision=precision), folders / "run")
    results = json.loads((folders / "run" / "results.json").read_text())
    assert (results["precision"], results["evaluation_precision"]) == ("bfloat16 and float32", "float32")
    assert [start["precision"] for start in read_records(folders / "run" / "starts.jsonl")] == ["bfloat16", "float32"]


def test_results_are_not_replaced_by_those_of_fewer_steps(folders):
    run, settings = folders / "run", config(folders / "one", 4)
    experiment.run(settings, run)
    before = (run / "results.json").read_text()
    shutil.rmtree(run / "checkpoints" / "4")
    with pytest.raises(InputError, match=r"results.json was measured after 4 steps.* checkpoint has 2"):
        experiment.run(settings, run, training=False)
    assert (run / "results.json").read_text() == before
    experiment.run(settings, run)
    assert json.loads((run / "results.json").read_text())["steps"] == 4


def test_an_evaluation_that_training_overtakes_does_not_replace_what_that_has_reached(folders, monkeypatch):
    run, settings = folders / "run", config(folders / "one", 2)
    experiment.run(settings, run)
    make = experiment.make_task

    def overtaken(config):
        task = make(config)

        def evaluate(params):
            found = task.evaluate(params)

            def sections():  # the last that is made before anything is written
                experiment.run(longer, run)
                return found.sections()

            return found._replace(sections=sections)

        monkeypatch.setattr(experiment, "make_task", make)
        return task._replace(evaluate=evaluate)

    longer = config(folders / "one", 4)
    monkeypatch.setattr(experiment, "make_task", overtaken)
    with pytest.raises(InputError, match="was measured after 4 steps, the newest whole checkpoint has 2"):
        experiment.run(settings, run, training=False)
    assert json.loads((run / "results.json").read_text())["steps"] == 4


def test_an_empty_folder_among_the_checkpoints_is_none(folders):
    experiment.run(config(folders / "one", 2), folders / "run")
    (folders / "run" / "checkpoints" / "99999").mkdir()
    experiment.run(config(folders / "one", 4), folders / "run")
    assert json.loads((folders / "run" / "results.json").read_text())["steps"] == 4


def test_what_cannot_be_trained_is_told_before_the_workdir_is_claimed(folders):
    for changes, wanted in (
        ({"mesh.height": 1000}, "config.mesh.height is 1000"),
        ({"data.dir": str(folders)}, "run is inside config.data.dir"),
        ({"eval.name": "images", "eval.dir": str(folders)}, "run is inside config.eval.dir"),
        ({"optim.learning_rate": "fast"}, "config.optim.learning_rate is 'fast'; it must be a positive number"),
        ({"optim.ema_decay": 1.0}, "config.optim.ema_decay is 1.0; it must be 0, for no average, or more, and below 1"),
    ):
        settings = config(folders / "one", 2)
        with settings.ignore_type():
            settings.update_from_flattened_dict(changes)
        with pytest.raises(InputError, match=wanted):
            experiment.run(settings, folders / "run")
        assert not (folders / "run").exists()


def test_an_evaluation_that_was_cut_short_begins_again_in_its_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder, _ = experiment.evaluate_pretrained("steerable", "~/found")
    assert folder == tmp_path / "found"
    with pytest.raises(InputError, match="found is no run, but of the pretrained network steerable; give --pretrained"):
        recorded.get_config(folder)
    with pytest.raises(InputError, match=r"pretrained \(steerable there, None here\)"):
        experiment.run(steerable.get_config("paper"), folder)
    with pytest.raises(InputError, match="has results, or a run, already"):
        experiment.evaluate_pretrained("steerable", tmp_path / "found")
    (folder / "results.json").unlink()
    experiment.evaluate_pretrained("steerable", tmp_path / "found")
    assert (folder / "results.json").exists()


def test_a_finished_run_keeps_its_results_whatever_else_it_is_measured_on(folders):
    """By the command that trained it, and not as an evaluation."""
    run = folders / "run"
    experiment.run(config(folders / "one", 2), run)
    before = (run / "results.json").read_text()
    other = {"eval.examples": 3}
    folder, _ = experiment.run(config(folders / "one", 2, **other), run)
    assert folder == run / "evaluations" / "examples-3"
    assert (run / "results.json").read_text() == before
    folder, _ = experiment.run(config(folders / "one", 2), run)
    assert folder == run
    folder, _ = experiment.run(config(folders / "one", 3, **other), run)
    assert folder == run  # It is another network now.
    with pytest.raises(InputError, match=r"has 3 steps, config.train.steps is 2; give no fewer"):
        experiment.run(config(folders / "one", 2), run)
    for best in (True, False):
        experiment.run(config(folders / "one", 4, **{"eval.best": best}), folders / str(best))
        path = folders / str(best) / "results.json"
        # The best checkpoint may be another than the last; otherwise, the run was measured before it went on.
        path.write_text(measured := json.dumps({**json.loads(path.read_text()), "steps": 2}))
        (path.parent / "best_checkpoint.json").write_text('{"step": 2, "loss": 0.0}')
        folder, _ = experiment.run(config(folders / "one", 4, **{"eval.best": best}, **other), folders / str(best))
        assert json.loads((folder / "results.json").read_text())["steps"] == (2 if best else 4)
        assert folder == (path.parent / "evaluations" / "examples-3" if best else path.parent)
        assert (path.read_text() == measured) == best


@pytest.mark.parametrize(
    ("setting", "value"),
    [("jax_enable_x64", True), ("jax_default_prng_impl", "rbg"), ("jax_threefry_partitionable", False)],
)
def test_settings_by_which_a_seed_draws_other_data_are_refused(setting, value, folders):
    before = getattr(jax.config, setting)
    jax.config.update(setting, value)
    try:
        with pytest.raises(InputError, match=f"{setting.upper()} is {value}, with which the same seed draws other"):
            experiment.run(config(folders / "one", 2), folders / "run")
    finally:
        jax.config.update(setting, before)
    assert not (folders / "run").exists()


def test_what_is_evaluated_on_is_said_to_be_trained_on_where_it_is(folders):
    _, found = experiment.run(config(folders / "one", 2, **{"eval.dir": str(folders / "one")}), folders / "run")
    assert found.data.endswith("which training read too")
    settings = config("", 2, **{"eval.name": "images", "eval.dir": str(folders / "one"), "data.name": "texture"})
    _, found = experiment.run(settings, folders / "drawn")
    assert not found.data.endswith("which training read too")
