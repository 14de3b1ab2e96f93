"""Weights for a model that a config describes: what training calls.

Everything that training cannot use is an error that names the config key to change; everything else that is
not simply copied is in the report.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from amd_jax.config import ConfigError
from amd_jax.convert.arch import Arch, Triple
from amd_jax.convert.importing import headline
from amd_jax.convert.kinds import Found, recognise
from amd_jax.convert.plan import Plan, make_plan
from amd_jax.convert.report import Row, summary
from amd_jax.convert.sources import open_source
from amd_jax.convert.tables import nest
from amd_jax.models.sizes import SIZES

if TYPE_CHECKING:
    from amd_jax.models.classifier import Classifier
    from amd_jax.models.student import Student
    from amd_jax.models.vit import ViTConfig

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
    want: "ViTConfig",
    patch: Triple,
    channels: int,
    *,
    final_norm: bool,
    kind: str = "",
    who: str = "teacher",
) -> Loaded:
    """An encoder, cut to `want.depth` blocks; every parameter is there, so `new` is empty.

    Args:
      src: see `sources.open_source`.
      want: the encoder to fill.
      patch: frames, height and width of a token.
      channels: colour channels.
      final_norm: whether the encoder has one.
      kind: a name of `kinds.KINDS` to insist on.
      who: the config section that the error messages name, "teacher" or "student".

    Raises:
      ConfigError: unreadable, unknown, or not the encoder that is wanted.
    """
    arch = Arch.of_encoder(want, patch, channels, final_norm=final_norm)
    reasons = _NO_DECODER | _NO_HEAD | _NO_ALIGN | ({} if final_norm else _BEFORE_NORM)
    loaded = _load(src, arch, kind, who, reasons)
    inner = loaded.params["encoder"]
    for name, shape in loaded.new.items():
        # A fine-tuned model with mean pooling has no final norm: it starts as one does.
        inner.setdefault("norm", {})[name.split("/")[-1]] = (
            np.ones(shape, np.float32) if name.endswith("scale") else np.zeros(shape, np.float32)
        )
    return dataclasses.replace(loaded, params=inner, new={})


def load_student(src: str, student: "Student", patch: Triple, channels: int, kind: str = "") -> Loaded:
    """A pre-training model: its encoder at least, and of decoder and heads what has the same sizes."""
    arch = Arch.of_student(student, patch, channels)
    return _load(src, arch, kind, "student", _NO_HEAD | _NO_ALIGN)


def load_classifier(
    src: str, classifier: "Classifier", patch: Triple, channels: int, kind: str = "", who: str = "student"
) -> Loaded:
    """A classifier: its encoder at least, and the head if the file has one of the same size."""
    arch = Arch.of_classifier(classifier, patch, channels)
    reasons = {"encoder/norm": "this classifier normalises after pooling"} if arch.fc_norm else {}
    return _load(src, arch, kind, who, _NO_DECODER | _NO_ALIGN | reasons)


def _load(src: str, want: Arch, kind: str, who: str, reasons: dict[str, str]) -> Loaded:
    found = _with_wanted_guesses(recognise(open_source(src), kind), want)
    _check(found, want, who)
    plan = make_plan(found, want, reasons)
    plan.rows += _epsilons(found.arch, want)
    return Loaded(nest(_arrays(plan)), plan.new, plan.rows, headline(found))


def _arrays(plan: Plan) -> dict[str, np.ndarray]:
    """Our parameters in float32, one copy."""
    shapes = plan.want.shapes()
    out: dict[str, np.ndarray] = {}

    def put(name: str, layer: int | None, array: np.ndarray) -> None:
        if name not in out:
            out[name] = np.empty(shapes[name], np.float32)
        out[name][... if layer is None else layer] = array

    plan.run(put)
    return out


def _with_wanted_guesses(found: Found, want: Arch) -> Found:
    """Where the file does not show a fact, the config's word for it is taken."""
    a, assumed = found.arch, set(found.arch.assumed)
    if "heads" in assumed and a.encoder.width % want.encoder.heads == 0:
        a = dataclasses.replace(a, encoder=dataclasses.replace(a.encoder, heads=want.encoder.heads))
    if "decoder_heads" in assumed and a.decoder and want.decoder:
        heads = want.decoder.stack.heads
        if a.decoder.stack.width % heads == 0:
            stack = dataclasses.replace(a.decoder.stack, heads=heads)
            a = dataclasses.replace(a, decoder=dataclasses.replace(a.decoder, stack=stack))
    both = a.align and want.align and a.align.generator and want.align.generator
    if "generator_heads" in assumed and both:
        assert a.align is not None
        assert a.align.generator is not None
        assert want.align is not None
        assert want.align.generator is not None
        if a.align.teacher_width % want.align.generator.heads == 0:
            generator = dataclasses.replace(a.align.generator, heads=want.align.generator.heads)
            a = dataclasses.replace(a, align=dataclasses.replace(a.align, generator=generator))
    if "grid" in assumed and a.positions != "learned":
        a = dataclasses.replace(a, grid=want.grid)
    return found.taken_as(a)


def _check(found: Found, want: Arch, who: str) -> None:
    """The encoder must be the one the config describes; each line says which key to set."""
    have, h, w = found.arch, found.arch.encoder, want.encoder

    def fail(what: str, has: Any, asks: Any, key: str) -> None:
        where = f"{who}.weights: {found.file.path} ({found.kind})"
        raise ConfigError(f"{where} has {what} {has}, the config asks for {asks}; set {key}")

    if (h.width, h.mlp_width) != (w.width, w.mlp_width):
        what = "width" if h.width != w.width else f"width {h.width} and MLP width"
        pair = (h.width, w.width) if h.width != w.width else (h.mlp_width, w.mlp_width)
        fail(what, *pair, _size_keys(who, have))
    if h.depth < w.depth:
        fail("depth", h.depth, w.depth, f"{_size_keys(who, have)}, or a smaller config.{who}.depth")
    if h.heads != w.heads:
        fail("heads", h.heads, w.heads, f"config.{who}.heads={h.heads}")
    if h.qkv_bias != w.qkv_bias:
        fail("qkv_bias", repr(h.qkv_bias), repr(w.qkv_bias), f"config.{who}.qkv_bias={h.qkv_bias!r}")
    if have.cls_token != want.cls_token:
        fail("cls_token", have.cls_token, want.cls_token, f"config.{who}.cls_token={have.cls_token}")
    if have.channels != want.channels:
        fail("channels", have.channels, want.channels, f"config.data.channels={have.channels}")
    if have.patch[1:] != want.patch[1:]:
        key = f"config.model.patch_size={have.patch[1]}"
        fail("patch size", f"{have.patch[1]}x{have.patch[2]}", f"{want.patch[1]}x{want.patch[2]}", key)
    if have.positions != want.positions and want.positions != "learned":
        key = f"config.{who}.positions={have.positions!r}"
        fail("positions", repr(have.positions), repr(want.positions), key)


def _size_keys(who: str, arch: Arch) -> str:
    """The config keys for an encoder's size, by its name in models/sizes.py if it has one."""
    e = arch.encoder
    fits = [n for n, s in SIZES.items() if (s.width, s.depth, s.mlp_width) == (e.width, e.depth, e.mlp_width)]
    if fits:
        return f"config.{who}.size={fits[0]!r}"
    return f"config.{who}.width={e.width}, .depth={e.depth} and .heads={e.heads}"


def _epsilons(have: Arch, want: Arch) -> list[Row]:
    """An epsilon is no weight, and so is easily overlooked."""
    if have.encoder.norm_eps == want.encoder.norm_eps:
        return []
    a, b = have.encoder.norm_eps, want.encoder.norm_eps
    return [Row("note", "", "", (), f"the file's norms were trained with epsilon {a:g}, here it is {b:g}")]
