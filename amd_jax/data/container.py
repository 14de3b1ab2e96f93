"""Frames of an encoded video by number: only what is needed is decoded, with PyAV.

All packets are read once, without decoding, for what `timeline` makes of them. A clip is then decoded from
the key frame before its first frame to its last one, and long gaps are left out; the result is that of a
decode from start to end, to the bit.
"""

import contextlib
import io
import itertools
import os
import stat
import time
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from amd_jax.data.timeline import Stretch, Timeline, timeline
from amd_jax.errors import ConfigError, UserError

if TYPE_CHECKING:
    from av import VideoFrame

# Packets are kept for reading clips while they take no more than this; those of a longer video are read from
# the file again, up to the last one that is needed.
_KEPT_BYTES = 32 * 2**20

# A text file would open as subtitles and a play list as whatever it points to.
_FORMATS = "mov,matroska,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,flv,asf,ogg,ivf,gif,dv,rm"

# With their frames in other than the order they are stored in, AVI files have wrong times.
_REORDERED = ("h264", "hevc")

# Decoders that can be told, packet by packet, to leave out a frame that nothing refers to.
_SKIPPING = ("h264", "hevc", "mpeg2video", "mpeg4")

_FORMAT_OF = {1: "gray", 3: "rgb24"}


class UnreadableVideo(OSError):
    """A file or bytes that are not a video, or not all of the part that was asked for."""


class Clock:
    """How long something may take, in seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def check(self) -> None:
        """Raises UnreadableVideo once the time is over."""
        if time.monotonic() > self._end:
            raise UnreadableVideo(f"reading takes longer than {self.seconds:g} seconds")


def import_av() -> Any:
    """PyAV; raises ConfigError where it is not installed."""
    try:
        import av
    except ImportError as error:
        raise ConfigError("reading videos needs PyAV: pip install -r requirements-video.txt") from error
    return av


@contextlib.contextmanager
def refused(name: str) -> Iterator[None]:
    """What goes wrong inside becomes an UnreadableVideo, in one line that starts with `name`."""
    try:
        yield
    except UnreadableVideo as error:
        raise error if str(error).startswith(f"{name}: ") else UnreadableVideo(f"{name}: {error}") from error
    except Exception as error:
        # FFmpeg's errors have many bases (one is MemoryError, for sizes that damaged bytes make up), and
        # damaged bytes also end as a UnicodeError and others.
        if type(error) is MemoryError or isinstance(error, UserError):
            raise
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise UnreadableVideo(f"{name}: {reason or type(error).__name__}") from error


def check_regular(path: str) -> None:
    """Raises UnreadableVideo if opening or reading `path` could wait for ever, or it is empty."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableVideo("not a regular file")
    if status.st_size == 0:
        raise UnreadableVideo("an empty file")


class Container:
    """An opened file, or the bytes of one; see `amd_jax.data.video.open_video`.

    Decodes with one thread: what is parallel are the examples of a batch.
    """

    def __init__(self, content: str | bytes, seconds: float) -> None:
        self._av = import_av()
        self._content = content
        self._seconds = seconds
        self.name = content if isinstance(content, str) else f"a video of {len(content)} bytes"
        self._kept: list[Any] | None = []
        self._container: Any = None
        with refused(self.name):
            try:
                self._timeline = self._look(Clock(seconds))
                if self._timeline.count == 0:
                    raise UnreadableVideo("no frame in it that can be decoded")
            except BaseException:
                self.close()
                raise

    @property
    def count(self) -> int:
        """Number of frames."""
        return self._timeline.count

    def close(self) -> None:
        """Gives back the file."""
        if self._container is not None:
            self._container.close()
        self._container = self._kept = None

    def read(self, indices: np.ndarray, channels: int) -> np.ndarray:
        """Frames by number, in this order and as often as they are named: uint8 [n, H, W, channels].

        Raises:
          UnreadableVideo: a frame cannot be decoded whole, or not in time.
          IndexError: an index is not in [0, count).
        """
        indices = np.asarray(indices)
        if indices.size == 0 or indices.min() < 0 or indices.max() >= self.count:
            raise IndexError(f"{self.name}: frames {indices.tolist()} of {self.count}")
        frames = self._timeline.on_screen(indices)
        reformatter = self._av.video.reformatter.VideoReformatter()
        clip: np.ndarray | None = None
        with refused(self.name):
            for number, frame in self._decode(np.unique(frames).tolist(), Clock(self._seconds)):
                pixels = _pixels(reformatter, frame, channels)
                if clip is None:
                    clip = np.empty((len(indices), *pixels.shape), np.uint8)
                if pixels.shape != clip.shape[1:]:
                    raise UnreadableVideo("frames of different sizes")
                clip[frames == number] = pixels
        assert clip is not None
        return clip

    def _open(self) -> None:
        """Opens, or opens again, and chooses the stream: the first that is not a cover."""
        if self._container is not None:
            self._container.close()
        source: str | io.BytesIO
        if isinstance(self._content, str):
            check_regular(self._content)
            source = f"file:{os.path.abspath(self._content)}"  # a colon in a name is no protocol
        else:
            source = io.BytesIO(self._content)
        allowed = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
        try:
            self._container = self._av.open(
                source, metadata_errors="replace", timeout=self._seconds, options=allowed
            )
        except self._av.error.ArgumentError as error:  # what the lists above lead to
            raise UnreadableVideo("not in one of the containers that are read here") from error
        cover = self._av.stream.Disposition.attached_pic | self._av.stream.Disposition.timed_thumbnails
        streams = [stream for stream in self._container.streams.video if not stream.disposition & cover]
        if not streams or streams[0].codec_context is None:
            raise UnreadableVideo("no video stream in it that this FFmpeg decodes")
        self._stream = streams[0]
        for other in self._container.streams:
            if other.index != self._stream.index:
                other.discard = self._av.stream.Discard.all
        self._decoder = self._stream.codec_context
        self._decoder.thread_count = 1
        if self._codec == "mjpeg":
            # Told to be strict, this decoder notices more than twice as much damage. The others hardly notice
            # more then and might refuse harmless oddities: H.264 and MPEG-4 mark damaged frames anyway; HEVC,
            # VP8 and VP9 make a picture of nearly anything.
            self._decoder.options = {"err_detect": "explode"}

    @property
    def _codec(self) -> str:
        return self._stream.codec_context.codec.canonical_name

    def _look(self, clock: Clock) -> Timeline:
        """Reads all packets once."""
        self._open()
        reordered = self._decoder.has_b_frames or self._codec in _REORDERED
        found = None
        if not (self._container.format.name == "avi" and reordered):
            found = timeline(self._keep(self._demux(clock)), self._codec)
        if found is not None:
            return found
        # Nothing tells which packet is shown when: count what comes out.
        self._kept = None
        return Timeline(sum(1 for _ in self._output(Stretch(0, -1, []), clock)))

    def _demux(self, clock: Clock) -> Iterator[Any]:
        """The packets of the stream from the first one on; where the file is cut off they end."""
        try:
            for packet in self._container.demux(self._stream):
                clock.check()
                if packet.size:  # the empty one at the end tells a decoder to give out all it has
                    yield packet
        except (self._av.error.EOFError, self._av.error.InvalidDataError):
            return

    def _keep(self, packets: Iterator[Any]) -> Iterator[Any]:
        """The same packets, kept while they are small."""
        size = 0
        for packet in packets:
            size += packet.size
            if self._kept is not None:
                self._kept.append(packet)
                self._kept = self._kept if size <= _KEPT_BYTES else None
            yield packet

    def _output(
        self, stretch: Stretch, clock: Clock, needed: Collection[int] | None = None
    ) -> Iterator["VideoFrame"]:
        """The frames that come out of these packets, in the order they are shown; last -1: of all packets.

        Where `needed` times are given, frames shown at others may be left out if nothing refers to them.
        """
        if self._kept is None:
            self._open()
        decoder = self._decoder
        decoder.flush_buffers()
        packets = self._demux(clock) if self._kept is None else iter(self._kept)
        until = None if stretch.last < 0 else stretch.last + 1
        for packet in itertools.islice(packets, stretch.first, until):
            clock.check()
            if packet.is_corrupt and until is not None:
                raise UnreadableVideo("a damaged packet")
            decoder.skip_frame = "DEFAULT" if needed is None or packet.pts in needed else "NONREF"
            if not packet.is_corrupt:
                yield from decoder.decode(packet)
        yield from decoder.decode(None)

    def _decode(self, frames: Sequence[int], clock: Clock) -> Iterator[tuple[int, "VideoFrame"]]:
        """These ascending frames with their numbers."""
        for stretch in self._timeline.stretches(frames):
            missing = stretch
            try:
                for number, frame in self._wanted(stretch, clock, self._codec in _SKIPPING):
                    yield number, frame
                    missing = missing._replace(frames=missing.frames[1:])
            except (self._av.FFmpegError, UnreadableVideo):
                # Some streams cannot be entered everywhere they say: once more, all from the start.
                clock.check()
                if self._timeline.times is None:
                    raise
                yield from self._wanted(missing._replace(first=0), clock, skipping=False)

    def _wanted(self, stretch: Stretch, clock: Clock, skipping: bool) -> Iterator[tuple[int, "VideoFrame"]]:
        """The frames of a stretch with their numbers; raises UnreadableVideo if one is damaged or missing."""
        times = self._timeline.times
        waiting = [frame if times is None else times[frame] for frame in stretch.frames]
        left = dict(zip(waiting, stretch.frames, strict=True))
        begin = next((at for key, at in self._timeline.keys if key == stretch.first), None)
        intra, entered = self._av.video.frame.PictureType.I, False
        needed = frozenset(waiting) if skipping and times is not None else None
        for place, frame in enumerate(self._output(stretch, clock, needed)):
            at = place if times is None else frame.pts
            if begin is not None and (at is None or at < begin):
                continue  # shown before the key frame we started from, so decoded without what it refers to
            if stretch.first > 0 and not entered and (at != begin or frame.pict_type != intra):
                raise UnreadableVideo("no picture to start from")  # but a gradual refresh, which is not exact
            entered = True
            if frame.is_corrupt:
                raise UnreadableVideo("a damaged frame")
            if at in left:
                yield left.pop(at), frame
            if not left:
                return
        raise UnreadableVideo(f"frame {next(iter(left.values()))} cannot be decoded")


def _pixels(reformatter: Any, frame: "VideoFrame", channels: int) -> np.ndarray:
    """uint8 [H, W, channels], turned the way the file says it is to be shown."""
    converted = reformatter.reformat(frame, format=_FORMAT_OF[channels], threads=1)
    pixels = np.asarray(converted.to_ndarray()).reshape(frame.height, frame.width, channels)
    return np.rot90(pixels, round(frame.rotation / 90) % 4) if frame.rotation else pixels
