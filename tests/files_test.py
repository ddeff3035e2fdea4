from pathlib import Path

import numpy as np
import pytest

from dfn_jax.errors import InputError
from dfn_jax.files import cache_folder, fingerprint, make_writable_folder, read_arrays, write_arrays


def test_arrays_come_back_and_damage_is_told(tmp_path):
    path = tmp_path / "arrays.npz"
    assert read_arrays(path) == {}
    values = np.linspace(0, 1, 500)
    write_arrays(path, {"one": values, "other": values[:3]})
    found = read_arrays(path)
    assert found.keys() == {"one", "other"}
    np.testing.assert_array_equal(found["one"], values.astype(np.float32))
    whole = path.read_bytes()
    number = tmp_path / "number.npy"
    np.save(number, values)
    for spoilt in (b"", b"x", whole[:-30], whole[:300] + b"12345678" + whole[308:], number.read_bytes()):
        path.write_bytes(spoilt)
        with pytest.raises(InputError, match=r"arrays.npz is damaged"):
            read_arrays(path)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="wants a folder that not even root can write to")
def test_a_folder_that_cannot_be_written_is_told_at_once():
    with pytest.raises(OSError):
        make_writable_folder(Path("/proc"))


def test_where_there_is_no_home_folder_the_variable_that_names_another_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as where the user has no entry
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(InputError, match="there is no home folder; set HOME, or XDG_CACHE_HOME"):
        cache_folder()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "dfn_jax"


def test_a_folder_for_results_is_made_and_left_empty(tmp_path):
    make_writable_folder(tmp_path / "new" / "folder")
    assert not any((tmp_path / "new" / "folder").iterdir())


def test_a_fingerprint_is_of_names_sizes_and_content_and_not_of_the_place(tmp_path):
    def written(name, contents):
        (tmp_path / name).mkdir()
        for file, content in contents.items():
            (tmp_path / name / file).write_bytes(content)
        return fingerprint(tmp_path / name, (tmp_path / name).iterdir())

    one = written("one", {"a": b"123", "b": b"456"})
    assert one == written("moved", {"b": b"456", "a": b"123"})
    others = [{"a": b"123"}, {"a": b"123", "c": b"456"}, {"a": b"123", "b": b"4567"}, {"a": b"123", "b": b"457"}]
    prints = [written(f"other {index}", contents) for index, contents in enumerate(others)]
    assert len({one, *prints}) == 5
    assert written("none", {}).startswith("0 files ")
    many = [written(name, {f"{i:03}": bytes([i]) for i in range(200)}) for name in ("many", "as many")]
    assert many[0] == many[1]
    assert many[0].startswith("200 files ")
