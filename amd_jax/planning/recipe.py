"""What a plan has to know of a run besides its program: how many examples its data set has."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from amd_jax.data.fashion import EmbeddedSource
from amd_jax.data.moving import MovingSource
from amd_jax.errors import ConfigError
from amd_jax.train.validate import validate

# Training examples and classes, by what a config's file name or `data.name` says: ILSVRC 2012; Kinetics-400
# as VideoMAE's lists have it; Something-Something V2; the first splits of UCF101 and HMDB51.
SIZES = {
    "in1k": (1_281_167, 1000),
    "imagenet2012": (1_281_167, 1000),
    "k400": (240_436, 400),
    "ssv2": (168_913, 174),
    "ucf101": (9_537, 101),
    "hmdb51": (3_570, 51),
    "mnist": (60_000, 10),  # and Fashion-MNIST
}
_HERE: dict[str, Any] = {"embedded": EmbeddedSource, "moving": MovingSource}  # data that come with the code


def plannable(config: ConfigDict) -> ConfigDict:
    """A copy of a config that asks for no weights, which a plan does not need.

    Raises:
      ConfigError: something else is wrong with it.
    """
    config = config.copy_and_resolve_references()
    if "student" in config and "teacher" in config:
        config.student.weights = config.teacher.weights = ""
        config.teacher.random = True
    validate(config)
    return config


def size(config: ConfigDict, file: str, examples: int | None, classes: int | None) -> tuple[int, int]:
    """Training examples and classes of a run's data.

    Args:
      config: valid.
      file: where it was read, which names the data set of videos.
      examples: replaces what is known.
      classes: replaces what is known.

    Raises:
      ConfigError: nobody knows.
    """
    if examples is None or classes is None:
        data = known_size(config, file)
        if data is None:
            raise ConfigError(
                f"how large the data of {file} are is not known here: give --examples and --classes"
            )
        share = (1 - config.data.holdout) * config.data.share
        examples = int(data[0] * share) if examples is None else examples
        classes = data[1] if classes is None else classes
    return examples, classes


def known_size(config: ConfigDict, file: str) -> tuple[int, int] | None:
    """Training examples and classes, where the data come with the code or their names are known here."""
    if (embedded := _HERE.get(config.data.source)) is not None:
        source = embedded("train")
        return len(source), source.num_classes
    stem = Path(file.partition(":")[0]).stem
    names = [config.data.name] if config.data.source == "tfds" else []
    for name in (*names, stem):
        found = [known for key, known in SIZES.items() if key in name]
        if found:
            return found[0]
    return None
