"""The paper's figures: all are on their page, and by the networks that are there."""

import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from dfn_jax.errors import InputError
from reproduce import figures

SIDE_BY_SIDE = {"moving_mnist_small.png"}  # by networks too many to keep


def test_the_page_shows_what_is_drawn():
    page = (figures.ROOT / "docs" / "figures.md").read_text()
    drawn = {name for shown in figures.SHOWN for name in shown.pictures.values()}
    assert drawn | SIDE_BY_SIDE == {path.name for path in figures.FIGURES.glob("*.png")}
    assert drawn | SIDE_BY_SIDE == set(re.findall(r"figures/(\w+\.png)", page))


def test_pictures_are_of_the_networks_that_are_there():
    assert json.loads(figures.NETWORKS.read_text()) == figures.networks()


def test_a_picture_is_drawn_again_as_it_was():
    shown = figures.SHOWN[0]
    for name, png in figures.draw(shown).items():
        found, kept = (
            np.asarray(Image.open(file).convert("RGB"), int) for file in (io.BytesIO(png), figures.FIGURES / name)
        )
        assert found.shape == kept.shape
        assert abs(found - kept).mean() < 0.5


def test_drawn_digits_are_not_taken_for_those_of_the_paper(monkeypatch):
    monkeypatch.delenv("DFN_DATA", raising=False)
    for shown in (one for one in figures.SHOWN if one.network == "moving_mnist"):
        with pytest.raises(InputError, match="MNIST digits need a folder"):
            figures.draw(shown)
