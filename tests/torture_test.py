"""The short form of `torture.py`; other numbers of devices are in `parallel_test.py`."""

from tests import torture


def test_killed_runs_end_as_if_they_had_not_been(tmp_path):
    assert torture.train_and_kill(1, 1, tmp_path, launch=False).startswith("1 kills, 1 of them after a checkpoint")


def test_damaged_checkpoints_are_not_used(tmp_path):
    torture.damage_checkpoints(8, 1, tmp_path)
