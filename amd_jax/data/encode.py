"""Pixels to a small video file in memory, with PyAV: for demonstrations, tests and preparing data."""

import io
from fractions import Fraction

import numpy as np

from amd_jax.data.container import import_av
from amd_jax.errors import ConfigError

_BITEXACT = {"fflags": "+bitexact"}  # no date, version or random number in the headers
# x264's AVX-512 code for macroblock trees now and then gives other bytes for the same pixels (1 to 4 of 100
# small videos); "cpu-independent" takes its code in C for them (none of 1,500).
_OPTIONS = {
    "libx264": {"sc_threshold": "0", "x264-params": "cpu-independent=1"},
    "libx265": {"x265-params": "scenecut=0:pools=1:frame-threads=1:log-level=error"},
}


def encode(
    frames: np.ndarray,
    fps: int | Fraction,
    *,
    gop: int,
    codec: str = "libx264",
    container: str = "mp4",
    crf: int = 23,
) -> bytes:
    """A video of `frames`, the same bytes for the same arguments and FFmpeg.

    Without B-frames, which would make every reading of a clip decode more, without key frames between those
    of `gop`, and with one thread. The chroma of yuv420p has half the size: odd heights or widths are refused,
    since padding would add pixels nobody drew.

    Args:
      frames: uint8 [T, H, W, 1 or 3], T at least one, H and W even.
      fps: frames a second.
      gop: frames from one key frame to the next.
      codec: an encoder of FFmpeg for yuv420p (yuvj420p for mjpeg).
      container: a muxer of FFmpeg.
      crf: quality where the encoder knows it, lower is better; 0 is lossless but for the chroma with libx264.

    Raises:
      ConfigError: PyAV is not installed, or frames or names are not as above.
    """
    av = import_av()
    if frames.ndim != 4 or frames.dtype != np.uint8 or frames.shape[3] not in (1, 3) or not len(frames):
        raise ConfigError(f"frames to encode are uint8 [T, H, W, 1 or 3], not {frames.dtype} {frames.shape}")
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise ConfigError(f"frames to encode have even sizes, not {height} x {width}")
    file = io.BytesIO()
    try:
        with av.open(file, "w", format=container, container_options=_BITEXACT) as output:
            stream = output.add_stream(
                codec, rate=Fraction(fps), options={"crf": str(crf), **_OPTIONS.get(codec, {})}
            )
            stream.height, stream.width = height, width
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            stream.codec_context.gop_size = gop
            stream.codec_context.max_b_frames = 0
            stream.codec_context.thread_count = 1
            for number, pixels in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(
                    np.broadcast_to(pixels, (height, width, 3)).copy(), "rgb24"
                )
                frame.pts, frame.time_base = number, 1 / Fraction(fps)
                output.mux(stream.encode(frame))
            output.mux(stream.encode())
    except (av.FFmpegError, ValueError) as error:
        raise ConfigError(f"FFmpeg does not write {codec} into {container}: {error}") from error
    return file.getvalue()
