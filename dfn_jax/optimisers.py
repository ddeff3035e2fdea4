"""How parameters follow the gradient: the paper's Adam, and Muon, which learns the same networks in fewer steps."""

import jax
import optax
from ml_collections import ConfigDict
from optax.contrib import MuonDimensionNumbers, muon

from dfn_jax.config import choose

MUON_RMS = 0.2  # root mean square of an update over the learning rate, as Adam's: one rate then suits both


def make_optimiser(config: ConfigDict) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimiser that a config names, with a learning rate that is halved every so many steps.

    Args:
        config: `config.optim`: name ('adam' or 'muon'), learning_rate, halve_every, clip_norm (the largest norm of the
            whole gradient, 0 for any).

    Returns:
        The optimiser, and the schedule: step -> learning rate.

    Raises:
        InputError: the name is unknown.

    Source:
        Adam: the paper, Section 4. Muon: Jordan et al. (2024), https://kellerjordan.github.io/posts/muon; the update
        of each kernel is made orthogonal, a convolution's seen as a matrix from patches to channels.
    """
    schedule = optax.exponential_decay(config.learning_rate, config.halve_every, 0.5, staircase=True)
    optimiser = choose("config.optim.name", config.name, OPTIMISERS)(schedule)
    if config.clip_norm:
        optimiser = optax.chain(optax.clip_by_global_norm(config.clip_norm), optimiser)
    return optimiser, schedule


def optimiser_steps(state: optax.OptState) -> jax.Array:
    """How many updates an optimiser of `make_optimiser` has made, from its state; [] int32."""
    (_, count), *_ = optax.tree.get_all_with_path(state, "count")
    return count


def _muon(schedule: optax.Schedule) -> optax.GradientTransformation:
    return muon(
        schedule,  # of biases too, which follow Adam, with Nesterov's momentum as Muon has it
        muon_weight_dimension_numbers=_kernels,
        consistent_rms=MUON_RMS,
    )


def _kernels(params):
    """Which parameters are kernels, and which of their axes go in and out."""

    def axes(path, leaf):
        is_kernel = path[-1].key.endswith("kernel")
        return MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1) if is_kernel else None

    return jax.tree.map_with_path(axes, params)


OPTIMISERS = {"adam": optax.adam, "muon": _muon}
