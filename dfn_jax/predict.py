"""What a network makes of inputs of which nothing else is known, for every task alike: arrays and a picture of each."""

from pathlib import Path

from dfn_jax import parallel, visualize
from dfn_jax.errors import InputError
from dfn_jax.files import make_writable_folder, write_arrays, write_whole
from dfn_jax.progress import progress
from dfn_jax.tasks.task import Params, Task


def write_predictions(task: Task, params: Params, source: Path, folder: Path) -> list[Path]:
    """Applies a network to each input, and writes `NAME.npz`, what it predicts, and `NAME.png`, a picture of it.

    Args:
        task: what was trained.
        params: of its network.
        source: an input, or a folder of them.
        folder: where to write; what has the same name there is replaced.

    Returns:
        The pictures that were written, in order.

    Raises:
        InputError: the network predicts nothing from images alone, an input cannot be read, or two have one name.
        OSError: the folder cannot be written.
    """
    if task.predict is None:
        raise InputError("this network predicts nothing from images alone; --mode=predict is for stereo and video")
    make_writable_folder(folder)
    written = []
    for found in progress(task.predict(parallel.on_all_local_devices(params), source), desc="predicting", leave=False):
        path = folder / found.name
        picture, arrays = (path.with_name(f"{path.name}.{ending}") for ending in ("png", "npz"))
        if picture in written:
            raise InputError(f"two inputs are called {found.name}, but for their endings; rename one")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_arrays(arrays, found.arrays)
        write_whole(picture, visualize.to_png(found.picture))
        written.append(picture)
    return written
