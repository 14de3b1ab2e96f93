"""Replays recorded cases of the published implementations: `python -m amd_jax.convert verify FILE`.

A case is a safetensors file with weights under `student/`, `teacher/` or `model/`, inputs under `in/`,
outputs under `out/`, gradients under `grad/`, and its sizes as JSON under the metadata key `config`. Sizes
that the weights show are read off them; the JSON says the rest: heads, aligned layers, the loss.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from amd_jax.config import IMAGENET_MEAN, IMAGENET_STD
from amd_jax.convert.files.tensors import Source, read_safetensors
from amd_jax.convert.kinds import Found, recognise
from amd_jax.convert.names import entries, official
from amd_jax.errors import UserError, WeightsError
from amd_jax.models.masking import Masks, masks_from_levels
from amd_jax.models.patches import normalize, patchify
from amd_jax.models.student import AlignConfig, Student
from amd_jax.models.vit import ViT
from amd_jax.steps import losses
from amd_jax.steps.pretrain import Pretraining
from amd_jax.trees import flatten, nest

OUTPUT_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4
_Layers = tuple[Sequence[int], Sequence[int]]


@dataclasses.dataclass(frozen=True)
class Case:
    """A recorded case: its sizes, and its arrays by name."""

    path: str
    sizes: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @classmethod
    def load(cls, path: str) -> "Case":
        """Reads a case.

        Raises:
          WeightsError: no such file, not safetensors, or without a config.
        """
        try:
            source = read_safetensors(path)
            sizes = json.loads(source.metadata["config"])
            if not isinstance(sizes, dict):
                raise KeyError("config")
            return cls(path, sizes, source.arrays)
        except (KeyError, json.JSONDecodeError) as error:
            raise WeightsError(f"{path}: its metadata has no JSON object under the key 'config'") from error

    @property
    def kind(self) -> str:
        """Which of the four kinds of case this is, from the names of its arrays.

        Raises:
          WeightsError: none of them.
        """
        names = self.arrays.keys()
        if "in/level" in names and "student/encoder.patch_embed.proj.weight" in names:
            return "amd_video"
        if any(n.startswith("student/aligned_feature_projection_heads") for n in names):
            return "dmae_image"
        if "model/decoder_pred.weight" in names and "in/images" in names:
            return "mae_image"
        if "model/head.weight" in names and "in/video" in names:
            return "video_classifier"
        kinds = "amd_video, dmae_image, mae_image or video_classifier"
        raise WeightsError(f"{self.path}: not a case of {kinds}; it has {', '.join(sorted(names)[:4])}, …")

    def weights(self, prefix: str, pixels: jax.Array) -> tuple[Found, Any]:
        """The weights below `prefix`, and our parameters; heads as the case states them.

        Raises:
          WeightsError: they are not whole.
        """
        s = self.sizes
        arrays = {k.removeprefix(prefix): v for k, v in self.arrays.items() if k.startswith(prefix)}
        source = Source(f"{self.path}:{prefix}", "case", arrays)
        decoder_heads = None if prefix == "teacher/" else s.get("decoder_heads")
        given = {"decoder_heads": decoder_heads, "generator_heads": s.get("generator_heads")}
        given["heads"] = s.get("teacher_heads" if prefix == "teacher/" else "heads")
        patch = recognise(source, given=given).network.patch
        grid = tuple(n // p for n, p in zip(pixels.shape[1:4], patch, strict=True))
        found = recognise(source, given=given | {"grid": grid})
        if missing := found.shapes.keys() - found.arrays.keys():
            raise WeightsError(f"{source.path}: nothing in it for {', '.join(sorted(missing))}")
        return found, nest({name: array.astype(np.float32) for name, array in found.arrays.items()})


def errors(case: Case) -> dict[str, float]:
    """The relative error of every recorded output and gradient.

    It is max |ours - theirs| / max |theirs| over an array, and the absolute one where theirs is all zero.

    Raises:
      WeightsError: the case lacks something, or records something that is not known here.
    """
    wanted = {k: v for k, v in case.arrays.items() if k.startswith(("out/", "grad/"))}
    if not wanted:
        raise WeightsError(f"{case.path}: records neither outputs nor gradients")
    kind = case.kind
    try:
        with jax.default_matmul_precision("highest"):
            computed = REPLAYS[kind](case)
    except KeyError as error:
        raise WeightsError(f"{case.path}: a case of {kind} needs {error}, which is not in it") from error
    except (ValueError, TypeError, IndexError) as error:
        if isinstance(error, UserError):
            raise
        why = str(error).strip().split("\n")[0][:200]
        raise WeightsError(f"{case.path}: its sizes do not fit together ({why})") from error
    if unknown := sorted(wanted.keys() - computed.keys()):
        some = ", ".join(unknown[:6]) + (" …" if len(unknown) > 6 else "")
        raise WeightsError(f"{case.path}: recorded but not computed by our {kind}: {some}")
    return {name: _relative_error(computed[name], value) for name, value in sorted(wanted.items())}


def passes(name: str, error: float) -> bool:
    """Whether an error is within the tolerance of its kind; NaN is not."""
    return error <= (GRADIENT_TOLERANCE if name.startswith("grad/") else OUTPUT_TOLERANCE)


def _relative_error(ours: Any, theirs: np.ndarray) -> float:
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if ours.shape != theirs.shape:
        return float("inf")
    scale = np.abs(theirs).max(initial=0)
    error = np.abs(ours - theirs).max(initial=0)
    return float(error / scale) if scale else float(error)


def _pixels(case: Case) -> jax.Array:
    """`[batch, frames, height, width, channels]` in [0, 1]."""
    if "in/video" in case.arrays:
        return jnp.asarray(case.arrays["in/video"].transpose(0, 2, 3, 4, 1))
    return jnp.asarray(case.arrays["in/images"].transpose(0, 2, 3, 1)[:, None])


def _once(function: Callable[..., Any], *arguments: Any) -> Any:
    """Runs a function compiled; for one run, on the CPU, optimising it takes longer than it saves."""
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(function, compiler_options=options)(*arguments)


def _gradients(
    found: Found, loss: Callable[[Any], Any], params: Any
) -> tuple[jax.Array, dict[str, jax.Array], dict[str, Any]]:
    """Loss, its parts, and the gradients under their names."""
    (value, parts), grads = _once(jax.value_and_grad(loss, has_aux=True), params)
    theirs = entries.write(official.table(entries.Parts.of(found.network)), flatten(grads))
    return value, parts, {f"grad/{name}": g for name, g in theirs.items()}


def _in_token_order(values: jax.Array, at: jax.Array) -> np.ndarray:
    order = np.argsort(np.asarray(at), axis=1)
    return np.take_along_axis(np.asarray(values), order[..., None], axis=1)


def _distance(case: Case) -> str:
    """The alignment distance."""
    try:
        return losses.distance_name(str(case.sizes.get("align_loss", "l2")))
    except ValueError as error:
        raise WeightsError(f"{case.path}: align_loss is {error}") from error


def _teacher(case: Case, pixels: jax.Array, align: AlignConfig) -> tuple[ViT, Any]:
    """The teacher up to its last aligned layer, without a final norm."""
    found, params = case.weights("teacher/", pixels)
    config, depth = found.network.encoder, max(align.teacher_layers)
    if depth > config.depth:
        raise WeightsError(f"{case.path}: layer {depth} of a teacher that has {config.depth}")
    inner = params["encoder"]
    inner.pop("norm", None)
    inner["blocks"] = jax.tree.map(lambda x: x[:depth], inner["blocks"])
    return ViT(dataclasses.replace(config, depth=depth), final_norm=False), inner


def _aligned(found: Found, direct: _Layers, gen: _Layers = ((), ())) -> Student:
    """The student with the alignment of (student layers, teacher layers), counted from 1.

    Raises:
      WeightsError: the weights have no projections.
    """
    if found.network.align is None:
        raise WeightsError("no projection heads in it")
    align = dataclasses.replace(
        found.network.align,
        student_direct=tuple(direct[0]),
        teacher_direct=tuple(direct[1]),
        student_gen=tuple(gen[0]),
        teacher_gen=tuple(gen[1]),
    )
    return dataclasses.replace(found.network, align=align).student()


def _amd_video(case: Case) -> dict[str, Any]:
    s, pixels = case.sizes, _pixels(case)
    found, params = case.weights("student/", pixels)
    student = _aligned(
        found,
        (s["student_layers_direct"], s["teacher_layers_direct"]),
        (s["student_layers_gen"], s["teacher_layers_gen"]),
    )
    assert student.align is not None
    teacher, frozen = _teacher(case, pixels, student.align)
    loss = losses.LossConfig(
        "channel",
        _distance(case),
        rec_weight=s.get("rec_weight", 1.0),
        direct_weight=s.get("direct_weight", 1.0),
        gen_weight=s.get("gen_weight", 1.0),
    )
    patch = found.network.patch
    run = Pretraining(student, teacher, loss, patch, IMAGENET_MEAN, IMAGENET_STD, 0, 0)
    masks = masks_from_levels(case.arrays["in/level"])

    total, parts, out = _gradients(found, lambda p: run.loss_fn(p, frozen, pixels, masks), params)
    hidden = masks.hidden
    ours, (direct, gen), targets = _once(
        lambda p, f: (
            run.student_output(p, pixels, masks),
            run.aligned_teacher(f, pixels, masks),
            run.targets(pixels, hidden),
        ),
        params,
        frozen,
    )
    out |= {
        "out/loss": total,
        "out/loss_mae": parts["loss_rec"],
        "out/loss_direct": parts.get("loss_direct", 0.0),
        "out/loss_gen": parts.get("loss_gen", 0.0),
        "out/pred": _in_token_order(ours.pixels, hidden),
        "out/target": _in_token_order(targets, hidden),
    }
    features = {"student_direct": ours.direct, "student_gen": ours.gen}
    features |= {"teacher_direct": direct, "teacher_gen": gen}
    for name, layers in features.items():
        out |= {f"out/{name}.{i}": x for i, x in enumerate(layers)}
    return out


def _image_masks(case: Case) -> Masks:
    """The recorded visible tokens; student and teacher see the same ones."""
    return masks_from_levels(np.where(case.arrays["in/mask"] > 0, 2, 0))


def _mae_image(case: Case) -> dict[str, Any]:
    pixels = _pixels(case)
    found, params = case.weights("model/", pixels)
    loss = losses.LossConfig("patch" if case.sizes["norm_pix"] else "pixels")
    student = found.network.student()
    run = Pretraining(student, None, loss, found.network.patch, IMAGENET_MEAN, IMAGENET_STD, 0, 0)
    out, _ = _replay_image(case, run, found, params, {})
    return out


def _dmae_image(case: Case) -> dict[str, Any]:
    s, pixels = case.sizes, _pixels(case)
    student_blocks, teacher_blocks = s["student_blocks"], s["teacher_blocks"]
    found, params = case.weights("student/", pixels)
    # Their blocks count from 0, our layers from 1; features are collected in the order of the blocks.
    layers = [[i + 1 for i in sorted(blocks)] for blocks in (student_blocks, teacher_blocks)]
    student = _aligned(found, (layers[0], layers[1]))
    assert student.align is not None
    teacher, frozen = _teacher(case, pixels, student.align)
    loss = losses.LossConfig(
        "patch" if s["norm_pix"] else "pixels", _distance(case), feature_norm="l2", layers="sum"
    )
    run = Pretraining(student, teacher, loss, found.network.patch, IMAGENET_MEAN, IMAGENET_STD, 0, 0)
    out, ours = _replay_image(case, run, found, params, frozen)
    masks = _image_masks(case)
    theirs, _ = _once(lambda f: run.aligned_teacher(f, pixels, masks), frozen)
    for block, a, b in zip(student_blocks, ours.direct, theirs, strict=True):
        out[f"out/loss_align_block{block}"] = losses.align([a], [b], loss)
    return out


def _replay_image(
    case: Case, run: Pretraining, found: Found, params: Any, frozen: Any
) -> tuple[dict[str, Any], Any]:
    """Gradients, losses and predictions of an image case, and our outputs."""
    pixels, masks = _pixels(case), _image_masks(case)
    total, parts, out = _gradients(found, lambda p: run.loss_fn(p, frozen, pixels, masks), params)
    ours = _once(lambda p: run.student_output(p, pixels, masks, predict_all=True), params)
    at = jnp.concatenate([masks.student, masks.hidden], axis=1)
    pred = _in_token_order(ours.pixels, at)
    return out | {"out/loss": total, "out/loss_rec": parts["loss_rec"], "out/pred": pred}, ours


def _video_classifier(case: Case) -> dict[str, Any]:
    pixels = _pixels(case)
    found, params = case.weights("model/", pixels)
    model, network = found.network.classifier(), found.network
    x = normalize(patchify(pixels, network.patch), IMAGENET_MEAN, IMAGENET_STD)
    at = jnp.broadcast_to(jnp.arange(network.encoder.tokens), x.shape[:2])
    labels = jax.nn.one_hot(case.arrays["in/labels"], network.classes)

    def loss(params: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        logits: Any = model.apply({"params": params}, x, at)
        return -jnp.mean(jnp.sum(labels * jax.nn.log_softmax(logits), axis=-1)), {"logits": logits}

    total, parts, out = _gradients(found, loss, params)
    return out | {"out/loss": total, "out/logits": parts["logits"]}


REPLAYS: dict[str, Callable[[Case], dict[str, Any]]] = {
    "amd_video": _amd_video,
    "mae_image": _mae_image,
    "dmae_image": _dmae_image,
    "video_classifier": _video_classifier,
}
