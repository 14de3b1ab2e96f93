"""Small real videos for tests: files of several containers, and folders of frames."""

from pathlib import Path

import numpy as np
from PIL import Image

from amd_jax.data.encode import encode

CODECS = {
    ".mp4": ("libx264", "mp4"),
    ".mov": ("libx264", "mov"),
    ".mkv": ("libx264", "matroska"),
    ".avi": ("mpeg4", "avi"),
    ".webm": ("libvpx-vp9", "webm"),
}


def pixels(frames: int, seed: int = 0, height: int = 32, width: int = 48) -> np.ndarray:
    """uint8 [frames, height, width, 3]: a bar of a colour that tells the seed, further right each frame."""
    video = np.full((frames, height, width, 3), 30, np.uint8)
    for i in range(frames):
        left = (3 * i) % (width - 8)
        video[i, :, left : left + 8] = [60 + 40 * (seed % 5), 200 - 30 * (seed % 6), 40 * (seed % 7)]
    return video


def write_video(path: Path, frames: int = 5, seed: int = 0, height: int = 32, width: int = 48) -> Path:
    """A video file of the container that the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    codec, container = CODECS[path.suffix]
    video = pixels(frames, seed, height, width)
    path.write_bytes(encode(video, 10, gop=4, codec=codec, container=container, crf=18))
    return path


def write_frames(folder: Path, frames: int = 5, seed: int = 0, template: str = "img_{:05d}.jpg") -> Path:
    """A folder of frames, counted from 1."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, picture in enumerate(pixels(frames, seed), 1):
        Image.fromarray(picture).save(folder / template.format(i))
    return folder
