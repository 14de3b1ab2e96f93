"""Frames of videos by number: to the bit those of a decode from start to end, or UnreadableVideo."""

import os
import struct
import sys
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from amd_jax.config import ConfigError
from amd_jax.data import container, transforms
from amd_jax.data.encode import encode
from amd_jax.data.example import EncodedFrames, EncodedVideo, FrameFiles, VideoFile
from amd_jax.data.video import UnreadableVideo, open_video

av = pytest.importorskip("av")
movies = pytest.importorskip("tests.data.movies")  # imports PyAV
all_frames, drawn, write = movies.all_frames, movies.drawn, movies.write

OPEN_GROUPS = {"x264-params": "open-gop=1:scenecut=0:bframes=3:b-adapt=0:keyint=12:min-keyint=1"}
IN_FRONT = {"movflags": "faststart"}
REFRESHED = {"x264-params": "intra-refresh=1:scenecut=0:keyint=8:min-keyint=1:bframes=2:me=hex"}

# File name → how it is written.
KINDS: dict[str, dict[str, Any]] = {
    "all_keys.mp4": {"gop": 1},
    "film.mp4": {"b_frames": 3, "fps": Fraction(24000, 1001), "muxer": IN_FRONT},
    "one_group.mp4": {"gop": 250, "fps": 25},
    "open.mp4": {"options": OPEN_GROUPS},
    "open.mkv": {"options": OPEN_GROUPS},
    "refreshed.flv": {"options": REFRESHED},
    "refreshed.mp4": {"options": REFRESHED},
    "av1.mp4": {"codec": "libsvtav1", "options": {"preset": "12"}},
    "mpeg4.mp4": {"codec": "mpeg4", "b_frames": 2},
    "ntsc.mkv": {"b_frames": 2, "fps": Fraction(30000, 1001)},
    "fast.mkv": {"fps": 240},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "vp8.webm": {"codec": "libvpx", "fps": 15},
    "phone.mov": {"b_frames": 2, "gop": 250},
    "plain.avi": {"codec": "mpeg4"},
    "b_frames.avi": {"codec": "mpeg4", "b_frames": 2},
    "h264.avi": {"b_frames": 2},
    "motion.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "hevc.mp4": {"codec": "libx265", "b_frames": 2, "muxer": IN_FRONT},
    "stream.ts": {"b_frames": 2},
    "flash.flv": {"b_frames": 2},
    "program.mpg": {"codec": "mpeg2video", "b_frames": 2},
    "windows.wmv": {"codec": "wmv2"},
    "raw.h264": {"b_frames": 2},
    "trimmed.mp4": {"b_frames": 2, "times": range(-17, 23), "muxer": {"avoid_negative_ts": "disabled"}},
    "odd.avi": {"codec": "mjpeg", "pixels": "yuvj420p", "size": (47, 63)},
    "odd.webm": {"codec": "libvpx-vp9", "size": (47, 63)},
    "odd.mp4": {"pixels": "yuv444p", "size": (47, 63), "b_frames": 2},
    "single.mp4": {"count": 1},
    "single.avi": {"count": 1, "codec": "mpeg4"},
}


@pytest.fixture(scope="session")
def movie(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Called with a name from KINDS: the path of that video."""
    folder = tmp_path_factory.mktemp("movies")

    @cache
    def make(name: str) -> Path:
        how = {**KINDS[name]}
        if how.get("codec", "libx264") not in av.codecs_available:
            pytest.skip(f"this FFmpeg has no {how['codec']}")
        size, count = how.pop("size", (48, 64)), how.pop("count", 40)
        return write(folder / name, drawn(count, *size), **how)

    return make


def read(path: Path, indices: Any = None, channels: int = 3, **options: Any) -> np.ndarray:
    with open_video(VideoFile(str(path)), **options) as video:
        return video.read(np.arange(video.count) if indices is None else np.array(indices), channels)


def reason(content: Any, indices: tuple[int, ...] = (0,)) -> str:
    """Why a video cannot be read: one line."""
    with pytest.raises(UnreadableVideo) as caught, open_video(content) as video:
        video.read(np.array(indices), 3)
    assert "\n" not in str(caught.value)
    return str(caught.value)


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


def test_damage_outside_of_what_is_needed_does_not_matter(movie):
    path = movie("film.mp4")
    data, expected = bytearray(path.read_bytes()), np.stack(all_frames(path.read_bytes()))
    with av.open(str(path)) as file:
        packets = [p for p in file.demux(video=0) if p.size]
    keys = [number for number, packet in enumerate(packets) if packet.is_keyframe]
    assert len(keys) == 4
    start = packets[keys[1]].pos
    data[start + 5 : start + packets[keys[1]].size] = bytes(packets[keys[1]].size - 5)
    with open_video(EncodedVideo(bytes(data))) as video:
        around = [0, 5, 9, 30, 39]
        assert np.array_equal(video.read(np.array(around), 3), expected[around])
        with pytest.raises(UnreadableVideo):
            video.read(np.array([0, 15]), 3)
        assert np.array_equal(video.read(np.array(around), 3), expected[around])


TRUNCATED = [
    "film.mp4",
    "hevc.mp4",
    "ntsc.mkv",
    "vp9.webm",
    "plain.avi",
    "h264.avi",
    "stream.ts",
    "motion.avi",
]


@pytest.mark.parametrize("name", TRUNCATED)
def test_a_truncated_file_gives_the_right_frames_or_is_refused(movie, name):
    data = movie(name).read_bytes()
    expected = [frame.tobytes() for frame in all_frames(data)]
    rng, read_whole = np.random.default_rng(7), 0
    for cut in rng.integers(1, len(data), 25).tolist():
        try:
            with open_video(EncodedVideo(data[:cut])) as video:
                places = [expected.index(frame.tobytes()) for frame in video.read(np.arange(video.count), 3)]
        except UnreadableVideo:
            continue
        read_whole += 1
        if name == "h264.avi" or len(places) < 4:  # what is missing before the last frame cannot be noticed
            assert places == sorted(places)
        else:
            assert places == list(range(len(places))), cut
    assert read_whole > 0


def test_a_file_without_its_index_is_refused(movie):
    data = movie("phone.mov").read_bytes()
    for part in (0.1, 0.5):
        assert "Invalid" in reason(EncodedVideo(data[: int(part * len(data))]))


@pytest.mark.parametrize("name", ["film.mp4", "ntsc.mkv", "vp9.webm", "plain.avi", "h264.avi", "hevc.mp4"])
def test_damaged_bytes_never_raise_anything_else(movie, name):
    data = movie(name).read_bytes()
    rng = np.random.default_rng(3)
    for _ in range(25):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 3).tolist():
            damaged[place] = int(rng.integers(256))
        try:
            with open_video(EncodedVideo(bytes(damaged)), seconds=20) as video:
                assert video.read(np.array([0, video.count - 1]), 3).shape[0] == 2
        except UnreadableVideo:
            pass


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("empty.mp4", b"", "an empty file"),
        (
            "text.mp4",
            b"1\n00:00:01,000 --> 00:00:02,000\nHello\n" * 50,
            "Invalid data|containers that are read",
        ),
        (
            "list.mp4",
            b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n#EXT-X-ENDLIST\n",
            "Invalid data|containers that are read",
        ),
        ("noise.avi", np.random.default_rng(0).bytes(5000), "Invalid data|containers that are read"),
    ],
)
def test_what_is_no_video_is_refused(tmp_path, name, content, why):
    path = tmp_path / name
    path.write_bytes(content)
    said = reason(VideoFile(str(path)))
    assert said.startswith(f"{path}: ")
    assert any(part in said for part in why.split("|")), said
    assert reason(EncodedVideo(content)).startswith(f"a video of {len(content)} bytes: ")


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")  # nobody writes to it: opening it would wait for ever
    assert "not a regular file" in reason(VideoFile(str(tmp_path / "pipe.mp4")))
    assert "not a regular file" in reason(VideoFile(str(tmp_path)))
    assert "No such file" in reason(VideoFile(str(tmp_path / "none.mp4")))
    os.mkfifo(tmp_path / "img_00001.jpg")
    assert "not a regular file" in reason(FrameFiles(str(tmp_path), 1))


def test_sound_alone_and_a_cover_are_no_video(tmp_path):
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as output:
        stream = output.add_stream("aac", rate=8000, layout="mono")
        cover = output.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        output.start_encoding()
        for packet in cover.encode(av.VideoFrame.from_ndarray(drawn(1)[0], "rgb24")) + cover.encode():
            packet.time_base = Fraction(1, 1)
            output.mux(packet)
        for _ in range(4):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.rate = 8000
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    with av.open(str(sound)) as file:
        assert {stream.type for stream in file.streams} == {"audio", "video"}
    assert "no video stream" in reason(VideoFile(str(sound)))


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


def test_names_are_no_protocols(tmp_path, movie, monkeypatch):
    data = movie("one_group.mp4").read_bytes()
    for name in ("concat:a|b.mp4", "pipe:0", "http:a.mp4", "-i.mp4", "a%d.mp4", "ü ?#.mp4"):
        (tmp_path / name).write_bytes(data)
        monkeypatch.chdir(tmp_path)
        assert len(read(Path(name))) == 40


def test_frames_of_two_sizes_are_refused(tmp_path):
    parts = [write(tmp_path / f"{h}.h264", drawn(5, h, 64)).read_bytes() for h in (48, 64)]
    both = EncodedVideo(b"".join(parts))
    with open_video(both) as video:
        assert video.count == 10
        assert video.read(np.array([7]), 3).shape == (1, 64, 64, 3)
    assert "different sizes" in reason(both, (0, 7))


def test_reading_has_a_time_limit(movie, tmp_path, monkeypatch):
    content = VideoFile(str(movie("film.mp4")))
    with pytest.raises(UnreadableVideo, match="longer than"), open_video(content, seconds=-1):
        pass
    with open_video(content) as video:
        monkeypatch.setattr(video, "_seconds", -1)
        with pytest.raises(UnreadableVideo, match="longer than"):
            video.read(np.array([30]), 3)
    Image.fromarray(drawn(1)[0]).save(tmp_path / "img_00001.jpg")
    with open_video(FrameFiles(str(tmp_path), 1), seconds=-1) as video, pytest.raises(UnreadableVideo):
        video.read(np.array([0]), 3)


def test_without_pyav_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with (
        pytest.raises(ConfigError, match=r"pip install -r requirements-video.txt"),
        open_video(EncodedVideo(b"")),
    ):
        pass


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


def resident() -> int:
    """Bytes of memory this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_many_reads_leak_neither_files_nor_memory(tmp_path):
    good = write(tmp_path / "good.mp4", drawn(8), gop=4)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(good.read_bytes()[:-400])

    def some(times: int) -> None:
        for _ in range(times):
            assert len(read(good, [1, 6])) == 2
            with pytest.raises(UnreadableVideo):
                read(cut)

    some(200)
    files, memory = len(os.listdir("/proc/self/fd")), resident()
    some(2000)
    assert len(os.listdir("/proc/self/fd")) == files
    assert resident() - memory < 8 * 2**20


def test_an_encoded_video_is_read_back():
    frames = drawn(20)
    data = encode(frames, 30, gop=6, crf=1)
    assert data == encode(frames, 30, gop=6, crf=1)
    with open_video(EncodedVideo(data)) as video:
        error = np.abs(video.read(np.arange(20), 3).astype(int) - frames)
    assert error.mean() < 4
    with av.open(container.io.BytesIO(data)) as file:
        keys = [number for number, packet in enumerate(file.demux(video=0)) if packet.is_keyframe]
    assert keys == [0, 6, 12, 18]


def test_what_cannot_be_encoded_is_refused():
    for wrong in (drawn(2, 47), drawn(2)[0], drawn(0), drawn(2).astype(float)):
        with pytest.raises(ConfigError):
            encode(wrong, 30, gop=2)
    with pytest.raises(ConfigError, match="does not write"):
        encode(drawn(2), 30, gop=2, codec="nothing")
