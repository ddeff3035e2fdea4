"""Parts of clips: what is trained and tested on, and the segments that batches are made of."""

import numpy as np
import pytest

from dfn_jax.data.video import check_lengths, segment_batch, segments, split_by_time
from tests.video_data_test import message_of


def numbered(*lengths):
    """Clips whose frames are numbered from 0 on, all clips through."""
    values = np.arange(sum(lengths), dtype=np.uint8)[:, None, None, None]
    return np.split(np.broadcast_to(values, (sum(lengths), 2, 3, 1)), np.cumsum(lengths)[:-1])


def numbers(frames):
    return frames[..., 0, 0, 0].tolist()


@pytest.mark.parametrize(
    ("lengths", "fraction", "tested"),
    [
        ((20, 50), 0.1, (2, 5)),
        ((20, 50), 0.5, (10, 25)),
        ((6, 7), 0, (0, 0)),
        ((40,), 0.9, (36,)),
        ((28, 27), 0.2, (6, 5)),  # Three frames in and three out take 28, as the README says.
        ((9, 3), 1.0, (9, 3)),
    ],
)
def test_each_clip_is_cut_once_and_its_end_tests(lengths, fraction, tested):
    clips = dict(zip("ab", numbered(*lengths), strict=False))
    train, test = split_by_time(clips, test_fraction=fraction)
    assert list(train) == list(test) == list(clips)
    assert [len(part) for part in test.values()] == list(tested)
    for name, frames in clips.items():
        assert numbers(train[name]) + numbers(test[name]) == numbers(frames)


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_fractions_out_of_range_are_told(fraction):
    assert f"test_fraction is {fraction}" in message_of(split_by_time, {"a": numbered(9)[0]}, test_fraction=fraction)


def test_parts_too_short_for_a_segment_are_told():
    parts = dict(zip("ab", numbered(5, 2), strict=True))
    assert [len(part) for part in check_lengths(parts, length=2, purpose="testing")] == [5, 2]
    message = message_of(check_lengths, parts, length=3, purpose="testing")
    for word in ("b has 2 frames for testing", "takes 3"):
        assert word in message


# Segments


def test_segment_batches_have_their_shape_and_values():
    frames = np.random.default_rng(0).integers(0, 256, (3, 5, 4, 3), dtype=np.uint8)
    batch = segment_batch([frames], 0, seed=0, batch_size=4, length=3)  # one start
    assert batch.shape == (4, 3, 5, 4, 3)
    assert batch.dtype == np.float32
    np.testing.assert_array_equal(batch, np.stack([frames] * 4).astype(np.float32) / np.float32(255))


def test_every_start_in_every_part_is_as_likely_and_no_segment_crosses():
    length, drawn = 3, 1000
    parts = numbered(5, 3, 9)
    starts = [0, 1, 2, 5, 8, 9, 10, 11, 12, 13, 14]
    count = dict.fromkeys(starts, 0)
    for step in range(5):
        batch = segment_batch(parts, step, seed=1, batch_size=drawn, length=length)
        for first, second, third in np.rint(numbers(batch * 255.0)).astype(int):
            assert (second, third) == (first + 1, first + 2)
            count[first] += 1
    assert list(count) == starts
    share = 1 / len(starts)
    found = np.array(list(count.values())) / (5 * drawn)
    np.testing.assert_allclose(found, share, atol=5 * np.sqrt(share * (1 - share) / (5 * drawn)))


def test_segment_batches_are_a_pure_function_of_seed_and_step():
    parts = numbered(100, 60)

    def draw(seed, step):
        return segment_batch(parts, step, seed=seed, batch_size=20, length=4)

    seventh, third = draw(0, 7), draw(0, 3)
    np.testing.assert_array_equal(draw(0, 3), third)
    np.testing.assert_array_equal(draw(0, 7), seventh)
    drawn = [draw(seed, step).tobytes() for seed in range(4) for step in range(4)]
    assert len(set(drawn)) == 16
    part = segment_batch(parts, 7, seed=0, batch_size=20, length=4, indices=range(5, 9))
    np.testing.assert_array_equal(part, seventh[5:9])


def test_segments_follow_each_other_and_leave_out_the_rest():
    found = segments(numbered(7, 3, 2, 9), length=3, limit=100)
    assert found.dtype == np.uint8
    assert found.shape == (6, 3, 2, 3, 1)
    assert numbers(found) == [[0, 1, 2], [3, 4, 5], [7, 8, 9], [12, 13, 14], [15, 16, 17], [18, 19, 20]]


@pytest.mark.parametrize("limit", range(1, 14))
def test_segments_are_thinned_evenly(limit):
    found = segments(numbered(14, 10), length=2, limit=limit)
    firsts = [first for first, _ in numbers(found)]
    assert len(found) == min(limit, 12)
    assert firsts[0] == 0
    if limit > 1:
        gaps = np.diff(firsts)
        assert firsts[-1] == 22
        assert gaps.min() > 0
        assert gaps.max() - gaps.min() <= 2  # one segment of two frames
