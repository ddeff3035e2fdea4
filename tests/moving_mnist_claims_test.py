"""README and docs say of Moving MNIST what the records do."""

import re

import numpy as np

from dfn_jax import pretrained
from dfn_jax.files import read_arrays
from reproduce import tables
from reproduce.markdown import COMPARED
from reproduce.protocols import TABLES
from reproduce.readme import README
from tests.claims import RESULTS_PAGE, cells, examples_seen, in_one_line, mean, saved, saved_by_one_seed
from tests.recipes import get_config

ALL_SEQUENCES = tables.RESULTS / "moving_mnist_all_sequences.json"  # what the last of these has on 10,000
FURTHER = tables.RESULTS / "moving_mnist_further.json"  # the medium protocol's DFN, trained further: each piece
# The pretrained network that each piece began with: steps of its own run, and the beginning of its checksum.
BEGUN_WITH = ((3000, "a4f75ba10546"), (6900, "de5f1d4be988"), (2740, "973b4d4b9275"), (3800, "030a42125d37"))
# Rows of Moving MNIST's short protocol beside the DFN, as the README and docs/results.md call them.
RIVALS = {"conv_lstm": "Conv-LSTM", "cdna": "CDNA", "dna": "DNA", "twin": "without the filter"}


def test_the_readme_says_of_moving_mnist_what_the_records_do():
    told = {row: cells(f"Moving MNIST, {name}") for row, name in zip(COMPARED, ("DFN", "without"), strict=True)}
    published = {
        row.preset: float(re.search(r"([0-9.]+) \(?authors' code", row.published)[1])
        for row in TABLES["moving_mnist"].rows
        if row.preset in COMPARED
    }
    (dfn,) = (r for r in tables.records("moving_mnist") if (r["row"], r["protocol"]) == ("paper", "medium"))
    runs = [dfn, *tables.read(FURTHER)]
    (twin,) = (r for r in tables.records("moving_mnist") if (r["row"], r["protocol"]) == ("twin", "medium"))
    for row, reached in zip(COMPARED, (tables.read(ALL_SEQUENCES), twin), strict=True):
        nats = "{:.0f} ({:.0f} to {:.0f})".format(reached["bce_nats_per_frame"], *reached["bce_nats_per_frame_ci95"])
        assert [cell.replace("*", "") for cell in told[row][:2]] == [f"{published[row]:.0f}", nats]
    assert f"; {runs[-1]['bce_nats_per_frame']:.0f} on the 1,000 test sequences of the next rows" in told["paper"][2]
    saving = cells("Moving MNIST: saving")
    assert saving[0] == f"{100 * (1 - published['paper'] / published['twin']):.0f} %, 282 against 435"
    assert saving[1] == saved_by_one_seed("moving_mnist", "medium").replace("**", "")
    steps, seconds = ([run[name] for run in runs] for name in ("steps", "training_time_s"))
    share = f"{400 * sum(steps) / examples_seen('moving_mnist'):.0f} % of the sequences"
    done = " + ".join(f"{count:,}" for count in steps)
    assert f": {share}, {done} steps in {sum(seconds) / 3600:.1f} hours" in told["paper"][2]
    share = f"{400 * dfn['steps'] / examples_seen('moving_mnist'):.0f} % of the sequences"
    assert all(share in told[row][2] for row in COMPARED)
    assert f"both after {dfn['steps']:,} steps" in saving[2]
    readme = in_one_line(README.read_text())
    assert f"| two MNIST digits, 64x64 | {done} steps of 4 |" in readme
    assert f": {saved('moving_mnist', 'short')[:-1]} with three seeds; after 400 steps of Adam" in readme


def line(*told):
    """Of a table."""
    return f"| {' | '.join(told)} |"


def in_row(training, record):
    """The cells of a network of Moving MNIST, after its name; `training` has the number of steps as {steps}."""
    low, high = record["bce_nats_per_frame_ci95"]
    return " " + line(
        f"{training.format(**record)}, {record['training_time_s'] / 3600:.1f} hours",
        f"{record['bce_nats_per_frame']:.0f} ({low:.0f} to {high:.0f})",
        f"{record['mse_per_frame']:.0f}",
        f"{record['ssim']:.2f}",
    )


def test_the_docs_say_how_far_moving_mnist_came_as_the_records_do():
    page = in_one_line(RESULTS_PAGE.read_text()).replace("**", "")
    medium = {r["row"]: r for r in tables.records("moving_mnist") if r["protocol"] == "medium"}
    without, unfinished = (
        tables.read(tables.RESULTS / f"moving_mnist_{name}.json") for name in ("without_curriculum", "adam_unfinished")
    )
    others = tables.read(tables.RESULTS / "at_other_rates.json")
    (slow_twin,) = (r for r in others if (r["experiment"], r["protocol"]) == ("moving_mnist", "medium"))
    assert "optim.learning_rate=0.0003" in slow_twin["command"]
    runs = [("Muon, with a curriculum, {steps:,} steps", r) for r in (*(medium[row] for row in COMPARED), slow_twin)]
    runs += [("Muon, {steps:,} steps", record) for record in without]
    runs += [("Adam, stopped at step {steps:,}", record) for record in unfinished]
    for words, record in runs:
        assert in_row(words, record) in page
    for row in COMPARED:
        curve = [f"{4096 * medium[row]['training_loss_curve'][part]:.0f}" for part in (11, 13, 15, 17, 19)]
        assert f" | {' | '.join(curve)} |" in page
    low, high = re.findall("[0-9]+", saved_by_one_seed("moving_mnist", "medium"))[1:]
    examples = read_arrays(tables.examples_file("moving_mnist"))
    better = (examples["paper-medium-0"] < examples["twin-medium-0"]).mean()
    assert f"({low} to {high} over the same sequences; it is better on {100 * better:.0f} % of them)" in page
    changes, recipe = TABLES["moving_mnist"].protocols["medium"].changes, get_config("moving_mnist", "paper")
    every, horizon = changes["train.double_horizon_every"], recipe.data.target_frames
    frames = 4 * sum(min(horizon, 2 ** (step // every)) for step in range(changes["train.steps"]))
    assert f"and 1/{examples_seen('moving_mnist') * horizon / frames:.0f} of its predicted frames" in page
    dfn, slow = (record["bce_nats_per_frame"] for record in (medium["paper"], slow_twin))
    assert f"it had {slow:.0f} (`results/at_other_rates.json`), and the DFN {100 * (1 - dfn / slow):.0f} % less" in page
    dfn, twin = (np.array(medium[row]["bce_nats_per_frame_curve"]) for row in COMPARED)
    saving = [f"{100 * share:.0f}" for share in 1 - dfn / twin]
    assert f"At +1 it is {saving[0]} %, at +5 {saving[4]} %, at +10 {saving[9]} %" in page
    by_curriculum, by_muon = (
        [
            f"{100 * (1 - after['bce_nats_per_frame'] / before['bce_nats_per_frame']):.0f} %"
            for after, before in zip(*runs, strict=True)
        ]
        for runs in (([medium["paper"], slow_twin], without), (without, unfinished))
    )
    assert "leave {} fewer nats to the DFN and, at 3e-4 too, {} fewer to its twin".format(*by_curriculum) in page
    assert f"it has {by_muon[1]} fewer nats than by Adam, the DFN {by_muon[0]}," in page


def in_table_of_pieces(record):
    """A line: how it was trained, the loss over twentieths of the steps, and what was reached."""
    entries = dict(re.findall(r"--config\.optim\.(\S+)=(\S+)", record["command"]))
    digits, exponent = f"{float(entries['learning_rate']):e}".split("e")
    averaged = ", averaged" if "ema_decay" in entries else ""
    return line(
        f"{record['steps']:,} steps",
        f"{float(digits):g}e{int(exponent)}, halved every {int(entries['halve_every']):,}{averaged}",
        *(f"{4096 * record['training_loss_curve'][part]:.0f}" for part in (0, 3, 7, 11, 15, 19)),
        f"{record['bce_nats_per_frame']:.0f}",
    )


def test_the_docs_say_where_the_dfn_that_was_trained_further_loses_as_the_records_do():
    page = in_one_line(RESULTS_PAGE.read_text()).replace("**", "")
    medium = {r["row"]: r for r in tables.records("moving_mnist") if r["protocol"] == "medium"}
    pieces, before, twin = tables.read(FURTHER), medium["paper"], medium["twin"]
    further, of_all = pieces[-1], tables.read(ALL_SEQUENCES)
    for piece, (steps, checksum) in zip(pieces, BEGUN_WITH, strict=True):
        assert piece["initial_weights"] == f"pretrained moving_mnist of {steps} steps (SHA-256 {checksum})"
        assert in_table_of_pieces(piece) in page
    assert [steps for steps, _ in BEGUN_WITH] == [run["steps"] for run in (before, *pieces[:-1])]
    more = {name: sum(piece[name] for piece in pieces) for name in ("steps", "training_time_s")}
    assert in_row("the same, then {steps:,} steps more", further | more) in page
    nats = further["bce_nats_per_frame"]
    card = pretrained.load("moving_mnist")[2]
    assert (card["initial_weights"], card["metrics"]["bce_nats_per_frame"]) == (further["initial_weights"], nats)
    told = {
        count: "{:.1f} ({:.1f} to {:.1f})".format(record["bce_nats_per_frame"], *record["bce_nats_per_frame_ci95"])
        for count, record in (("10,000", of_all), ("1,000", further))
    }
    assert of_all["examples"] == 10_000
    assert (of_all["commit"], of_all["steps"]) == (card["commit"], card["steps"])
    assert of_all["bce_nats_per_frame_ci95"][1] < 282.3
    assert (
        f"The best result, {told['10,000']} on 10,000 test sequences, is below the paper's 285.2 and the 282.3" in page
    )
    assert f"On the first 1,000, by which all networks below are compared, it has {told['1,000']}:" in page
    fewer = f"{100 * (1 - nats / before['bce_nats_per_frame']):.0f} % fewer nats than after the first 3,000 steps"
    assert f"The network now has {fewer}, {nats:.0f} on the same sequences," in page
    rows = {
        "two digits, as trained (1,000 sequences)": further,
        "by the network after 3,000 steps": before,
        "without the filter, after 3,000 steps": twin,
    }
    for words, record in rows.items():
        curve = [f"{record['bce_nats_per_frame_curve'][ahead - 1]:.0f}" for ahead in (1, 2, 3, 5, 7, 10)]
        assert f"| {words} | {' | '.join(curve)} | | | | {record['bce_nats_per_frame']:.0f} |" in page
    at = {place: further[f"bce_nats_per_frame_at_{place}"] for place in ("overlap", "bounce", "neither")}
    grey = {place: further[f"target_entropy_nats_at_{place}"] for place in at}
    for place in at:
        found = [*(record[f"bce_nats_per_frame_at_{place}"] for record in rows.values()), grey[place]]
        assert f" | {' | '.join(f'{value:.0f}' for value in found)} |" in page
    less, entropy = ([of[place] - of["overlap"] for place in ("neither", "bounce")] for of in (at, grey))
    told = (
        "have {:.0f} nats less than frames of neither kind, where their targets' entropy is {:.0f} less, and {:.0f} "
        "less than frames in which a digit bounces, where it is {:.0f} less"
    )
    assert told.format(less[0], entropy[0], less[1], entropy[1]) in page


def test_the_docs_say_of_moving_mnist_made_small_what_the_records_do():
    """Mean and spread, by seed, by predicted frame, at bounces, and the structural similarity."""
    _, section = RESULTS_PAGE.read_text().split("## Moving MNIST made small")
    for row, name in {"paper": "DFN", **RIVALS}.items():
        line = next(line for line in section.splitlines() if line.startswith(f"| {name}"))
        told, by_seed, *figures = line.replace("*", "").strip("| ").split(" | ")[2:]
        runs = [r for r in tables.records("moving_mnist") if (r["row"], r["protocol"]) == (row, "short")]
        nats_of_seeds = [run["bce_nats_per_frame"] for run in runs]
        assert told == f"{np.mean(nats_of_seeds):.1f} ± {np.std(nats_of_seeds, ddof=1):.1f}"
        assert by_seed == ", ".join(f"{nats:.1f}" for nats in nats_of_seeds)
        measures = [(*r["bce_nats_per_frame_curve"], r["bce_nats_per_frame_at_bounce"], r["ssim"]) for r in runs]
        *nats, ssim = np.mean(measures, axis=0)
        assert figures == [*(f"{value:.1f}" for value in nats), f"{ssim:.2f}"]
    now = [r for r in tables.records("moving_mnist") if r["protocol"] == "short"]
    curves = {
        row: np.mean([r["bce_nats_per_frame_curve"] for r in now if r["row"] == row], axis=0)
        for row in ("paper", *RIVALS)
    }
    growth = {row: f"{100 * (curve[-1] / curve[0] - 1):.0f} %" for row, curve in curves.items()}
    told = (
        "its error grows by {conv_lstm}, that of the networks which get their own prediction as the next input by "
        "{cdna} (CDNA) to {dna}"
    )
    assert told.format(**growth) in in_one_line(section)
    better = 100 * (1 - mean("moving_mnist", "cdna", "short") / mean("moving_mnist", "paper", "short"))
    assert f"CDNA is better than the DFN**, by {better:.0f} %," in section
