"""README and docs say what the records do; of Moving MNIST, see `moving_mnist_claims_test.py`."""

import collections
import re

import numpy as np
import pytest
import scipy.stats

from dfn_jax import pretrained
from reproduce import quick, tables
from reproduce.markdown import COMPARED
from reproduce.protocols import TABLES
from reproduce.readme import README, with_tables
from tests.claims import RESULTS_PAGE, cells, examples_seen, in_one_line, saved, saved_by_one_seed

REAL_VIDEO = tables.RESULTS / "highway_medium_real_video.json"


def test_the_readme_says_what_the_records_say():
    shown = tables.recorded_tables() | {"quick": quick.table()}
    assert with_tables(README.read_text(), shown) == README.read_text()


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
    (dfn,) = (r for r in tables.records("stereo") if (r["row"], r["protocol"]) == ("paper", "full"))
    off, shifted = dfn["disparity_epe_noc"], dfn["baseline_row_shift_disparity_epe_noc"]
    told = f"is off by {off:.2f} px on average, and the best shift for each row by {shifted:.2f} px (each"
    assert told in in_one_line(README.read_text())


def test_the_readme_and_the_docs_say_of_steerable_filters_what_the_records_do():
    full = [one for one in tables.records("steerable") if one["protocol"] == "full"]
    assert cells("steerable")[1] == f"{100 * max(one['filter_relative_error'] for one in full):.0f} %"
    mean, worst = (100 * np.mean([one[f"filter_relative_error{of}"] for one in full]) for of in ("", "_worst"))
    told = f"by {mean:.1f} % on average over 64 unseen angles, and by {worst:.1f} % at the worst"
    assert told in in_one_line(RESULTS_PAGE.read_text())


def test_the_docs_say_of_learning_rates_what_the_records_do():
    _, section = RESULTS_PAGE.read_text().split("**The learning rate decides who wins.**")
    found = collections.defaultdict(list)
    others = [r for r in tables.read(tables.RESULTS / "at_other_rates.json") if r["protocol"] == "short"]
    for table in ("moving_mnist", "stereo", "highway"):
        short = [r for r in tables.records(table) if r["protocol"] == "short"]
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
        f"At 1e-3 stereo's filter would save {100 * slow:.0f} % instead of {100 * fast:.0f} %, and highway's would "
        f"do harm; with DFN and twin each at its better rate, highway's saves {100 * (1 - dfn / twin):.0f} %."
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
    line = next(line for line in section.splitlines() if line.startswith("| the filter's saving |"))
    saving, *by_seed = re.findall("[0-9]+", saved(table, protocol))
    assert line.startswith(f"| the filter's saving | {' | '.join(f'{one} %' for one in by_seed)} | **{saving} %** |")


def test_the_docs_say_of_the_relatives_of_section_3_3_what_the_records_do():
    """Error and disparity by both protocols, with seed 0, and how deep stereo compares with the DFN by the longer."""
    page, told = in_one_line(RESULTS_PAGE.read_text()), {}
    runs = {(r["row"], r["protocol"]): r for r in tables.records("stereo") if r["seed"] == 0}
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
        r["training_time_s"] / 60 for r in tables.records("stereo") if (r["row"], r["protocol"]) == ("paper", "medium")
    ]
    assert (
        f"its training took {deep['training_time_s'] / 60:.0f} minutes on one core, where the DFN's took "
        f"{min(minutes):.0f} to {max(minutes):.0f} minutes"
    ) in page


def test_the_docs_say_of_highway_driving_by_the_medium_protocol_what_the_records_do():
    """Error and flow by seed, with mean and spread, and what the filter saves of the first and the last frame."""
    page = RESULTS_PAGE.read_text().split("### On 64x64")[1].replace("**", "")
    medium = [record for record in tables.records("highway") if record["protocol"] == "medium"]
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
    rows = tables.read(tables.RESULTS / "benchmarks" / "train_step_cpu.json")
    for name, case in (("Moving MNIST", "moving_mnist"), ("highway driving", "highway"), ("stereo", "stereo")):
        ours, *theirs = (row["milliseconds"] / 1000 for row in rows if row["case"].startswith(case))
        digits = 1 if ours > 5 else 2
        cells = [f"{ours:.{digits}f} s", *(f"{'**' * (t < ours)}{t:.{digits}f} s{'**' * (t < ours)}" for t in theirs)]
        assert f"| {name} | {' | '.join(cells)} |" in README.read_text()


def test_the_readme_says_how_much_faster_the_layer_is_as_the_record_does():
    rows = tables.read(tables.RESULTS / "benchmarks" / "ops_cpu.json")
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
    records = {r["row"]: r for r in tables.records("stereo") if (r["protocol"], r["seed"]) == ("full", 0)}
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
    page, found = RESULTS_PAGE.read_text().replace("**", ""), tables.read(REAL_VIDEO)
    dfn, twin = (np.array([one["mse_per_frame"] for one in found if one["row"] == row]) for row in COMPARED)
    for name, values in (("DFN on real video", dfn), ("… without the filter", twin)):
        by_seed = " | ".join(f"{value:.2f}" for value in values)
        assert f"| {name} | {by_seed} | {values.mean():.2f} ± {values.std(ddof=1):.2f} |" in page
    saving = 100 * (1 - dfn / twin)
    assert f"| … the filter's saving | {' | '.join(f'{one:.0f} %' for one in saving)} | {saving.mean():.0f} % |" in page
    first_frames = [
        " and ".join(
            ", ".join(f"{one['mse_per_frame_curve'][0]:.2f}" for one in found if one["row"] == row).rsplit(", ", 1)
        )
        for row in COMPARED
    ]
    assert "At +1 the DFNs have {}, the twins {}, and".format(*first_frames) in in_one_line(page)
    last_frame, blurred = (found[0][f"baseline_{name}_frame_mse_per_frame"] for name in ("last", "blurred"))
    told = f"{saving.mean():.0f} % less squared error than without it ({dfn.mean():.2f} against {twin.mean():.2f}"
    readme = in_one_line(README.read_text())
    assert told in readme
    assert f"the last frame, repeated, has {last_frame:.2f}, and blurred {blurred:.2f})" in readme


def test_the_readme_and_the_docs_say_what_a_minute_of_real_video_is_worth():
    before, after = tables.read(tables.RESULTS / "highway_fine_tuned_on_real_video.json")
    assert (before["steps"], after["steps"], after["data"]) == (0, 200, before["data"])
    told = "{:.2f} instead of {:.2f}".format(*(one["mse_per_frame"] for one in (after, before)))
    assert f"[{told}]" in in_one_line(README.read_text())
    page = in_one_line(RESULTS_PAGE.read_text())
    assert f"took {after['training_time_s']:.0f} s on one core: on the 8 segments at their ends the error is" in page
    figures = after["mse_per_frame"], before["mse_per_frame"], after["baseline_blurred_frame_mse_per_frame"]
    assert "{:.2f}, before {:.2f}, where the blurred last frame has {:.2f} ".format(*figures) in page
    assert all(
        one["initial_weights"].endswith(f"(SHA-256 {pretrained.load('highway')[2]['sha256'][:12]})")
        for one in (before, after)
    )


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
