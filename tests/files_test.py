from pathlib import Path

import pytest

from dfn_jax.files import make_writable_folder


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="wants a folder that not even root can write to")
def test_a_folder_that_cannot_be_written_is_told_at_once():
    with pytest.raises(OSError):
        make_writable_folder(Path("/proc"))


def test_a_folder_for_results_is_made_and_left_empty(tmp_path):
    make_writable_folder(tmp_path / "new" / "folder")
    assert not any((tmp_path / "new" / "folder").iterdir())
