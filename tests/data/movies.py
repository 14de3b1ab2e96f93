"""Small videos made by PyAV for the tests, and what a decode from start to end makes of them."""

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np


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
