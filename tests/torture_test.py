"""The short form of `torture.py`; other numbers of devices are in `parallel_test.py`."""

from tests import torture


def test_killed_runs_end_as_if_they_had_not_been(tmp_path):
    torture.train_and_kill(1, 1, tmp_path, launch=False)


def test_damaged_checkpoints_are_not_used(tmp_path):
    torture.damage_checkpoints(8, 1, tmp_path)
