"""What bfloat16 costs where it computes: in the stream between blocks, drop path, the head, first moments.

    python benchmarks/precision.py --workdir=DIR

Prints Markdown tables. Networks are 24 deep, and start at random or from an encoder that MAE trains here.
Each variant is compared with float32 in everything, on the same weights, batch and masks: by relative RMS
error (of 1: as large as the thing itself), and by the cosine of gradients. XLA is told to round wherever the
program says so, which it may otherwise leave out on this CPU and not on another device. Finished runs in DIR
are kept.
"""

import argparse
import contextlib
import dataclasses
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

sys.path.insert(0, str(Path(__file__).parents[1]))

from amd_jax import hardware
from amd_jax.data.fashion import EmbeddedSource
from amd_jax.models import patches
from amd_jax.models.classifier import Classifier
from amd_jax.models.vit import ViT
from amd_jax.steps.finetune import Finetuning
from amd_jax.steps.pretrain import Pretraining
from amd_jax.steps.step import Task
from amd_jax.steps.tasks import make_task
from amd_jax.train import loop, setup
from amd_jax.train.program import cast_teacher
from amd_jax.trees import overlay
from amd_jax.workdir import load_params
from configs import demo, vitb_in1k

DEPTH, LAYERS = 24, (6, 12, 18, 24)
WATCHED = (1, 12, 24)  # blocks whose gradients are compared
BATCH, CLASSES = 4, 1000
PARTS = ("stream", "drop_path", "head", "moments", "sizes")
FULL, HALF = {"model.dtype": "float32"}, {"model.dtype": "bfloat16"}
AS_STATED: dict[str, str | bool] = {"xla_allow_excess_precision": False}


@dataclasses.dataclass(frozen=True)
class Found:
    """What one variant computes."""

    loss: float
    gradients: Any


def config_of(argument: str, keys: Mapping[str, Any]) -> ConfigDict:
    """The demo's config with `keys`, attention as on a TPU."""
    config = demo.get_config(argument)
    config.model.attention = "xla"
    config.update_from_flattened_dict(dict(keys))
    return hardware.resolved(config, "cpu")


def deep(width: int, heads: int, patch: int) -> dict[str, Any]:
    """Keys of a student and a teacher of 24 blocks; half and three quarters of the patches are seen."""
    encoder = {"width": width, "depth": DEPTH, "heads": heads}
    tokens = (28 // patch) ** 2
    return {
        **{f"{who}.{name}": value for who in ("student", "teacher") for name, value in encoder.items()},
        "model.patch_size": patch,
        "mask.student_visible": tokens // 2,
        "mask.teacher_visible": tokens * 3 // 4,
        "align.student_layers": (12, 24),
        "align.teacher_layers": (12, 24),
    }


def batch_of(task: Task, count: int = BATCH) -> dict[str, Any]:
    """Images and labels, prepared with one key."""
    source = EmbeddedSource("eval")
    images = np.stack([np.asarray(source[i].content) for i in range(count)])
    labels = np.arange(count, dtype=np.int32)
    return task.prepare(
        jax.random.key(1), {"pixels": images.reshape(count, *task.input_shape), "label": labels}
    )


def run(function: Callable[..., Any], *args: Any) -> Any:
    """`function` of `args`, rounded as it says."""
    return jax.jit(function).lower(*args).compile(compiler_options=AS_STATED)(*args)


def found(config: ConfigDict, task: Task, params: Any, frozen: Any, batch: Any) -> Found:
    """Loss and gradients of a prepared batch."""
    grad = jax.value_and_grad(task.batch_loss, has_aux=True)
    (loss, _), gradients = run(grad, params, cast_teacher(config, frozen), batch)
    return Found(float(loss), gradients)


def features(task: Pretraining, params: Any, pixels: Any) -> dict[int, jax.Array]:
    """What the student's encoder says of whole images, at `LAYERS`."""

    def tapped(params: Any, pixels: Any) -> Any:
        x = patches.normalize(patches.patchify(pixels, task.patch), task.mean, task.std)
        at = jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape[:2])
        return ViT(task.student.encoder, final_norm=False).apply({"params": params}, x, at, LAYERS)[1]

    return run(tapped, params["encoder"], pixels)


def error(a: Any, b: Any) -> float:
    """Relative RMS error of `a` against `b`, arrays or trees."""
    a, b = flattened(a), flattened(b)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def cosine(a: Any, b: Any) -> float:
    """Of the angle between two arrays or trees."""
    a, b = flattened(a), flattened(b)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def flattened(tree: Any) -> np.ndarray:
    """One vector."""
    return np.concatenate([np.ravel(np.asarray(x, np.float64)) for x in jax.tree.leaves(tree)])


def kernels(gradients: Any, block: int) -> Any:
    """The gradients of the matrices of a block, counted from 1."""
    layers = gradients["encoder"]["blocks"]["layers"]
    attn, mlp = layers["attn"], layers["mlp"]
    all_layers = (attn["qkv"], attn["proj"]["kernel"], mlp["fc1"]["kernel"], mlp["fc2"]["kernel"])
    return [x[block - 1] for x in all_layers]


def row(*cells: str) -> None:
    """A line of a table, at once."""
    print("| " + " | ".join(cells) + " |", flush=True)


def head(*cells: str) -> None:
    """The first lines of a table."""
    print()
    row(*cells)
    print("|" + "---|" * len(cells))


def of_gradients(ours: Found, exact: Found) -> list[str]:
    """The cells of loss and gradients."""
    pairs = [(kernels(ours.gradients, n), kernels(exact.gradients, n)) for n in WATCHED]
    loss = f"{abs(ours.loss / exact.loss - 1):.1e}"
    return [loss, *(f"{error(a, b):.4f} ({cosine(a, b):.6f})" for a, b in pairs)]


GRADIENTS = ("loss", *(f"gradient, block {n} (cosine)" for n in WATCHED))


def trained(folder: Path, config: ConfigDict, steps: int) -> str:
    """The workdir of a run of so many steps, which is made unless it is there; it prints to stderr."""
    config.steps, config.optim.warmup_steps = steps, steps // 10
    config.log.pictures_every, config.checkpoint.every = 0, steps
    if not (folder / "checkpoints" / str(steps)).is_dir():
        with contextlib.redirect_stdout(sys.stderr):
            loop.train(setup.prepare(config, str(folder)))
    return str(folder)


def encoder_trained(folder: Path, keys: Mapping[str, Any], steps: int) -> Any:
    """The parameters of an encoder after so many steps of MAE, by the demo's recipe but 16 images a step."""
    config = demo.get_config("teacher")
    config.update_from_flattened_dict({k: v for k, v in keys.items() if not k.startswith(("mask", "align"))})
    config.batch_size = 16
    return load_params(trained(folder, config, steps))[0]["encoder"]


def stream(start: str, keys: Mapping[str, Any], encoder: Any) -> None:
    """Rows of the residual stream: a step of AMD, both encoders with the parameters `encoder` if given."""
    variants = {
        "float32, float32": FULL,
        "float32, bfloat16": FULL | {"model.residual": "bfloat16"},
        "bfloat16, float32": HALF | {"model.residual": "float32"},
        "bfloat16, bfloat16": HALF | {"model.residual": "bfloat16"},
    }
    exact = params = frozen = layers = None
    for name, types in variants.items():
        config = config_of("amd", {**keys, **types})
        task = Pretraining.from_config(config)
        if exact is None:
            params, frozen = (jax.jit(init)(jax.random.key(0)) for init in (task.init, task.init_frozen))
            if encoder is not None:
                params, frozen = overlay(params, {"encoder": encoder}), overlay(frozen, encoder)
        batch = batch_of(task)
        ours, said = found(config, task, params, frozen, batch), features(task, params, batch["pixels"])
        exact, layers = exact or ours, layers or said
        if ours is not exact:
            cells = (f"{error(said[n], layers[n]):.4f}" for n in LAYERS)
            row(start, name, *cells, *of_gradients(ours, exact))


def drop_path(keys: Mapping[str, Any], encoder: Any) -> None:
    """Rows of drop path's factors in fine-tuning: as drawn, or rounded to bfloat16."""
    tune = {**keys, "finetune.drop_path": 0.2, "finetune.head_std": 0.02}
    exact = params = None
    for types, kept in ((FULL, jnp.float32), (FULL, jnp.bfloat16), (HALF, jnp.float32), (HALF, jnp.bfloat16)):
        config = config_of("finetune", {**tune, **types})
        task = make_task(config, CLASSES)
        if exact is None:
            params = overlay(jax.jit(task.init)(jax.random.key(0)), {"encoder": encoder})
        batch = batch_of(task)
        batch["keep"] = batch["keep"].astype(kept).astype(jnp.float32)
        ours = found(config, task, params, {}, batch)
        exact = exact or ours
        if ours is not exact:
            row(types["model.dtype"], jnp.dtype(kept).name, *of_gradients(ours, exact))


class HalfHead(Finetuning):
    """Fine-tuning whose heads take and give bfloat16."""

    def _classify(self, model: Classifier, params: Any, x: jax.Array, *drops: jax.Array | None) -> jax.Array:
        kernel = params["head"]["kernel"].astype(jnp.bfloat16).astype(jnp.float32)

        def half(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            if context.module.name != "head":
                return call(*args, **kwargs)
            return call(args[0].astype(jnp.bfloat16)).astype(jnp.bfloat16).astype(jnp.float32)

        with nn.intercept_methods(half):
            rounded = {**params, "head": {**params["head"], "kernel": kernel}}
            return super()._classify(model, rounded, x, *drops)


def heads(keys: Mapping[str, Any], encoder: Any) -> None:
    """Rows of the head in distillation from logits, which are as far apart as a trained head's."""
    kd = {**keys, "method": "kd", "finetune.kd_weight": 0.5, "finetune.head_std": 0.2}
    kd |= {"teacher.random": True, "loss.direct_weight": 1.0}
    exact = params = frozen = None
    for types, make in ((FULL, Finetuning), (FULL, HalfHead), (HALF, Finetuning), (HALF, HalfHead)):
        config = config_of("finetune", {**kd, **types})
        task = make.from_config(config, CLASSES)
        if exact is None:
            drawn = (jax.jit(f)(jax.random.key(i)) for i, f in enumerate((task.init, task.init_frozen)))
            params, frozen = (overlay(tree, {"encoder": encoder}) for tree in drawn)
        ours = found(config, task, params, frozen, batch_of(task))
        exact = exact or ours
        if ours is not exact:
            of_head = error(ours.gradients["head"]["kernel"], exact.gradients["head"]["kernel"])
            name = "bfloat16" if make is HalfHead else "float32"
            row(types["model.dtype"], name, *of_gradients(ours, exact), f"{of_head:.4f}")


def moments(workdir: Path, steps: int) -> None:
    """Rows of first moments: how far runs of the demo's MAE that start alike end from each other."""
    half = {"optim.moments": "bfloat16"}
    variants: dict[str, dict[str, Any]] = {
        "float32, moments in float32": {},
        "float32, moments in bfloat16": half,
        "float32, sums in another order (`accum_steps=2`)": {"accum_steps": 2},
        "float32, other masks, crops and order of examples (`seed=1`)": {"seed": 1},
        "bfloat16, moments in float32, stream in bfloat16": HALF,
        "bfloat16, moments and stream in bfloat16": HALF | half,
        "bfloat16, moments and stream in float32": HALF | {"model.residual": "float32"},
    }
    start = trained(workdir / "start", demo.get_config("mae"), steps)
    before, base = load_params(start)[0], None
    task = make_task(config_of("mae", {}), 0)
    for number, (name, keys) in enumerate(variants.items()):
        config = demo.get_config("mae")
        config.update_from_flattened_dict({**keys, "student.weights": start})
        params = load_params(trained(workdir / f"moments{number}", config, steps))[0]
        base = base or params
        moved, apart = (jax.tree.map(np.subtract, base, other) for other in (before, params))
        far = np.linalg.norm(flattened(apart)) / np.linalg.norm(flattened(moved))
        loss, _ = run(task.batch_loss, params, {}, batch_of(task, 500))
        row(name, f"{far:.4f}", f"{loss:.5f}")


def of_chip(residual: str, images: int) -> tuple[Pretraining, Any, int]:
    """The task of `configs/vitb_in1k.py`, shapes of what it trains, and bytes its backward pass reads."""
    config = vitb_in1k.get_config("")
    config.model.residual = residual
    task = Pretraining.from_config(hardware.resolved(config, "tpu"))
    key = jax.random.key(0)
    params, frozen = (jax.eval_shape(init, key) for init in (task.init, task.init_frozen))

    def backward(params: Any, frozen: Any, pixels: Any) -> Any:
        batch = task.prepare(key, {"pixels": pixels})
        return jax.vjp(lambda p: task.batch_loss(p, frozen, batch)[0], params)[1]

    pixels = jax.ShapeDtypeStruct((images, *task.input_shape), jnp.uint8)
    arrays = jax.tree.leaves(jax.eval_shape(backward, params, frozen, pixels))
    return task, params, sum(x.size * x.dtype.itemsize for x in arrays)


def sizes(images: int = 16) -> None:
    """Rows of what a chip keeps, in MiB."""
    (task, params, full), (_, _, half) = (of_chip(name, images) for name in ("float32", "bfloat16"))
    student = task.student
    assert student.align is not None
    assert student.align.generator is not None
    prefix = int(student.encoder.cls_token)
    stacks = (
        (1, student.encoder.depth, task.student_visible + prefix, student.encoder.block.width),
        (1, student.decoder.depth, student.encoder.tokens + prefix, student.decoder.block.width),
        (
            *(len(student.align.student_gen), student.align.generator_depth),
            *(task.teacher_visible, student.align.generator.width),
        ),
    )
    numbers = images * sum(math.prod(stack) for stack in stacks)
    rows = {
        "between the student's blocks": (4 * numbers, 2 * numbers),
        "all that jax keeps for the backward pass, before a compiler sees it": (full, half),
    }
    for name, tree in (("encoder", params["encoder"]), ("all that is trained", params)):
        count = sum(x.size for x in jax.tree.leaves(tree))
        rows[f"first moments, {name} ({count / 1e6:.0f} M)"] = (4 * count, 2 * count)
    for name, pair in rows.items():
        row(name, *(f"{size / 2**20:.0f}" for size in pair))


def main() -> None:
    """Trains what is missing, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=200, help="of a run, and of those before it starts")
    parser.add_argument("--parts", nargs="*", default=PARTS, choices=PARTS, help="tables; default: all")
    args = parser.parse_args()
    wide, small = deep(256, 4, 2), deep(96, 3, 4)
    if {"stream", "drop_path", "head"} & set(args.parts):
        encoder = encoder_trained(args.workdir / "encoder", small, args.steps)
    if "stream" in args.parts:
        head("start", "compute, stream", *(f"features, layer {n}" for n in LAYERS), *GRADIENTS)
        stream("trained, 49 tokens, width 96", small, encoder)
        stream("random, 196 tokens, width 256", wide, None)
    if "drop_path" in args.parts:
        head("compute", "drop path's factor", *GRADIENTS)
        drop_path(small, encoder)
    if "head" in args.parts:
        head("compute", "head", *GRADIENTS, "gradient, head")
        heads(small, encoder)
    if "moments" in args.parts:
        head("run", "how far from the first, of its way", "loss on 500 images")
        moments(args.workdir, args.steps)
    if "sizes" in args.parts:
        head("MiB of a chip with 16 images", "float32", "bfloat16")
        sizes()


if __name__ == "__main__":
    main()
