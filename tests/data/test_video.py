"""Frames of videos of every kind by number: to the bit those of a decode from start to end."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from amd_jax.data import container, transforms
from amd_jax.data.encode import encode
from amd_jax.data.example import EncodedFrames, EncodedVideo, FrameFiles, VideoFile
from amd_jax.data.video import open_video
from amd_jax.errors import ConfigError

av = pytest.importorskip("av")
movies = pytest.importorskip("tests.data.movies")  # imports PyAV
KINDS, all_frames, drawn, read, reason = (
    movies.KINDS,
    movies.all_frames,
    movies.drawn,
    movies.read,
    movies.reason,
)
write = movies.write


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "read again"])
def test_frames_are_those_of_a_decode_from_start_to_end(movie, name, kept, monkeypatch):
    if not kept:
        monkeypatch.setattr(container, "_KEPT_BYTES", 0)
    path = movie(name)
    expected = np.stack(all_frames(path.read_bytes()))
    with open_video(VideoFile(str(path))) as video:
        count = video.count
        assert count == len(expected)
        for number in range(count) if kept else range(0, count, 7):
            assert np.array_equal(video.read(np.array([number]), 3), expected[[number]]), number
        for clip in ([*range(count)], [count - 1, 0, count // 2, count // 2], [*range(count // 3, count, 4)]):
            assert np.array_equal(video.read(np.array(clip), 3), expected[clip])


def test_bytes_are_read_like_a_file(movie):
    data = movie("film.mp4").read_bytes()
    with open_video(EncodedVideo(data)) as video:
        assert np.array_equal(video.read(np.arange(40), 3), all_frames(data))


@pytest.mark.parametrize("name", ["film.mp4", "odd.webm", "motion.avi"])
def test_grey_frames(movie, name):
    path = movie(name)
    grey = read(path, channels=1)
    assert grey.shape[3] == 1
    assert np.array_equal(grey, all_frames(path.read_bytes(), "gray"))


def test_an_edit_list_hides_frames(movie):
    assert len(read(movie("trimmed.mp4"))) < 40


def test_hidden_frames_of_vp8_do_not_count(movie):
    path = movie("vp8.webm")
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as file:
        packet = next(p for p in file.demux(video=0) if not p.is_keyframe and p.pts > 500)
        data[data.index(bytes(packet))] &= ~16  # its first byte says whether it is shown
    expected = all_frames(bytes(data))
    with open_video(EncodedVideo(bytes(data))) as video:
        assert video.count == len(expected) == 39
        for number in (*range(7), *range(30, 39)):  # between them the steps of time are not the frames
            assert np.array_equal(video.read(np.array([number]), 3)[0], expected[number]), number


def test_a_variable_rate_is_read_at_even_steps_of_time(tmp_path):
    # Ten frames, shown at 0 … 3, then every third step: 21 steps of time in nine intervals of 7 / 3.
    times = [0, 1, 2, 3, 6, 9, 12, 15, 18, 21]
    path = write(tmp_path / "a.mp4", drawn(10), times=times, b_frames=2)
    # The middles are at 7/6, 21/6, 35/6 …: 1.2, 3.5, 5.8, 8.2, 10.5, 12.8, 15.2, 17.5, 19.8, 22.2.
    shown = [1, 3, 3, 4, 5, 6, 7, 7, 8, 9]
    assert np.array_equal(read(path), np.stack(all_frames(path.read_bytes()))[shown])


# Rows of the matrices of QuickTime's `tkhd`, for x and y pointing right and down.
TURNS = {"clockwise": (0, 1, -1, 0), "half": (-1, 0, 0, -1), "counterclockwise": (0, -1, 1, 0)}


@pytest.mark.parametrize(("turn", "quarters"), [("clockwise", -1), ("half", 2), ("counterclockwise", 1)])
def test_a_turned_video_is_read_upright(movie, turn, quarters):
    data = movie("film.mp4").read_bytes()
    one, two = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 2**30), TURNS[turn]
    a, b, c, d = (65536 * value for value in two)
    start = data.index(one, data.index(b"tkhd"))
    turned = data[:start] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 2**30) + data[start + len(one) :]
    with open_video(EncodedVideo(turned)) as video:
        frames = video.read(np.array([5, 20]), 3)
    assert np.array_equal(frames, np.rot90(np.stack(all_frames(data))[[5, 20]], quarters, axes=(1, 2)))
    assert frames.shape[1:3] == ((48, 64) if turn == "half" else (64, 48))


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts", "avi"])
def test_sound_and_a_second_picture_are_left_alone(tmp_path, ending):
    path = tmp_path / f"both.{ending}"
    with av.open(str(path), "w") as output:
        sound = output.add_stream("mp2" if ending == "avi" else "aac", rate=48000, layout="mono")
        pictures = [output.add_stream("mpeg4", rate=30) for _ in range(2)]
        form = sound.codec_context.format.name
        for stream in pictures:
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for image in drawn(40):
            for stream, pixels in zip(pictures, (image, 255 - image), strict=True):
                output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
            samples = np.zeros((1, 1600), np.int16 if form.startswith("s16") else np.float32)
            frame = av.AudioFrame.from_ndarray(samples, form, "mono")
            frame.rate = 48000
            output.mux(sound.encode(frame))
        for stream in (sound, *pictures):
            output.mux(stream.encode())
    expected = np.stack(all_frames(path.read_bytes()))
    assert len(expected) == 40
    assert np.array_equal(read(path), expected)
    assert np.array_equal(read(path, [30, 7, 39]), expected[[30, 7, 39]])


def test_pixels_in_memory():
    frames = drawn(7)
    with open_video(frames) as video:
        assert video.count == 7
        assert np.array_equal(video.read(np.array([3, 0, 3]), 3), frames[[3, 0, 3]])
        grey = video.read(np.array([2]), 1)
        assert np.array_equal(grey[0], transforms.decode(frames[2], 1))
    for wrong in (frames[0], frames.astype(float), frames[:0]):
        assert "are not a video" in reason(wrong)


def test_one_image_a_frame(tmp_path):
    frames = drawn(5)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"frame{number + 3}.png")
    files = FrameFiles(str(tmp_path), 5, "frame{}.png", 3)
    images = EncodedFrames(tuple((tmp_path / f"frame{n}.png").read_bytes() for n in range(3, 8)))
    for content in (files, images):
        with open_video(content) as video:
            assert video.count == 5
            assert np.array_equal(video.read(np.array([4, 0, 4]), 3), frames[[4, 0, 4]])
            assert video.read(np.array([1]), 1).shape == (1, 48, 64, 1)
    (tmp_path / "frame4.png").write_bytes(images.images[1][:90])
    assert reason(files, (0, 1)).startswith(f"{tmp_path}/frame4.png: ")
    (tmp_path / "frame4.png").unlink()
    assert "frame4.png: No such file" in reason(files, (0, 1))
    Image.fromarray(frames[0, :20]).save(tmp_path / "frame4.png")
    assert "of another size" in reason(files, (0, 1))
    assert "frame 1: " in reason(EncodedFrames((images.images[0], b"")), (0, 1))
    assert "no frames" in reason(EncodedFrames(()))


@pytest.mark.parametrize("indices", [[], [-1], [40], [0, 41]])
def test_indices_are_checked(movie, indices):
    for content in (VideoFile(str(movie("film.mp4"))), np.zeros((40, 4, 4, 3), np.uint8)):
        with open_video(content) as video, pytest.raises(IndexError):
            video.read(np.array(indices, int), 3)


def test_an_encoded_video_is_read_back():
    frames = drawn(20)
    data = encode(frames, 30, gop=6, crf=1)
    assert data == encode(frames, 30, gop=6, crf=1)
    with open_video(EncodedVideo(data)) as video:
        error = np.abs(video.read(np.arange(20), 3).astype(int) - frames)
    assert error.mean() < 4
    with av.open(io.BytesIO(data)) as file:
        keys = [number for number, packet in enumerate(file.demux(video=0)) if packet.is_keyframe]
    assert keys == [0, 6, 12, 18]


def test_what_cannot_be_encoded_is_refused():
    for wrong in (drawn(2, 47), drawn(2)[0], drawn(0), drawn(2).astype(float)):
        with pytest.raises(ConfigError):
            encode(wrong, 30, gop=2)
    with pytest.raises(ConfigError, match="does not write"):
        encode(drawn(2), 30, gop=2, codec="nothing")
