"""What the files beside weights say of a model's pixels and classes: the weights themselves do not show it.

timm says it in config.json, transformers in preprocessor_config.json and config.json, our runs in their
config.json and classes.json, our imports and exports in the header of their safetensors file.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from amd_jax.config import IMAGENET_MEAN, IMAGENET_STD
from amd_jax.errors import WeightsError

INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # Pillow's


@dataclasses.dataclass(frozen=True)
class Stated:
    """What is said; empty where nobody says it.

    Attributes:
      mean: subtracted from pixels in [0, 1], one number per channel, or one for all channels.
      std: divided by, likewise.
      size: height and width in pixels.
      interpolation: how images are resized, as "bicubic".
      resize: what they are resized to before the centre of `size` is cut out: the short side, or both.
      classes: names by label.
      origin: the file that says so of the pixels.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    size: tuple[int, ...] = ()
    interpolation: str = ""
    classes: tuple[str, ...] = ()
    origin: str = ""
    resize: tuple[int, ...] = ()

    def or_else(self, other: "Stated") -> "Stated":
        """This, and of what it does not say (pixels, classes) the word of `other`."""
        pixels = self if self.mean or self.size else other
        return dataclasses.replace(pixels, classes=self.classes or other.classes)

    def lines(self) -> list[str]:
        """What is said, for people."""
        size = "x".join(map(str, self.size)) or "any size"
        pixels = f"pixels: mean {_listed(self.mean)}, std {_listed(self.std)}, {size}"
        how = f", {self.interpolation}" if self.interpolation else ""
        named = f"classes: {', '.join(self.classes[:3])}, …"
        return [f"{pixels}{how} ({self.origin})"] * bool(self.mean) + [named] * bool(self.classes)

    def to_json(self) -> dict[str, Any]:
        """Plain data for a file's metadata."""
        return dataclasses.asdict(self)

    def per_channel(self, name: str, channels: int) -> tuple[float, ...]:
        """`mean` or `std` for so many channels; empty if it is not said.

        Raises:
          WeightsError: it is said for another number of channels.
        """
        values: tuple[float, ...] = getattr(self, name)
        if len(values) not in (0, 1, channels):
            raise WeightsError(
                f"{self.origin} gives {name} for {len(values)} channels, but data.channels={channels}"
            )
        return values * channels if len(values) == 1 else values

    def before_crop(self, size: tuple[int, int]) -> tuple[int, ...]:
        """What images are resized to before the centre of `size` is cut out: height and width, or the
        short side of what images are scaled to cover, which has the shape of `size`.

        Where nobody says it, as in our evaluation; what is said for another size is scaled.
        """
        if not self.resize:
            from amd_jax.data.transforms import with_margin  # Pillow, which the command line starts without

            return (min(with_margin(size)),)
        if not self.size or self.size == size:
            return self.resize
        return tuple(round(n * min(size) / min(self.size)) for n in self.resize)

    def differing_input(self, size: tuple[int, int], video: bool) -> str:
        """How pixels were sized and resized, where it is not as in a run of `size`; else empty."""
        parts, ours = [], resizing(video)
        if self.size and self.size != size:
            parts.append(f"images of {'x'.join(map(str, self.size))} pixels (here {size[0]}x{size[1]})")
        if self.interpolation and self.interpolation != ours:
            parts.append(f"{self.interpolation} resizing (here {ours})")
        return f"{self.origin} says {' and '.join(parts)}" if parts else ""


def usual(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and std that are taken where nobody says them."""
    return ((0.5,) * channels,) * 2 if channels == 1 else (IMAGENET_MEAN, IMAGENET_STD)


def resizing(video: bool) -> str:
    """What our evaluation resizes with: images in data/transforms.py, frames in data/clips.py."""
    return "bilinear" if video else "bicubic"


def from_json(data: Any, origin: str) -> Stated:
    """The inverse of `Stated.to_json`, from a file that may be damaged.

    Raises:
      WeightsError: it is not what `to_json` wrote.
    """
    if not isinstance(data, Mapping):
        raise WeightsError(f"{origin}: what it says of pixels is not a JSON object")
    keys = ("mean", "std", "size", "interpolation", "classes", "resize")
    return _stated(origin, *(data.get(key) for key in keys))


def of_timm(config: Mapping[str, Any], origin: str) -> Stated:
    """What timm's config.json says; older ones have everything at the top.

    Raises:
      WeightsError: it is not readable.
    """
    if "architecture" not in config and "pretrained_cfg" not in config:
        return Stated()
    cfg = config.get("pretrained_cfg", config)
    if not isinstance(cfg, Mapping):
        raise WeightsError(f"{origin}: pretrained_cfg is not a JSON object")
    names = config.get("label_names") or cfg.get("label_names") or cfg.get("labels")
    size = cfg.get("input_size")
    size = size[1:] if isinstance(size, list) and len(size) == 3 else None
    resize = _timm_resize(cfg, size, origin)
    return _stated(origin, cfg.get("mean"), cfg.get("std"), size, cfg.get("interpolation"), names, resize)


def _timm_resize(cfg: Mapping[str, Any], size: Any, origin: str) -> list[int] | None:
    """As timm's `transforms_imagenet_eval`: crop_pct is the share of the short side that is seen."""
    share = _numbers(cfg.get("crop_pct"), "crop_pct", origin)
    if not share or share[0] <= 0 or not size:
        return None
    both = [math.floor(x / share[0]) for x in _numbers(size, "input_size", origin)]
    if cfg.get("crop_mode") == "squash":
        return both
    # "border" fills up with a colour; without it, as where both differ, the image is made to cover them.
    return [min(both)]


def of_processor(processor: Mapping[str, Any], origin: str) -> Stated:
    """What a preprocessor_config.json of transformers says, for pixels in [0, 1] as ours are.

    Raises:
      WeightsError: it is not readable.
    """
    scale = 255.0  # of a pixel in [0, 1] when it is normalised
    if processor.get("do_rescale") is not False:
        factor = processor.get("rescale_factor") or 1 / 255
        scale *= _numbers(factor, "rescale_factor", origin)[0]
    scale = 1.0 if math.isclose(scale, 1) else scale
    mean, std = processor.get("image_mean"), processor.get("image_std")
    if processor.get("do_normalize") is False:
        mean, std = 0.0, 1.0
    if scale != 1 and mean is not None and std is not None:
        mean = [x / scale for x in _numbers(mean, "image_mean", origin)]
        std = [x / scale for x in _numbers(std, "image_std", origin)]
    cropped = bool(processor.get("do_center_crop"))
    resize, size = _sides(processor.get("size"), cropped, origin)
    if cropped:
        size = _sides(processor.get("crop_size"), cropped, origin)[1]
    resample = processor.get("resample")
    how = INTERPOLATIONS.get(resample) if isinstance(resample, int) else None
    return _stated(origin, mean, std, size, how, resize=resize)


def _sides(size: Any, cropped: bool, origin: str) -> tuple[list[Any] | None, list[Any] | None]:
    """A size of transformers': what is resized to (the short side, or both), and height and width.

    In old files it is a number: of the short side where a crop follows, else of both.
    """
    if isinstance(size, Mapping):
        if (edge := size.get("shortest_edge")) is not None:
            return [edge], [edge, edge]
        both = [size.get("height"), size.get("width")]
        return (None, None) if None in both else (both, both)
    if size is not None:
        edge = _numbers(size, "size", origin)[0]
        return [edge] if cropped else [edge, edge], [edge, edge]
    return None, None


def of_transformers(config: Mapping[str, Any], origin: str) -> Stated:
    """The names of classes in transformers' config.json, unless they are its own LABEL_0, LABEL_1, …"""
    names = config.get("id2label")
    if not isinstance(names, Mapping) or not all(str(i) in names for i in range(len(names))):
        return Stated()
    listed = [names[str(i)] for i in range(len(names))]
    return Stated() if listed == numbered(len(listed)) else _stated(origin, classes=listed)


def numbered(classes: int) -> list[str]:
    """transformers' names for classes that have none."""
    return [f"LABEL_{i}" for i in range(classes)]


def of_metadata(text: str | None, origin: str) -> Stated:
    """What the header of a safetensors file of ours says (`text` as under `tensors.METADATA_KEY`)."""
    try:
        data = json.loads(text or "{}")
    except ValueError:
        return Stated()  # whoever reads the description says what is wrong with it
    said = data.get("stated") if isinstance(data, dict) else None
    return from_json(said, origin) if said else Stated()


def _stated(
    origin: str,
    mean: Any = None,
    std: Any = None,
    size: Any = None,
    interpolation: Any = None,
    classes: Any = None,
    resize: Any = None,
) -> Stated:
    """Checked values.

    Raises:
      WeightsError: one of them is not what it should be.
    """
    means, stds = _numbers(mean, "mean", origin), _numbers(std, "std", origin)
    if len(means) != len(stds) or min(stds, default=1) <= 0:
        raise WeightsError(f"{origin}: mean {mean!r} and std {std!r} do not go together")
    sizes = tuple(map(int, _numbers(size, "size", origin)))
    how = interpolation if isinstance(interpolation, str) else ""
    names = tuple(map(str, classes)) if isinstance(classes, list | tuple) else ()
    resized = tuple(map(int, _numbers(resize, "resize", origin)))
    return Stated(means, stds, sizes, how, names, origin, resized)


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{x:g}" for x in values)


def _numbers(values: Any, name: str, origin: str) -> tuple[float, ...]:
    """A number or a list of numbers; None is an empty one."""
    listed = list(values) if isinstance(values, list | tuple) else [] if values is None else [values]
    if not all(isinstance(x, int | float) and math.isfinite(x) for x in listed):
        raise WeightsError(f"{origin}: {name} is {values!r}, which are not numbers")
    return tuple(map(float, listed))
