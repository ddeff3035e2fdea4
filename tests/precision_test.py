"""Products whose precision counts are of float32 on every device, where TPUs and GPUs by themselves take fewer bits."""

import jax
import jax.numpy as jnp
import pytest

from dfn_jax import ops
from dfn_jax.data import drawn_digits, highway, images
from dfn_jax.models.generators import Decoder

KEY = jax.random.key(0)
SIZE = {"batch_size": 2, "image_size": (16, 16)}
DECODER = Decoder(coarse=(8,), fine=(8,), hidden=8, outputs=13)
CODE = jnp.zeros((1, 4, 4, 8))


def products(function, *arguments):
    """The products in a program for TPUs, one in a line."""
    program = jax.jit(function).trace(*arguments).lower(lowering_platforms=("tpu",)).as_text()
    return [line for line in program.splitlines() if "dot_general" in line or "stablehlo.convolution" in line]


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (ops.dynamic_conv, (jnp.zeros((1, 9, 9, 2)), jnp.zeros((1, 3, 3, 2, 4)))),
        (drawn_digits._draw, (KEY, jnp.int32(3))),
        (lambda key: images.texture_batch(key, **SIZE), (KEY,)),
    ],
)
def test_operations_and_data(function, arguments):
    found = products(function, *arguments)
    assert found
    assert [line for line in found if "HIGHEST" not in line] == []


def test_the_renderer_has_no_products():
    assert not products(lambda key: highway.stereo_batch(key, **SIZE), KEY)
    assert not products(lambda key: highway.video_batch(key, **SIZE, frames=3, interval=0.04), KEY)


def test_the_last_layer_of_a_decoder():
    params = DECODER.init(KEY, CODE, (8, 8))
    last = [line for line in products(lambda code: DECODER.apply(params, code, (8, 8)), CODE) if "x13xf32>" in line]
    assert last
    assert all("HIGHEST" in line for line in last)
