"""Damaged videos and what is no video: the right frames or UnreadableVideo, no other error, hang or leak."""

import gc
import os
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from amd_jax.data.example import EncodedVideo, FrameFiles, VideoFile
from amd_jax.data.video import UnreadableVideo, open_video
from amd_jax.errors import ConfigError

av = pytest.importorskip("av")
movies = pytest.importorskip("tests.data.movies")  # imports PyAV
all_frames, drawn, read, reason, write = (
    movies.all_frames,
    movies.drawn,
    movies.read,
    movies.reason,
    movies.write,
)


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
    gc.collect()  # what other tests left open would go meanwhile
    files, memory = len(os.listdir("/proc/self/fd")), resident()
    some(2000)
    assert len(os.listdir("/proc/self/fd")) == files
    assert resident() - memory < 8 * 2**20
