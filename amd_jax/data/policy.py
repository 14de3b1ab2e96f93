"""RandAugment's policy: what its text says. No picture is touched here, and no Pillow needed."""

import dataclasses
import math
import re
from collections.abc import Sequence

from amd_jax.errors import ConfigError

GREY = (128, 128, 128)

FULL_LEVEL = 10  # the magnitude at which an operation reaches the end of its range
_UNIFORM_FROM = 100  # a standard deviation above this stands for a uniform magnitude


@dataclasses.dataclass(frozen=True)
class Policy:
    """What RandAugment draws from; see `parse`.

    The colour around shifted images is `mean_fill` of the data in timm's recipes (MAE, DMAE) and grey in
    those of VideoMAE and AMD.
    """

    magnitude: float = FULL_LEVEL
    layers: int = 2  # operations drawn for an image
    probability: float = 0.5  # that a drawn operation is applied
    magnitude_std: float = 0.0  # of normal noise; infinite: the magnitude is uniform in [0, `magnitude`]
    magnitude_max: float = FULL_LEVEL  # noisy magnitudes are clipped to [0, this]
    increasing: bool = False  # whether every operation gets stronger with the magnitude
    fill: tuple[int, ...] = GREY  # colour of what comes in from outside, one value a channel


def parse(text: str, fill: tuple[int, ...] = GREY) -> Policy:
    """The policy written as, for instance, 'rand-m9-n2-mstd0.5-inc1' (timm, `rand_augment_transform`).

    After 'rand' come, in any order: m magnitude (default 10), n operations (2), p probability of each (0.5),
    mstd standard deviation of the magnitude (0; above 100: uniform), mmax upper bound of the magnitude (10),
    inc whether to take the increasing set (0). Two differences: timm reads 'inc0' as 'inc1', since it only
    looks whether a value is there, and a section that it ignores is an error here.

    Args:
      text: the policy.
      fill: see `Policy`.

    Raises:
      ConfigError: the text is not understood.
    """
    kind, *sections = text.split("-")
    if kind != "rand":
        raise ConfigError(f"RandAugment {text!r} does not begin with 'rand', as in 'rand-m9-mstd0.5-inc1'")
    values: dict[str, float] = {}
    for section in sections:
        match = re.fullmatch(r"(mstd|mmax|inc|m|n|p)(\d+(?:\.\d+)?)", section)
        if match is None or match[1] in values:
            raise ConfigError(
                f"RandAugment {text!r}: cannot use {section!r}; each of m, n, p, mstd, mmax and inc may come"
                " once, with its number"
            )
        values[match[1]] = float(match[2])
    std = values.get("mstd", 0.0)
    return Policy(
        magnitude=values.get("m", FULL_LEVEL),
        layers=int(values.get("n", 2)),
        probability=values.get("p", 0.5),
        magnitude_std=math.inf if std > _UNIFORM_FROM else std,
        magnitude_max=values.get("mmax", 0) or FULL_LEVEL,
        increasing=bool(values.get("inc", 0)),
        fill=fill,
    )


def mean_fill(mean: Sequence[float]) -> tuple[int, ...]:
    """The data's mean colour as bytes, the fill of timm's `transforms_imagenet_train`: (124, 116, 104)."""
    return tuple(min(255, round(255 * channel)) for channel in mean)
