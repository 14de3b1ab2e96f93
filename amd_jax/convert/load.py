"""Weights for a model that a config describes: what training calls.

Everything that training cannot use is an error that names the config key to change; everything else that is
not simply copied is in the report.
"""

import dataclasses
from typing import Any

import numpy as np

from amd_jax.convert.account import Row, summary
from amd_jax.convert.files.opening import open_source
from amd_jax.convert.importing import headline
from amd_jax.convert.kinds import Found, recognise
from amd_jax.convert.matching import Want, match
from amd_jax.convert.network import Triple, parameter_shapes
from amd_jax.errors import WeightsError
from amd_jax.models.blocks import BlockConfig
from amd_jax.models.classifier import Classifier
from amd_jax.models.sizes import SIZES
from amd_jax.models.student import Student
from amd_jax.models.vit import TEACHER_OPTIONS, ViT, ViTConfig, option
from amd_jax.trees import nest

_BEFORE_NORM = {"encoder/norm": "features are taken before the final norm"}
_NO_DECODER = {"decoder": "decoder not needed"}
_NO_HEAD = {"head": "head not needed", "fc_norm": "belongs to the head"}
_NO_ALIGN = {
    "projection_": "belongs to its own distillation",
    "generator_": "belongs to its own distillation",
}


@dataclasses.dataclass(frozen=True)
class Loaded:
    """Parameters for a model.

    Attributes:
      params: nested dict of float32 arrays, without those in `new`.
      new: names (`head/kernel`) and shapes that the file cannot fill and the caller has to initialise.
      rows: what became of every weight.
      about: what the file was recognised as.
    """

    params: dict[str, Any]
    new: dict[str, tuple[int, ...]]
    rows: list[Row]
    about: list[str]

    @property
    def report(self) -> list[str]:
        """Lines for the log: what the file is, whatever is worth a look, and the totals."""
        told = [str(row) for row in self.rows if row.status != "used"]
        return [*self.about, *told, summary(self.rows)]


def load_encoder(
    src: str,
    want: ViTConfig,
    patch: Triple,
    channels: int,
    *,
    final_norm: bool,
    kind: str = "",
    who: str = "teacher",
) -> Loaded:
    """An encoder, cut to `want.depth` blocks; every parameter is there, so `new` is empty.

    Args:
      src: see `opening.open_source`.
      want: the encoder to fill.
      patch: frames, height and width of a token.
      channels: colour channels.
      final_norm: whether the encoder has one.
      kind: a name of `kinds.KINDS` to insist on.
      who: the config section that the error messages name, "teacher" or "student".

    Raises:
      WeightsError: unreadable, unknown, or not the encoder that is wanted.
    """
    reasons = _NO_DECODER | _NO_HEAD | _NO_ALIGN | ({} if final_norm else _BEFORE_NORM)
    loaded = _load(src, ViT(want, final_norm), patch, channels, kind, who, reasons)
    inner = loaded.params["encoder"]
    for name, shape in loaded.new.items():
        # A fine-tuned model with mean pooling has no final norm: it starts as one does.
        if name not in ("encoder/norm/scale", "encoder/norm/bias"):
            raise WeightsError(
                f"{who}.weights: {src} has no {', '.join(loaded.new)}: give a later checkpoint"
            )
        start = np.ones if name.endswith("scale") else np.zeros
        inner.setdefault("norm", {})[name.split("/")[-1]] = start(shape, np.float32)
    return dataclasses.replace(loaded, params=inner, new={})


def load_student(src: str, student: Student, patch: Triple, channels: int, kind: str = "") -> Loaded:
    """A pre-training model: its encoder at least, and of decoder and heads what has the same sizes."""
    return _load(src, student, patch, channels, kind, "student", _NO_HEAD | _NO_ALIGN)


def load_classifier(
    src: str, classifier: Classifier, patch: Triple, channels: int, kind: str = "", who: str = "student"
) -> Loaded:
    """A classifier: its encoder at least, and the head if the file has one of the same size."""
    reasons = {"encoder/norm": "this classifier normalises after pooling"} if classifier.pool != "cls" else {}
    return _load(src, classifier, patch, channels, kind, who, _NO_DECODER | _NO_ALIGN | reasons)


def _load(
    src: str,
    model: Student | Classifier | ViT,
    patch: Triple,
    channels: int,
    kind: str,
    who: str,
    reasons: dict[str, str],
) -> Loaded:
    shapes = parameter_shapes(model, patch[0] * patch[1] * patch[2] * channels)
    encoder = model.config if isinstance(model, ViT) else model.encoder
    if isinstance(model, ViT):
        shapes = {f"encoder/{name}": shape for name, shape in shapes.items()}
    want = Want(shapes, encoder, patch, model.decoder if isinstance(model, Student) else None)
    align = model.align if isinstance(model, Student) else None
    found = _with_wanted_guesses(recognise(open_source(src), kind), want, align.generator if align else None)
    _check(found, want, channels, who, of_features=who == "teacher" and isinstance(model, ViT))
    whole = match(found, want, reasons)
    have, here = found.network.encoder.block.norm_eps, encoder.block.norm_eps
    if have != here:  # it is no weight, and so is easily overlooked
        text = f"the file's norms were trained with epsilon {have:g}, here it is {here:g}"
        text += f"; config.teacher.norm_eps={have:g} sets it" if who == "teacher" else ""
        whole.rows.append(Row("note", "", "", (), text))
    arrays = {name: np.array(array, np.float32, order="C") for name, array in whole.arrays.items()}
    return Loaded(nest(arrays), whole.new, whole.rows, headline(found))


def _with_wanted_guesses(found: Found, want: Want, generator: BlockConfig | None) -> Found:
    """Where the file does not show a fact, the config's word for it is taken."""
    n = found.network

    def heads(fact: str, have: BlockConfig, wanted: BlockConfig | None) -> BlockConfig:
        if fact not in n.assumed or wanted is None or have.width % wanted.heads:
            return have
        return dataclasses.replace(have, heads=wanted.heads)

    encoder = dataclasses.replace(n.encoder, block=heads("heads", n.encoder.block, want.encoder.block))
    if "grid" in n.assumed and encoder.positions != "learned":
        encoder = dataclasses.replace(encoder, grid=want.encoder.grid)
    decoder, align = n.decoder, n.align
    if decoder and want.decoder:
        block = heads("decoder_heads", decoder.block, want.decoder.block)
        decoder = dataclasses.replace(decoder, block=block)
    if align and align.generator:
        block = heads("generator_heads", align.generator, generator)
        align = dataclasses.replace(align, generator=block)
    return found.taken_as(dataclasses.replace(n, encoder=encoder, decoder=decoder, align=align))


def _check(found: Found, want: Want, channels: int, who: str, of_features: bool) -> None:
    """The encoder must be the one the config describes; one line says what is not, and which keys to set.

    A teacher `of_features` has patches of its own, and what no student has.
    """
    patch_key = "teacher.patch_size" if of_features else "model.patch_size"
    n, have, asked = found.network, found.network.encoder, want.encoder
    h, w, size = have.block, asked.block, _size_keys(who, have)
    sizes = [
        ("width", h.width, w.width, size),
        (f"width {h.width} and MLP width", h.mlp_width, w.mlp_width, size),
        ("depth", have.depth, max(have.depth, asked.depth), f"{size}, or a smaller config.{who}.depth"),
        ("heads", h.heads, w.heads, f"config.{who}.heads={h.heads}"),
    ]
    others: list[tuple[str, Any, Any, str]] = [
        ("qkv_bias", h.qkv_bias, w.qkv_bias, f"config.{who}.qkv_bias={h.qkv_bias!r}"),
        ("cls_token", have.cls_token, asked.cls_token, f"config.{who}.cls_token={have.cls_token}"),
        ("channels", n.channels, channels, f"config.data.channels={n.channels}"),
        ("patch size", n.patch[1:], want.patch[1:], f"config.{patch_key}={n.patch[1]}"),
    ]
    for name in TEACHER_OPTIONS:
        value = option(have, name)
        others.append((name, value, option(asked, name), f"config.{who}.{name}={value!r}"))
    if asked.positions != "learned" or have.positions == "rotary":  # they can start from any table
        starts = who == "student" and have.positions != "rotary"
        more = ", or 'learned', which starts from it" if starts else ""
        key = f"config.{who}.positions={have.positions!r}{more}"
        others.append(("positions", have.positions, asked.positions, key))
    # One key sets all sizes, so that the first one that is wrong says enough.
    wrong = [fact for fact in sizes if fact[1] != fact[2]][:1] + [f for f in others if f[1] != f[2]]
    if wrong:
        where = f"{who}.weights: {found.source.path} ({found.kind})"
        if not of_features and (of_teachers := n.of_teachers()):
            has = ", ".join(f"{name} {value!r}" for name, value in of_teachers.items())
            raise WeightsError(f"{where} has {has}, which only a teacher of features may have")
        if who == "teacher" and h.norm_eps != w.norm_eps:
            wrong.append(("norm_eps", h.norm_eps, w.norm_eps, f"config.teacher.norm_eps={h.norm_eps:g}"))
        has = ", ".join(f"{what} {value!r}" for what, value, _, _ in wrong)
        asks = ", ".join(repr(value) for _, _, value, _ in wrong)
        keys = ", ".join(key for *_, key in wrong)
        raise WeightsError(f"{where} has {has}, the config asks for {asks}; set {keys}")


def _size_keys(who: str, encoder: ViTConfig) -> str:
    """The config keys for an encoder's size, by its name in models/sizes.py if it has one."""
    b, depth = encoder.block, encoder.depth
    fits = [n for n, s in SIZES.items() if (s.width, s.depth, s.mlp_width) == (b.width, depth, b.mlp_width)]
    if fits:
        return f"config.{who}.size={fits[0]!r}"
    return f"config.{who}.width={b.width}, .depth={depth} and .heads={b.heads}"
