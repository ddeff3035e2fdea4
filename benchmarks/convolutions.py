"""The convolutions of the paper's Moving MNIST network, one by one: ours, XLA's own and PyTorch's.

    python -m benchmarks.convolutions [--json=FILE] [--rounds=N]

Each pass by itself: forward, the gradient of the images, the gradient of the kernel. All must agree before they are
timed. Operations are those of the definition, two for each product of a tap and a pixel.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.timing import CALLS, interleaved, options, torch_device, tune_torch, write_rows
from dfn_jax.ops.conv import conv

CASES = {
    # images, size, channels in and out, kernel, stride
    "encoder 1, known frames": (160, 64, 1, 32, 3, 1),
    "encoder 2, known frames": (160, 64, 32, 32, 3, 2),
    "encoder 3, known frames": (160, 32, 32, 64, 3, 1),
    "encoder 4, known frames": (160, 32, 64, 64, 3, 1),
    "encoder 5, known frames": (160, 32, 64, 128, 3, 1),
    "encoder 2, one frame": (16, 64, 32, 32, 3, 2),
    "encoder 5, one frame": (16, 32, 64, 128, 3, 1),
    "hidden state": (16, 32, 128, 128, 3, 1),
    "decoder 1": (16, 32, 128, 64, 3, 1),
    "decoder 2": (16, 32, 64, 64, 3, 1),
    "decoder 4": (16, 64, 64, 64, 3, 1),
    "decoder 5": (16, 64, 64, 128, 1, 1),
    "decoder 6": (16, 64, 128, 81, 1, 1),
}
PASSES = ("forward", "image gradient", "kernel gradient")
TOLERANCE = {"cpu": 1e-4, "cuda": 1e-2}  # of the largest value; GPUs round what they multiply to TF32


def jax_passes(convolve, images: np.ndarray, kernel: np.ndarray, gradient: np.ndarray) -> dict:
    """Forward and the two gradients as compiled functions of nothing, which return as soon as they have begun."""
    images, kernel, gradient = map(jnp.asarray, (images, kernel, gradient))
    arrays = images, kernel, gradient
    functions = (
        lambda x, w, g: convolve(x, w),
        lambda x, w, g: jax.vjp(lambda x: convolve(x, w), x)[1](g)[0],
        lambda x, w, g: jax.vjp(lambda w: convolve(x, w), w)[1](g)[0],
    )
    return {name: functools.partial(jax.jit(work), *arrays) for name, work in zip(PASSES, functions, strict=True)}


def torch_passes(stride: int, images: np.ndarray, kernel: np.ndarray, gradient: np.ndarray, device: str) -> dict:
    """The same by PyTorch; images and kernel lie in memory with channels last, as oneDNN likes them."""
    import torch

    images, gradient = (torch.tensor(values).to(device).permute(0, 3, 1, 2) for values in (images, gradient))
    pad = kernel.shape[0] // 2
    kernel = torch.tensor(kernel).to(device).permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)

    def gradients(wanted: int):
        which = [index == wanted for index in range(3)]
        return torch.ops.aten.convolution_backward(
            gradient, images, kernel, None, [stride] * 2, [pad] * 2, [1, 1], False, [0, 0], 1, which
        )[wanted]

    return {
        "forward": lambda: torch.nn.functional.conv2d(images, kernel, stride=stride, padding=pad),
        "image gradient": lambda: gradients(0),
        "kernel gradient": lambda: gradients(1),
    }


def as_ours(values) -> np.ndarray:
    """A result of PyTorch, NCHW, in our order; kernels come as [out, in, kh, kw]."""
    return values.cpu().numpy().transpose(0, 2, 3, 1)


def measure(case: str, *, rounds: int) -> list[dict]:
    """The rows of one convolution."""
    samples, size, channels, features, taps, stride = CASES[case]
    device = torch_device()
    tune_torch()
    random = np.random.default_rng(0)
    images = random.standard_normal((samples, size, size, channels), np.float32)
    kernel = random.standard_normal((taps, taps, channels, features), np.float32)
    gradient = random.standard_normal((samples, size // stride, size // stride, features), np.float32)
    strides, padding = (stride,) * 2, ((taps // 2,) * 2,) * 2
    plain = functools.partial(
        lax.conv_general_dilated, window_strides=strides, padding=padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    ours = functools.partial(conv, strides=strides, padding=padding)
    competitors = {
        "dfn_jax": jax_passes(ours, images, kernel, gradient),
        "XLA": jax_passes(plain, images, kernel, gradient),
        "PyTorch": torch_passes(stride, images, kernel, gradient, device),
    }
    operations = 2 * gradient.size * taps**2 * channels
    rows = []
    for name in PASSES:
        wanted = as_ours(competitors["PyTorch"][name]())
        wanted = wanted.transpose(1, 2, 3, 0) if name == "kernel gradient" else wanted
        errors = {"PyTorch": 0.0}
        for peer in ("dfn_jax", "XLA"):
            errors[peer] = float(np.abs(np.asarray(competitors[peer][name]()) - wanted).max() / np.abs(wanted).max())
            if not errors[peer] <= TOLERANCE[device]:
                raise AssertionError(f"{case}, {name}: {peer} lies {errors[peer]} of the largest value from PyTorch")
        works = {peer: passes[name] for peer, passes in competitors.items()}
        times = interleaved(works, rounds=rounds, calls=CALLS[device])
        rows += [
            {
                "case": case,
                "implementation": peer,
                "pass": name,
                "dtype": "float32",
                "device": device,
                "milliseconds": milliseconds,
                "ratio_to_dfn_jax": milliseconds / times["dfn_jax"],
                "billion_operations_per_second": operations / milliseconds / 1e6,
                "max_relative_error": errors[peer],
            }
            for peer, milliseconds in times.items()
        ]
    return rows


def main() -> None:
    """Runs the benchmark."""
    arguments = options(__doc__, rounds=(7, "how often each competitor is timed")).parse_args()
    write_rows([row for case in CASES for row in measure(case, rounds=arguments.rounds)], arguments.json)


if __name__ == "__main__":
    main()
