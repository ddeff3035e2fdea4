"""The frames that follow the end of a clip, and the motion in the filters that made them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np

from dfn_jax import visualize
from dfn_jax.data import video
from dfn_jax.data.image_files import unit_range
from dfn_jax.errors import InputError
from dfn_jax.tasks.task import Inputs, Params, Prediction
from dfn_jax.tasks.video_report import STRIP_WIDTH


def video_inputs(
    source: Path,
    predict: Callable[[Params, np.ndarray], dict[str, jax.Array]],
    *,
    image_size: tuple[int, int],
    channels: int,
    known: int,
) -> Inputs:
    """Opens clips. Predictions are of each given [known, H, W, C], predicted [F, H, W, C] and flow [F, H, W, 2].

    Frames are in [0, 1]: the last ones of the clip, and those that follow. Flow is in pixels of the resized frames, x
    to the right then y down, from each predicted frame back to the one before it; without filters there is none.

    Args:
        source: a video file, or a folder of clips; see `video.load_clips`.
        predict: parameters, frames [1, known, H, W, C] -> predicted and, where there is one, flow, by name.
        image_size: (H, W) in pixels to which frames are resized, whatever their shape.
        channels: C, 1 for grey or 3 for RGB.
        known: frames that the network reads.

    Raises:
        InputError: there is no clip, or one cannot be read or is too short.
    """
    if source.is_file() and source.suffix.lower() not in video.VIDEO_SUFFIXES:
        known_endings = ", ".join(video.VIDEO_SUFFIXES)
        raise InputError(f"{source} is no video file ({known_endings}); give one, or a folder of clips")
    clips = video.load_clips(source, image_size=image_size, channels=channels, last=known)
    for name, frames in clips.items():
        if len(frames) < known:
            raise InputError(
                f"{name} has {len(frames)} frames, the network reads {known}; remove it, or give a longer clip"
            )

    def predictions(params: Params) -> Iterator[Prediction]:
        for frames in clips.values():
            given = unit_range(frames)
            made = jax.device_get(predict(params, given[None]))
            found = {"given": given} | {name: values[0] for name, values in made.items()}
            yield Prediction(found, _picture(found))

    return Inputs([_name(source, name) for name in clips], predictions)


def _name(source: Path, clip: str) -> Path:
    """Of a clip, without the ending of a video file; of a folder that is one itself, the folder's."""
    path = Path(source.name if clip == str(source) else clip)
    return path.with_suffix("") if path.suffix.lower() in video.VIDEO_SUFFIXES else path


def _picture(found: dict[str, np.ndarray]) -> np.ndarray:
    given, predicted = (visualize.images_to_rgb(found[name]) for name in ("given", "predicted"))
    columns = visualize.frame_titles(len(given), len(predicted))
    rows, titles = [[*given, *predicted]], ["to 0 given,\nthen predicted"]
    if "flow" in found:
        longest = visualize.full_colour(found["flow"])
        wheel = [visualize.flow_wheel(given.shape[1]), *[None] * (len(given) - 1)]
        rows.append([*wheel, *visualize.flow_to_rgb(found["flow"], longest)])
        titles.append(f"back to the frame\nbefore; full colour\nis {longest:g} px")
    scale = max(1, STRIP_WIDTH // (len(columns) * given.shape[2]))
    return visualize.panel(rows, column_titles=columns, row_titles=titles, scale=scale)
