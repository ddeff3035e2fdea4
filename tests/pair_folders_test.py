import numpy as np

from dfn_jax.data.pair_folders import find_sequences
from tests.stereo_folders import write_disparity, write_pairs


def test_grey_or_colour_views_follow_the_channels(folder):
    write_pairs(folder, "image_0", "image_1")
    write_pairs(folder, "image_2", "image_3", mode="RGB")
    for channels, view in ((1, "image_0"), (3, "image_2")):
        (sequence,) = find_sequences(folder, channels=channels)
        assert {pair.left.parent.name for pair in sequence.pairs} == {view}


def test_views_with_ground_truth_come_first_and_noc_before_occ(folder):
    write_pairs(folder, "image_0", "image_1")
    write_pairs(folder, "image_2", "image_3", mode="RGB")
    for truth in ("disp_occ_0", "disp_noc_0"):
        write_disparity(folder / truth / "000000_10.png", np.ones((12, 20)))
    (sequence,) = find_sequences(folder, channels=1)
    assert sequence.pairs[0].left.parent.name == "image_2"
    assert sequence.pairs[0].disparity.parent.name == "disp_noc_0"


def test_links_are_followed_but_not_in_circles(folder, tmp_path, capsys):
    write_pairs(tmp_path / "elsewhere")
    folder.mkdir()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "circle").symlink_to(folder)
    assert [sequence.name for sequence in find_sequences(folder, channels=1)] == ["linked"]
    for name in ("unmounted", ".#lock"):
        (folder / name).symlink_to(tmp_path / "nothing")
    assert [sequence.name for sequence in find_sequences(folder, channels=1)] == ["linked"]
    told = f"{folder / 'unmounted'} is a link that leads nowhere: what it stands for is left out\n"
    assert capsys.readouterr().err == told
