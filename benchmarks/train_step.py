"""One training step of the paper's networks beside the same step in PyTorch.

    python -m benchmarks.train_step [--quick] [--json=FILE]

Before anything is timed, the peers get our parameters and batch, and must arrive at our loss; how far their gradient
lies from ours stands in the row. A step is a forward pass, a gradient and Adam's update, at the paper's batch of 16.
`--quick`: Moving MNIST alone, without `torch.compile`.
"""

import functools

import jax
import numpy as np

from benchmarks.timing import interleaved, options, torch_device, tune_torch, write_rows
from benchmarks.training import EXPERIMENTS, prepare
from dfn_jax.huge_pages import restart_with_huge_pages

LOSS_TOLERANCE = {"cpu": 1e-4, "cuda": 1e-3}  # GPUs round what they multiply to TF32


def peer(config, params, batch, device: str):
    """PyTorch's step on the same parameters and batch: (function that computes the loss, parameters, optimiser)."""
    import torch

    from benchmarks import torch_networks as networks

    params = networks.from_jax(jax.device_get(params)["params"])
    leaves = [leaf.to(device).detach().requires_grad_() for leaf in jax.tree.leaves(params)]
    params = jax.tree.unflatten(jax.tree.structure(params), leaves)
    if config.task == "stereo":
        left, right = (networks.images(np.asarray(batch[name])).to(device) for name in ("left", "right"))
        loss = functools.partial(networks.stereo_loss, params, left, right)
    else:
        frames = torch.tensor(np.asarray(batch["frames"])).permute(1, 0, 4, 2, 3).to(device)
        loss = functools.partial(
            networks.video_loss,
            params,
            frames,
            known=config.data.input_frames,
            window=config.model.window,
            squared=config.loss == "squared_error",
        )
    return loss, params, torch.optim.Adam(leaves, lr=config.optim.learning_rate, fused=True)


def measure(experiment: str, *, quick: bool, rounds: int) -> list[dict]:
    """The rows of one network."""
    import torch

    device = torch_device()
    tune_torch()
    config, task, state, batch, step = prepare(experiment)
    our_loss, our_gradient = jax.device_get(jax.jit(jax.value_and_grad(task.loss))(state.params, batch))
    our_loss = float(our_loss)
    states, competitors, errors = [state], {}, {"dfn_jax": 0.0}

    def our_step() -> None:
        states[0], values = step(states[0], batch)
        jax.block_until_ready((states[0], values))

    competitors["dfn_jax"] = our_step
    for name in ("PyTorch",) if quick else ("PyTorch", "PyTorch, compiled"):
        loss, params, optimiser = peer(config, state.params, batch, device)
        loss = torch.compile(loss) if "compiled" in name else loss
        value = loss()
        value.backward()
        if not abs(float(value.detach()) - our_loss) <= LOSS_TOLERANCE[device]:
            raise AssertionError(f"{experiment}: {name} has the loss {float(value.detach())}, dfn_jax {our_loss}")
        errors[name] = largest_difference(our_gradient["params"], params)
        competitors[name] = functools.partial(torch_step, loss, optimiser)
    times = interleaved(competitors, rounds=rounds)
    return [
        {
            "case": f"{experiment}, batch {config.train.batch_size}",
            "implementation": name,
            "pass": "forward+gradient",
            "dtype": "float32",
            "device": device,
            "milliseconds": milliseconds,
            "ratio_to_dfn_jax": milliseconds / times["dfn_jax"],
            "temporary_bytes": step.memory_analysis().temp_size_in_bytes if name == "dfn_jax" else None,
            "max_abs_error": errors[name],
        }
        for name, milliseconds in times.items()
    ]


def torch_step(loss, optimiser):
    """Begins forward, backward and update; returns the loss."""
    optimiser.zero_grad(set_to_none=True)
    value = loss()
    value.backward()
    optimiser.step()
    return value


def largest_difference(gradient, params) -> float:
    """Largest absolute difference between our gradient and PyTorch's."""

    def difference(ours, theirs) -> float:
        theirs = theirs.grad.cpu().numpy()
        if theirs.ndim == 4:
            theirs = theirs.transpose(2, 3, 1, 0)
            theirs = theirs[..., 0] if ours.ndim == 3 else theirs
        return float(np.abs(ours - theirs).max())

    return float(np.max(jax.tree.leaves(jax.tree.map(difference, gradient, params))))  # not a number, if one is


def main() -> None:
    """Runs the benchmark."""
    parser = options(__doc__, rounds=(5, "how often each competitor is timed"))
    parser.add_argument("--quick", action="store_true", help="Moving MNIST alone, without torch.compile")
    arguments = parser.parse_args()
    rows = []
    for experiment in EXPERIMENTS[:1] if arguments.quick else EXPERIMENTS:
        rows += measure(experiment, quick=arguments.quick, rounds=arguments.rounds)
        write_rows(rows, arguments.json)  # after each, so that what ends early is not lost


if __name__ == "__main__":
    restart_with_huge_pages()  # as `launch.py` does; the peers have them, too
    main()
