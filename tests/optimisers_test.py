"""The optimisers against their definitions in NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from dfn_jax.errors import InputError
from dfn_jax.optimisers import make_optimiser, optimiser_steps


def settings(name, clip_norm=0.0):
    return ConfigDict({"name": name, "learning_rate": 0.01, "halve_every": 3, "clip_norm": clip_norm})


def updates(name, params, gradients):
    optimiser, _ = make_optimiser(settings(name))
    state, found = optimiser.init(params), []
    for gradient in gradients:
        update, state = optimiser.update(gradient, state, params)
        found.append(update)
    return found


def random_layers(seed):
    random = np.random.default_rng(seed)
    return {
        "Conv_0": {
            "kernel": jnp.asarray(random.standard_normal((3, 3, 4, 5)), jnp.float32),
            "bias": jnp.asarray(random.standard_normal(5), jnp.float32),
        },
        "position_bias": jnp.asarray(random.standard_normal((2, 2, 3)), jnp.float32),
    }


def adam(gradients, *, nesterov):
    """Kingma and Ba's algorithm, or Dozat's (2016) with Nesterov's momentum; the step is halved after three steps."""
    first = second = 0.0
    for step, gradient in enumerate(np.asarray(g, np.float64) for g in gradients):
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        rate = 0.01 * 0.5 ** (step // 3)
        mean = first / (1 - 0.9 ** (step + 1))
        if nesterov:
            mean = 0.9 * first / (1 - 0.9 ** (step + 2)) + 0.1 * gradient / (1 - 0.9 ** (step + 1))
        yield -rate * mean / (np.sqrt(second / (1 - 0.999 ** (step + 1))) + 1e-8)


@pytest.mark.parametrize("name", ["adam", "muon"])
def test_biases_follow_adam(name):
    gradients = [random_layers(seed) for seed in range(4)]
    found = updates(name, gradients[0], gradients)
    for get in (lambda layers: layers["Conv_0"]["bias"], lambda layers: layers["position_bias"]):
        for update, wanted in zip(
            map(get, found), adam(list(map(get, gradients)), nesterov=name == "muon"), strict=True
        ):
            np.testing.assert_allclose(update, wanted, rtol=1e-4)


def test_adam_moves_kernels_by_the_same_rule():
    gradients = [random_layers(seed)["Conv_0"]["kernel"] for seed in range(4)]
    for update, wanted in zip(updates("adam", gradients[0], gradients), adam(gradients, nesterov=False), strict=True):
        np.testing.assert_allclose(update, wanted, rtol=1e-4)


def test_muon_makes_the_update_of_a_kernel_orthogonal():
    gradient = random_layers(0)
    (update,) = updates("muon", gradient, [gradient])
    matrix = np.asarray(update["Conv_0"]["kernel"], np.float64).reshape(36, 5)
    left, _, right = np.linalg.svd(np.asarray(gradient["Conv_0"]["kernel"], np.float64).reshape(36, 5), False)
    # The five Newton-Schulz steps of Muon bring singular values near one, to about a third.
    wanted = -0.01 * 0.2 * np.sqrt(36) * left @ right
    assert np.linalg.norm(matrix - wanted) < 0.3 * np.linalg.norm(wanted)


def test_muon_halves_the_rate_of_kernels_too():
    gradient = random_layers(0)
    found = [update["Conv_0"]["kernel"] for update in updates("muon", gradient, [gradient] * 4)]
    # Of one gradient again and again, the orthogonal direction is the same.
    for update, rate in zip(found, (1, 1, 1, 0.5), strict=True):
        np.testing.assert_allclose(update, rate * found[0], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
@pytest.mark.parametrize("name", ["adam", "muon"])
def test_updates_are_counted(name, clip_norm):
    optimiser, gradient = make_optimiser(settings(name, clip_norm))[0], random_layers(0)
    state = optimiser.init(gradient)
    for count in range(3):
        assert int(optimiser_steps(state)) == count
        _, state = optimiser.update(gradient, state, gradient)


def test_unknown_names_list_the_known():
    with pytest.raises(InputError, match="adam, muon"):
        make_optimiser(settings("sgd"))
