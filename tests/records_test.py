"""The records of a run: whole after a kill, and of the steps that were saved alone."""

import json
import struct

import pytest
from tensorboardX.proto.event_pb2 import Event

from dfn_jax.records import Records, read_records
from dfn_jax.train import train
from tests.regression import config, regression


def test_the_code_that_made_the_steps_is_recorded(tmp_path, monkeypatch):
    for steps, commit in ((2, "first"), (4, "second"), (4, "idle"), (6, "second")):
        monkeypatch.setattr("dfn_jax.train.commit", lambda commit=commit: commit)
        train(regression(), config(**{"train.steps": steps}), tmp_path)
    starts = read_records(tmp_path / "starts.jsonl")
    assert [(start["step"], start["commit"]) for start in starts] == [(0, "first"), (2, "second"), (4, "second")]
    with Records(tmp_path) as records:
        records.drop_after(2, tests_anew=False)  # What began at step 2 made nothing that was saved.
    assert [start["step"] for start in read_records(tmp_path / "starts.jsonl")] == [0]


def test_records_survive_a_kill_in_the_middle_of_a_line(tmp_path):
    with Records(tmp_path) as records:
        for step in (1, 2, 3):
            records.write(step, {"loss": 0.5})
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 4, "lo')
    assert [record["step"] for record in read_records(path)] == [1, 2, 3]
    with Records(tmp_path) as records:
        records.drop_after(2, tests_anew=False)
        records.write(3, {"loss": 0.25})
    assert [json.loads(line)["loss"] for line in path.read_text().splitlines()] == [0.5, 0.5, 0.25]


@pytest.mark.parametrize(("tests_anew", "kept"), [(True, [1, 2]), (False, [1, 2, 2])])
def test_a_look_at_the_test_set_goes_only_where_it_is_taken_again(tests_anew, kept, tmp_path):
    with Records(tmp_path) as records:
        for step, name in ((1, "loss"), (2, "loss"), (2, "test_error"), (3, "loss")):
            records.write(step, {name: 0.5})
        records.drop_after(2, tests_anew=tests_anew)
    assert [record["step"] for record in read_records(tmp_path / "metrics.jsonl")] == kept


def test_tensorboard_is_told_the_same(tmp_path):
    """Events in TensorFlow's format for records: length, check sum, event, check sum."""
    with Records(tmp_path) as records:
        records.write(3, {"loss": 0.25, "test_error": 2.0})
    (path,) = (tmp_path / "tensorboard").iterdir()
    content, told = path.read_bytes(), {}
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        event = Event.FromString(content[12 : 12 + length])
        told |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
        content = content[16 + length :]
    assert told == {("loss", 3): 0.25, ("test_error", 3): 2.0}
