"""What a run says of how its weights came about: for a model card."""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from amd_jax import methods
from amd_jax.buckets import SCHEME
from amd_jax.config import KEYS, flat

_SCORES = {
    "test_top1": "top-1 accuracy, mean of many views, %",
    "test_top5": "top-5 accuracy, mean of many views, %",
    "eval_top1": "top-1 accuracy, %",
    "eval_top5": "top-5 accuracy, %",
    "probe_top1": "linear probe of the frozen encoder, top-1 %",
    "knn_top1": "nearest neighbours of the frozen encoder, top-1 %",
}
# What the table of `recipe` tells is not told again, and how fast examples were read is nobody's business.
_TOLD = (
    *(
        "data.source",
        "data.name",
        "data.path",
        "data.image_size",
        "data.frames",
        "data.channels",
        "data.mean",
    ),
    *("data.std", "data.share", "data.workers", "data.threads", "data.prefetch", "data.max_corrupt"),
    *("data.train_split", "data.eval_split"),
    *("decoder.width", "decoder.depth", "decoder.heads"),
    *("optim.base_lr", "optim.weight_decay", "optim.b1", "optim.b2"),
    *("mask.student_ratio", "mask.teacher_ratio", "mask.student_visible", "mask.teacher_visible"),
)


def recipe(config: ConfigDict, step: int) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """Rows of a table; and other keys of the config that are not at their defaults."""
    values, method = flat(config.to_dict()), methods.of(config)
    sections = ["data", "optim"] + ["finetune"] * method.labels + ["align"] * (method.teacher == "features")
    sections += ["decoder", "mask", "loss"] * (method.task == "pretrain")
    others = {
        name: value
        for name, value in values.items()
        if name in KEYS
        and name.split(".")[0] in sections
        and name not in _TOLD
        and value != KEYS[name].default
    }
    return list(_rows(config, step)), others


def scores(workdir: str, step: int) -> list[tuple[str, float, int]]:
    """What was scored, its newest value up to `step`, and at which step; empty where nothing was recorded."""
    from amd_jax.workdir import load_metrics  # orbax, which only runs need

    try:
        lines = load_metrics(workdir)
    except (OSError, ValueError):  # a run without metrics, or with some that a full disk did not take
        return []
    newest: dict[str, tuple[float, int]] = {}
    for line in lines:
        for name in _SCORES.keys() & line.keys():
            if line["step"] <= step and line[name] is not None:
                newest[name] = (line[name], line["step"])
    return [(title, *newest[name]) for name, title in _SCORES.items() if name in newest]


def _rows(config: ConfigDict, step: int) -> Iterator[tuple[str, str]]:
    method, o = methods.of(config), config.optim
    yield "method", method.title or config.method
    if method.teacher:
        kept_as = f", its kernels in {config.teacher.dtype}" if config.teacher.dtype else ""
        name = "random weights" if config.teacher.random else _name(config.teacher.weights)
        yield "teacher", name + kept_as
    if config.student.weights:
        yield "started from", _name(config.student.weights)
    yield "data", _data(config.data)
    if method.task == "pretrain":
        yield (
            "patches seen",
            _seen(config, "student")
            + (f", by the teacher {_seen(config, 'teacher')}" if method.sees_more else ""),
        )
    length = f"{config.steps} steps" if config.steps else f"{config.epochs:g} epochs"
    yield "length", f"{length}; these weights are of step {step}"
    views = f", {config.data.repeats} views of each" if config.data.repeats > 1 else ""
    yield "batch", f"{config.batch_size} examples{views}"
    yield (
        "optimiser",
        (
            f"AdamW, learning rate {o.base_lr:g} per 256 examples of a batch, betas {o.b1:g} and {o.b2:g}, "
            f"weight decay {o.weight_decay:g}"
        ),
    )
    yield "seed", str(config.seed)


def _data(data: ConfigDict) -> str:
    """Which set; of a path its last part, since the others are somebody's own."""
    name = {"tfds": data.name, "embedded": "Fashion-MNIST, a part", "moving": "Fashion-MNIST, moved"}
    which = name.get(data.source) or _name(data.path)
    split = f", {data.train_split}" if data.train_split and "/" not in data.train_split else ""
    share = f", {100 * data.share:g} % of it" if data.share < 1 else ""
    return f"{which} ({data.source}{split}){share}"


def _seen(config: ConfigDict, who: str) -> str:
    if visible := config.mask[f"{who}_visible"]:
        return f"{visible} a frame"
    return f"{100 * (1 - config.mask[f'{who}_ratio']):g} %"


def _name(path: str) -> str:
    """`hf://ORG/NAME` as it is; of a path its last part."""
    if path.startswith(SCHEME) or "://" not in path:
        return path.rstrip("/").rpartition("/")[2]
    return path
