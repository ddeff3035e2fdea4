"""README and docs say what the records do."""

import collections
import math
import re

import numpy as np
import pytest
import scipy.stats

from dfn_jax import pretrained
from dfn_jax.files import read_arrays
from experiments import quick, reproduce
from experiments.readme import README, with_tables
from experiments.runs import ROOT
from experiments.tables import TABLES
from experiments.wording import COMPARED
from tests.experiments_test import get_config

RESULTS_PAGE = ROOT / "docs" / "results.md"
FURTHER = reproduce.RESULTS / "moving_mnist_further.json"  # the medium protocol's DFN, trained further
# Rows of Moving MNIST's short protocol beside the DFN, as the README and docs/results.md call them.
RIVALS = {"conv_lstm": "Conv-LSTM", "cdna": "CDNA", "dna": "DNA", "twin": "without the filter"}


def test_the_readme_says_what_the_records_say():
    tables = reproduce.recorded_tables() | {"quick": quick.table()}
    assert with_tables(README.read_text(), tables) == README.read_text()


def errors(table, row, protocol):
    """By seed."""
    found = [r for r in reproduce.records(table) if (r["row"], r["protocol"]) == (row, protocol)]
    return {record["seed"]: record[TABLES[table].metric] for record in found}


def mean(table, row, protocol):
    found = errors(table, row, protocol)
    return sum(found.values()) / len(found)


def saved(table, protocol):
    """How much less error with the filter, in words: the mean, and with each seed."""
    dfn, twin = (errors(table, row, protocol) for row in COMPARED)
    by_seed = [100 * (1 - dfn[seed] / twin[seed]) for seed in sorted(dfn.keys() & twin.keys())]
    *others, last = (f"{one:.0f}" for one in by_seed)
    return f"**{np.mean(by_seed):.0f} %** ({', '.join(others)} and {last})"


def saved_by_one_seed(table, protocol, rows=COMPARED):
    """The same of seed 0 in words, with the interval over the test examples."""
    ours, theirs = (errors(table, row, protocol)[0] for row in rows)
    examples = read_arrays(reproduce._examples_file(table))
    found = scipy.stats.bootstrap(
        [examples[f"{row}-{protocol}-0"].astype(float) for row in rows],
        lambda a, b, axis: 1 - a.mean(axis) / b.mean(axis),
        paired=True,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    shares = (1 - ours / theirs, *found.confidence_interval)
    return "**{:.0f} %** ({:.0f} to {:.0f})".format(*(100 * share for share in shares))


REAL_VIDEO = reproduce.RESULTS / "highway_medium_real_video.json"


def in_one_line(text):
    """Words that may be wrapped anywhere."""
    return " ".join(text.split())


def cells(row):
    """Of the row of the README's first table that begins with these words."""
    section = README.read_text().split("## What is reproduced\n")[1].split("\n## ")[0]
    (line,) = [line for line in section.splitlines() if line.startswith(f"| {row}")]
    return line.strip("| ").split(" | ")[1:]


def examples_seen(table):
    """In training, by the published recipe."""
    return math.prod(get_config(table, "paper").train[entry] for entry in ("steps", "batch_size"))


def test_the_readme_says_what_the_filter_saves_as_the_records_do():
    assert cells("stereo")[1] == saved_by_one_seed("stereo", "full")
    assert cells("highway")[1] == saved("highway", "medium")
    medium = TABLES["highway"].protocols["medium"].changes
    share = examples_seen("highway") / (medium["train.steps"] * medium["train.batch_size"])
    assert f": 1/{share:.0f} of the training, three seeds" in cells("highway")[2]
    for table in ("stereo", "highway"):
        twin, dfn = (
            next(row.published for row in TABLES[table].rows if row.preset == one) for one in ("twin", "paper")
        )
        without, with_filter = (float(re.search(r"([0-9.]+) \(authors' code\)", said)[1]) for said in (twin, dfn))
        published = f"{100 * (1 - with_filter / without):.0f} %, {with_filter:.2f} against {without:.2f}"
        assert cells(table)[0] == published


def test_the_caption_of_the_first_picture_says_what_the_record_does():
    (dfn,) = (r for r in reproduce.records("stereo") if (r["row"], r["protocol"]) == ("paper", "full"))
    off, shifted = dfn["disparity_epe_noc"], dfn["baseline_row_shift_disparity_epe_noc"]
    told = f"is off by {off:.2f} px on average, and the best shift for each row by {shifted:.2f} px (each"
    assert told in in_one_line(README.read_text())


def test_the_readme_and_the_docs_say_of_steerable_filters_what_the_records_do():
    full = [one for one in reproduce.records("steerable") if one["protocol"] == "full"]
    assert cells("steerable")[1] == f"{100 * max(one['filter_relative_error'] for one in full):.0f} %"
    mean, worst = (100 * np.mean([one[f"filter_relative_error{of}"] for one in full]) for of in ("", "_worst"))
    told = f"by {mean:.1f} % on average over 64 unseen angles, and by {worst:.1f} % at the worst"
    assert told in in_one_line(RESULTS_PAGE.read_text())


def test_the_readme_says_of_moving_mnist_what_the_records_do():
    told = {row: cells(f"Moving MNIST, {name}") for row, name in zip(COMPARED, ("DFN", "without"), strict=True)}
    published = {
        row.preset: float(re.search(r"([0-9.]+) \(?authors' code", row.published)[1])
        for row in TABLES["moving_mnist"].rows
        if row.preset in COMPARED
    }
    (dfn,) = (r for r in reproduce.records("moving_mnist") if (r["row"], r["protocol"]) == ("paper", "medium"))
    further = reproduce.read(FURTHER)
    reached = {"paper": further["bce_nats_per_frame"], "twin": mean("moving_mnist", "twin", "medium")}
    for row in COMPARED:
        assert told[row][:2] == [f"{published[row]:.0f}", f"{reached[row]:.0f}"]
    saving = cells("Moving MNIST: saving")
    assert saving[0] == f"{100 * (1 - published['paper'] / published['twin']):.0f} %, 282 against 435"
    assert saving[1] == saved_by_one_seed("moving_mnist", "medium").replace("**", "")
    steps, seconds = (dfn[name] + further[name] for name in ("steps", "training_time_s"))
    share = f"1/{examples_seen('moving_mnist') / 4 / steps:.0f} of the sequences"
    assert f": {share}, {dfn['steps']:,} + {further['steps']:,} steps in {seconds / 3600:.1f} hours" in told["paper"][2]
    share = f"1/{examples_seen('moving_mnist') / 4 / dfn['steps']:.0f} of the sequences"
    assert share in told["twin"][2]
    assert f"both after {dfn['steps']:,} steps" in saving[2]
    readme = in_one_line(README.read_text())
    assert f": {saved('moving_mnist', 'short')[:-1]} with three seeds; after 400 steps of Adam" in readme


def in_row(training, record):
    """The cells of a network of Moving MNIST, after its name; `training` has the number of steps as {steps}."""
    low, high = record["bce_nats_per_frame_ci95"]
    cells = [
        f"{training.format(**record)}, {record['training_time_s'] / 3600:.1f} hours",
        f"{record['bce_nats_per_frame']:.0f} ({low:.0f} to {high:.0f})",
        f"{record['mse_per_frame']:.0f} | {record['ssim']:.2f}",
    ]
    return f" | {' | '.join(cells)} |"


def test_the_docs_say_how_far_moving_mnist_came_as_the_records_do():
    page = in_one_line(RESULTS_PAGE.read_text()).replace("**", "")
    medium = {r["row"]: r for r in reproduce.records("moving_mnist") if r["protocol"] == "medium"}
    without, unfinished = (
        reproduce.read(reproduce.RESULTS / f"moving_mnist_{name}.json")
        for name in ("without_curriculum", "adam_unfinished")
    )
    others = reproduce.read(reproduce.RESULTS / "at_other_rates.json")
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
    examples = read_arrays(reproduce._examples_file("moving_mnist"))
    better = (examples["paper-medium-0"] < examples["twin-medium-0"]).mean()
    assert f"({low} to {high} over the same sequences; it is better on {100 * better:.0f} % of them)" in page
    changes, recipe = TABLES["moving_mnist"].protocols["medium"].changes, get_config("moving_mnist", "paper")
    every, horizon = changes["train.double_horizon_every"], recipe.data.target_frames
    frames = 4 * sum(min(horizon, 2 ** (step // every)) for step in range(changes["train.steps"]))
    assert f"and 1/{examples_seen('moving_mnist') * horizon / frames:.0f} of its predicted frames" in page
    dfn, slow = (record["bce_nats_per_frame"] for record in (medium["paper"], slow_twin))
    assert f"it had {slow:.0f} (`results/at_other_rates.json`), and the DFN {100 * (1 - dfn / slow):.0f} % less" in page
    dfn, twin = (np.array(medium[row]["bce_nats_per_frame_curve"]) for row in COMPARED)
    worth = [f"{100 * share:.0f}" for share in 1 - dfn / twin]
    assert f"At +1 it is {worth[0]} %, at +5 {worth[4]} %, at +10 {worth[9]} %" in page
    by_curriculum, by_muon = (
        [
            f"{100 * (1 - after['bce_nats_per_frame'] / before['bce_nats_per_frame']):.0f} %"
            for after, before in zip(*runs, strict=True)
        ]
        for runs in (([medium["paper"], slow_twin], without), (without, unfinished))
    )
    assert "leave {} fewer nats to the DFN and, at 3e-4 too, {} fewer to its twin".format(*by_curriculum) in page
    assert f"it has {by_muon[1]} fewer nats than by Adam, the DFN {by_muon[0]}," in page


def test_the_docs_say_where_the_dfn_that_was_trained_further_loses_as_the_records_do():
    page = in_one_line(RESULTS_PAGE.read_text()).replace("**", "")
    medium = {r["row"]: r for r in reproduce.records("moving_mnist") if r["protocol"] == "medium"}
    further, before, twin = reproduce.read(FURTHER), medium["paper"], medium["twin"]
    assert in_row("the same, then {steps:,} steps more", further) in page
    begun = pretrained.load("moving_mnist")[2]["initial_weights"]
    assert (
        begun
        == further["initial_weights"]
        == f"pretrained moving_mnist of {before['steps']} steps (SHA-256 a4f75ba10546)"
    )
    ends = range(further["steps"] // 20, further["steps"] + 1, further["steps"] // 20)
    told = {f"{end:,}": f"{4096 * loss:.0f}" for end, loss in zip(ends, further["training_loss_curve"], strict=True)}
    shown = [list(told.items())[part] for part in (0, 3, 7, 11, 15, 19)]
    for cells in zip(*shown, strict=True):
        assert f" | {' | '.join(cells)} |" in page
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
    low, high = sorted(at[place] - at["overlap"] for place in ("bounce", "neither"))
    least, most = sorted(grey[place] - grey["overlap"] for place in ("bounce", "neither"))
    told = "have {:.0f} to {:.0f} nats less than others, of which their targets' entropy accounts for {:.0f} to {:.0f}"
    assert told.format(low, high, least, most) in page


def test_the_docs_say_of_moving_mnist_made_small_what_the_records_do():
    """Mean and spread, by seed, by predicted frame, at bounces, and the structural similarity."""
    _, section = RESULTS_PAGE.read_text().split("## Moving MNIST made small")
    for row, name in {"paper": "DFN", **RIVALS}.items():
        line = next(line for line in section.splitlines() if line.startswith(f"| {name}"))
        told, by_seed, *figures = line.replace("*", "").strip("| ").split(" | ")[2:]
        runs = [r for r in reproduce.records("moving_mnist") if (r["row"], r["protocol"]) == (row, "short")]
        nats_of_seeds = [run["bce_nats_per_frame"] for run in runs]
        assert told == f"{np.mean(nats_of_seeds):.1f} ± {np.std(nats_of_seeds, ddof=1):.1f}"
        assert by_seed == ", ".join(f"{nats:.1f}" for nats in nats_of_seeds)
        measures = [(*r["bce_nats_per_frame_curve"], r["bce_nats_per_frame_at_bounce"], r["ssim"]) for r in runs]
        *nats, ssim = np.mean(measures, axis=0)
        assert figures == [*(f"{value:.1f}" for value in nats), f"{ssim:.2f}"]
    now = [r for r in reproduce.records("moving_mnist") if r["protocol"] == "short"]
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


def test_the_docs_say_of_learning_rates_what_the_records_do():
    _, section = RESULTS_PAGE.read_text().split("**The learning rate decides who wins.**")
    found = collections.defaultdict(list)
    others = [r for r in reproduce.read(reproduce.RESULTS / "at_other_rates.json") if r["protocol"] == "short"]
    for table in ("moving_mnist", "stereo", "highway"):
        short = [r for r in reproduce.records(table) if r["protocol"] == "short"]
        for record in [*short, *(r for r in others if r["experiment"] == table)]:
            (rate,) = re.findall(r"optim\.learning_rate=(\S+)", record["command"])
            if table == "moving_mnist" or record["seed"] == 0:
                found[table, float(rate), record["row"]].append(record[TABLES[table].metric])
    for rate in (3e-3, 1e-3, 3e-4):
        cells = []
        for row in ("cdna", "dna", "paper", "twin", "conv_lstm"):
            nats = found["moving_mnist", rate, row]
            spread = f" ± {np.std(nats, ddof=1):.1f}" if len(nats) > 1 else ""
            cells.append(f"{np.mean(nats):.1f}{spread}" if nats else "–")
        assert f"| {rate:.0e}".replace("e-0", "e-") + f" | {' | '.join(cells)} |" in section.replace("*", "")
    figures = [
        f"{found[table, rate, row][0]:.2f}"
        for rate in (1e-3, 3e-3)
        for table in ("stereo", "highway")
        for row in COMPARED
    ]
    told = "stereo's DFN has {} and its twin {} (at 3e-3: {} and {}), highway's DFN {} and its twin {} ({} and {})"
    assert told.format(*figures[:2], *figures[4:6], *figures[2:4], *figures[6:]) in in_one_line(section)
    found = {case: values[0] for case, values in found.items() if values}
    slow, fast = (1 - found["stereo", rate, "paper"] / found["stereo", rate, "twin"] for rate in (1e-3, 3e-3))
    dfn, twin = (min(found["highway", rate, row] for rate in (1e-3, 3e-3)) for row in COMPARED)
    assert found["highway", 1e-3, "paper"] > found["highway", 1e-3, "twin"]
    told = (
        f"At 1e-3 stereo's filter would be worth {100 * slow:.0f} % instead of {100 * fast:.0f} %, and highway's would "
        f"do harm; each at its better rate, it is worth {100 * (1 - dfn / twin):.0f} %."
    )
    assert told in in_one_line(section)


@pytest.mark.parametrize(
    ("table", "protocol", "heading"),
    [
        ("stereo", "medium", "## Stereo by half the steps"),
        ("highway", "medium", "### On 64x64"),
        ("highway", "short", "### On 32x32"),
    ],
)
def test_the_docs_say_what_the_filter_saves_by_seed_as_the_records_do(table, protocol, heading):
    section = RESULTS_PAGE.read_text().split(heading)[1]
    line = next(line for line in section.splitlines() if line.startswith("| the filter's worth |"))
    worth, *by_seed = re.findall("[0-9]+", saved(table, protocol))
    assert line.startswith(f"| the filter's worth | {' | '.join(f'{one} %' for one in by_seed)} | **{worth} %** |")


def test_the_docs_say_of_the_relatives_of_section_3_3_what_the_records_do():
    """Error and disparity by both protocols, with seed 0, and how deep stereo compares with the DFN by the longer."""
    page, told = in_one_line(RESULTS_PAGE.read_text()), {}
    runs = {(r["row"], r["protocol"]): r for r in reproduce.records("stereo") if r["seed"] == 0}
    for row in ("spatial_transformer", "deep_stereo"):
        for protocol in ("short", "medium"):
            run = runs[row, protocol]
            told[row, protocol] = "{:.2f} ({:.2f} to {:.2f}".format(run["mse_per_image"], *run["mse_per_image_ci95"])
        assert f"| {told[row, 'short']}" in page
        assert f"| {runs[row, 'short']['disparity_epe_noc']:.2f} |" in page
    dfn, deep = runs["paper", "medium"], runs["deep_stereo", "medium"]
    assert round(deep["steps"] / runs["deep_stereo", "short"]["steps"]) == 14
    assert f"the spatial transformer has {told['spatial_transformer', 'medium']})" in page
    less, low, high = re.findall("[0-9]+", saved_by_one_seed("stereo", "medium", ("deep_stereo", "paper")))
    assert (
        f"passes the DFN**: {told['deep_stereo', 'medium']}), where the DFN has {dfn['mse_per_image']:.2f}, so "
        f"{less} % less ({low} to {high} over the same scenes)"
    ) in page
    assert f"predicts the right view with {less} % less squared error than the DFN" in in_one_line(README.read_text())
    px = [f"{run['disparity_epe_noc']:.2f}" for run in (deep, dfn)]
    assert f"worse, {px[0]} px where the DFN has {px[1]}" in page
    minutes = [
        r["training_time_s"] / 60
        for r in reproduce.records("stereo")
        if (r["row"], r["protocol"]) == ("paper", "medium")
    ]
    assert (
        f"its training took {deep['training_time_s'] / 3600:.1f} hours on one core, where the DFN's took "
        f"{min(minutes):.0f} to {max(minutes):.0f} minutes"
    ) in page


def test_the_docs_say_of_highway_driving_by_the_medium_protocol_what_the_records_do():
    """Error and flow by seed, with mean and spread, and what the filter saves of the first and the last frame."""
    page = RESULTS_PAGE.read_text().split("### On 64x64")[1].replace("**", "")
    medium = [record for record in reproduce.records("highway") if record["protocol"] == "medium"]
    runs = {row: [record for record in medium if record["row"] == row] for row in COMPARED}
    for name, row, metric in (
        ("DFN", "paper", "mse_per_frame"),
        ("without the filter", "twin", "mse_per_frame"),
        ("DFN: flow error of what was seen before, px (no motion: 1.63)", "paper", "flow_epe_noc"),
    ):
        values = [run[metric] for run in runs[row]]
        by_seed = " | ".join(f"{value:.2f}" for value in values)
        assert f"| {name} | {by_seed} | {np.mean(values):.2f} ± {np.std(values, ddof=1):.2f} |" in page
    savings = [1 - ours["mse_per_frame"] / theirs["mse_per_frame"] for ours, theirs in zip(*runs.values(), strict=True)]
    bounds = scipy.stats.ttest_1samp(savings, 0).confidence_interval()
    told = "{:.0f} to {:.0f} %".format(*(100 * bound for bound in bounds))
    assert f"a 95 % t-interval over the three is {told}" in in_one_line(page)
    assert f"(95 % interval over seeds: {told})" in README.read_text()
    curves = [[np.array(run["mse_per_frame_curve"]) for run in runs[row]] for row in COMPARED]
    shares = [100 * (1 - ours / theirs) for ours, theirs in zip(*curves, strict=True)]
    by_seed = " | ".join(f"{share[0]:.0f}, {share[2]:.0f} %" for share in shares)
    assert f"| … at the first and the third predicted frame | {by_seed} | |" in page
    parts = [f"mse_per_frame_{part}" for part in ("within_reach", "beyond_reach", "hidden")]
    shares = [
        f"{100 * (1 - ours[part] / theirs[part]):.0f}"
        for ours, theirs in zip(*runs.values(), strict=True)
        for part in parts
    ]
    told = (
        "{} % within the window's reach, {} % beyond it and {} % where there is nothing to fetch ({}, {} and {} % with "
        "seed 1; {}, {} and {} % with seed 2)"
    )
    assert told.format(*shares) in in_one_line(page)


def test_the_readme_tells_of_training_steps_what_the_record_does():
    rows = reproduce.read(reproduce.RESULTS / "benchmarks" / "train_step_cpu.json")
    for name, case in (("Moving MNIST", "moving_mnist"), ("highway driving", "highway"), ("stereo", "stereo")):
        ours, *theirs = (row["milliseconds"] / 1000 for row in rows if row["case"].startswith(case))
        digits = 1 if ours > 5 else 2
        cells = [f"{ours:.{digits}f} s", *(f"{'**' * (t < ours)}{t:.{digits}f} s{'**' * (t < ours)}" for t in theirs)]
        assert f"| {name} | {' | '.join(cells)} |" in README.read_text()


def test_the_readme_says_how_much_faster_the_layer_is_as_the_record_does():
    rows = reproduce.read(reproduce.RESULTS / "benchmarks" / "ops_cpu.json")
    times = collections.defaultdict(dict)
    for row in rows:
        if row["pass"] == "forward+gradient":
            times[row["case"], row["dtype"]][row["implementation"]] = row["milliseconds"]
    faster = {
        case: of_case["PyTorch unfold"] / of_case["dfn_jax shift"]
        for case, of_case in times.items()
        if "PyTorch unfold" in of_case
    }
    assert int(faster["16 x 64x64 x 1, 9x9", "float32"]) == 6
    assert (round(min(faster.values())), round(max(faster.values()))) == (2, 14)
    told = "six times as fast as PyTorch's `unfold` for 9x9 filters on 64x64 images, gradient included ([other cases]"
    assert f"{told}(docs/performance.md): two to fourteen times)" in in_one_line(README.read_text())


def test_the_docs_say_of_stereo_by_the_full_recipe_what_the_records_do():
    """Error with its interval, disparity, and the training loss, summed over an image, by twentieths of the steps."""
    _, section = RESULTS_PAGE.read_text().split("## Stereo by the full recipe\n")
    records = {r["row"]: r for r in reproduce.records("stereo") if (r["protocol"], r["seed"]) == ("full", 0)}
    for row, name in zip(COMPARED, ("DFN", "without the filter"), strict=True):
        found, (reached, curve) = records[row], re.findall(rf"^\| {name} \| (.*) \|$", section, re.MULTILINE)[:2]
        interval = "{:.2f} ({:.2f} to {:.2f})".format(found["mse_per_image"], *found["mse_per_image_ci95"])
        assert reached.replace("*", "").startswith(interval)
        by_thousands = [64 * 64 * loss for loss in found["training_loss_curve"]]
        assert curve == " | ".join(f"{by_thousands[at]:.1f}" for at in (1, 2, 3, 5, 7, 10, 13, 17, 19))
    dfn = records["paper"]
    assert f"**{dfn['disparity_epe_noc']:.2f}** | {100 * dfn['disparity_bad1_noc']:.1f} % |" in section
    share, low, high = re.findall("[0-9]+", saved_by_one_seed("stereo", "full"))
    told = f"**The filter leaves {share} % less squared error** ({low} to {high} over the same scenes;"
    assert told in in_one_line(section)


def test_the_readme_and_the_docs_tell_of_real_video_what_the_records_say():
    """Error by seed with and without the filter, what that saves, and both beside the last frame."""
    page, found = RESULTS_PAGE.read_text().replace("**", ""), reproduce.read(REAL_VIDEO)
    dfn, twin = (np.array([one["mse_per_frame"] for one in found if one["row"] == row]) for row in COMPARED)
    for name, values in (("DFN on real video", dfn), ("… without the filter", twin)):
        by_seed = " | ".join(f"{value:.2f}" for value in values)
        assert f"| {name} | {by_seed} | {values.mean():.2f} ± {values.std(ddof=1):.2f} |" in page
    worth = 100 * (1 - dfn / twin)
    assert f"| … the filter's worth | {' | '.join(f'{one:.0f} %' for one in worth)} | {worth.mean():.0f} % |" in page
    first_frames = [
        " and ".join(
            ", ".join(f"{one['mse_per_frame_curve'][0]:.2f}" for one in found if one["row"] == row).rsplit(", ", 1)
        )
        for row in COMPARED
    ]
    assert "At +1 the DFNs have {}, the twins {}, and".format(*first_frames) in in_one_line(page)
    last_frame, blurred = (found[0][f"baseline_{name}_frame_mse_per_frame"] for name in ("last", "blurred"))
    told = f"{worth.mean():.0f} % less squared error than without it ({dfn.mean():.2f} against {twin.mean():.2f}"
    readme = in_one_line(README.read_text())
    assert told in readme
    assert f"the last frame, repeated, has {last_frame:.2f}, and blurred {blurred:.2f})" in readme


def test_the_readme_and_the_docs_say_how_bad_the_networks_trained_on_kitti_are():
    drawn, tuned = (quick.kept(f"stereo_kitti_odometry{name}") for name in ("", "_fine_tuned"))
    itself = drawn["baseline_copy_mse_per_image"]
    assert drawn["mse_per_image"] > itself
    readme = in_one_line(README.read_text())
    assert f"worse than the left view itself, {itself:.2f};" in readme
    assert (
        f"it has {100 * (1 - tuned['mse_per_image'] / drawn['mse_per_image']):.0f} % less error (one seed)." in readme
    )
    page = in_one_line(RESULTS_PAGE.read_text())
    assert tuned["initial_weights"].endswith(f"(SHA-256 {pretrained.load('stereo')[2]['sha256'][:12]})")
    for record, name in ((drawn, ""), (tuned, "_fine_tuned")):
        assert f"{record['mse_per_image']:.1f} (`results/stereo_kitti_odometry{name}.json`)" in page
