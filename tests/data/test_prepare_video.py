"""Clips made of videos: what is written, what is left out, and going on after a stop."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_tfds import FOLDER as TFDS_FOLDER
from make_videos import write_frames, write_video

from amd_jax import config, exits
from amd_jax.data import clip_records, jobs, prepare_video
from amd_jax.data.example import EncodedVideo, Source
from amd_jax.data.prepare_video import small_size
from amd_jax.data.sources import make_source
from amd_jax.data.video import open_video
from amd_jax.errors import DataError
from tests.runs import ROOT


def source_of(**keys: object) -> Source:
    section = config.default().data
    section.update({"frames": 16, **keys})
    return make_source(section, "train")


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Seven videos of two classes, of which one cannot be read."""
    for i in range(7):
        write_video(
            tmp_path / "in" / "train" / "ab"[i % 2] / f"{i}.mp4", frames=6 + i, seed=i, height=40, width=64
        )
    (tmp_path / "in" / "train" / "a" / "2.mp4").write_bytes(b"not a video, of some length" * 20)
    return tmp_path / "in"


def prepare(videos: Path, *arguments: str, output: str = "out") -> int:
    fixed = ["--source=folder", f"--path={videos}", f"--output={videos.parent / output}"]
    return prepare_video.main(
        [*fixed, "--short_side=20", "--gop=4", "--shard_size=3", "--jobs=1", *arguments]
    )


def index_of(videos: Path, output: str = "out") -> Any:
    return json.loads((videos.parent / output / "train" / "clips.json").read_text())


def test_videos_become_small_clips(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(videos) == exits.DONE
    out = capsys.readouterr().out
    assert "6 clips of 2 classes; 1 left out, such as" in out
    assert "data.source='clips'" in out
    files = sorted(path.name for path in (videos.parent / "out" / "train").iterdir())
    assert files == [*(f"clips-0000{i}-of-00003.array_record" for i in range(3)), "clips.json"]
    index = index_of(videos)
    assert (index["count"], index["classes"], index["of_each_class"]) == (6, ["a", "b"], [3, 3])
    (name, reason) = index["left_out"][0]
    assert name.endswith("a/2.mp4")
    assert len(reason) > 5
    clips = source_of(source="clips", path=str(videos.parent / "out"))
    lengths = []
    for i in range(len(clips)):
        content = clips[i].content
        assert isinstance(content, EncodedVideo)
        with open_video(content) as video:
            found = video.read(np.arange(video.count), 3)
        assert found.shape[1:] == (20, 32, 3)
        lengths.append(len(found))
    assert lengths == [6, 10, 12, 7, 9, 11]
    header, _ = clip_records.unpack(clips._records[1])  # type: ignore[attr-defined]
    assert (Path(header["name"]).name, header["label"], header["frames"]) == ("4.mp4", 0, 10)


def test_groups_of_pictures_are_short(videos: Path) -> None:
    import av

    assert prepare(videos) == exits.DONE
    content = source_of(source="clips", path=str(videos.parent / "out"))[2].content
    assert isinstance(content, EncodedVideo)
    with av.open(io.BytesIO(content.data)) as opened:
        keys = [packet.is_keyframe for packet in opened.demux(video=0) if packet.size]
    assert np.flatnonzero(keys).tolist() == [0, 4, 8]


def test_several_processes_write_the_same_files(videos: Path) -> None:
    assert prepare(videos) == prepare(videos, "--jobs=2", output="other") == exits.DONE
    for file in (videos.parent / "out" / "train").iterdir():
        assert file.read_bytes() == (videos.parent / "other" / "train" / file.name).read_bytes()


def test_an_interrupted_run_goes_on(
    videos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[int] = []
    real_write, real_encode = prepare_video.write_shard, prepare_video.encode

    def full(path: str, records: list[bytes]) -> None:
        if "00001-of" in path:
            Path(f"{path}.part").write_bytes(b"half")
            raise KeyboardInterrupt
        real_write(path, records)

    def counted(frames: np.ndarray, *args: Any, **kwargs: Any) -> bytes:
        made.append(len(frames))
        return real_encode(frames, *args, **kwargs)

    monkeypatch.setattr(prepare_video, "encode", counted)
    monkeypatch.setattr(prepare_video, "write_shard", full)
    assert prepare(videos) == exits.STOPPED
    assert "stopped: finished files are kept" in capsys.readouterr().err
    assert not (videos.parent / "out" / "train" / "clips.json").exists()
    monkeypatch.setattr(prepare_video, "write_shard", real_write)
    made.clear()
    assert prepare(videos) == exits.DONE
    assert made == [12, 7, 9, 11]  # the first file is there
    made.clear()
    assert prepare(videos) == exits.DONE
    assert made == []
    assert prepare(videos, output="whole") == exits.DONE
    assert index_of(videos) == index_of(videos, "whole")
    assert not [*(videos.parent / "out" / "train").glob("*.part")]


def test_a_killed_run_leaves_no_process_and_goes_on(videos: Path) -> None:
    command = [sys.executable, "-m", "amd_jax.data.prepare_video", "--source=folder", f"--path={videos}"]
    command += [f"--output={videos.parent / 'out'}", "--short_side=20", "--shard_size=1", "--jobs=2"]
    first = videos.parent / "out" / "train" / "clips-00000-of-00007.array_record"
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) as process:
        while not first.exists() and process.poll() is None:
            time.sleep(0.02)
        process.kill()
        process.communicate(timeout=60)  # the pipe is closed when the last process that has it ends
    assert prepare_video.main([*command[3:], "--jobs=1"]) == exits.DONE
    assert index_of(videos)["count"] == 6


def test_a_run_that_is_told_to_end_says_how_to_go_on(
    videos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(prepare_video, "write_shard", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        assert prepare(videos) == exits.STOPPED
    assert "the same command goes on" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == handler
    assert prepare(videos) == exits.DONE


def test_a_full_disk_is_one_line(videos: Path) -> None:
    program = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
from amd_jax.data import prepare_video
sys.exit(prepare_video.main(sys.argv[1:]))
"""
    arguments = ["--source=folder", f"--path={videos}", f"--output={videos.parent / 'out'}", "--jobs=1"]
    command = [sys.executable, "-c", program, *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == exits.UNSAVED
    (line,) = result.stderr.splitlines()
    assert "File too large" in line
    assert not [*(videos.parent / "out" / "train").glob("*.array_record")]
    assert prepare(videos, "--short_side=256", "--gop=12", "--shard_size=256") == exits.DONE


def test_a_video_of_hours_is_left_out(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare_video, "LONGEST", 11 * 20 * 32 * 3)
    assert prepare(videos) == exits.DONE
    left_out = dict(index_of(videos)["left_out"])
    (name,) = (name for name, reason in left_out.items() if "too many" in reason)
    assert name.endswith("6.mp4")


def test_other_settings_or_videos_do_not_mix(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(part: str, *arguments: str) -> None:
        assert prepare(videos, *arguments) == exits.USAGE
        (line,) = capsys.readouterr().err.splitlines()
        assert part in line

    assert prepare(videos) == exits.DONE
    fails("short_side=20, not 24", "--short_side=24")
    fails("gop=4, not 6", "--gop=6")
    fails("shard_size=3, not 2", "--shard_size=2")
    write_video(videos / "train" / "a" / "new.mp4")
    fails("holds clips with source=")


def test_what_cannot_work_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(part: str, videos: Path, *arguments: str) -> None:
        assert prepare(videos, *arguments) == exits.USAGE
        (line,) = capsys.readouterr().err.splitlines()
        assert part in line

    fails("no such folder", tmp_path / "gone")
    fails("--jobs=0: must be at least 1", tmp_path, "--jobs=0")
    (tmp_path / "in" / "train" / "a").mkdir(parents=True)
    (tmp_path / "in" / "train" / "a" / "x.mp4").write_bytes(b"no")
    fails("none of 1 videos can be read", tmp_path / "in")


def test_frames_and_tfds_sets_become_clips(tmp_path: Path) -> None:
    write_frames(tmp_path / "f" / "train" / "a" / "v", 5)
    for i, source in enumerate(
        [
            source_of(source="folder", path=str(tmp_path / "f")),
            source_of(source="tfds", name="tiny_clips", path=str(TFDS_FOLDER)),
        ]
    ):
        index = prepare_video.prepare_video(source, str(tmp_path / str(i) / "train"))
        assert index["count"] == len(source)
        clips = source_of(source="clips", path=str(tmp_path / str(i)))
        assert clips.class_names == source.class_names
        assert [clips.label(i) for i in range(len(clips))] == [source[i].label for i in range(len(source))]


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(2, 600))
def test_sizes_are_even_and_never_larger(height: int, width: int, short_side: int) -> None:
    small = small_size(height, width, short_side)
    assert all(side % 2 == 0 and side >= 2 for side in small)
    assert min(small) <= max(2, min(height, width) + 1, 1)
    assert min(small) <= short_side + 1
    if min(height, width) >= short_side:
        assert abs(min(small) - short_side) <= 1


def test_work_is_done_in_order_by_processes() -> None:
    items = [-i for i in range(20)]
    progress = jobs.Progress("numbers", len(items))
    assert [*jobs.in_order(abs, items, 2, progress)] == [*range(20)]


def test_a_process_that_dies_is_one_line() -> None:
    with pytest.raises(DataError, match="--jobs=2 was killed"):
        [*jobs.in_order(os._exit, [1, 1, 1], 2, jobs.Progress("deaths", 3))]


def test_a_terminal_is_told_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for is_terminal in (False, True):
        monkeypatch.setattr("sys.stderr.isatty", lambda value=is_terminal: value)
        progress = jobs.Progress("videos", 1200)
        for _ in range(1200):
            progress.step()
        progress.end()
        shown = capsys.readouterr().err
        assert bool(shown) == is_terminal
    assert "videos 1,200/1,200" in shown
    assert shown.endswith("\n")


def test_clips_without_classes_stay_without_labels(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(videos / "train" / "a")
    (videos / "train" / "b").rename(videos / "b")
    (videos / "train").rmdir()
    assert prepare(videos) == exits.DONE
    assert "3 clips, without labels" in capsys.readouterr().out
    source = source_of(source="clips", path=str(videos.parent / "out"))
    assert source.num_classes == 0
    assert [source[i].label for i in range(len(source))] == [-1] * 3
