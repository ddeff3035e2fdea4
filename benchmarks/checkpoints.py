"""What saving costs beside training: python -m benchmarks.checkpoints [--json=FILE] [--saves=N].

A training of stereo's `quick` preset, once without checkpoints and once saved every 100 steps, and the time for which a
save alone keeps the loop waiting.
"""

import statistics
import tempfile
import time
from pathlib import Path

import jax

from benchmarks.timing import options, write_rows
from benchmarks.training import prepare
from dfn_jax.checkpoint import Checkpoints

EVERY = 100  # steps


def measure(saves: int) -> list[dict]:
    """The rows: a step, and what a save adds to it, waited for and in all."""
    config, _, state, batch, step = prepare("stereo", "quick")

    def train(steps: int) -> float:
        nonlocal state
        began = time.perf_counter()
        for _ in range(steps):
            state, values = step(state, batch)
            jax.block_until_ready(values)
        return 1e3 * (time.perf_counter() - began)

    train(10)
    with tempfile.TemporaryDirectory() as folder, Checkpoints(Path(folder)) as checkpoints:
        checkpoints.save(0, state, 1.0)
        waits, plain, beside = [], [], []
        train(EVERY)
        for number in range(1, saves + 1):
            plain.append(train(EVERY))
            began = time.perf_counter()
            checkpoints.save(number, state, 1.0)
            waits.append(1e3 * (time.perf_counter() - began))
            # The save is written in the background while these steps run.
            beside.append(waits[-1] + train(EVERY))
    plain_time, wait, beside_time = (statistics.median(times) for times in (plain, waits, beside))
    return [
        {
            "case": f"stereo, quick, {EVERY} steps of batch {config.train.batch_size}",
            "implementation": name,
            "device": jax.default_backend(),
            "milliseconds": milliseconds,
            "share_of_training": milliseconds / plain_time,
        }
        for name, milliseconds in (
            ("training", plain_time),
            ("training with one save", beside_time),
            ("what the save waits for", wait),
            ("what the save adds", beside_time - plain_time),
        )
    ]


def main() -> None:
    """Runs the benchmark."""
    arguments = options(__doc__, saves=(5, "how many")).parse_args()
    write_rows(measure(arguments.saves), arguments.json)


if __name__ == "__main__":
    main()
