"""How benchmarks time: by a clock that moves only when a competitor works."""

from types import SimpleNamespace

import pytest

from benchmarks import timing


class Clock:
    """Seconds that have passed, by the work that was done."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def work(self, *seconds):
        """A competitor whose calls take these times in turn, over and over."""
        calls = iter(())

        def call():
            nonlocal calls
            following = next(calls, None)
            if following is None:
                calls = iter(seconds)
                following = next(calls)
            self.now += following

        return call


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=clock.perf_counter))
    return clock


def test_times_are_of_one_call_in_milliseconds(clock):
    competitors = {"slow": clock.work(0.003), "fast": clock.work(0.001)}
    assert timing.interleaved(competitors, rounds=3) == pytest.approx({"slow": 3.0, "fast": 1.0})
    assert timing.interleaved(competitors, rounds=3, calls=4) == pytest.approx({"slow": 3.0, "fast": 1.0})


def test_what_a_turn_begins_with_does_not_count(clock):
    """The first call of each turn is slow, as where another competitor has left its memory."""
    assert timing.interleaved({"a": clock.work(5.0, 0.002)}, rounds=3) == pytest.approx({"a": 2.0})


def test_a_turn_that_others_disturbed_does_not_count(clock):
    turn = (1.0, 0.002)
    assert timing.interleaved({"a": clock.work(*turn, 1.0, 7.0, *turn)}, rounds=3) == pytest.approx({"a": 2.0})


def test_work_that_is_only_begun_is_waited_for(clock):
    class Begun:
        def __init__(self):
            clock.now += 0.05

        def block_until_ready(self):
            clock.now += 0.25

    assert timing.interleaved({"a": Begun}, rounds=1) == pytest.approx({"a": 300.0})
    assert timing.interleaved({"a": Begun}, rounds=1, calls=5) == pytest.approx({"a": 100.0}), "once, for all"


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--rounds=0"], "--rounds: 0 is no whole number of at least 1"),
        (["--rounds=many"], "--rounds: many is no whole number"),
        (["--json={folder}/file/rows.json"], "rows.json cannot be written"),
        (["--json={folder}"], "is no file that can be written"),
        (["--json="], "is no file that can be written"),
    ],
)
def test_options_that_cannot_be_are_told_before_anything_is_measured(words, wanted, tmp_path, capsys):
    (tmp_path / "file").touch()
    parser = timing.options("A benchmark.", rounds=(3, "how often"))
    with pytest.raises(SystemExit):
        parser.parse_args([word.format(folder=tmp_path) for word in words])
    assert wanted in capsys.readouterr().err
    found = parser.parse_args([f"--json={tmp_path}/new/rows.json"])
    assert (found.rounds, found.json) == (3, tmp_path / "new" / "rows.json")
