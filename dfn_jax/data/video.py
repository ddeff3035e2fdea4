"""Real video: files and folders of images as clips, each split by time into training and test segments.

Every frame is decoded once, made small, and kept in memory: half an hour at 64x64 is some 200 MB.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dfn_jax import files
from dfn_jax.data.folders import below, existing_folder, list_images, natural_key
from dfn_jax.data.image_files import check_channels, read_image, shrunk, unit_range
from dfn_jax.errors import InputError, in_one_line
from dfn_jax.progress import progress

if TYPE_CHECKING:
    from PIL import Image

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")


def load_clips(
    folder: str | Path, *, image_size: tuple[int, int], channels: int, last: int | None = None
) -> dict[str, np.ndarray]:
    """Reads all clips of a folder: each video file, and each folder of images, whose names give the order in time.

    They are turned as the camera says that it was held; mirror images stay mirrored, if not the right way up.

    Args:
        folder: looked through with its subfolders; may also be a single video file.
        image_size: (H, W) in pixels to resize every frame to, by Pillow's box filter: the mean of the pixels covered.
        channels: 1 for grey, 3 for RGB.
        last: frames to keep of the end of each clip; None for all.

    Returns:
        uint8 [T, H, W, C] of each clip, by its name.

    Raises:
        InputError: there is no clip, a file cannot be decoded, or frames of one clip differ in size.
    """
    check_channels(channels)
    sources = _find_clips(files.expanded(folder))
    if not sources:
        raise InputError(
            f"{folder} holds neither a video file ({', '.join(VIDEO_SUFFIXES)}) nor a folder of images; "
            "give a folder that does"
        )
    clips = {}
    for name, source in progress(sources.items(), desc="reading video", unit="clip", leave=False):
        frames = _video_frames(source, channels) if isinstance(source, Path) else _image_frames(source, channels)
        clips[name] = _resized(name, frames, image_size, last)
    return clips


def _find_clips(folder: Path) -> dict[str, Path | list[Path]]:
    """The video files and the lists of images, by name."""
    if folder.is_file() and folder.suffix.lower() in VIDEO_SUFFIXES:
        return {folder.name: folder}
    folder = existing_folder(folder)
    found: dict[str, Path | list[Path]] = {}
    for path in sorted((folder, *below(folder)), key=lambda path: natural_key(path.as_posix())):
        if not path.is_dir() and path.suffix.lower() in VIDEO_SUFFIXES:
            found[path.relative_to(folder).as_posix()] = path
        elif path.is_dir() and (images := list_images(path)) and not _is_cover(images, path):
            found[path.relative_to(folder).as_posix() if path != folder else str(folder)] = images
    return found


def _is_cover(images: list[Path], folder: Path) -> bool:
    """Whether a folder's images are a lone one beside a video."""
    return len(images) == 1 and any(path.suffix.lower() in VIDEO_SUFFIXES for path in folder.iterdir())


def fingerprint(folder: str | Path) -> str:
    """Identifies the clips of a folder, wherever it lies.

    Raises:
        InputError: there is no such folder.
    """
    root = files.expanded(folder)
    sources = _find_clips(root).values()
    paths = [path for source in sources for path in ([source] if isinstance(source, Path) else source)]
    return files.fingerprint(root.parent if root.is_file() else root, paths)


def _video_frames(path: Path, channels: int) -> Iterator["Image.Image"]:
    import av

    count, announced = 0, 0
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            stream = next(iter(container.streams.video), None)
            if stream is not None:
                stream.thread_type = "AUTO"
                announced = _announced_frames(container, stream)
                for frame in container.decode(stream):
                    count += 1
                    image = frame.to_image().convert("L" if channels == 1 else "RGB")
                    yield image.rotate(frame.rotation, expand=True) if frame.rotation else image
    except (av.FFmpegError, EOFError) as error:
        reason = in_one_line(error)
        raise InputError(f"cannot decode {path} ({reason}); convert it, for example to H.264, or remove it") from error
    if stream is None:
        raise InputError(f"{path} holds no video; remove it")
    if count < 0.9 * announced - 1:
        raise InputError(
            f"{path} breaks off after {count} of about {announced} frames; get the file again or remove it"
        )


def _announced_frames(container, stream) -> int:
    """How many frames the file says that it shows, 0 where it does not say."""
    if stream.duration and stream.time_base:
        seconds = float(stream.duration * stream.time_base)
    else:
        seconds = (container.duration or 0) * 1e-6
    shown = round(seconds * float(stream.average_rate or 0))
    # MP4 and MOV may hold more frames than they show, and say both.
    edited = "mp4" in container.format.name and 0 < shown < stream.frames
    return shown if edited else stream.frames or shown


def _image_frames(paths: list[Path], channels: int) -> Iterator["Image.Image"]:
    for path in paths:
        yield read_image(path, channels)


def _resized(name: str, frames: Iterable["Image.Image"], image_size: tuple[int, int], last: int | None) -> np.ndarray:
    result, first = deque(maxlen=last), None
    for index, frame in enumerate(frames):
        first = first or frame.size
        if frame.size != first:
            raise InputError(
                f"frame {index} of {name} has {frame.size[0]}x{frame.size[1]} pixels, the ones before have "
                f"{first[0]}x{first[1]}; a clip needs frames of one size: split it, or resize them"
            )
        result.append(shrunk(frame, image_size))
    if not result:
        raise InputError(f"{name} holds no frame that can be decoded; get the file again or remove it")
    return np.stack(result)


def split_by_time(
    clips: dict[str, np.ndarray], *, test_fraction: float
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Cuts each clip once: training comes first, the test after it.

    Args:
        clips: uint8 [T, H, W, C], by name.
        test_fraction: share of the frames, from 0 to 1, that is for testing.

    Returns:
        The parts for training and for testing, by name.

    Raises:
        InputError: the fraction is out of range.
    """
    if not 0 <= test_fraction <= 1:
        raise InputError(f"config.data.test_fraction is {test_fraction}; it must be between 0 and 1")
    cuts = {name: len(frames) - round(test_fraction * len(frames)) for name, frames in clips.items()}
    return {name: clips[name][:cut] for name, cut in cuts.items()}, {
        name: clips[name][cut:] for name, cut in cuts.items()
    }


def check_lengths(parts: dict[str, np.ndarray], *, length: int, purpose: str) -> list[np.ndarray]:
    """The parts, each of which must hold a segment.

    Args:
        parts: uint8 [T, H, W, C], by name.
        length: frames of a segment.
        purpose: what the parts are for, as the error calls it.

    Returns:
        The parts without their names.

    Raises:
        InputError: a part is shorter than a segment.
    """
    for name, frames in parts.items():
        if len(frames) < length:
            raise InputError(
                f"{name} has {len(frames)} frames for {purpose}, where one segment takes {length}: remove the clip, "
                "ask for fewer frames, or change config.data.test_fraction"
            )
    return list(parts.values())


def segment_batch(
    parts: list[np.ndarray], step: int, *, seed: int, batch_size: int, length: int, indices: range | None = None
) -> np.ndarray:
    """Draws segments at random, each start in any part as likely as any other.

    Args:
        parts: uint8 [T, H, W, C].
        step: of the training; seed and step alone decide the batch.
        seed: not negative.
        batch_size: number of segments in the batch.
        length: frames of a segment.
        indices: which segments to draw, N in a row; None for all.

    Returns:
        float32 [N, length, H, W, C] in [0, 1].
    """
    starts = np.cumsum([0] + [len(part) - length + 1 for part in parts])
    chosen = np.random.default_rng([seed, step]).integers(starts[-1], size=batch_size)
    chosen = chosen[indices.start : indices.stop] if indices else chosen
    which = np.searchsorted(starts, chosen, side="right") - 1
    return unit_range(
        np.stack([parts[p][c - starts[p] : c - starts[p] + length] for p, c in zip(which, chosen, strict=True)])
    )


def segments(parts: list[np.ndarray], *, length: int, limit: int) -> np.ndarray:
    """Cuts parts into segments that do not overlap, in order; evenly thinned where there are more than asked for.

    Args:
        parts: uint8 [T, H, W, C].
        length: frames of a segment.
        limit: the most segments wanted.

    Returns:
        uint8 [N, length, H, W, C].
    """
    found = [part[start : start + length] for part in parts for start in range(0, len(part) - length + 1, length)]
    chosen = np.unique(np.linspace(0, len(found) - 1, min(limit, len(found))).round().astype(int))
    return np.stack([found[index] for index in chosen])
