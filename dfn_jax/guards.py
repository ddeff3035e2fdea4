"""What is watched while training: numbers that are not finite, jumps of the loss, steps that hang."""

import contextlib
import math
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from dfn_jax.errors import DivergedError

SPIKE = 5  # times the median loss of the last steps
SLOW = 20  # times the median time of the last steps
WINDOW = 100  # steps that a median is taken over
ENOUGH = 10  # steps before there is a median
HOPELESS = 20  # skipped steps in a row that end the run
ANEW = "begin in another --workdir with a lower config.optim.learning_rate, or with config.optim.clip_norm"


class LossGuard:
    """Looks at every step's loss and gradient norm.

    Args:
        policy: 'stop' or 'skip'; under the latter the step itself leaves the state as it was.
        seed: of the run: with the step it is all that a batch depends on.
        tell: (step, message) -> None, for what a person should know.
    """

    def __init__(self, policy: str, seed: int, tell: Callable[[int, str], None]):
        self._skip, self._seed, self._tell = policy == "skip", seed, tell
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._skipped = 0

    def summarise(self, values: Sequence[dict[str, float]], first_step: int) -> dict[str, float]:
        """Means over the steps since the last record, after a look at each.

        Args:
            values: of each step, by name, 'loss' among them.
            first_step: how many steps were taken before the first of them.

        Returns:
            The means over the finite steps, if there were any; with the policy 'skip' also how many were skipped.

        Raises:
            DivergedError: a number is not finite, or, with the policy 'skip', too many in a row were not.
        """
        finite = []
        for step, value in enumerate(values, start=first_step + 1):
            wrong = [f"{name} is {float(number)}" for name, number in value.items() if not math.isfinite(number)]
            if not wrong:
                self._look_for_spike(step, float(value["loss"]))
                finite.append(value)
                self._skipped = 0
            elif self._skip:
                self._tell(step, f"skipped: {' and '.join(wrong)}; {self._batch(step)}")
                self._skipped += 1
            else:
                raise DivergedError(
                    f"{wrong[0]} at step {step}; the last good checkpoint stays: go on from it with "
                    f"--config.train.non_finite=skip, or {ANEW}. {self._batch(step)}"
                )
            if self._skipped == HOPELESS:
                raise DivergedError(
                    f"the last {HOPELESS} steps up to {step} were not finite; the last good checkpoint stays; {ANEW}"
                )
        means = {name: float(sum(value[name] for value in finite) / len(finite)) for name in values[0] if finite}
        return means | ({"skipped_steps": len(values) - len(finite)} if self._skip else {})

    def _look_for_spike(self, step: int, loss: float) -> None:
        if len(self._losses) >= ENOUGH and loss > SPIKE * (typical := statistics.median(self._losses)):
            self._tell(step, f"the loss jumped to {loss:.5g}, where {typical:.5g} is usual; {self._batch(step)}")
        self._losses.append(loss)

    def _batch(self, step: int) -> str:
        return f"task.train_batch({step - 1}) with config.seed={self._seed} draws its batch again"


def check_norm(step: int, norm: float) -> None:
    """Looks at what a step made: the loss of the next one, which would tell, may never be computed.

    Args:
        step: number of steps taken.
        norm: of all parameters, float32.

    Raises:
        DivergedError: it is not finite, or too large for float32.
    """
    if not math.isfinite(norm):
        raise DivergedError(
            f"the norm of the parameters is {norm} after step {step}; the last good checkpoint stays; {ANEW}"
        )


class Watchdog:
    """Tells, while it still hangs, of a step that takes much longer than usual; a context.

    Args:
        tell: (step, message) -> None; called from another thread.
    """

    def __init__(self, tell: Callable[[int, str], None]):
        self._tell = tell
        self._times: deque[float] = deque(maxlen=WINDOW)
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._step, self._began, self._told = 0, None, False
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def forget(self) -> None:
        """Says that the steps to come take another time, the first one also that of its compilation."""
        with self._lock:
            self._times.clear()

    def begin(self, step: int) -> None:
        """Says that a step begins."""
        with self._lock:
            self._step, self._began, self._told = step, time.monotonic(), False

    def end(self) -> None:
        """Says that it is done; what follows, such as writing a checkpoint, is no step."""
        with self._lock:
            self._times.append(time.monotonic() - self._began)
            self._began = None

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            with self._lock:
                if self._began is None or self._told or len(self._times) < ENOUGH:
                    continue
                taken, usual = time.monotonic() - self._began, statistics.median(self._times)
                self._told = slow = taken > max(SLOW * usual, 1.0)
                step = self._step
            if slow:
                with contextlib.suppress(OSError):  # A full disk is told of by whoever has to write on it.
                    self._tell(step, f"this step has taken {taken:.1f} s so far, where {usual:.2g} s is usual")
