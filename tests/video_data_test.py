import os
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from dfn_jax.data.video import load_clips
from dfn_jax.errors import InputError

DATA = Path(os.environ.get("DFN_DATA", "no such folder")).expanduser()
needs_highway_video = pytest.mark.skipif(
    not (DATA / "highway_video").is_dir(), reason="DFN_DATA names no folder with highway_video"
)
SIZE = (12, 19)
COLOUR = {"image_size": SIZE, "channels": 3}
GREY = {"image_size": SIZE, "channels": 1}
LUMA = np.array([0.299, 0.587, 0.114])  # Rec. 601


def random_frames(count, size=SIZE, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def write_video(path, frames, codec="ffv1", pixels="bgr0", reordered=0, title=""):
    """Encodes RGB frames, by default without loss, and returns their places in time as the file orders them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    packets = []
    with av.open(str(path), "w") as container:
        container.metadata["title"] = title
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        stream.codec_context.max_b_frames = reordered
        for frame in [*(av.VideoFrame.from_ndarray(frame, format="rgb24") for frame in frames), None]:
            for packet in stream.encode(frame):
                packets.append(packet.pts)
                container.mux(packet)
    return packets


def write_images(folder, frames, name="frame_{}.png"):
    folder.mkdir(parents=True, exist_ok=True)
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / name.format(index))


def message_of(function, *arguments, **options):
    with pytest.raises(InputError) as caught:
        function(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "clips").mkdir()
    return tmp_path / "clips"


# Video files


@pytest.mark.parametrize(("matrix", "turns"), [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
def test_a_clip_is_turned_as_its_camera_says(folder, matrix, turns):
    """QuickTime's matrix (a, b, c, d) shows the point (x, y), y down, at (a x + c y, b x + d y)."""
    frames = random_frames(3)
    write_video(folder / "a.mov", frames, "png", "rgb24")
    stored = bytearray((folder / "a.mov").read_bytes())
    begin = stored.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in matrix)
    stored[begin : begin + 20] = struct.pack(">5i", a, b, 0, c, d)
    (folder / "a.mov").write_bytes(stored)
    shown = np.rot90(frames, turns, axes=(1, 2))
    np.testing.assert_array_equal(load_clips(folder, image_size=shown.shape[1:3], channels=3)["a.mov"], shown)


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [("a.mkv", "ffv1", "bgr0"), ("A.AVI", "ffv1", "bgr0"), ("a.mov", "png", "rgb24"), ("a.mp4", "png", "rgb24")],
    ids=str,
)
def test_video_frames_come_whole_and_in_order(folder, name, codec, pixels):
    frames = random_frames(7)
    write_video(folder / name, frames, codec, pixels)
    clips = load_clips(folder, **COLOUR)
    assert list(clips) == [name]
    assert clips[name].dtype == np.uint8
    np.testing.assert_array_equal(clips[name], frames)

    np.testing.assert_array_equal(load_clips(folder / name, **COLOUR)[name], frames)  # a file for the folder


def test_video_becomes_grey_by_rec_601(folder):
    frames = random_frames(3)
    write_video(folder / "a.mkv", frames)
    grey = load_clips(str(folder), **GREY)["a.mkv"]
    assert grey.shape == (3, *SIZE, 1)
    np.testing.assert_allclose(grey[..., 0], frames @ LUMA, atol=1.01)


def test_compressed_frames_are_put_into_the_order_of_time(folder):
    ramp = np.linspace(20, 230, 12).astype(np.uint8)
    frames = np.broadcast_to(ramp[:, None, None, None], (12, 32, 48, 3)).copy()
    times = write_video(folder / "a.mp4", frames, "mpeg4", "yuv420p", reordered=2)
    assert times != sorted(times)
    clip = load_clips(folder, image_size=(32, 48), channels=1)["a.mp4"]
    np.testing.assert_allclose(clip.mean((1, 2, 3)), ramp, atol=6)


# Folders of images


def test_images_are_frames_in_the_order_of_their_numbers(folder):
    frames = random_frames(12)
    write_images(folder / "one", frames)
    clips = load_clips(folder, **COLOUR)
    assert list(clips) == ["one"]
    np.testing.assert_array_equal(clips["one"], frames)


def test_clips_of_all_kinds_are_found_in_all_folders_in_natural_order(folder):
    written = {
        "take_2/left": random_frames(2, seed=1),
        "take_2/run.mkv": random_frames(3, seed=2),
        "take_10": random_frames(4, seed=3),
        "take_10/deep/down": random_frames(1, seed=4),
        "z_2.mkv": random_frames(2, seed=5),
        "z_10.mkv": random_frames(3, seed=6),
    }
    for name, frames in written.items():
        (write_video if name.endswith("mkv") else write_images)(folder / name, frames)
    (folder / "take_2" / "notes.txt").write_text("no clip")
    (folder / "empty").mkdir()
    clips = load_clips(folder, **COLOUR)
    assert list(clips) == list(written)
    for name, frames in written.items():
        np.testing.assert_array_equal(clips[name], frames)


def test_images_in_the_folder_itself_are_a_clip(folder):
    frames = random_frames(3)
    write_images(folder, frames)
    (clip,) = load_clips(folder, **COLOUR).values()
    np.testing.assert_array_equal(clip, frames)


def test_hidden_files_and_folders_are_left_out(folder):
    frames = random_frames(3)
    write_images(folder / "one", frames)
    write_images(folder / "one", random_frames(2, seed=1), name="._frame_{}.png")
    write_images(folder / ".hidden", frames)
    write_images(folder / ".hidden" / "deep", frames)
    write_video(folder / "one" / "._clip.mkv", frames)
    write_video(folder / ".hidden" / "clip.mkv", frames)
    clips = load_clips(folder, **COLOUR)
    assert list(clips) == ["one"]
    np.testing.assert_array_equal(clips["one"], frames)


def test_a_hidden_folder_is_read_where_it_is_asked_for(tmp_path, monkeypatch):
    frames = random_frames(3)
    write_images(tmp_path / ".clips", frames)
    (clip,) = load_clips(tmp_path / ".clips", **COLOUR).values()
    np.testing.assert_array_equal(clip, frames)
    (tmp_path / ".clips" / "empty").mkdir()
    monkeypatch.chdir(tmp_path / ".clips" / "empty")
    (clip,) = load_clips("..", **COLOUR).values()
    np.testing.assert_array_equal(clip, frames)


def test_grey_images_and_colour_images_follow_the_channels(folder):
    colour, grey = random_frames(2), random_frames(2, seed=1)[..., 0]
    write_images(folder / "colour", colour)
    write_images(folder / "grey", grey)
    as_grey, as_colour = load_clips(folder, **GREY), load_clips(folder, **COLOUR)
    np.testing.assert_allclose(as_grey["colour"][..., 0], colour @ LUMA, atol=1.01)
    np.testing.assert_array_equal(as_grey["grey"][..., 0], grey)
    np.testing.assert_array_equal(as_colour["colour"], colour)
    np.testing.assert_array_equal(as_colour["grey"], np.repeat(grey[..., None], 3, -1))


# Sizes


@pytest.mark.parametrize("write", [write_images, lambda path, frames: write_video(path / "a.mkv", frames)])
def test_frames_are_made_small_by_the_mean_of_blocks(folder, write):
    frames = random_frames(2, size=(12, 20))
    write(folder / "one", frames)
    (clip,) = load_clips(folder, image_size=(4, 10), channels=3).values()
    assert clip.shape == (2, 4, 10, 3)
    for n, y, x in np.ndindex(2, 4, 10):
        block = frames[n, 3 * y : 3 * y + 3, 2 * x : 2 * x + 2].astype(float)
        # PIL resizes in two passes and rounds to 8 bit after each.
        np.testing.assert_allclose(clip[n, y, x], block.mean((0, 1)), atol=1.01)


def test_clips_of_different_sizes_are_all_resized(folder):
    write_images(folder / "one", random_frames(2, size=(12, 20)))
    write_images(folder / "two", random_frames(3, size=(30, 17)))
    shapes = {name: clip.shape for name, clip in load_clips(folder, image_size=(4, 5), channels=3).items()}
    assert shapes == {"one": (2, 4, 5, 3), "two": (3, 4, 5, 3)}


# Bad files and folders


def write_sound(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def write_truncated_video(path):
    write_video(path, random_frames(5), "png", "rgb24")
    truncate(path)


def write_damaged_video(path):
    write_video(path, random_frames(5), "png", "rgb24")
    content = path.read_bytes()
    frame = content.index(b"IDAT", content.index(b"IDAT") + 4)
    path.write_bytes(content[:frame] + bytes(40) + content[frame + 40 :])


def write_truncated_image(folder):
    write_images(folder / "one", random_frames(3))
    truncate(folder / "one" / "frame_1.png")


def write_changing_sizes(folder):
    write_images(folder / "one", random_frames(12))
    Image.new("RGB", (18, 12)).save(folder / "one" / "frame_10.png")


BAD_FOLDERS = {
    "empty": (lambda folder: None, ["clips", "neither a video file", ".mp4", "nor a folder of images"]),
    "no clips": (lambda folder: (folder / "notes.txt").write_text("no clip"), ["clips", "neither a video file"]),
    "text": (lambda folder: (folder / "x.mp4").write_text("hello"), ["cannot decode", "clips/x.mp4"]),
    "empty file": (lambda folder: (folder / "x.mp4").touch(), ["cannot decode", "clips/x.mp4"]),
    "truncated video": (lambda folder: write_truncated_video(folder / "x.mov"), ["cannot decode", "clips/x.mov"]),
    "damaged video": (lambda folder: write_damaged_video(folder / "x.mov"), ["cannot decode", "clips/x.mov"]),
    "truncated image": (write_truncated_image, ["cannot read", "one/frame_1.png"]),
    "16-bit image": (
        lambda folder: write_images(folder, np.zeros((1, 12, 19), np.uint16)),
        ["frame_0.png", "16-bit image"],
    ),
    "changing sizes": (write_changing_sizes, ["frame 10 of one", "18x12", "19x12"]),
}


@pytest.mark.parametrize(("write", "words"), BAD_FOLDERS.values(), ids=BAD_FOLDERS)
def test_bad_clips_are_told_in_one_line(folder, write, words):
    write(folder)
    message = message_of(load_clips, folder, **COLOUR)
    for word in words:
        assert word in message


def test_sound_alone_is_told_and_not_called_undecodable(folder):
    write_sound(folder / "x.mov")
    message = message_of(load_clips, folder, **COLOUR)
    assert "x.mov holds no video" in message
    assert "cannot decode" not in message


@pytest.mark.parametrize("suffix", ["mkv", "avi"])
def test_a_video_that_breaks_off_is_told(folder, suffix):
    write_video(folder / f"x.{suffix}", random_frames(40))
    content = (folder / f"x.{suffix}").read_bytes()
    assert len(load_clips(folder, **COLOUR)[f"x.{suffix}"]) == 40
    (folder / f"x.{suffix}").write_bytes(content[: len(content) // 2])
    message = message_of(load_clips, folder, **COLOUR)
    assert f"x.{suffix}" in message
    assert "breaks off" in message or "cannot decode" in message


def test_a_video_that_was_trimmed_without_encoding_it_again_is_read(folder):
    write_video(folder.parent / "whole.mp4", random_frames(100, (16, 24)), codec="mpeg4", pixels="yuv420p")
    with av.open(str(folder.parent / "whole.mp4")) as whole, av.open(str(folder / "trimmed.mp4"), "w") as trimmed:
        source = whole.streams.video[0]
        stream = trimmed.add_stream_from_template(source)
        for packet in whole.demux(source):
            if packet.dts is not None:
                packet.pts, packet.dts = (time - int(38 / 25 / source.time_base) for time in (packet.pts, packet.dts))
                packet.stream = stream
                trimmed.mux(packet)
    assert len(load_clips(folder, **COLOUR)["trimmed.mp4"]) == 62


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv"])
def test_a_title_that_is_not_utf_8_does_not_matter(folder, suffix):
    write_video(folder / f"x.{suffix}", random_frames(4, (16, 24)), codec="mpeg4", pixels="yuv420p", title="Caf??")
    content = (folder / f"x.{suffix}").read_bytes()
    assert b"Caf??" in content
    (folder / f"x.{suffix}").write_bytes(content.replace(b"Caf??", b"Caf\xe9\xe9"))
    assert len(load_clips(folder, **COLOUR)[f"x.{suffix}"]) == 4


def test_a_lone_picture_beside_videos_is_no_clip(folder):
    write_video(folder / "x.mkv", random_frames(4))
    write_images(folder, random_frames(1), name="cover_{}.jpg")
    assert load_clips(folder, **COLOUR).keys() == {"x.mkv"}
    write_images(folder, random_frames(2))
    assert load_clips(folder, **COLOUR).keys() == {"x.mkv", str(folder)}


def test_links_that_lead_nowhere_are_told(folder, capsys):
    """What they stand for would be left out, and the figures would be those of other data."""
    write_video(folder / "x.mkv", random_frames(4))
    (folder / "clip").symlink_to(folder / "on a disk that is not there")
    assert load_clips(folder, **COLOUR).keys() == {"x.mkv"}
    assert f"{folder / 'clip'} is a link that leads nowhere: what it stands for is left out" in capsys.readouterr().err
    (folder / "clip.mkv").symlink_to(folder / "on a disk that is not there")
    assert "cannot decode" in message_of(load_clips, folder, **COLOUR)


def test_frames_of_equal_numbers_have_one_order(folder):
    """Whichever the disk names first."""
    for value, name in enumerate(("1", "2", "01", "001")):
        write_images(folder, np.full((1, *SIZE, 3), value, np.uint8), name=f"{name}.png")
    assert load_clips(folder, **COLOUR)[str(folder)][:, 0, 0, 0].tolist() == [3, 2, 0, 1]


def test_missing_folders_other_files_and_unknown_channels(folder):
    assert "does not exist" in message_of(load_clips, folder / "nowhere", **COLOUR)
    assert "does not exist" in message_of(load_clips, folder / "nowhere.mp4", **COLOUR)
    (folder / "notes.txt").touch()
    assert "not a folder" in message_of(load_clips, folder / "notes.txt", **COLOUR)
    assert "1 (grey) or 3 (RGB)" in message_of(load_clips, folder, image_size=SIZE, channels=2)


@needs_highway_video
def test_a_real_highway_video():
    path = DATA / "highway_video" / "test_video.mp4"
    clip = load_clips(path, image_size=(24, 40), channels=1)["test_video.mp4"]
    assert clip.shape == (38, 24, 40, 1)
    assert clip.std() > 20
    steps = np.abs(np.diff(clip.astype(float), axis=0)).mean((1, 2, 3))
    assert 0 < steps.max() < 0.5 * np.abs(clip[0].astype(float) - clip[0].mean()).mean()
