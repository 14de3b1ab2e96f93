"""Where images and videos come from, most with labels; a small set of images comes with the code.

A source hands out one undecoded example per index, in a fixed order, and can be pickled into a reader
process at little cost. Decoding and augmentation are `transforms.py`'s business, order is `pipeline.py`'s.
No source needs TensorFlow.
"""

from ml_collections import ConfigDict

from amd_jax.buckets import is_url
from amd_jax.config import KEYS
from amd_jax.data.clip_records import ClipRecordSource
from amd_jax.data.example import Source
from amd_jax.data.fashion import EmbeddedSource
from amd_jax.data.folders import Split
from amd_jax.data.hf_sources import HfSource
from amd_jax.data.moving import MovingSource
from amd_jax.data.subset import balanced_part, held_out
from amd_jax.data.tfds_sources import TfdsVideoSource, tfds_source
from amd_jax.data.unlabelled import folder_source
from amd_jax.data.video_sources import ManifestSource
from amd_jax.errors import ConfigError


def make_source(data: ConfigDict, split: Split) -> Source:
    """The source that the `data` section of a config names.

    With `holdout` both come from the training split, and the share is of what is not held out.

    Args:
      data: the section; what says where examples come from and which is read.
      split: which role the examples play; the section may name the split that plays it.

    Raises:
      ConfigError: the data are not there or not of the expected form.
    """
    if data.holdout:
        rest, held = held_out(_whole_source(data, "train"), data.holdout)
        source: Source = rest if split == "train" else held
    else:
        source = _whole_source(data, split)
    return balanced_part(source, data.share) if split == "train" and data.share < 1 else source


def _whole_source(data: ConfigDict, split: Split) -> Source:
    name = data.train_split if split == "train" else data.eval_split
    videos = data.frames > 1
    if is_url(data.path) and data.source in ("folder", "manifest", "hf"):
        raise ConfigError(
            f"data.path={data.path!r}: single files are not read from a bucket, where each is a request; "
            "copy them to a disk (`gcloud storage rsync -r`), or mount the bucket (gcsfuse); TFDS sets and "
            "clips of prepare_video, which are ArrayRecord files, are read from it"
        )
    match data.source:
        case "embedded":
            return EmbeddedSource(split, name)
        case "moving":
            return MovingSource(split, name)
        case "folder":
            return folder_source(data.path, split, name, data.train_split or "train", videos)
        case "tfds" if videos:
            return TfdsVideoSource(data.name, data.path, split, name)
        case "tfds":
            return tfds_source(data.name, data.path, split, name)
        case "hf" if videos:
            raise ConfigError(f"data.frames={data.frames}: data.source='hf' holds images; set data.frames=1")
        case "hf":
            return HfSource(data.path, split, name)
        case "manifest":
            return ManifestSource(data.path, split, name, data.train_split)
        case "clips":
            return ClipRecordSource(data.path, split, name)
    choices = ", ".join(map(repr, KEYS["data.source"].choices))
    raise ConfigError(f"data.source={data.source!r}: choose one of {choices}")
