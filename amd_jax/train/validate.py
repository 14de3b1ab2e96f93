"""What a key's type cannot say: each check is one line that names the key and what to do about it.

Runs before anything is read, allocated or compiled.
"""

import math
import os

from ml_collections import ConfigDict

from amd_jax import methods
from amd_jax.buckets import is_url, place
from amd_jax.config import KEYS, flat, height_width
from amd_jax.data.policy import parse
from amd_jax.errors import ConfigError
from amd_jax.methods import METHODS
from amd_jax.models import build
from amd_jax.models.sizes import SIZES
from amd_jax.models.vit import TEACHER_OPTIONS
from amd_jax.steps.losses import distance_name
from amd_jax.train import profiling

# Keys of an encoder that shows its layers; a classifier's logits come from a ViT like the student.
_OF_FEATURES = ("patch_size", "resize", *TEACHER_OPTIONS)


def validate(config: ConfigDict) -> None:
    """Check a whole config.

    Raises:
      ConfigError: at the first thing that is wrong.
    """
    _keys(config)
    _input(config)
    _length(config)
    method = methods.of(config)
    encoders = ["student", "teacher"] if method.teacher else ["student"]
    for who in encoders:
        _encoder(config, who)
        _weights_exist(config, who)
    if len(encoders) == 2:
        _teacher_weights(config)
    if method.labels:
        _finetuning(config)
        return
    _need(
        config.finetune.ema == 0,
        f"finetune.ema={config.finetune.ema} is for fine-tuning; leave it at 0 for method={config.method!r}",
    )
    _probe(config)
    _heads(config.decoder.width, config.decoder.heads, "decoder")
    _need(config.decoder.depth > 0, "decoder.depth=0: must be positive")
    _masks(config)
    if method.teacher:
        _alignment(config)


def validate_probe(config: ConfigDict) -> None:
    """Check what a probe of a finished run reads; the run's other keys served its training.

    Raises:
      ConfigError: at the first thing that is wrong.
    """
    _keys(config)
    _input(config)
    _encoder(config, "student")
    _probe(config)


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _keys(config: ConfigDict) -> None:
    values = flat(config)
    method = values.get("method", "")
    _need(method in METHODS, f"method={method!r}: choose one of {', '.join(METHODS)}")
    for name in values.keys() - KEYS.keys():
        raise ConfigError(f"{name}: no such config key; python -m amd_jax.config lists them")
    for name, key in KEYS.items():
        _need(name in values, f"{name} is missing: start the config from configs/common.py's base()")
        value = values[name]
        if key.pair:
            both = value if isinstance(value, tuple | list) else (value, value)
            right = len(both) == 2 and all(type(v) is int and v > 0 for v in both)
            _need(right, f"{name}={value!r}: give a whole number above 0, or two with a comma between them")
            continue
        kinds = (int, float) if isinstance(key.default, float) else type(key.default)
        _need(isinstance(value, kinds), f"{name}={value!r}: must be a {type(key.default).__name__}")
        if isinstance(key.default, tuple):
            entry = type(key.default[0]) if key.default else float  # what may be empty is per channel
            right = all(isinstance(v, (int, float) if entry is float else entry) for v in value)
            _need(right, f"{name}={value!r}: every entry must be {entry.__name__}")
        if key.choices:
            _need(value in key.choices, f"{name}={value!r}: choose one of {', '.join(key.choices)}")
        if isinstance(key.default, float):
            _need(math.isfinite(value), f"{name}={value}: must be a finite number")
        # Every count, rate and weight is at least zero; only a mesh axis may be -1.
        if isinstance(value, int | float) and not name.startswith("mesh."):
            _need(value >= 0, f"{name}={value}: must not be negative")
    try:
        distance_name(config.loss.align)
    except ValueError as error:
        raise ConfigError(f"loss.align={error}") from error


def _input(config: ConfigDict) -> None:
    d, m = config.data, config.model
    for name in ("patch_size", "tubelet"):
        _need(m[name] > 0, f"model.{name}={m[name]}: must be positive")
    _need(d.frames > 0, f"data.frames={d.frames}: must be positive")
    _need(
        all(side % m.patch_size == 0 for side in height_width(d.image_size)),
        f"data.image_size={d.image_size} is not a multiple of model.patch_size={m.patch_size}",
    )
    _need(
        d.frames % m.tubelet == 0,
        f"data.frames={d.frames} is not a multiple of model.tubelet={m.tubelet}",
    )
    images = d.source == "embedded"
    _need(
        d.frames == 1 or not images,
        f"data.frames={d.frames}: data.source={d.source!r} holds images; set data.frames=1",
    )
    _need(d.crop == "resized" or d.frames > 1, f"data.crop={d.crop!r} is for clips; set it to 'resized'")
    _need(d.stride > 0, f"data.stride={d.stride}: must be positive")
    for name in ("clips", "crops"):
        _need(config.eval[name] > 0, f"eval.{name}={config.eval[name]}: must be positive")
    _need(
        config.eval.clips == 1 or not images,
        f"eval.clips={config.eval.clips}: data.source={d.source!r} holds images; set eval.clips=1",
    )
    _need(d.channels in (1, 3), f"data.channels={d.channels}: must be 1 (grey) or 3 (colour)")
    for name in ("mean", "std"):
        _need(
            len(d[name]) == d.channels,
            f"data.{name} has {len(d[name])} values for data.channels={d.channels}; give one per channel",
        )
    _need(min(d.std) > 0, f"data.std={d.std}: must be positive")
    for name in ("mean", "std"):
        given = config.teacher[name]
        _need(
            len(given) in (0, d.channels),
            f"teacher.{name} has {len(given)} values for data.channels={d.channels}; give one per channel, "
            "or none",
        )
    _need(min(config.teacher.std, default=1) > 0, f"teacher.std={config.teacher.std}: must be positive")
    for name in ("crop_scale", "crop_ratio"):
        ordered = len(d[name]) == 2 and 0 < d[name][0] <= d[name][1]
        _need(ordered, f"data.{name}={d[name]}: give a smallest and a largest value above 0")
    _need(d.crop_scale[1] <= 1, f"data.crop_scale={d.crop_scale}: a share of the area is at most 1")
    _need(d.holdout < 1, f"data.holdout={d.holdout}: must be below 1")
    _need(
        not (d.holdout and d.eval_split),
        f"data.eval_split={d.eval_split!r} and data.holdout={d.holdout}: evaluation reads one of them; leave "
        "out the other",
    )
    _need(0 < d.share <= 1, f"data.share={d.share}: must be above 0 and at most 1")
    _need(d.erasing <= 1, f"data.erasing={d.erasing}: a probability is at most 1")
    if d.randaugment:
        parse(d.randaugment)
    for name in ("repeats", "threads", "prefetch"):
        _need(d[name] > 0, f"data.{name}={d[name]}: must be positive")


def _length(config: ConfigDict) -> None:
    _need(config.seed < 2**32, f"seed={config.seed}: must be below 2**32")
    _need(config.batch_size > 0, f"batch_size={config.batch_size}: must be positive")
    _need(config.accum_steps > 0, f"accum_steps={config.accum_steps}: must be positive")
    _need(
        config.batch_size * config.data.repeats % config.accum_steps == 0,
        f"batch_size={config.batch_size} * data.repeats={config.data.repeats} is not a multiple of "
        f"accum_steps={config.accum_steps}",
    )
    _need(config.steps > 0 or config.epochs > 0, "set epochs or steps: the run has no length")
    o = config.optim
    _need(o.b1 < 1 and o.b2 < 1, f"optim.b1={o.b1} and optim.b2={o.b2}: must be below 1")
    _need(o.eps > 0, f"optim.eps={o.eps}: must be positive")
    _need(
        o.layer_decay == 1 or methods.of(config).labels,
        f"optim.layer_decay={o.layer_decay} is for fine-tuning; leave it at 1 for method={config.method!r}",
    )
    # Where one is in steps and the other in epochs, optim.schedule compares them once the data are known.
    _need(
        not config.steps or o.warmup_steps <= config.steps,
        f"optim.warmup_steps={o.warmup_steps} is longer than the run of {config.steps} steps; shorten it",
    )
    _need(
        config.steps or o.warmup_steps or o.warmup_epochs <= config.epochs,
        f"optim.warmup_epochs={o.warmup_epochs} is longer than the run of epochs={config.epochs}; shorten it",
    )
    if config.log.profile:
        profiling.parse(config.log.profile)
    for section, name in (("log", "every"), ("checkpoint", "every"), ("checkpoint", "keep")):
        value = config[section][name]
        _need(value > 0, f"{section}.{name}={value}: must be positive")


def _heads(width: int, heads: int, who: str) -> None:
    _need(heads > 0, f"{who}.heads={heads}: must be positive")
    _need(width > 0 and width % heads == 0, f"{who}: width {width} is not a multiple of {heads} heads")
    _need(width % 4 == 0, f"{who}: width {width} is not a multiple of 4, which position tables need")


def _encoder(config: ConfigDict, who: str) -> None:
    keys = config[who]
    _need(keys.size in SIZES, f"{who}.size={keys.size!r}: choose one of {', '.join(SIZES)}")
    encoder = build.encoder(config, who)
    _heads(encoder.block.width, encoder.block.heads, who)
    _need(
        config.mesh.tensor < 1 or encoder.block.heads % config.mesh.tensor == 0,
        f"mesh.tensor={config.mesh.tensor} does not divide the {encoder.block.heads} heads of the {who}",
    )


def _weights_exist(config: ConfigDict, who: str) -> None:
    weights = config[who].weights
    if weights and not weights.startswith("hf://"):
        there = place(weights).exists() if is_url(weights) else os.path.exists(weights)
        _need(there, f"{who}.weights={weights!r}: no such file or directory")


def _masks(config: ConfigDict) -> None:
    for who in ("student", "teacher"):
        ratio = config.mask[f"{who}_ratio"]
        _need(ratio < 1, f"mask.{who}_ratio={ratio}: must be below 1")
    _, height, width = build.grid(config)
    student, teacher = build.visible(config)
    positions = height * width
    _need(
        0 < student < positions,
        f"mask: the student would see {student} of {positions} positions; it must see some and miss some",
    )
    _need(
        student <= teacher,
        f"mask: the student would see {student} positions and the teacher only {teacher}; lower "
        "mask.teacher_ratio (or raise mask.teacher_visible) so that the teacher sees at least as many",
    )
    _need(teacher <= positions, f"mask: the teacher would see {teacher} of {positions} positions")


def _alignment(config: ConfigDict) -> None:
    students, teachers = config.align.student_layers, config.align.teacher_layers
    _need(
        len(students) == len(teachers) > 0,
        f"align.student_layers={students} and align.teacher_layers={teachers} must pair up, one at least",
    )
    _need(config.align.generator_depth > 0, "align.generator_depth=0: must be positive")
    if methods.of(config).aligns_cls:
        _need(
            config.student.cls_token == config.teacher.cls_token,
            f"method={config.method!r} aligns the CLS token as well: set student.cls_token and "
            "teacher.cls_token alike",
        )
    for who, layers in (("student", students), ("teacher", teachers)):
        _need(len(set(layers)) == len(layers), f"align.{who}_layers={layers}: a layer is named twice")
        depth = build.encoder(config, who).depth
        _need(
            all(1 <= layer <= depth for layer in layers),
            f"align.{who}_layers={layers}: layers count from 1 and the {who} has {depth}",
        )
    built = build.student(config).align
    if built is not None and built.student_gen and built.generator is not None:
        _heads(built.generator.width, built.generator.heads, "generator (of the teacher's width)")
    _need(
        built is not None and bool(built.teacher_layers),
        "nothing would be distilled: give loss.direct_weight a positive value, or loss.gen_weight with a "
        "method whose teacher sees more than the student",
    )


def _teacher_weights(config: ConfigDict) -> None:
    usual = {name: KEYS[f"teacher.{name}"].default for name in _OF_FEATURES}
    for name, value in usual.items() if methods.of(config).teacher == "logits" else ():
        _need(
            config.teacher[name] == value,
            f"teacher.{name}={config.teacher[name]!r} is for a teacher of features; leave it at {value!r} "
            f"for method={config.method!r}",
        )
    block = build.encoder(config, "teacher").block
    _need(
        config.teacher.positions != "rotary" or block.width // block.heads % 4 == 0,
        f"teacher.heads={block.heads}: rotary positions need a multiple of 4 features in a head, not "
        f"{block.width // block.heads}",
    )
    _need(config.teacher.norm_eps > 0, "teacher.norm_eps=0: must be positive")
    _need(config.teacher.rope_theta > 0, "teacher.rope_theta=0: must be positive")
    weights = config.teacher.weights
    _need(
        bool(weights) or config.teacher.random,
        f"method={config.method!r} needs a teacher: set teacher.weights to a workdir, a checkpoint or a "
        "weights file (or teacher.random=True to time or test with random weights)",
    )


def _probe(config: ConfigDict) -> None:
    p = config.probe
    _need(config.eval.batch_size > 0, f"eval.batch_size={config.eval.batch_size}: must be positive")
    for name in ("epochs", "base_lr", "k", "temperature"):
        _need(p[name] > 0, f"probe.{name}={p[name]}: must be positive")
    _need(p.batch_size > 1, f"probe.batch_size={p.batch_size}: one example has no spread; take 2 at least")
    _need(p.examples != 1, "probe.examples=1: one example has no spread; take 2 at least, or 0 for all")
    _need(
        p.warmup_epochs < p.epochs,
        f"probe.warmup_epochs={p.warmup_epochs}: must be below probe.epochs={p.epochs}",
    )
    _need(
        p.pool == "mean" or config.student.cls_token,
        "probe.pool='cls': the student has no CLS token; set student.cls_token=True or probe.pool='mean'",
    )


def _finetuning(config: ConfigDict) -> None:
    f = config.finetune
    _need(
        config.probe.every_epochs == 0,
        f"probe.every_epochs={config.probe.every_epochs} is for pre-training; leave it at 0 for "
        f"method={config.method!r}",
    )
    for name in ("drop_path", "head_drop", "smoothing", "ema"):
        _need(f[name] < 1, f"finetune.{name}={f[name]}: must be below 1")
    _need(f.kd_weight <= 1, f"finetune.kd_weight={f.kd_weight}: a share is at most 1")
    _need(f.kd_temperature > 0, f"finetune.kd_temperature={f.kd_temperature}: must be positive")
    _need(
        0 < config.optim.layer_decay <= 1, f"optim.layer_decay={config.optim.layer_decay}: must be in (0, 1]"
    )
    examples = config.batch_size * config.data.repeats
    _need(
        f.mix_groups > 0 and examples % f.mix_groups == 0,
        f"finetune.mix_groups={f.mix_groups} does not divide the batch of {examples}; give a divisor of it "
        "(MAE's recipe mixes 32 images at a time)",
    )
    alone = examples == f.mix_groups > 1
    _need(
        not (alone and (f.mixup or f.cutmix)),
        f"finetune.mix_groups={f.mix_groups}: every example of the batch would be alone in its group and "
        "not be mixed; lower it",
    )
    _need(config.eval.batch_size > 0, f"eval.batch_size={config.eval.batch_size}: must be positive")
    for who, pool in (("student", f.pool), ("teacher", f.teacher_pool)):
        used = who == "student" or methods.of(config).teacher == "logits"
        _need(
            not used or pool == "mean" or config[who].cls_token,
            f"{who}: pooling by the CLS token needs {who}.cls_token=True",
        )
