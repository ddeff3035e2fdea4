"""What a run reached: `results.json` and `report/index.html`, for every task alike."""

import itertools
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from dfn_jax import parallel, report, visualize
from dfn_jax.config import differing, ema_decay
from dfn_jax.errors import InputError
from dfn_jax.files import make_writable_folder, write_arrays, write_whole
from dfn_jax.intervals import confidence_interval
from dfn_jax.provenance import commit, hardware, versions
from dfn_jax.records import TEST_PREFIX, mean_loss, read_records
from dfn_jax.tasks.task import Evaluation, Task
from dfn_jax.train_step import TrainState
from dfn_jax.workdir import EXAMPLES_FILE, results_folder, steps_measured

FEWEST_EXAMPLES = 20  # fewer have no interval of confidence
CURVE_PARTS = 20  # of the steps, each with its mean loss


def evaluate(
    task: Task, config: ConfigDict, workdir: Path, state: TrainState, *, began: float
) -> tuple[Path, Evaluation]:
    """Measures a trained state on data that training never sees, and writes the results and the report.

    Args:
        task: what was trained.
        config: its config; where it asks for another test set or precision than the config in the workdir, the results
            go to a folder below `evaluations/` that says what.
        workdir: of the run.
        state: to be measured.
        began: when the command began, by `time.monotonic`.

    Returns:
        The folder that holds `results.json` and `report/`, and what was found.

    Raises:
        InputError: what is there was measured after more steps, of which no whole checkpoint is left.
        OSError: the folder cannot be written; told before anything is measured.
    """
    folder = workdir / results_folder(workdir, config)
    make_writable_folder(folder)
    _check_no_step_is_lost(folder / "results.json", int(state.step), config)
    records, starts = read_records(workdir / "metrics.jsonl"), read_records(workdir / "starts.jsonl")
    here = {"hardware": hardware(jax.local_devices()), "commit": commit(), "precision": config.precision}
    evaluation = task.evaluate(parallel.on_all_local_devices(state.params))
    done = [record for record in records if record["step"] <= int(state.step)]
    results = _results(config, state, evaluation, done, starts, here=here, began=began)
    sections = [*evaluation.sections(), *_training_curve(task, config, done)]
    if folder == workdir:
        sections += _test_curve(records, starts, config, int(state.step), evaluation)
    _check_no_step_is_lost(folder / "results.json", int(state.step), config)  # Training may have gone on meanwhile.
    begun = results["initial_weights"]
    of = f"from {begun}" if begun.startswith("pretrained ") else f"preset {config.preset}"
    report.write_report(
        folder / "report",
        title=f"{config.experiment}, {results['steps']:,} steps, {of}",
        introduction=evaluation.headline,
        sections=sections,
        details={
            "Results": {name: value for name, value in results.items() if not isinstance(value, dict)},
            "Configuration": flatten_dict(json.loads(config.to_json_best_effort()), sep="."),
            "Versions": results["versions"],
        },
    )
    if evaluation.examples:
        write_arrays(folder / EXAMPLES_FILE, evaluation.examples)  # Networks can be compared on the same ones.
    else:
        (folder / EXAMPLES_FILE).unlink(missing_ok=True)
    # Last of all: a first evaluation that has them is done.
    write_whole(folder / "results.json", json.dumps(results, indent=2) + "\n")
    return folder, evaluation


def _results(
    config: ConfigDict,
    state: TrainState,
    evaluation: Evaluation,
    records: list[dict],
    starts: list[dict],
    *,
    here: dict[str, str],
    began: float,
) -> dict[str, Any]:
    """What `results.json` holds; `here` is by what was evaluated: hardware, commit and precision."""
    trained = {what: of_training(what, starts, int(state.step)) or told for what, told in here.items()}
    return {
        "experiment": config.experiment,
        "preset": config.preset,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "steps": int(state.step),
        "seed": config.seed,
        "data": evaluation.data,
        "examples": len(next(iter(evaluation.examples.values()), ())),
        "training_time_s": _training_time(records),
        "training_loss_curve": _loss_curve(records),
        "wall_time_s": round(time.monotonic() - began, 1),
        "hardware": trained["hardware"],
        "evaluation_hardware": here["hardware"],
        "precision": trained["precision"],
        "evaluation_precision": here["precision"],
        "initial_weights": next(filter(None, (one.get("initial_weights") for one in starts)), "unknown"),
        "versions": versions(),
        "commit": trained["commit"],
        "evaluation_commit": here["commit"],
        **{name: _as_json(value) for name, value in evaluation.metrics.items()},
        **{
            f"{name}_ci95": _as_json(confidence_interval(values))
            for name, values in evaluation.examples.items()
            if len(values) >= FEWEST_EXAMPLES
        },
    }


def _training_curve(task: Task, config: ConfigDict, records: list[dict]) -> list[report.Picture]:
    """A picture of the loss by step, where there are several."""
    if sum("loss" in record for record in records) <= 1:
        return []
    curve = visualize.curve_png(records, ["loss"], label=task.loss_name)
    averaged = "of the weights before averaging" if ema_decay(config) else ""
    caption = ", ".join(filter(None, [task.loss_name, "by training step", task.curriculum.words, averaged]))
    return [report.Picture("curve", "How it learned", curve, caption)]


def _test_curve(
    records: list[dict], starts: list[dict], config: ConfigDict, step: int, evaluation: Evaluation
) -> list[report.Picture]:
    """A picture of the measure that counts most, of the steps at which training took it on the same test set."""

    def alike(record: dict) -> bool:
        taken_by = next((start for start in reversed(starts) if start["step"] <= record["step"]), {})
        terms = differing(taken_by.get("eval", {}), config.eval.to_dict())
        return not terms.keys() - {"best"} and taken_by.get("precision") == config.precision

    name = TEST_PREFIX + evaluation.measure
    points = [record for record in records if name in record and record["step"] != step and alike(record)]
    if not points:
        return []
    here = {"step": step, name: evaluation.metrics[evaluation.measure]}
    points = sorted([*points, here], key=lambda point: point["step"])  # The best checkpoint is not always the last.
    caption = (
        f"{evaluation.measure_in_words} on {evaluation.data}, by training step. Where training data are "
        "few and it no longer falls with the loss, the network learns them by heart."
    )
    curve = visualize.curve_png(points, [name], label=evaluation.measure_in_words)
    return [report.Picture("test_curve", "How good it was on the way", curve, caption)]


def _check_no_step_is_lost(path: Path, steps: int, config: ConfigDict) -> None:
    """Checks that the results of a state are not replaced by those of one before it, unless it is the best."""
    there = steps_measured(path)
    if there is not None and there > steps and not config.eval.best:
        raise InputError(
            f"{path} was measured after {there} steps, the newest whole checkpoint has {steps}; train on to {there} "
            "first, or move the results away"
        )


def of_training(what: str, starts: list[dict], steps: int) -> str | None:
    """What made the steps of a run: several where it was stopped and went on with another.

    Args:
        what: 'commit', 'hardware' or 'precision'.
        starts: records of `starts.jsonl`.
        steps: how many steps count.

    Returns:
        The commits, the hardware or the precisions in words, 'unknown' where a start has not told it; None where there
        are no steps.
    """
    counted = [start for start in starts if start["step"] < steps]
    begun = bool(counted) and counted[0]["step"] == 0
    told = [*(["unknown"] if steps and not begun else []), *(start.get(what) or "unknown" for start in counted)]
    return " and ".join(dict.fromkeys(told)) or None


def _training_time(records: list[dict]) -> float | None:
    """Seconds that the steps of a run took, over all its starts; None where no steps are recorded."""
    steps = [0, *(record["step"] for record in records)]
    taken = [after - before for before, after in itertools.pairwise(steps)]
    rates = [record.get("steps_per_second", math.inf) for record in records]
    seconds = sum(n / rate for n, rate in zip(taken, rates, strict=True))
    return round(seconds, 1) if records else None


def _loss_curve(records: list[dict]) -> list[float | None]:
    """Mean training loss over each twentieth of the steps, or each of fewer parts where there are fewer records."""
    parts = min(CURVE_PARTS, sum("loss" in record for record in records))
    ends = np.linspace(0, records[-1]["step"], parts + 1).tolist() if parts else []
    return [
        _as_json(mean_loss(begun, [record for record in records if begun < record["step"] <= end]))
        for begun, end in itertools.pairwise(ends)
    ]


def _as_json(value: float | Sequence[float]) -> float | list | None:
    """A number or a curve, without what JSON does not know."""
    if isinstance(value, Sequence):
        return [_as_json(number) for number in value]
    return value if math.isfinite(value) else None
