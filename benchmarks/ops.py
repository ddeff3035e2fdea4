"""The local filter beside PyTorch's `unfold`, eager and compiled, and beside a copy of the filters.

    python -m benchmarks.ops [--quick] [--json=FILE]

Every competitor gets the same images, filters (or logits) and gradient of the output, and is compared with `unfold` in
float64; where one does not agree, its rows say so, and the program ends with 1. The filters are nearly all that must be
read, so that copying them is the limit: it reads and writes what a forward pass reads. On a GPU the filters of the main
case fit its cache: look at those of 256x256. `--quick`: the main case alone, on a GPU with those of 256x256.
"""

import functools
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import CALLS, interleaved, options, save_rows, torch_device, write_rows
from dfn_jax import ops

TOLERANCE = {
    "float32": 1e-4,
    "bfloat16": 2e-1,
}  # largest difference of an output or gradient; they are of order 1 to 10


class Case(NamedTuple):
    """What is filtered: sizes in pixels, and the options of `ops.dynamic_local_filter`."""

    samples: int
    size: tuple[int, int]
    channels: int
    kernel_size: tuple[int, int]
    dtype: str = "float32"
    normalize: str | None = None
    strides: tuple[int, int] = (1, 1)
    upsampling: tuple[int, int] = (1, 1)

    def __str__(self) -> str:
        text = f"{self.samples} x {self.size[0]}x{self.size[1]} x {self.channels}, "
        text += f"{self.kernel_size[0]}x{self.kernel_size[1]}" + (", from logits" if self.normalize else "")
        text += f", stride {self.strides[0]}" if self.strides != (1, 1) else ""
        return text + (f", upsampling {self.upsampling[0]}" if self.upsampling != (1, 1) else "")

    @property
    def options(self) -> dict:
        """The options that every competitor takes."""
        return {"kernel_size": self.kernel_size, "strides": self.strides, "upsampling": self.upsampling}


MAIN = Case(16, (64, 64), 1, (9, 9))
QUICK = (MAIN, MAIN._replace(normalize="softmax"))
CASES = (
    *QUICK,
    MAIN._replace(dtype="bfloat16"),
    MAIN._replace(dtype="bfloat16", normalize="softmax"),
    MAIN._replace(kernel_size=(1, 13)),
    MAIN._replace(kernel_size=(17, 17), samples=4),
    MAIN._replace(channels=3),
    MAIN._replace(channels=64, samples=2, kernel_size=(5, 5)),
    MAIN._replace(size=(256, 256), samples=2),
    MAIN._replace(strides=(2, 2)),
    MAIN._replace(upsampling=(2, 2), kernel_size=(5, 5)),
)
LARGE = MAIN._replace(size=(256, 256))  # filters of 340 MB, beyond the cache of any GPU
ON_GPU = (LARGE, LARGE._replace(normalize="softmax"), LARGE._replace(normalize="softmax", dtype="bfloat16"))


def inputs(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images [N, H, W, C], filters or logits [N, H', W', K], gradient of the output [N, H', W', C], all float32."""
    random = np.random.default_rng(0)
    size = [
        -(-full // stride) * factor
        for full, stride, factor in zip(case.size, case.strides, case.upsampling, strict=True)
    ]
    images = random.normal(size=(case.samples, *case.size, case.channels))
    filters = random.normal(size=(case.samples, *size, case.kernel_size[0] * case.kernel_size[1]))
    if case.normalize is None:
        filters = np.exp(filters) / np.exp(filters).sum(-1, keepdims=True)
    gradient = random.normal(size=(case.samples, *size, case.channels))
    return tuple(values.astype(np.float32) for values in (images, filters, gradient))


def ours(case: Case, arrays: tuple, implementation: str, with_gradient: bool):
    """Our competitor: (function that begins the work and returns what it makes, temporary bytes)."""
    function = functools.partial(
        ops.dynamic_local_filter, **case.options, normalize=case.normalize, implementation=implementation
    )

    def work(images, filters, gradient):
        if not with_gradient:
            return (function(images, filters),)
        output, pull = jax.vjp(function, images, filters)
        return (output, *pull(gradient))

    compiled = jax.jit(work).lower(*arrays).compile()
    return lambda: compiled(*arrays), compiled.memory_analysis().temp_size_in_bytes


def torchs(case: Case, arrays: tuple, device: str, dtype: str, *, compiled: bool, with_gradient: bool):
    """PyTorch's competitor: a function that begins the work and returns what it makes, in our layout."""
    import torch

    from benchmarks.torch_ops import local_filter

    def filter_(images, filters):
        return local_filter(images, filters.softmax(1) if case.normalize else filters, **case.options)

    function = torch.compile(filter_) if compiled else filter_
    images, filters, gradient = (
        torch.tensor(values).permute(0, 3, 1, 2).to(device, getattr(torch, dtype)).contiguous() for values in arrays
    )
    leaves = [images.requires_grad_(with_gradient), filters.requires_grad_(with_gradient)]

    def work():
        for leaf in leaves:
            leaf.grad = None
        output = function(*leaves)
        made = (output,)
        if with_gradient:
            output.backward(gradient)
            made = (output.detach(), *(leaf.grad for leaf in leaves))
        return tuple(value.permute(0, 2, 3, 1) for value in made)

    return work


def measure(case: Case, *, with_gradient: bool, rounds: int) -> list[dict]:
    """The rows of one case and pass."""
    import torch

    torch.compiler.reset()  # After eight cases it would no longer compile, but run as it is.
    device, arrays = torch_device(), inputs(case)
    on_device = jax.device_put(tuple(jnp.asarray(values, case.dtype) for values in arrays))
    # What the numbers are once rounded to the case's type, so that only the work itself can differ.
    rounded = tuple(np.asarray(values.astype(jnp.float32)) for values in on_device)
    exact = torchs(case, rounded, device, "float64", compiled=False, with_gradient=with_gradient)
    truth = tuple(map(_numbers, exact()))
    competitors, temporary = {}, {}
    for name in ("shift", "patches") if device == "cpu" else ("shift", "patches", "pallas"):
        competitors[f"dfn_jax {name}"], temporary[f"dfn_jax {name}"] = ours(case, on_device, name, with_gradient)
    for name, compiled in (("PyTorch unfold", False), ("PyTorch unfold, compiled", True)):
        competitors[name] = torchs(case, rounded, device, case.dtype, compiled=compiled, with_gradient=with_gradient)
    errors = {name: largest_error(work(), truth) for name, work in competitors.items()}
    copy = functools.partial(jax.jit(jnp.copy), on_device[1])
    times = interleaved({"copy": copy, **competitors}, rounds=rounds, calls=CALLS[device])
    copied = times.pop("copy")
    return [
        {
            "case": str(case),
            "implementation": name,
            "pass": "forward+gradient" if with_gradient else "forward",
            "dtype": case.dtype,
            "device": device,
            "milliseconds": milliseconds,
            "copy_milliseconds": copied,
            "ratio_to_copy": milliseconds / copied,
            # What must move at the least: filters in; for the gradient filters in once more, and their gradient out.
            "gigabytes_per_second": on_device[1].nbytes * (3 if with_gradient else 1) / milliseconds / 1e6,
            "temporary_bytes": temporary.get(name),
            "max_abs_error": errors[name],
        }
        for name, milliseconds in times.items()
    ]


def largest_error(made: tuple, truth: tuple) -> float:
    """The largest absolute difference between what a competitor made and what is true, in NumPy's float64."""
    differences = [np.abs(_numbers(value) - right).max() for value, right in zip(made, truth, strict=True)]
    return float(np.max(differences))  # not a number, if one is


def _numbers(values) -> np.ndarray:
    """An array of either library as float64."""
    if isinstance(values, jax.Array):
        return np.asarray(values.astype(jnp.float32), np.float64)
    return values.detach().double().cpu().numpy()


def main() -> None:
    """Runs the benchmark."""
    parser = options(__doc__, rounds=(15, "how often each competitor is timed"))
    parser.add_argument("--quick", action="store_true", help="the main case alone")
    arguments = parser.parse_args()
    cases = (() if torch_device() == "cpu" else ON_GPU) + (QUICK if arguments.quick else CASES)
    rows = []
    for case in cases:
        for with_gradient in (False, True):
            rows += measure(case, with_gradient=with_gradient, rounds=arguments.rounds)
            save_rows(rows, arguments.json)  # after each, so that what ends early is not lost
    write_rows(rows, arguments.json)
    wrong = [row for row in rows if not row["max_abs_error"] <= TOLERANCE[row["dtype"]]]
    for row in wrong:
        print(
            f"{row['case']}, {row['pass']}: {row['implementation']} is off by {row['max_abs_error']}", file=sys.stderr
        )
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
