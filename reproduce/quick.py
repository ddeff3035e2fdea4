"""Runs every experiment's preset `quick`, on embedded and on real data; writes results/ and the README's table of them.

    python -m reproduce.quick [--data=FOLDER]

FOLDER (by default the environment variable DFN_DATA) holds `highway_video`, `kitti_odometry` with the sequences seq1
and seq2, `kitti_2015` and `train400_gray`; what needs one that is not there keeps its records. Eleven minutes on two
CPU cores at their best. A run that is there already is not run again (remove its folder below `workdirs/quick/` for
that).
"""

import json
import os
import shlex
from pathlib import Path
from typing import NamedTuple

from absl import app, flags

from dfn_jax.errors import InputError, told_in_one_line
from dfn_jax.files import expanded, write_whole
from dfn_jax.preemption import preempt_on_sigterm
from reproduce.readme import README, RESULTS, alone, figure, print_table, with_tables
from reproduce.runs import ROOT, Record, outcome, read

DATA = "FOLDER"  # in a run's arguments: where the real data are


class Figure(NamedTuple):
    """A number that a run is judged by.

    Attributes:
        metric: of `results.json`.
        words: for it.
        baseline: metric of a trivial predictor on the same examples; empty where there is none.
        baseline_words: for that.
        higher: whether more is better.
    """

    metric: str
    words: str
    baseline: str = ""
    baseline_words: str = ""
    higher: bool = False


class Run(NamedTuple):
    """One run of `launch.py`.

    Attributes:
        what: is run, in words.
        arguments: of `launch.py`.
        figures: that the table shows.
        of: the run whose network is evaluated; empty where the run trains its own.
    """

    what: str
    arguments: tuple[str, ...]
    figures: tuple[Figure, ...]
    of: str = ""


_VIDEO_ERROR = Figure(
    "mse_per_frame",
    "squared error, summed over the frame",
    "baseline_blurred_frame_mse_per_frame",
    "blurred last frame",
)
_VIDEO_PSNR = Figure(
    "psnr", "PSNR, dB (more is better)", "baseline_blurred_frame_psnr", "blurred last frame", higher=True
)
_STEREO_ERROR = Figure(
    "mse_per_image", "squared error, summed over the image", "baseline_row_shift_mse_per_image", "best shift per row"
)
_DISPARITY = Figure(
    "disparity_epe_noc",
    "disparity error where both cameras see, px",
    "baseline_row_shift_disparity_epe_noc",
    "best shift per row",
)
_ON_KITTI = (
    "--config=experiments/stereo.py:quick",
    "--config.data.name=pairs",
    f"--config.data.dir={DATA}/kitti_odometry",
    "--config.data.test_sequences=('seq2',)",
)
RUNS = {
    "stereo_quick": Run("stereo", ("--config=experiments/stereo.py:quick",), (_STEREO_ERROR, _DISPARITY)),
    "stereo_kitti_odometry": Run("stereo, trained on 51 KITTI pairs", _ON_KITTI, (_STEREO_ERROR,)),
    "stereo_kitti_2015": Run(
        "the same network",
        (*_ON_KITTI, "--mode=evaluate", "--config.eval.name=pairs", f"--config.eval.dir={DATA}/kitti_2015"),
        (_STEREO_ERROR, _DISPARITY),
        of="stereo_kitti_odometry",
    ),
    "stereo_kitti_odometry_fine_tuned": Run(
        "stereo, from the pretrained network's weights, on the 51 pairs",
        (*_ON_KITTI, "--config.train.init_from=stereo"),
        (_STEREO_ERROR,),
    ),
    "moving_mnist_quick": Run(
        "Moving MNIST: one digit, 32x32, 4 + 4 frames",
        ("--config=experiments/moving_mnist.py:quick", "--config.data.digits=drawn"),
        (
            Figure(
                "bce_nats_per_frame",
                "cross-entropy, nats per frame",
                "baseline_blurred_frame_bce_nats_per_frame",
                "blurred last frame",
            ),
            Figure("ssim", "SSIM (more is better)", "baseline_last_frame_ssim", "last frame", higher=True),
        ),
    ),
    "highway_quick": Run(
        "highway: 32x32, 3 + 3 frames",
        ("--config=experiments/highway.py:quick",),
        (
            _VIDEO_ERROR,
            Figure(
                "flow_epe_noc",
                "flow error of what was seen before, px",
                "baseline_zero_flow_flow_epe_noc",
                "no motion",
            ),
        ),
    ),
    "highway_quick_real_video": Run(
        "the same network, which has only seen rendered scenes",
        (
            "--config=experiments/highway.py:quick",
            "--mode=evaluate",
            "--config.eval.name=video",
            f"--config.eval.dir={DATA}/highway_video",
        ),
        (_VIDEO_ERROR, _VIDEO_PSNR),
        of="highway_quick",
    ),
    "highway_quick_trained_on_real_video": Run(
        "highway, trained on that video",
        (
            "--config=experiments/highway.py:quick",
            "--config.data.name=video",
            f"--config.data.dir={DATA}/highway_video",
        ),
        (_VIDEO_ERROR, _VIDEO_PSNR),
    ),
    "steerable_quick": Run(
        "steerable filters",
        (
            "--config=experiments/steerable.py:quick",
            "--config.eval.name=images",
            f"--config.eval.dir={DATA}/train400_gray",
        ),
        (Figure("filter_relative_error", "relative error of the filters, 64 unseen angles"),),
    ),
}


def missing(folder: str) -> dict[str, Path]:
    """The runs that cannot be run, each with a folder of real data that it needs and that is not there."""
    needed = [
        (name, Path(folder, part))
        for name in RUNS
        for part in (argument.partition(f"{DATA}/")[2] for argument in RUNS[name].arguments)
        if part
    ]
    return {name: path for name, path in needed if not path.is_dir()}


def run(name: str, folder: str) -> Record:
    """Runs one, or reads what it reached before.

    Args:
        name: in `RUNS`.
        folder: where the real data are.

    Returns:
        The record.

    Raises:
        InputError: the run failed, or its folder is of another run.
    """
    chosen = RUNS[name]
    arguments = [argument.replace(DATA, folder) for argument in chosen.arguments]
    found = outcome(arguments, ROOT / "workdirs" / "quick" / (chosen.of or name))
    return {"command": shlex.join(["python", "launch.py", *chosen.arguments]), **found}


def table() -> str:
    """The README's table, from the records in `results/`.

    Raises:
        InputError: a record is missing or damaged.
    """
    lines = [
        "| preset `quick` of | measured on | metric | this network | best trivial predictor | training, s |",
        "|---|---|---|---|---|---|",
    ]
    for name, chosen in RUNS.items():
        record = kept(name)
        first = [chosen.what, record["data"]], ["–" if chosen.of else f"{record['training_time_s']:.0f}"]
        for index, shown in enumerate(chosen.figures):
            (begin, end) = first if index == 0 else (["", ""], [""])
            lines.append("| " + " | ".join([*begin, shown.words, *_cells(shown, record), *end]) + " |")
    return "\n".join(lines)


def kept(name: str) -> Record:
    """The record that `results/` has of a run in `RUNS`.

    Raises:
        InputError: it is missing or damaged.
    """
    path = RESULTS / f"{name}.json"
    record = read(path) if path.exists() else None
    if lacking := _lacking(name, record):
        raise InputError(f"{path} is missing or damaged (no {lacking}); run it again, or take it from the history")
    return record


def _lacking(name: str, record: object) -> str:
    """What the table shows of a run, and its record does not have; empty where it is whole."""
    shown = [entry for one in RUNS[name].figures for entry in (one.metric, one.baseline) if entry]
    wanted = dict.fromkeys([*shown, "training_time_s"], int | float) | {"data": str}
    found = record if isinstance(record, dict) else {}
    return ", ".join(entry for entry, kind in wanted.items() if not isinstance(found.get(entry), kind))


def _cells(shown: Figure, record: Record) -> list[str]:
    """What the network reached, and a trivial predictor."""
    value = record[shown.metric]
    if not shown.baseline:
        return [figure(value), "–"]
    baseline = record[shown.baseline]
    lost = value < baseline if shown.higher else value > baseline
    return [f"{figure(value)}, **worse**" if lost else figure(value), f"{figure(baseline)} ({shown.baseline_words})"]


def main(words: list[str]) -> None:
    """Runs what the flags say; exit code 1 where a run failed, 75 where SIGTERM ended one."""
    preempt_on_sigterm()
    with told_in_one_line("quick"):
        named = flags.FLAGS.data or os.environ.get("DFN_DATA", "")
        # What cannot be done later is told now.
        if len(words) > 1:
            raise InputError(f"unexpected argument {words[1]!r}; the folder of the real data is --data=FOLDER")
        if named and not expanded(named).is_dir():
            raise InputError(f"{named} is no folder; give that of the real data as --data or in DFN_DATA")
        folder = str(expanded(named).resolve()) if named else DATA
        with_tables(README.read_text(encoding="utf-8"), {"quick": ""})
        left_out = missing(folder)
        for name, path in left_out.items():
            kept(name)
            print(f"{name} needs {path}, which is not there (--data=FOLDER says where to look); its record stays")
        for name in (name for name in RUNS if name not in left_out):
            record = run(name, folder)
            if lacking := _lacking(name, record):
                raise InputError(f"{name} has no {lacking}, which the table shows; its record stays as it was")
            write_whole(RESULTS / f"{name}.json", json.dumps(record, indent=2) + "\n")
        with alone():
            write_whole(README, with_tables(README.read_text(encoding="utf-8"), {"quick": table()}))
        print_table(table())


if __name__ == "__main__":
    flags.DEFINE_string("data", "", "folder of the real data")
    app.run(main)
