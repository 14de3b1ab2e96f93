"""Replays recorded cases of the published implementations: `python -m amd_jax.convert verify FILE`.

A case is a safetensors file with weights under `student/`, `teacher/` or `model/`, inputs under `in/`,
outputs under `out/`, gradients under `grad/`, and its sizes as JSON under the metadata key `config`.
"""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from amd_jax import losses
from amd_jax.config import IMAGENET_MEAN, IMAGENET_STD, ConfigError
from amd_jax.convert import official, tables
from amd_jax.masking import Masks, masks_from_levels
from amd_jax.models.blocks import BlockConfig
from amd_jax.models.classifier import Classifier
from amd_jax.models.student import AlignConfig, DecoderConfig, Student
from amd_jax.models.vit import ViT, ViTConfig
from amd_jax.patches import normalize, patchify
from amd_jax.steps.pretrain import Pretraining

OUTPUT_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class Case:
    """A recorded case: its sizes, and its arrays by name."""

    sizes: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @classmethod
    def load(cls, path: str) -> "Case":
        """Reads a case.

        Raises:
          ConfigError: no such file, not safetensors, or without a config.
        """
        try:
            with safe_open(path, "np") as file:
                sizes = json.loads((file.metadata() or {})["config"])
                return cls(sizes, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise ConfigError(f"{path}: not a readable safetensors file ({error})") from error
        except (KeyError, json.JSONDecodeError) as error:
            raise ConfigError(f"{path}: its metadata has no JSON under the key 'config'") from error

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays below `prefix`, without it."""
        return {k.removeprefix(prefix): v for k, v in self.arrays.items() if k.startswith(prefix)}

    @property
    def kind(self) -> str:
        """Which of the four kinds of case this is, from the names of its arrays."""
        names = self.arrays.keys()
        if "in/level" in names and "student/encoder.patch_embed.proj.weight" in names:
            return "amd_video"
        if any(n.startswith("student/aligned_feature_projection_heads") for n in names):
            return "dmae_image"
        if "model/decoder_pred.weight" in names:
            return "mae_image"
        if "model/fc_norm.weight" in names and "in/video" in names:
            return "video_classifier"
        raise ConfigError("not a case of amd_video, dmae_image, mae_image or video_classifier")


def errors(case: Case) -> dict[str, float]:
    """The relative error, max |ours − theirs| / max |theirs|, of every recorded output and gradient."""
    computed = REPLAYS[case.kind](case)
    wanted = {k: v for k, v in case.arrays.items() if k.startswith(("out/", "grad/"))}
    if unknown := sorted(wanted.keys() - computed.keys()):
        raise ConfigError(f"recorded but not computed by our {case.kind}: {', '.join(unknown)}")
    return {name: _relative_error(computed[name], value) for name, value in sorted(wanted.items())}


def passes(name: str, error: float) -> bool:
    """Whether an error is within the tolerance of its kind."""
    return error <= (GRADIENT_TOLERANCE if name.startswith("grad/") else OUTPUT_TOLERANCE)


def _relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if ours.shape != theirs.shape:
        return float("inf")
    scale = np.abs(theirs).max(initial=0)
    error = np.abs(ours - theirs).max(initial=0)
    return float(error / scale) if scale else float(error)


def _block(width: int, heads: int, qkv_bias: str) -> BlockConfig:
    return BlockConfig(width, heads, 4 * width, qkv_bias)


def _pixels(case: Case) -> jax.Array:
    """`[batch, frames, height, width, channels]` in [0, 1]."""
    if "in/video" in case.arrays:
        return jnp.asarray(case.arrays["in/video"].transpose(0, 2, 3, 4, 1))
    return jnp.asarray(case.arrays["in/images"].transpose(0, 2, 3, 1)[:, None])


def _patch_and_grid(pixels: jax.Array, kernel: np.ndarray) -> tuple[official.Patch, official.Patch]:
    """From the convolution `[width, channels, (t,) h, w]` of the patch embedding."""
    size = kernel.shape[2:]
    patch = (size[0] if len(size) == 3 else 1, size[-2], size[-1])
    t, h, w = (n // p for n, p in zip(pixels.shape[1:4], patch, strict=True))
    return patch, (t, h, w)


def _gradients(
    table: list[tables.Entry], loss: Callable[[Any], Any], params: Any
) -> tuple[jax.Array, dict[str, jax.Array], dict[str, Any]]:
    """Loss, its parts, and the gradients under their names."""
    (value, parts), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    theirs = tables.write(table, tables.flatten(grads))
    return value, parts, {f"grad/{name}": g for name, g in theirs.items()}


def _read(table: list[tables.Entry], arrays: dict[str, np.ndarray]) -> Any:
    return tables.nest(tables.read(table, arrays.__getitem__))


def _in_token_order(values: jax.Array, at: jax.Array) -> np.ndarray:
    return np.asarray(jnp.take_along_axis(values, jnp.argsort(at, axis=1)[..., None], axis=1))


def _amd_video(case: Case) -> dict[str, Any]:
    s, pixels = case.sizes, _pixels(case)
    patch, grid = _patch_and_grid(pixels, case.arrays["student/encoder.patch_embed.proj.weight"])
    width = s["teacher_dim"]
    align = AlignConfig(
        width,
        tuple(s["student_layers_direct"]),
        tuple(s["teacher_layers_direct"]),
        tuple(s["student_layers_gen"]),
        tuple(s["teacher_layers_gen"]),
        generator=_block(width, max(1, width // 64), "qv"),
        generator_depth=s["generator_depth"],
    )
    decoder = DecoderConfig(
        _block(s["decoder_dim"], s["decoder_heads"], "qv"), s["decoder_depth"], "sincos_1d", False
    )
    encoder = ViTConfig(_block(s["dim"], s["heads"], "qv"), s["depth"], grid, False, "sincos_1d")
    student = Student(encoder, decoder, align)
    depth = max(align.teacher_layers)
    teacher = ViT(
        ViTConfig(_block(width, s["teacher_heads"], "qv"), depth, grid, False, "sincos_1d"), final_norm=False
    )
    loss = losses.LossConfig(
        "channel",
        s["align_loss"].lower(),
        rec_weight=s["rec_weight"],
        direct_weight=s["direct_weight"],
        gen_weight=s["gen_weight"],
    )
    run = Pretraining(student, teacher, loss, patch, IMAGENET_MEAN, IMAGENET_STD, 0, 0)
    channels = pixels.shape[-1]
    table = official.amd_student(student, patch, channels)
    teacher_table = official.encoder("", "", teacher.config, patch, channels, video=True, final_norm=False)
    params = _read(table, case.group("student/"))
    frozen = _read(teacher_table, case.group("teacher/"))
    masks = masks_from_levels(case.arrays["in/level"])

    total, parts, out = _gradients(table, lambda p: run.loss_fn(p, frozen, pixels, masks), params)
    ours = run.student_output(params, pixels, masks)
    direct, gen = run.aligned_teacher(frozen, pixels, masks)
    hidden = masks.hidden
    out |= {
        "out/loss": total,
        "out/loss_mae": parts["loss_rec"],
        "out/loss_direct": parts["loss_direct"],
        "out/loss_gen": parts["loss_gen"],
        "out/pred": _in_token_order(ours.pixels, hidden),
        "out/target": _in_token_order(run.targets(pixels, hidden), hidden),
    }
    features = {"student_direct": ours.direct, "student_gen": ours.gen}
    features |= {"teacher_direct": direct, "teacher_gen": gen}
    for name, layers in features.items():
        out |= {f"out/{name}.{i}": x for i, x in enumerate(layers)}
    return out


def _image_masks(case: Case) -> Masks:
    """The recorded visible tokens; student and teacher see the same ones."""
    return masks_from_levels(np.where(case.arrays["in/mask"] > 0, 2, 0))


def _image_student(case: Case, prefix: str, align: AlignConfig | None) -> tuple[Student, official.Patch]:
    s = case.sizes
    patch, grid = _patch_and_grid(_pixels(case), case.arrays[f"{prefix}patch_embed.proj.weight"])
    decoder = DecoderConfig(
        _block(s["decoder_dim"], s["decoder_heads"], "qkv"), s["decoder_depth"], "sincos_2d", True
    )
    return Student(ViTConfig(_block(s["dim"], s["heads"], "qkv"), s["depth"], grid), decoder, align), patch


def _mae_image(case: Case) -> dict[str, Any]:
    student, patch = _image_student(case, "model/", None)
    loss = losses.LossConfig("patch" if case.sizes["norm_pix"] else "pixels")
    run = Pretraining(student, None, loss, patch, IMAGENET_MEAN, IMAGENET_STD, 0, 0)
    out, _ = _replay_image(case, run, "model/", {})
    return out


def _dmae_image(case: Case) -> dict[str, Any]:
    s = case.sizes
    student_blocks, teacher_blocks = s["student_blocks"], s["teacher_blocks"]
    align = AlignConfig(
        s["teacher_dim"],
        tuple(i + 1 for i in student_blocks),  # their blocks count from 0, our layers from 1
        tuple(i + 1 for i in teacher_blocks),
        projection_bias=True,
        cls_token=True,
    )
    student, patch = _image_student(case, "student/", align)
    config = dataclasses.replace(
        student.encoder,
        block=_block(s["teacher_dim"], s["teacher_heads"], "qkv"),
        depth=max(align.teacher_layers),
    )
    teacher = ViT(config, final_norm=False)
    loss = losses.LossConfig(
        "patch" if s["norm_pix"] else "pixels", s["align_loss"].lower(), feature_norm="l2", layers="sum"
    )
    run = Pretraining(student, teacher, loss, patch, IMAGENET_MEAN, IMAGENET_STD, 0, 0)
    teacher_table = official.encoder("", "", config, patch, 3, video=False, final_norm=False)
    frozen = _read(teacher_table, case.group("teacher/"))
    out, ours = _replay_image(case, run, "student/", frozen)
    theirs, _ = run.aligned_teacher(frozen, _pixels(case), _image_masks(case))
    for block, a, b in zip(student_blocks, ours.direct, theirs, strict=True):
        out[f"out/loss_align_block{block}"] = losses.align([a], [b], loss)
    return out


def _replay_image(case: Case, run: Pretraining, prefix: str, frozen: Any) -> tuple[dict[str, Any], Any]:
    """Gradients, losses and predictions of an image case, and our outputs."""
    pixels, masks = _pixels(case), _image_masks(case)
    table = official.mae_student(run.student, run.patch, pixels.shape[-1])
    params = _read(table, case.group(prefix))
    total, parts, out = _gradients(table, lambda p: run.loss_fn(p, frozen, pixels, masks), params)
    ours = run.student_output(params, pixels, masks, predict_all=True)
    at = jnp.concatenate([masks.student, masks.hidden], axis=1)
    pred = _in_token_order(ours.pixels, at)
    return out | {"out/loss": total, "out/loss_rec": parts["loss_rec"], "out/pred": pred}, ours


def _video_classifier(case: Case) -> dict[str, Any]:
    s, pixels = case.sizes, _pixels(case)
    patch, grid = _patch_and_grid(pixels, case.arrays["model/patch_embed.proj.weight"])
    config = ViTConfig(_block(s["dim"], s["heads"], "qv"), s["depth"], grid, False, "sincos_1d")
    model = Classifier(config, s["classes"], pool="mean")
    table = official.video_classifier(config, patch, pixels.shape[-1])
    x = normalize(patchify(pixels, patch), IMAGENET_MEAN, IMAGENET_STD)
    at = jnp.broadcast_to(jnp.arange(config.tokens), x.shape[:2])
    labels = jax.nn.one_hot(case.arrays["in/labels"], s["classes"])

    def loss(params: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        logits: Any = model.apply({"params": params}, x, at)
        return -jnp.mean(jnp.sum(labels * jax.nn.log_softmax(logits), axis=-1)), {"logits": logits}

    total, parts, out = _gradients(table, loss, _read(table, case.group("model/")))
    return out | {"out/loss": total, "out/logits": parts["logits"]}


REPLAYS: dict[str, Callable[[Case], dict[str, Any]]] = {
    "amd_video": _amd_video,
    "mae_image": _mae_image,
    "dmae_image": _dmae_image,
    "video_classifier": _video_classifier,
}
