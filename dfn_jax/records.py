"""What a run writes as it goes: `starts.jsonl`, `metrics.jsonl`, `events.jsonl`, and for TensorBoard if it is there."""

import contextlib
import importlib.util
import itertools
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dfn_jax.files import write_whole

TEST_PREFIX = "test_"  # of metrics on the test set


class Records:
    """The records of one workdir; a context, on whose end all are on disk.

    Args:
        workdir: folder of the run.
        writing: whether to write at all: of many processes only one does.
    """

    def __init__(self, workdir: Path, *, writing: bool = True):
        self._writing = writing
        self._path, self._events, self._starts = (workdir / f"{n}.jsonl" for n in ("metrics", "events", "starts"))
        self._tensorboard_folder = workdir / "tensorboard"
        self._tensorboard = None

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, *_: object) -> None:
        if self._tensorboard:
            self._tensorboard.close()

    def drop_after(self, step: int, *, tests_anew: bool) -> None:
        """Forgets the records after a step, which a run that goes on from there will write again.

        Args:
            step: from which it goes on.
            tests_anew: whether it begins with a look at the test set, so that a record of one at the very step goes.
        """

        def is_kept(record: dict[str, Any], end: int) -> bool:
            again = tests_anew and any(name.startswith(TEST_PREFIX) for name in record)
            return record["step"] + again <= end

        # A start at this very step has left nothing that counts.
        for path, end in ((self._path, step), (self._events, step), (self._starts, step - 1)) if self._writing else ():
            kept = [record for record in read_records(path) if is_kept(record, end)]
            if path.exists():
                write_whole(path, "".join(json.dumps(record) + "\n" for record in kept))

    def begin(self, step: int, origin: dict[str, Any]) -> None:
        """Appends to `starts.jsonl` by what code, on what devices and of what data the steps from here on are.

        A run's first start has the weights that it begins with, too.
        """
        if self._writing:
            _append(self._starts, {"step": step, **origin})

    def tell(self, step: int, event: str) -> None:
        """Prints what a person should know about a step, and appends it to `events.jsonl`."""
        tqdm.write(f"step {step}: {event}", file=sys.stderr)
        if self._writing:
            _append(self._events, {"step": step, "event": event})

    def write(self, step: int, values: dict[str, float]) -> None:
        """Appends a record.

        Args:
            step: number of steps taken.
            values: by name.

        Raises:
            OSError: it cannot be written.
        """
        if not self._writing:
            return
        _append(self._path, {"step": step, **values})
        if importlib.util.find_spec("tensorboardX"):
            self._write_for_tensorboard(step, values)

    def _write_for_tensorboard(self, step: int, values: dict[str, float]) -> None:
        """Without the thread of tensorboardX's own writer, whose failure on a full disk can abort the process."""
        from tensorboardX import summary
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        if self._tensorboard is None:
            self._tensorboard_folder.mkdir(parents=True, exist_ok=True)
            self._tensorboard = EventsWriter(str(self._tensorboard_folder / "events"))
            # What an earlier run wrote from this step on does not count any more.
            start = SessionLog(status=SessionLog.START)
            self._tensorboard.write_event(Event(wall_time=time.time(), step=step, session_log=start))
        for name, value in values.items():
            event = Event(wall_time=time.time(), step=step, summary=summary.scalar(name, value))
            self._tensorboard.write_event(event)
        self._tensorboard.flush()


def _append(path: Path, record: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


def mean_loss(begun: int, records: list[dict]) -> float:
    """The mean loss over the steps after `begun` that records in a row tell of, without those that were skipped.

    Of a record that began before, the steps that were skipped are taken to be after.
    """
    ends = [max(begun, 0), *(one["step"] for one in records)]
    lengths = [after - before for before, after in itertools.pairwise(ends)]
    weighted = [
        (max(length - one.get("skipped_steps", 0), 0), one["loss"])
        for length, one in zip(lengths, records, strict=True)
        if "loss" in one
    ]
    total = sum(weight for weight, _ in weighted)
    return sum(weight * loss for weight, loss in weighted) / total if total else math.inf


def read_records(path: Path) -> list[dict[str, Any]]:
    """Reads `metrics.jsonl`, `events.jsonl` or `starts.jsonl`.

    Lines that are no records, such as a last one that a kill cut short, are passed over.

    Args:
        path: of the file, which may be missing.

    Returns:
        The records, in order, each with its `step`.
    """
    records = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get("step"), int):
                records.append(record)
    return records
