"""The tables: what is run, and what is told of it."""

import functools
import io
import json
import math
import re
import shlex

import jax
import numpy as np
import pytest
from absl import flags

from dfn_jax.errors import InputError
from dfn_jax.files import read_arrays
from dfn_jax.tasks import make_task
from experiments import steerable
from reproduce import markdown, quick, tables
from reproduce.comparison import key
from reproduce.protocols import TABLES
from reproduce.readme import print_table, with_tables
from reproduce.runs import recipe
from tests.programs import fail
from tests.recipes import get_config


@pytest.mark.parametrize("name", TABLES)
def test_rows_have_the_parameters_that_the_table_says(name, monkeypatch):
    monkeypatch.delenv("DFN_DATA", raising=False)
    for row in TABLES[name].rows:
        shapes = jax.eval_shape(make_task(get_config(name, row.preset)).init, jax.random.key(0))
        assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == row.parameters


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_exceptions_are_of_protocols_that_there_are(table):
    assert {flag for row in table.rows for flag in row.exceptions} <= table.protocols.keys()


@pytest.mark.parametrize("name", TABLES)
def test_the_means_over_the_examples_are_those_of_the_records(name):
    examples = read_arrays(tables.examples_file(name))
    found = {key(record): record[TABLES[name].metric] for record in tables.records(name) if key(record) in examples}
    assert found.keys() == examples.keys()
    for run, value in found.items():
        np.testing.assert_allclose(examples[run].mean(dtype=np.float64), value, rtol=1e-5)


@pytest.mark.parametrize("name", quick.RUNS)
def test_records_of_quick_runs_are_of_these_commands(name):
    record = tables.read(tables.RESULTS / f"{name}.json")
    assert shlex.split(record["command"]) == ["python", "launch.py", *quick.RUNS[name].arguments]
    assert all(math.isfinite(record[shown.metric]) for shown in quick.RUNS[name].figures)


def test_quick_runs_whose_data_are_not_there_are_left_out(tmp_path):
    for folder in ("kitti_2015", "highway_video"):
        (tmp_path / folder).mkdir()
    odometry = tmp_path / "kitti_odometry"
    texture = tmp_path / "train400_gray"
    of_odometry = ("stereo_kitti_odometry", "stereo_kitti_2015", "stereo_kitti_odometry_fine_tuned")
    assert quick.missing(str(tmp_path)) == dict.fromkeys(of_odometry, odometry) | {"steerable_quick": texture}


def test_what_is_worse_than_a_trivial_predictor_is_called_so():
    error, psnr = quick.Figure("a", "error", "b", "rival"), quick.Figure("a", "PSNR", "b", "rival", higher=True)
    assert quick._cells(error, {"a": 1.0, "b": 2.0}) == ["1.00", "2.00 (rival)"]
    assert quick._cells(error, {"a": 3.0, "b": 2.0}) == ["3.00, **worse**", "2.00 (rival)"]
    assert quick._cells(psnr, {"a": 1.0, "b": 2.0}) == ["1.00, **worse**", "2.00 (rival)"]
    assert quick._cells(error._replace(baseline=""), {"a": 0.05}) == ["0.0500", "–"]


def test_protocols_are_what_their_words_say():
    for name in ("stereo", "highway"):
        published, medium = get_config(name, "paper"), TABLES[name].protocols["medium"]
        assert medium.recipe.endswith("half the steps, a quarter of the batch, learning rate halved twice as often")
        shares = [(published.train.steps, "train.steps"), (published.train.batch_size, "train.batch_size")]
        shares.append((published.optim.halve_every, "optim.halve_every"))
        assert [theirs / medium.changes[entry] for theirs, entry in shares] == [2, 4, 2]
    for name in ("stereo", "highway", "moving_mnist"):
        short, pieces = TABLES[name].protocols["short"], {"stereo": "pairs"}.get(name, "sequences")
        words = f"{short.changes['train.steps']:,} steps of {short.changes['train.batch_size']} {pieces}, Muon"
        assert words in short.recipe
        assert short.changes["optim.name"] == "muon"
    medium, rows = TABLES["moving_mnist"].protocols["medium"], {row.preset: row for row in TABLES["moving_mnist"].rows}
    arguments = {row: recipe(tables.arguments("moving_mnist", rows[row], "medium", 0)) for row in rows}
    assert {(one.train.steps, one.train.batch_size) for one in arguments.values()} == {(3000, 4)}
    assert "3,000 steps of 4 sequences" in medium.recipe
    assert {one.train.double_horizon_every for one in arguments.values()} == {400}
    assert "one predicted frame at first, and twice as many after every 400 steps" in medium.recipe
    rates = {row: (one.optim.name, one.optim.learning_rate) for row, one in arguments.items()}
    assert rates.pop("fc_lstm") == ("adam", 1e-3)
    assert set(rates.values()) == {("muon", 1e-3)}
    assert "Muon (for the FC-LSTM Adam), 1e-3 halved every 750, gradients clipped to norm 1" in medium.recipe
    assert {(one.optim.halve_every, one.optim.clip_norm) for one in arguments.values()} == {(750, 1.0)}


@pytest.mark.parametrize("name", TABLES)
def test_records_are_of_the_recipes_as_they_are(name):
    """A record whose command is not that of its row any more is of another recipe."""
    for record in tables.records(name):
        (row,) = [row for row in TABLES[name].rows if row.preset == record["row"]]
        wanted = tables.arguments(name, row, record["protocol"], record["seed"])
        assert shlex.split(record["command"])[: 2 + len(wanted)] == ["python", "launch.py", *wanted]
        assert record["steps"] == recipe(wanted).train.steps
        assert math.isfinite(record[TABLES[name].metric])


def test_a_row_is_run_by_its_command(tmp_path, monkeypatch):
    """`launch.py` itself is run, at a few steps."""
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    short = TABLES["steerable"].protocols["short"]._replace(changes=steerable.PRESETS["smoke"])
    monkeypatch.setitem(TABLES, "steerable", TABLES["steerable"]._replace(protocols={"short": short}))
    run = functools.partial(tables.run_row, "steerable", TABLES["steerable"].rows[0], "short")
    record, values = run(0, ["--config.train.checkpoint_every=3"])
    assert values is None, "filters of evenly spaced angles are no sample"
    assert (record["steps"], record["seed"], record["row"], record["protocol"]) == (4, 0, "paper", "short")
    assert record["command"].endswith(" --config.train.checkpoint_every=3")
    assert run(0, ["--config.train.checkpoint_every=3"]) == (record, None), "though its recipe has tuples and fractions"


def test_rows_after_one_that_fails_are_run_and_it_is_told_at_last(tmp_path, monkeypatch):
    kept, table = [], TABLES["stereo"]

    def run_row(name, row, protocol, seed, options):
        if row.preset == "twin":
            raise InputError("no disk")
        return {"row": row.preset, "seed": seed}, None

    monkeypatch.setattr(tables, "run_row", run_row)
    monkeypatch.setattr(tables, "keep", lambda name, record, values: kept.append((record["row"], record["seed"])))
    options = flags.FlagValues()
    for name in tables.FLAGS:
        flags.DEFINE_bool(name, name == "short", "", options)
    for name, value in {"rows": None, "seeds": ["0", "1"], "option": []}.items():
        flags.DEFINE_list(name, value, "", options)
    options.mark_as_parsed()
    with pytest.raises(InputError, match=r"^twin, seed 0: no disk; twin, seed 1: no disk$"):
        tables._main(["stereo"], options)
    assert kept == [(row.preset, seed) for row in table.rows if row.preset != "twin" for seed in (0, 1)]


def test_a_short_run_changes_the_recipe_as_the_table_says():
    row = TABLES["moving_mnist"].rows[1]
    assert tables.arguments("moving_mnist", row, "full", 0) == ["--config=experiments/moving_mnist.py:conv_lstm"]
    short = tables.arguments("moving_mnist", row, "short", 2)
    assert "--config.data.image_size=(32,32)" in short
    assert "--config.seed=2" in short


def test_a_row_that_cannot_be_run_as_the_others_says_what_it_changes():
    fc_lstm, conv_lstm, *_ = TABLES["moving_mnist"].rows
    short, others = (recipe(tables.arguments("moving_mnist", row, "short", 0)) for row in (fc_lstm, conv_lstm))
    assert (short.optim.name, short.train.steps) == ("adam", 400)
    assert (others.optim.name, others.train.steps) == ("muon", 800)
    assert short.data == others.data


def test_records_are_replaced_by_row_protocol_and_seed():
    common = {"row": "a", "data": "digits"}
    old = [{**common, "protocol": "full", "seed": seed, "x": 1} for seed in (0, 1)]
    new = [{**common, "protocol": "full", "seed": 1, "x": 2}, {**common, "protocol": "short", "seed": 1, "x": 3}]
    for record in new:
        old = tables.merged(old, record)
    assert [record["x"] for record in old] == [1, 2, 3]
    other = {**common, "protocol": "full", "seed": 0, "data": "drawn digits"}
    with pytest.raises(InputError, match="a was measured on drawn digits, the other rows on digits"):
        tables.merged(old, other)
    assert tables.merged(old[:1], other) == [other]


def test_a_table_tells_mean_spread_interval_and_what_was_not_run():
    table = TABLES["stereo"]
    common = {"data": "scenes", "row": "paper"}
    records = [
        {
            **common,
            "protocol": "short",
            "seed": 0,
            "mse_per_image": 3.0,
            "mse_per_image_ci95": [2.5, 3.25],
            "baseline_row_shift_mse_per_image": 7.0,
        },
        {**common, "protocol": "full", "seed": 0, "mse_per_image": 10.0, "data": "more scenes"},
        {**common, "protocol": "full", "seed": 1, "mse_per_image": 10.02, "data": "more scenes", "note": "old"},
    ]
    lines = markdown.markdown(table, records, {}).splitlines()
    assert lines[-5] == "| best shift per row | – | – | – | – | 7.00 |"
    assert lines[-6].startswith("| DFN | 464,494 | 0.52; 1.35 (authors' code) |")
    assert lines[-6].endswith("| 10.01 ± 0.01 (2 seeds) | not run | 3.00 (2.50 to 3.25) |")
    assert lines[2].endswith("| not run | not run | not run |")
    assert lines[-3].endswith("published recipe. Measured on more scenes. DFN: old.")
    assert lines[-1] == f"Short protocol: {table.protocols['short'].recipe}. Measured on scenes."


def test_what_the_filter_saves_is_told_of_the_seeds_and_examples_that_both_rows_have(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    monkeypatch.setattr(tables, "README", tmp_path / "README.md")
    (tmp_path / "README.md").write_text("".join(f"<!-- table {name} --><!-- end {name} -->" for name in TABLES))
    hard = np.random.default_rng(0).exponential(size=100)

    def keep(row, seed, values):
        record = {"row": row, "protocol": "short", "seed": seed, "data": "scenes"}
        mean = 1.0 if values is None else values.mean()
        tables.keep("stereo", {**record, "mse_per_image": mean}, values)
        return re.search(r"DFN: .*? without the filter \(.*?\)", (tmp_path / "README.md").read_text())

    keep("twin", 0, hard)
    keep("twin", 2, hard)
    noise = 0.1 * np.random.default_rng(1).exponential(size=100)
    said = re.fullmatch(
        r"DFN: (\d+) % less .*interval over test examples: (\d+) to (\d+) %; one seed\)",
        keep("paper", 0, 0.7 * hard + noise)[0],
    )
    mean, low, high = map(int, said.groups())
    assert low <= mean == round(100 * (1 - (0.7 * hard + noise).mean() / hard.mean())) <= high
    assert 0 < high - low < 7, "of each mean by itself it would be some forty"
    keep("paper", 1, 2 * hard)
    keep("twin", 1, hard)
    keep("paper", 0, 0.8 * hard)
    said = "DFN: 20 % more than without the filter (-20, 100 and -20 % with the seeds)"
    assert keep("paper", 2, 0.8 * hard)[0] == said
    known = (tmp_path / "stereo.json").read_text()
    broken = {"row": "paper", "protocol": "short", "seed": 0, "data": "scenes", "mse_per_image": None}
    with pytest.raises(InputError, match="its mse_per_image is None, which no table can hold"):
        tables.keep("stereo", broken, None)
    assert (tmp_path / "stereo.json").read_text() == known
    for seed in (0, 1):
        keep("paper", seed, None)
    assert keep("paper", 2, None) is None, "examples of runs that are no more there"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mnist", "--short"), "wanted one table of moving_mnist, highway, stereo, steerable; got mnist"),
        (("steerable",), "wanted one protocol of steerable, --full or --short; got none"),
        (("stereo", "--full", "--short"), "or --short; got --full --short"),
        (("steerable", "--medium"), "wanted one protocol of steerable, --full or --short; got --medium"),
        (("stereo", "--short", "--rows=dfn"), "no row dfn in stereo; it has twin"),
        (("moving_mnist", "--full"), "this table is of MNIST's digits, and there are none"),
        (("moving_mnist", "--full", "--option=--config.data.digits=drawn"), "this table is of MNIST's digits"),
        (("stereo", "--short", "--seeds=a"), "--seeds is a; wanted whole numbers"),
        (("stereo", "--short", "--seeds="), "--seeds is empty; wanted whole numbers"),
        (("stereo", "--short", "--rows="), "--rows is empty; name at least one"),
        (("stereo", "--short", "--option=--config.train.steps=2"), "would change the protocol"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, message, monkeypatch):
    monkeypatch.delenv("DFN_DATA", raising=False)
    assert message in fail(*arguments, name="reproduce.tables")


def test_a_table_is_printed_whatever_the_terminal_can_show(monkeypatch):
    for encoding, shown in (
        ("utf-8", "1 ± 2 – 3\n"),
        ("latin-1", "1 ± 2 \\u2013 3\n"),
        ("ascii", "1 \\xb1 2 \\u2013 3\n"),
    ):
        terminal = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr("sys.stdout", terminal)
        print_table("1 ± 2 – 3")
        terminal.seek(0)
        assert terminal.read() == shown


def test_damaged_records_and_a_readme_without_marks_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    (tmp_path / "stereo.json").write_text("[{")
    with pytest.raises(InputError, match=r"stereo.json is damaged"):
        tables.recorded_tables()
    whole = {"row": "twin", "protocol": "full", "seed": 0, "data": "", "mse_per_image": 1.0}
    (tmp_path / "stereo.json").write_text(json.dumps([whole]))
    assert tables.records("stereo") == [whole]
    for spoilt in (
        {},
        {**whole, "row": "of another table"},
        {**whole, "mse_per_image": None},
        {**whole, "mse_per_image_ci95": [None, 2.0]},
    ):
        (tmp_path / "stereo.json").write_text(json.dumps([spoilt]))
        with pytest.raises(InputError, match=r"stereo.json is damaged: wanted a list of records"):
            tables.recorded_tables()
    monkeypatch.setattr(quick, "RESULTS", tmp_path)
    for content in ("null", "[]", '{"filter_relative_error": null, "training_time_s": 1}'):
        (tmp_path / "steerable_quick.json").write_text(content)
        with pytest.raises(InputError, match=r"steerable_quick.json is missing or damaged"):
            quick.kept("steerable_quick")
    with pytest.raises(InputError, match="in this order"):
        with_tables("<!-- end stereo --> <!-- table stereo -->", {"stereo": "x"})
    with pytest.raises(InputError, match="the README must have the marks <!-- table stereo -->"):
        with_tables("nothing", {"stereo": "x"})
