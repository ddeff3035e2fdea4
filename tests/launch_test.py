"""The program as a person runs it: all experiments end to end, and every mistake told in one line."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.programs import ROOT, fail, succeed
from tests.stereo_folders import save


@pytest.fixture(scope="module")
def stereo(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("stereo") / "run"
    command = [sys.executable, "launch.py", "--config=experiments/stereo.py:smoke", f"--workdir={workdir}"]
    return workdir, subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=True)


def test_stereo_from_one_command(stereo):
    workdir, done = stereo
    assert "report:" in done.stdout
    results = json.loads((workdir / "results.json").read_text())
    for name in ("experiment", "preset", "parameters", "steps", "seed", "data", "wall_time_s", "hardware", "versions"):
        assert results[name] is not None
    assert results["steps"] == 4
    for metric in ("mse_per_image", "psnr", "ssim", "disparity_epe", "disparity_bad1", "disparity_d1"):
        for suffix in ("", "_noc") if metric.startswith("disparity") else ("",):
            for prefix in ("", "baseline_copy_", "baseline_shift_", "baseline_row_shift_"):
                assert isinstance(results[f"{prefix}{metric}{suffix}"], float)
    page = (workdir / "report" / "index.html").read_text()
    assert page.count("data:image/png;base64") == 2
    assert "http" not in page.replace("http-equiv", "")
    assert len((workdir / "metrics.jsonl").read_text().splitlines()) == 4
    assert any((workdir / "tensorboard").iterdir())


@pytest.mark.parametrize("experiment", ["moving_mnist", "highway"])
def test_video_from_one_command(experiment, tmp_path):
    workdir = tmp_path / "run"
    options = ["--config.data.digits=drawn", "--config.train.double_horizon_every=2"]
    options = options if experiment == "moving_mnist" else []
    done = succeed(f"--config=experiments/{experiment}.py:smoke", f"--workdir={workdir}", *options)
    assert "report:" in done.stdout
    results = json.loads((workdir / "results.json").read_text())
    assert results["steps"] == 4
    for metric in ("mse_per_frame", "psnr", "ssim"):
        for prefix in ("", "baseline_last_frame_", "baseline_mean_frame_"):
            assert isinstance(results[prefix + metric], float)
            assert len(results[f"{prefix}{metric}_curve"]) == 2
    assert results["baseline_blurred_frame_mse_per_frame"] <= results["baseline_last_frame_mse_per_frame"]
    only_here = {"moving_mnist": "bce_nats_per_frame", "highway": "flow_epe_noc"}
    for owner, metric in only_here.items():
        assert (metric in results) == (owner == experiment)
    page = (workdir / "report" / "index.html").read_text()
    assert page.count("data:image/gif;base64") == 1
    assert ("of twice as many after every 2 steps, up to 2" in page) == (experiment == "moving_mnist")
    assert (workdir / "report" / "movie.gif").exists()


def test_the_same_command_again_goes_on_and_changes_nothing(stereo):
    workdir, _ = stereo
    before = json.loads((workdir / "results.json").read_text())
    succeed("--config=experiments/stereo.py:smoke", f"--workdir={workdir}")
    after = json.loads((workdir / "results.json").read_text())
    for results in (before, after):
        del results["wall_time_s"]
    assert before == after


def test_another_config_in_the_same_workdir_is_refused(stereo):
    workdir, _ = stereo
    line = fail("--config=experiments/stereo.py:smoke", f"--workdir={workdir}", "--config.optim.learning_rate=0.5")
    assert "optim.learning_rate (0.001 there, 0.5 here)" in line


def test_a_workdir_in_use_is_refused(stereo):
    workdir, _ = stereo
    with (workdir / ".lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        line = fail("--config=experiments/stereo.py:smoke", f"--workdir={workdir}")
    assert f"{workdir} is in use by process" in line


def test_steerable_from_one_command(tmp_path):
    from PIL import Image

    folder = tmp_path / "images"
    folder.mkdir()
    for name in range(3):
        pixels = np.random.default_rng(name).integers(0, 256, (40, 40), dtype=np.uint8)
        pixels = pixels if name else np.full_like(pixels, 255)  # one that is white all over
        Image.fromarray(pixels).save(folder / f"{name}.png")
    workdir = tmp_path / "run"
    succeed("--config=experiments/steerable.py:smoke", f"--workdir={workdir}")
    assert json.loads((workdir / "results.json").read_text())["filter_relative_error"] > 0
    succeed(
        "--config=experiments/steerable.py:smoke", f"--workdir={workdir}", "--mode=evaluate",
        "--config.eval.name=images", f"--config.eval.dir={folder}", "--config.eval.examples=5",
    )  # fmt: skip
    (evaluated,) = (workdir / "evaluations").glob("images-*")
    results = json.loads((evaluated / "results.json").read_text())
    assert results["data"] == "5 crops of images of images"
    assert results["output_relative_error"] > 0


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ((), "run has no config.json: no run began there; give the --workdir of a run, or begin one by --config"),
        (("--config=experiments/stereo.py:smoke", "--workdir=gs://bucket/run"), "is an address, not a folder; mount"),
        (("--config=experiments/stereo.py:smoke", "--config.data.image_size[0]=32"), "give the whole tuple, in quotes"),
        (("--config=experiments/stereo.py:fast",), "unknown preset 'fast'; choose one of: paper, quick, smoke"),
        (("--config=experiments/stereo.py:smoke", "--config.optim.rate=1"), "the config has no entry 'rate'"),
        (("--config=experiments/stereo.py:smoke", "--config.train.steps=many"), "many"),
        (("--config=experiments/nothing.py",), "there is no file experiments/nothing.py"),
        (("--config", "experiments/nothing.py"), "there is no file experiments/nothing.py"),
        (("--config=dfn_jax/pretrained/stereo.json",), "stereo.json is no Python file; wanted a config"),
        (("--config=reproduce/protocols.py",), "reproduce/protocols.py is no config: it has no `get_config`"),
        (("--config=experiments/stereo.py:smoke", "--config.data.test_fraction=nan"), "test_fraction is nan; it must"),
        (("--config=experiments/stereo.py:smoke", f"--config.optim.halve_every={2**31}"), "below 2**31"),
        (("--config=experiments/stereo.py", "--config.nothing.x=3"), "the config has no entry 'nothing'; `get_config`"),
        (("--config=experiments/stereo.py", "--config.model.rows=3"), "the config has no entry 'rows'; `get_config`"),
        (("--config=experiments/stereo.py:smoke", "--config.optim.name=sgd"), "choose one of: adam, muon"),
        (("--config=experiments/stereo.py:smoke", "--config.model.name=cnn"), "choose one of: dfn, twin"),
        (("--config=experiments/stereo.py:smoke", "--config.data.name=kitti"), "choose one of: highway, pairs"),
        (("--config=experiments/stereo.py:smoke", "--config.model.taps=4"), "must be odd"),
        (("--config=experiments/stereo.py:smoke", "--config.model.taps=65539"), "below 2**16"),
        (("--config=experiments/highway.py:smoke", "--config.model.kernel_size=65537"), "below 2**16"),
        (
            (
                "--config=experiments/highway.py:smoke",
                "--config.data.name=video",
                "--config.data.dir=~nobody-of-this-name/x",
            ),
            "there is no such user",
        ),
        (
            ("--config=experiments/highway.py:smoke", "--config.data.name=video", "--config.data.dir=/vi\udce9"),
            "config.data.dir is '/vi\\udce9', which is not UTF-8",
        ),
        (
            ("--config=experiments/stereo.py:smoke", "--workdir=/vi\udce9"),
            "--workdir is '/vi\\udce9', which is not",
        ),
        (("--config=experiments/stereo.py:smoke", "--config.precision=float8"), "float32, bfloat16"),
        (("--config=experiments/stereo.py:smoke", "--config.train.batch_size=0"), "at least 1"),
        (("--config=experiments/stereo.py:smoke", "--config.data.image_size=(0, 8)"), "at least 1"),
        (
            ("--config=experiments/stereo.py:smoke", "--config.data.name=pairs", "--config.data.dir=/nowhere"),
            "/nowhere",
        ),
        (("--config=experiments/stereo.py:smoke", "--mode=evaluate", "--workdir={empty}"), "no run began there"),
        (("--config=experiments/stereo.py:smoke", "--config.data.dir=/tmp"), "give --config.data.name=pairs too"),
        (("--config=experiments/steerable.py:smoke", "--config.eval.dir=/tmp"), "give --config.eval.name=images too"),
        (
            (
                "--config=experiments/steerable.py:smoke",
                "--config.eval.name=images",
                "--config.eval.dir=/nowhere",
                "--config.train.steps=100000",  # It is told before training.
            ),
            "/nowhere does not exist",
        ),
        (
            (
                "--config=experiments/stereo.py:smoke",
                "--config.eval.name=pairs",
                "--config.eval.dir=/nowhere",
                "--config.train.steps=100000",  # It is told before training.
            ),
            "/nowhere does not exist",
        ),
        (
            (
                "--config=experiments/stereo.py:smoke",
                "--config.data.name=pairs",
                "--config.data.channels=3",
                "--config.eval.name=highway",
            ),
            "config.data.channels is 3 on highway; the renderer has 1",
        ),
        (("--pretrained=stereo", "--mode=evaluate", "--distributed", "--workdir=x"), "in one process"),
        (("--config=experiments/highway.py:smoke", "--config.model.encoder=(32,)"), "at least 2 whole numbers"),
        (("--config=experiments/stereo.py:smoke", f"--config.seed={2**64}"), "below 2**32"),
        (
            ("--config=experiments/stereo.py:smoke", "--mode=evaluate", "--workdir="),
            "--workdir is empty; give a folder, or leave it out",
        ),
        (("--mode=evaluate", "--pretrained=alexnet"), "unknown pretrained network 'alexnet'"),
        (("--mode=evaluate", "--pretrained=stereo", "--config=experiments/highway.py"), "is of experiments/stereo.py"),
        (("--mode=evaluate", "--pretrained=stereo", "--config.model.taps=21"), "model.taps is 13 there, 21 in the"),
        (
            ("--config=experiments/stereo.py:smoke", "--pretrained=stereo"),
            "in one process; to train from its weights, give --config.train.init_from=stereo",
        ),
        (("--config=experiments/stereo.py:smoke", "--config.train.init_from=ste"), "unknown pretrained network 'ste'"),
        (
            ("--config=experiments/stereo.py:smoke", "--config.train.init_from=stereo"),
            "give a config with the same model and image size",
        ),
        (
            ("--config=experiments/moving_mnist.py:dna", "--config.train.init_from=moving_mnist"),
            "the pretrained network moving_mnist has config.model.name dfn, this config dna",
        ),
        (
            ("-pretrained", "stereo", "--mode=evaluate", "--config.data.name=pairs"),
            "was trained on highway, config.data",
        ),
        (("--mode=predict", "--pretrained=stereo"), "--mode=predict and --input=PATH, what to predict from, go"),
        (("--config=experiments/stereo.py:smoke", "--input=left.png"), "go together"),
        (("--mode=predict", "--pretrained=stereo", "--input=/nowhere"), "the input /nowhere does not exist"),
        (
            ("--config=experiments/stereo.py:smoke", "--workdir={empty} [1]"),
            "none [1] could not be read again, because of [",
        ),
        (("--config=experiments/stereo.py:smoke", "--workdir={empty}\\1"), "choose a --workdir without"),
        (("--config=experiments/stereo.py:smoke", "extra"), "unexpected argument 'extra'"),
        (("--config=experiments/stereo.py:smoke", "--mode=dream"), "dream"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, wanted, tmp_path):
    filled = (argument.replace("{empty}", str(tmp_path / "none")) for argument in arguments)
    workdir = () if any("--workdir" in argument for argument in arguments) else (f"--workdir={tmp_path / 'run'}",)
    assert wanted in fail(*filled, *workdir)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("launch.py", ("launch.py", "--config=experiments/stereo.py:smoke", "--workdir={}/run")),
        ("stablehlo", ("-m", "dfn_jax.stablehlo", "--pretrained=stereo", "--file={}/program")),
        ("export", ("-m", "dfn_jax.pretrained.export", "--workdir={}/run", "--name=new")),
    ],
)
def test_a_device_that_is_not_there_is_told_in_one_line(program, words, tmp_path):
    command = [sys.executable, *(word.format(tmp_path) for word in words)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "JAX_PLATFORMS": "cuda"}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"{program}: error: JAX finds no device with JAX_PLATFORMS='cuda'")
    assert len(done.stderr.splitlines()) == 1


def test_an_evaluation_with_another_config_is_refused_and_changes_nothing(stereo):
    workdir, _ = stereo
    before = (workdir / "results.json").read_bytes()
    line = fail("--config=experiments/stereo.py:smoke", f"--workdir={workdir}", "--mode=evaluate", "--config.seed=7")
    assert "seed (0 there, 7 here)" in line
    assert (workdir / "results.json").read_bytes() == before


def test_an_evaluation_on_other_terms_has_a_folder_of_its_own(stereo):
    workdir, _ = stereo
    before = (workdir / "results.json").read_bytes()
    terms = ("--config.eval.examples=3", "--config.precision=bfloat16")
    succeed("--config=experiments/stereo.py:smoke", f"--workdir={workdir}", "--mode=evaluate", *terms)
    assert (workdir / "results.json").read_bytes() == before
    found = json.loads((workdir / "evaluations" / "examples-3_bfloat16" / "results.json").read_text())
    assert found["data"].startswith("3 scenes")


def test_a_run_is_evaluated_gone_on_with_and_applied_by_its_folder_alone(stereo, tmp_path):
    """Its config is that of config.json."""
    run = tmp_path / "run"
    shutil.copytree(stereo[0], run, ignore=shutil.ignore_patterns("evaluations"))
    before = json.loads((run / "results.json").read_text())
    succeed("--mode", "evaluate", "--workdir", run)
    after = json.loads((run / "results.json").read_text())
    assert after["mse_per_image"] == before["mse_per_image"]
    assert not (run / "evaluations").exists()
    succeed(f"--workdir={run}", "--config.train.steps=6")
    results = json.loads((run / "results.json").read_text())
    assert (results["steps"], results["preset"], results["seed"]) == (6, "smoke", before["seed"])
    view = tmp_path / "view.png"
    save(view, np.zeros((16, 16), np.uint8))
    succeed("--mode=predict", f"--workdir={run}", f"--input={view}")
    assert len(list(run.glob("predictions/*/view.npz"))) == 1


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ("def get_config():\n    return {}['a']", "mine.py, line 2: KeyError: 'a'"),
        ("def get_config(:", "mine.py, line 1: SyntaxError"),
        ("import nothing_of_this_name", "mine.py, line 1: ModuleNotFoundError"),
        ("def get_config():\n    pass", "mine.py returns NoneType; wanted a ConfigDict"),
        ("def get_config():\n    return int('x')", "ValueError: invalid literal"),
        ("def get_config():\n    open('nothing')", "No such file or directory: 'nothing'"),
    ],
)
def test_what_is_wrong_in_a_config_file_is_told_in_one_line(content, wanted, tmp_path):
    (tmp_path / "mine.py").write_text(content)
    assert wanted in fail(f"--config={tmp_path / 'mine.py'}")


def test_a_recipe_without_a_preset_is_told(tmp_path):
    recipe = tmp_path / "recipe.py"
    recipe.write_text("""
from experiments import steerable
def get_config():
    config = steerable.get_config("smoke")
    with config.unlocked():
        del config.preset
    return config
""")
    assert "the config has no preset; add it to the recipe" in fail(f"--config={recipe}")


def test_a_folder_that_is_no_workdir_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("do not touch")
    assert "is not empty" in fail("--config=experiments/stereo.py:smoke", f"--workdir={tmp_path}")
