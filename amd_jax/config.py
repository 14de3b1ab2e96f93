"""The one declaration of every config key: default (which gives the type), choices and meaning.

A config file starts from `default()`, which is locked: an unknown key or a wrong type is an error at the
line that sets it. What a type cannot say is checked in validate.py. `python -m amd_jax.config` prints all
keys.
"""

import dataclasses
import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict, FieldReference

from amd_jax.errors import ConfigError
from amd_jax.methods import METHODS

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class Key:
    """One config key. The type of `default` is the type of the key; of a `pair` also two of them, a tuple."""

    default: Any
    meaning: str
    choices: tuple[str, ...] = ()
    pair: bool = False


def _encoder(size: str, meaning: str) -> dict[str, Key]:
    """The keys that student and teacher share."""
    return {
        "size": Key(size, f"{meaning}: a name from amd_jax/models/sizes.py"),
        "width": Key(0, "features per token; 0: from the size"),
        "depth": Key(0, "number of blocks; 0: from the size"),
        "heads": Key(0, "attention heads; 0: from the size"),
        "cls_token": Key(True, "prepend a CLS token (MAE: yes, VideoMAE and AMD video: no)"),
        "positions": Key("sincos_2d", "fixed position table", ("sincos_2d", "sincos_1d", "learned")),
        "qkv_bias": Key("qkv", "which of q, k, v have a bias (VideoMAE: q and v)", ("qkv", "qv", "none")),
        "weights": Key(
            "", "a run's workdir, an imported folder, a weights file or hf://ORG/NAME to start from"
        ),
    }


def _section(name: str, keys: dict[str, Key]) -> dict[str, Key]:
    return {f"{name}.{key}": value for key, value in keys.items()}


KEYS: dict[str, Key] = {
    "method": Key("amd", f"what trains the student: a name from amd_jax/methods.py ({', '.join(METHODS)})"),
    "seed": Key(0, "the one seed: initial weights, data order, augmentation and masks follow from it"),
    "batch_size": Key(256, "examples per optimiser step over all processes, repeats not counted"),
    "accum_steps": Key(1, "split each batch into this many passes and add up their gradients"),
    "epochs": Key(0.0, "length of the run in passes over the data; 0: `steps` says it"),
    "steps": Key(0, "length of the run in optimiser steps; wins over `epochs` when positive"),
    **_section(
        "data",
        {
            "source": Key(
                "embedded",
                "where images or videos come from; manifest: videos of a list; clips: prepare_video's files; "
                "moving: embedded images that move; hf: a set of Hugging Face, parquet or save_to_disk's",
                ("embedded", "folder", "tfds", "hf", "manifest", "clips", "moving"),
            ),
            "name": Key("imagenet2012", "TFDS: name of the data set"),
            "path": Key(
                "",
                "folder, clips: the directory with train/ and val/, or one of unlabelled files; tfds: its "
                "data_dir; manifest: where its paths start; hf: the set's folder",
            ),
            "train_split": Key("", "split (or manifest) to train on; empty: the source's usual name for it"),
            "eval_split": Key(
                "", "split (or manifest) to evaluate on; empty: the source's usual name for it"
            ),
            "holdout": Key(
                0.0,
                "share of the training split that is not trained on but evaluated on, instead of another "
                "split: always the same examples, of each class alike; 0: none",
            ),
            "share": Key(
                1.0,
                "training examples used (of what is not held out), equally many of each class and always the "
                "same; 1: all of them",
            ),
            "frames": Key(1, "frames of a clip; 1: images"),
            "image_size": Key(
                224, "pixels that the model sees: the side of a square, or height,width", pair=True
            ),
            "channels": Key(3, "3 for colour, 1 for grey"),
            "mean": Key(IMAGENET_MEAN, "per-channel mean of pixels in [0, 1], subtracted on the device"),
            "std": Key(IMAGENET_STD, "per-channel standard deviation of pixels in [0, 1]"),
            "sampling": Key(
                "dense",
                "videos: the frames of a clip lie close together (Kinetics), or all over the video "
                "(Something-Something)",
                ("dense", "segments"),
            ),
            "stride": Key(4, "videos: frames from one of a clip to the next"),
            "crop": Key(
                "resized",
                "random resized crop; of clips also VideoMAE's: four scales of the short side, fixed places",
                ("resized", "multi_scale"),
            ),
            "crop_scale": Key((0.2, 1.0), "random resized crop: share of the area"),
            "crop_ratio": Key(
                (3 / 4, 4 / 3), "random resized crop: width over height, in units of what image_size has"
            ),
            "jpeg": Key(
                "exact",
                "training images: exact, or reduced: a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size "
                "where no crop of it needs more, which changes pixels a little",
                ("exact", "reduced"),
            ),
            "flip": Key(True, "mirror left to right with probability 0.5"),
            "repeats": Key(1, "differently augmented copies of each example in a batch"),
            "workers": Key(0, "processes that read and augment; 0: threads of this process"),
            "threads": Key(4, "reading threads where workers is 0"),
            "prefetch": Key(4, "batches made ahead of time in a process; a worker holds some examples more"),
            "randaugment": Key("", "RandAugment: timm's policy string, as rand-m9-mstd0.5-inc1; empty: none"),
            "erasing": Key(0.0, "probability of random erasing"),
            "max_corrupt": Key(100, "unreadable files a process skips between start and stop, at most"),
        },
    ),
    **_section(
        "model",
        {
            "patch_size": Key(16, "height and width of a patch in pixels"),
            "tubelet": Key(1, "frames of a token"),
            "dtype": Key(
                "auto",
                "compute type; auto: bfloat16 on TPU and GPU, float32 on CPU. Parameters stay float32",
                ("auto", "float32", "bfloat16"),
            ),
            "residual": Key(
                "auto",
                "type of the sum that goes from block to block; auto: that of model.dtype",
                ("auto", "float32", "bfloat16"),
            ),
            "attention": Key(
                "auto",
                "xla: XLA's own; cudnn: cuDNN's fused (GPU); heads: keeps no scores, from 128 tokens a head "
                "at a time; auto: XLA's on GPUs and where devices share heads, else heads",
                ("auto", "xla", "cudnn", "heads"),
            ),
            "remat": Key(False, "recompute each block in the backward pass, to save memory"),
            "unroll": Key(False, "write the loop over layers out: fewer copies, longer to compile"),
        },
    ),
    **_section("student", _encoder("base", "the encoder that is trained")),
    **_section(
        "teacher",
        {
            **_encoder("large", "the frozen encoder"),
            "positions": Key(
                "sincos_2d",
                "fixed position table, learned, or rotary (DINOv3)",
                ("sincos_2d", "sincos_1d", "learned", "rotary"),
            ),
            "patch_size": Key(
                0,
                "height and width of its patches in pixels; 0: model.patch_size. With another it sees images "
                "resized, so that its tokens lie where the student's do",
            ),
            "resize": Key(
                "",
                "how they are then resized, antialiased; empty: as its weights say, else bicubic",
                ("", "bicubic", "bilinear"),
            ),
            "mlp": Key(
                "gelu",
                "activation of its MLPs (SigLIP: gelu_tanh, CLIP: quick_gelu), or swiglu (DINOv2's giant)",
                ("gelu", "gelu_tanh", "quick_gelu", "swiglu"),
            ),
            "layer_scale": Key(False, "a scale on each branch of a block (DINOv2, DINOv3)"),
            "norm_eps": Key(1e-6, "epsilon of its norms (CLIP, DINOv3: 1e-5)"),
            "registers": Key(0, "register tokens (DINOv2 with registers, DINOv3: 4)"),
            "pre_norm": Key(False, "a norm before the first block (CLIP)"),
            "patch_bias": Key(True, "bias of the patch embedding (CLIP: none)"),
            "rope_theta": Key(100.0, "base of the periods of rotary positions"),
            "mean": Key(
                (), "per-channel mean of the pixels it sees; empty: what its weights say, else data.mean"
            ),
            "std": Key((), "the same for the standard deviation; empty: what its weights say, else data.std"),
            "dtype": Key(
                "",
                "how the kernels of its blocks are kept and multiplied: in eight bits (int8, or fp8: "
                "float8_e4m3fn), with a scale for each output and each token; empty: as model.dtype",
                ("", "int8", "fp8"),
            ),
            "random": Key(False, "allow a randomly initialised teacher, for tests and timing"),
        },
    ),
    **_section(
        "decoder",
        {
            "width": Key(512, "features per token of the pixel decoder"),
            "depth": Key(8, "blocks of the pixel decoder"),
            "heads": Key(16, "attention heads of the pixel decoder"),
            "embed_bias": Key(True, "bias in the encoder-to-decoder linear (MAE: yes, VideoMAE: no)"),
        },
    ),
    **_section(
        "mask",
        {
            "student_ratio": Key(0.75, "share of positions hidden from the student"),
            "teacher_ratio": Key(0.5, "share of positions hidden from the teacher"),
            "student_visible": Key(
                0, "positions per frame the student sees; wins over the ratio if positive"
            ),
            "teacher_visible": Key(
                0, "positions per frame the teacher sees; wins over the ratio if positive"
            ),
            "floor": Key(
                "masked",
                "which number a ratio rounds down: the masked (AMD, VideoMAE) or the visible (MAE, DMAE)",
                ("masked", "visible"),
            ),
        },
    ),
    **_section(
        "loss",
        {
            "target": Key(
                "patch",
                "pixels to predict: normalised over the patch (MAE), per channel (VideoMAE, AMD), or as is",
                ("patch", "channel", "pixels"),
            ),
            "align": Key("l2", "distance between features: l2, l1 or smooth_l1 (in AMD's flags: sml1)"),
            "rec_weight": Key(1.0, "weight of the pixel reconstruction"),
            "direct_weight": Key(1.0, "weight of direct alignment"),
            "gen_weight": Key(1.0, "weight of generative alignment"),
            "feature_norm": Key(
                "none",
                "normalise teacher features (l2: both sides) per token before alignment; published AMD: none",
                ("none", "layernorm", "l2"),
            ),
            "layers": Key("mean", "how aligned layers are combined (AMD: mean, DMAE: sum)", ("mean", "sum")),
        },
    ),
    **_section(
        "align",
        {
            "student_layers": Key((6, 12), "aligned student layers, counted from 1, before any final norm"),
            "teacher_layers": Key((12, 24), "the teacher layer for each aligned student layer"),
            "projection": Key(
                "linear",
                "from student to teacher width: linear (AMD), with bias (DMAE), one or two MLPs",
                ("linear", "linear_bias", "mlp", "mlp2"),
            ),
            "generator_depth": Key(2, "blocks of each generator"),
            "train_mask_tokens": Key(
                True,
                "train the generators' mask tokens; the released AMD code leaves them as drawn",
            ),
        },
    ),
    **_section(
        "finetune",
        {
            "pool": Key(
                "mean", "what the head reads: the CLS token, or the mean of the others", ("mean", "cls")
            ),
            "teacher_pool": Key("mean", "the same for the teacher of method='kd'", ("mean", "cls")),
            "drop_path": Key(0.0, "stochastic depth at the last block, rising linearly from 0"),
            "head_drop": Key(0.0, "dropout of what the head reads"),
            "head_std": Key(2e-5, "standard deviation of the head's initial weights; 0: zeros"),
            "mixup": Key(0.0, "alpha of mixup; 0: off"),
            "cutmix": Key(0.0, "alpha of cutmix; 0: off"),
            "mix_groups": Key(1, "parts of the batch that are mixed by themselves, each with its own draw"),
            "smoothing": Key(0.0, "label smoothing"),
            "ema": Key(0.0, "decay of the running mean of the weights, which is then evaluated; 0: none"),
            "kd_weight": Key(0.5, "method='kd': share of the teacher in the loss"),
            "kd_temperature": Key(1.0, "method='kd': temperature of the soft targets"),
            "kd_hard": Key(False, "method='kd': learn the teacher's choice instead of its probabilities"),
        },
    ),
    **_section(
        "eval",
        {
            "every_epochs": Key(
                1.0, "fine-tuning: epochs between evaluations; one more is made at the end; 0: only that one"
            ),
            "batch_size": Key(256, "examples of an evaluation step over all processes"),
            "clips": Key(1, "videos: clips that are scored at the end and averaged; before, one is"),
            "crops": Key(1, "crops of each clip (or image) that are scored at the end and averaged"),
            "only": Key(False, "evaluate the newest checkpoint (or student.weights) and end"),
        },
    ),
    **_section(
        "probe",
        {
            "every_epochs": Key(
                0.0,
                "pre-training: epochs between linear probe and kNN of the student's encoder; one more is "
                "made at the end; 0: never",
            ),
            "pool": Key("mean", "the feature: mean of the patch tokens, or the CLS token", ("mean", "cls")),
            "examples": Key(0, "training examples it is fitted on, the same ones every time; 0: all"),
            "optimizer": Key(
                "lbfgs",
                "of the linear probe: lbfgs fits to convergence; MAE's recipe with its own LARS, or AdamW",
                ("lbfgs", "lars", "adamw"),
            ),
            "epochs": Key(90, "lars, adamw: passes over the features"),
            "batch_size": Key(16384, "lars, adamw: features a step; at most as many as there are"),
            "base_lr": Key(
                0.1, "lars, adamw: peak learning rate per 256 features of a step (0.1: MAE's LARS)"
            ),
            "warmup_epochs": Key(10, "lars, adamw: length of the linear warm-up"),
            "k": Key(20, "neighbours that vote in kNN"),
            "temperature": Key(0.07, "kNN: a neighbour of cosine similarity s weighs exp(s / temperature)"),
        },
    ),
    **_section(
        "optim",
        {
            "base_lr": Key(1.5e-4, "peak learning rate per 256 examples of batch_size"),
            "warmup_lr": Key(0.0, "learning rate at step 0, per 256 examples"),
            "min_lr": Key(0.0, "learning rate at the end, per 256 examples"),
            "warmup_epochs": Key(0.0, "length of the linear warm-up in epochs"),
            "warmup_steps": Key(0, "length of the linear warm-up in steps; wins over epochs when positive"),
            "weight_decay": Key(0.05, "AdamW's decay; none on biases, norms, tokens and positions"),
            "b1": Key(0.9, "AdamW's beta 1"),
            "b2": Key(0.95, "AdamW's beta 2"),
            "eps": Key(1e-8, "AdamW's epsilon"),
            "moments": Key(
                "float32",
                "type that AdamW's first moments are kept in; the second ones are float32",
                ("float32", "bfloat16"),
            ),
            "layer_decay": Key(1.0, "learning rate of a layer over that of the next one (BEiT, MAE)"),
            "clip": Key(0.0, "largest global gradient norm; 0: no clipping"),
        },
    ),
    **_section(
        "mesh",
        {
            "data": Key(-1, "devices along the batch; -1: all that are left"),
            "fsdp": Key(1, "devices that share batch, parameters and optimiser state"),
            "tensor": Key(1, "devices that share attention heads and MLP features"),
        },
    ),
    **_section(
        "log",
        {
            "every": Key(50, "steps between log lines"),
            "pictures_every": Key(1000, "steps between pictures of masks and reconstructions; 0: never"),
            "profile": Key("", "START:STOP, steps counted from 1 to trace for TensorBoard; empty: none"),
        },
    ),
    **_section(
        "checkpoint",
        {
            "every": Key(1000, "steps between checkpoints; one is always written at the end"),
            "keep": Key(2, "newest checkpoints to keep"),
        },
    ),
}


def default() -> ConfigDict:
    """Every key at its default, locked against unknown names and wrong types."""
    config = ConfigDict()
    for name, key in KEYS.items():
        *sections, leaf = name.split(".")
        node = config
        for section in sections:
            if section not in node:
                node[section] = ConfigDict()
            node = node[section]
        # A reference of type object takes any value; validate.py looks at it.
        node[leaf] = FieldReference(key.default, field_type=object) if key.pair else key.default
    return config.lock()


def height_width(size: int | Sequence[int]) -> tuple[int, int]:
    """What `data.image_size` stands for."""
    if isinstance(size, int):
        return size, size
    height, width = size
    return height, width


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"data": {"source": x}}` as `{"data.source": x}`; works on configs and on their saved form."""
    out: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping | ConfigDict):
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = value
    return out


def check_names(arguments: Sequence[str], keys: Collection[str]) -> None:
    """Refuse `--config.NAME` of keys that do not exist; the message says what may have been meant.

    `--against.NAME` is the same of a second config.
    """
    for argument in arguments:
        found = re.match(r"--?(config|against)\.([^=]+)", argument)
        if found and found[2] not in keys:
            close = difflib.get_close_matches(found[2], keys, n=3)
            hint = f"did you mean {', '.join(close)}?" if close else "python -m amd_jax.config lists them"
            raise ConfigError(f"--{found[1]}.{found[2]}: no such key; {hint}")


if __name__ == "__main__":
    for name, key in KEYS.items():
        choices = f" [{', '.join(key.choices)}]" if key.choices else ""
        print(f"{name} = {key.default!r}\n    {key.meaning}{choices}")
