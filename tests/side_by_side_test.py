"""The networks of a table beside each other: what is drawn is what the table measured."""

import json
import shutil

import numpy as np
import pytest

from dfn_jax.errors import InputError
from dfn_jax.files import read_arrays
from experiments import highway
from reproduce import side_by_side, tables
from reproduce.protocols import TABLES
from reproduce.runs import recipe
from tests.programs import fail

ROWS = TABLES["highway"].rows


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of a few steps, of both networks for highway driving, by a protocol that is put into their table."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "ROOT", tmp_path_factory.mktemp("root"))
        short = TABLES["highway"].protocols["short"]._replace(changes=highway.PRESETS["smoke"])
        patch.setitem(TABLES, "highway", TABLES["highway"]._replace(protocols={"short": short}))
        for row in ROWS:
            tables.run_row("highway", row, "short", 0, [])
        yield [
            (
                recipe(tables.arguments("highway", row, "short", 0)),
                tables.workdir("highway", row, "short", 0),
            )
            for row in ROWS
        ]


def places(image, picture):
    """Where a picture shows an image [16, 16, 1]: rows and columns, pixels."""
    block = np.rint(255 * image).astype(np.uint8).repeat(4, 0).repeat(4, 1).repeat(3, 2)
    candidates = np.argwhere((picture[: -len(block), : -len(block)] == block[0, 0]).all(-1))
    return [(y, x) for y, x in candidates if (picture[y : y + len(block), x : x + len(block)] == block).all()]


def test_what_is_drawn_is_what_was_measured(runs):
    drawn = side_by_side.draw("highway", "short", list(ROWS), seed=0, count=2)
    frames = side_by_side.first_sequences(runs[0][0], 2)
    shown = []  # row by row, for both sequences
    for config, folder in runs:
        guess = side_by_side.predicted(config, folder, frames)
        errors = np.square(guess - frames[:, 3:]).sum((2, 3, 4)).mean(1)
        np.testing.assert_allclose(errors, read_arrays(folder / "examples.npz")["mse_per_frame"][:2], rtol=1e-4)
        shown.append(guess)
    for sequence in (0, 1):
        for time in (0, 1):
            found = [
                places(image, drawn)
                for image in (frames[sequence, 3 + time], *(guess[sequence, time] for guess in shown))
            ]
            (true, *guessed) = [positions[0] for positions in found if len(positions) == 1]
            assert len(guessed) == 2
            assert true[0] < guessed[0][0] < guessed[1][0]
            assert {true[1]} == {x for _, x in guessed}


def test_a_row_that_was_not_run_is_told(runs):
    with pytest.raises(
        InputError, match=r"highway-twin-short-1 has no config.json.*; make it, by .* --short --rows=twin --seeds=1`"
    ):
        side_by_side.draw("highway", "short", list(ROWS), seed=1, count=2)


def test_a_run_that_is_not_done_or_is_of_other_data_is_told(runs, tmp_path):
    config, folder = runs[0]
    frames = side_by_side.first_sequences(config, 1)
    copy = shutil.copytree(folder, tmp_path / "run")
    shutil.rmtree(copy / "checkpoints" / "4")
    with pytest.raises(InputError, match="has done 2 of its 4 steps; let it go on"):
        side_by_side.predicted(config, copy, frames)
    (copy / "starts.jsonl").rename(tmp_path / "starts.jsonl")
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(InputError, match="holds no checkpoint"):
        side_by_side.predicted(config, copy, frames)
    started = json.loads((folder / "starts.jsonl").read_text())
    (copy / "starts.jsonl").write_text(json.dumps({**started, "data": "digits 12345678"}) + "\n")
    with pytest.raises(InputError, match=r"was trained on other data \(digits 12345678\)"):
        side_by_side.predicted(config, copy, frames)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("stereo", "--short", "--png=x.png"), "wanted one table of moving_mnist, highway; got stereo"),
        (("highway", "--short", "--rows=cdna", "--png=x.png"), "no row cdna in highway; it has twin, paper"),
        (("highway", "--short"), "wanted --png=FILE"),
        (("moving_mnist", "--short", "--png=x.png"), "this table is of MNIST's digits, and there are none"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, message, monkeypatch):
    monkeypatch.delenv("DFN_DATA", raising=False)
    assert message in fail(*arguments, name="reproduce.side_by_side")
