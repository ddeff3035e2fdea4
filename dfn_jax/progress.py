"""Progress bars: several times a second on a terminal, once in ten seconds where they go into a log or a notebook."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def progress(items: Iterable, **options: Any) -> tqdm:
    """A progress bar on standard error.

    Args:
        items: what is gone through.
        **options: of `tqdm`.

    Returns:
        The bar, which yields the items.
    """
    return tqdm(items, mininterval=0.1 if sys.stderr.isatty() else 10.0, **options)
