import time

from dfn_jax.progress import progress


def test_a_log_is_not_filled(capsys):
    assert [time.sleep(0.002) or item for item in progress(range(300))] == list(range(300))
    assert 1 <= capsys.readouterr().err.count("\r") <= 3  # Ten times a second it would be six or more.
