"""Small videos made by PyAV for the tests, and what a decode from start to end makes of them."""

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from amd_jax.data.example import Video, VideoFile
from amd_jax.data.video import UnreadableVideo, open_video

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


def drawn(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Frames that all differ, uint8 [count, height, width, 3]."""
    t, y, x = np.mgrid[:count, :height, :width]
    colours = np.stack([3 * x + 5 * t, 4 * y + 3 * t, x + y + 7 * t], axis=-1)
    return (colours % 256).astype(np.uint8)


def write(
    path: Path,
    frames: np.ndarray,
    *,
    codec: str = "libx264",
    fps: int | Fraction = 30,
    gop: int = 12,
    b_frames: int = 0,
    times: Sequence[int] | None = None,
    pixels: str = "yuv420p",
    matrix: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    container: str | None = None,
) -> Path:
    """Writes `frames` to `path`; `times` are in frames of `fps` and need not be even."""
    quiet = {"libx264": {"sc_threshold": "0"}, "libx265": {"x265-params": "log-level=none:pools=1"}}
    with av.open(str(path), "w", format=container, options=muxer or {}) as output:
        stream: Any = output.add_stream(codec, rate=Fraction(fps), options=options or quiet.get(codec, {}))
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
        if matrix is not None:
            stream.set_display_matrix(matrix)
        context = stream.codec_context
        context.gop_size, context.max_b_frames, context.thread_count = gop, b_frames, 1
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            frame.pts = number if times is None else times[number]
            frame.time_base = 1 / Fraction(fps)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def all_frames(data: bytes, form: str = "rgb24") -> list[np.ndarray]:
    """What comes out of one decode from start to end, up to the first error; colours or greys [H, W, C]."""
    found: list[np.ndarray] = []
    try:
        with av.open(io.BytesIO(data), metadata_errors="replace") as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            for frame in container.decode(stream):
                found.append(frame.to_ndarray(format=form).reshape(frame.height, frame.width, -1))
    except (av.FFmpegError, IndexError):
        pass
    return found


def make(name: str, folder: Path) -> Path:
    """Writes the video of KINDS that is called `name`; skips the test where FFmpeg has not its encoder."""
    how = {**KINDS[name]}
    if how.get("codec", "libx264") not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {how['codec']}")
    size, count = how.pop("size", (48, 64)), how.pop("count", 40)
    return write(folder / name, drawn(count, *size), **how)


def read(path: Path, indices: Any = None, channels: int = 3, **options: Any) -> np.ndarray:
    with open_video(VideoFile(str(path)), **options) as video:
        return video.read(np.arange(video.count) if indices is None else np.array(indices), channels)


def reason(content: Video, indices: tuple[int, ...] = (0,)) -> str:
    """Why a video cannot be read: one line."""
    with pytest.raises(UnreadableVideo) as caught, open_video(content) as video:
        video.read(np.array(indices), 3)
    assert "\n" not in str(caught.value)
    return str(caught.value)
