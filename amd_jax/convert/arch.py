"""What a set of weights is: the sizes of every part, and from them the names and shapes of our parameters.

NumPy and JAX are not needed to describe weights, so the command line starts quickly.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amd_jax.models.blocks import BlockConfig
    from amd_jax.models.classifier import Classifier
    from amd_jax.models.student import Student
    from amd_jax.models.vit import ViTConfig

Shape = tuple[int, ...]
Triple = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Stack:
    """A stack of transformer blocks. `qkv_bias` says which of q, k, v have a bias: "qkv", "qv" or "none"."""

    width: int
    depth: int
    heads: int
    mlp_width: int
    qkv_bias: str = "qkv"
    norm_eps: float = 1e-6

    @classmethod
    def of(cls, block: "BlockConfig", depth: int) -> "Stack":
        """The stack of a model."""
        return cls(block.width, depth, block.heads, block.mlp_width, block.qkv_bias, block.norm_eps)

    def shapes(self, prefix: str) -> dict[str, Shape]:
        """Our names and shapes below `prefix`, layers stacked along the first axis."""
        w, m, head = self.width, self.mlp_width, (self.heads, self.width // self.heads)
        one: dict[str, Shape] = _norm("norm1", w) | {"attn/qkv": (w, 3, *head)}
        one |= {f"attn/{n}_bias": head for n in "qkv" if n in self.qkv_bias and self.qkv_bias != "none"}
        one |= _linear("attn/proj", w, w) | _norm("norm2", w)
        one |= {
            "mlp/fc1/kernel": (w, m),
            "mlp/fc1/bias": (m,),
            "mlp/fc2/kernel": (m, w),
            "mlp/fc2/bias": (w,),
        }
        return {f"{prefix}/layers/{name}": (self.depth, *shape) for name, shape in one.items()}


@dataclasses.dataclass(frozen=True)
class Decoder:
    """The pixel decoder. `positions` is a fixed table or "learned" (a table the file brings along)."""

    stack: Stack
    embed_bias: bool
    positions: str
    norm_eps: float = 1e-6


@dataclasses.dataclass(frozen=True)
class Align:
    """What aligns a student with its teacher; a projection is one linear layer, or `mlps` MLPs."""

    teacher_width: int
    projections: int
    projection_bias: bool
    generators: int = 0
    generator: Stack | None = None
    mlps: int = 0

    def projection(self, i: int, student_width: int) -> dict[str, Shape]:
        """Our names and shapes of one projection."""
        w, name = self.teacher_width, f"projection_{i}"
        if not self.mlps:
            return _linear(name, student_width, w, self.projection_bias)
        out: dict[str, Shape] = {}
        for j in range(self.mlps):
            out |= _linear(f"{name}/mlp_{j}_fc1", w if j else student_width, w)
            out |= _linear(f"{name}/mlp_{j}_fc2", w, w)
        return out


@dataclasses.dataclass(frozen=True)
class Arch:
    """An encoder, and what stands on it.

    Attributes:
      grid: tokens along (time, height, width).
      positions: a fixed table of amd_jax/models/positions.py, or "learned".
      norm: whether the encoder has a final norm.
      video: whether the patch embedding has a time axis in the published layout.
      assumed: facts that the weights do not show and nobody stated, so that they are a guess:
        "heads", "decoder_heads", "generator_heads", "grid".
    """

    encoder: Stack
    patch: Triple
    channels: int
    grid: Triple
    cls_token: bool
    positions: str
    norm: bool
    video: bool
    decoder: Decoder | None = None
    align: Align | None = None
    classes: int = 0
    fc_norm: bool = False
    fc_norm_eps: float = 1e-6
    assumed: tuple[str, ...] = ()

    @property
    def task(self) -> str:
        """What the weights can do: "pretrain", "classifier" or "encoder"."""
        return "pretrain" if self.decoder else "classifier" if self.classes else "encoder"

    @property
    def tokens(self) -> int:
        """Patch tokens of a whole input."""
        return self.grid[0] * self.grid[1] * self.grid[2]

    @property
    def patch_values(self) -> int:
        """Numbers in a patch."""
        return self.patch[0] * self.patch[1] * self.patch[2] * self.channels

    def shapes(self) -> dict[str, Shape]:
        """Name and shape of every parameter of ours, in the models' own naming."""
        w = self.encoder.width
        out: dict[str, Shape] = _linear("encoder/patch_embed", self.patch_values, w)
        if self.cls_token:
            out["encoder/cls_token"] = (w,)
        if self.positions == "learned":
            out["encoder/positions"] = (self.cls_token + self.tokens, w)
        out |= self.encoder.shapes("encoder/blocks")
        if self.norm:
            out |= _norm("encoder/norm", w)
        if self.decoder:
            out |= self._decoder_shapes(self.decoder)
        if self.align:
            for i in range(self.align.projections):
                out |= self.align.projection(i, w)
            for i in range(self.align.generators):
                assert self.align.generator is not None
                out[f"generator_{i}/mask_token"] = (self.align.teacher_width,)
                out |= self.align.generator.shapes(f"generator_{i}/blocks")
        if self.fc_norm:
            out |= _norm("fc_norm", w)
        if self.classes:
            out |= _linear("head", w, self.classes)
        return out

    def _decoder_shapes(self, decoder: Decoder) -> dict[str, Shape]:
        d = decoder.stack.width
        out = _linear("decoder_embed", self.encoder.width, d, decoder.embed_bias)
        out["decoder/mask_token"] = (d,)
        if decoder.positions == "learned":
            out["decoder/positions"] = (self.cls_token + self.tokens, d)
        out |= decoder.stack.shapes("decoder/blocks") | _norm("decoder_norm", d)
        return out | _linear("decoder_pred", d, self.patch_values)

    def to_json(self) -> dict[str, Any]:
        """Plain data for a file's metadata."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Arch":
        """The inverse of `to_json`.

        Raises:
          KeyError, TypeError, ValueError: not what `to_json` wrote.
        """
        data = dict(data)
        data["encoder"] = Stack(**data["encoder"])
        for name in ("patch", "grid"):
            t, h, w = (int(n) for n in data[name])
            data[name] = (t, h, w)
        data["assumed"] = tuple(data["assumed"])
        if data["decoder"]:
            data["decoder"] = Decoder(**data["decoder"] | {"stack": Stack(**data["decoder"]["stack"])})
        if data["align"]:
            generator = data["align"]["generator"]
            data["align"] = Align(**data["align"] | {"generator": Stack(**generator) if generator else None})
        return cls(**data)

    @classmethod
    def of_encoder(cls, config: "ViTConfig", patch: Triple, channels: int, *, final_norm: bool) -> "Arch":
        """An encoder of ours."""
        return cls(
            encoder=Stack.of(config.block, config.depth),
            patch=patch,
            channels=channels,
            grid=config.grid,
            cls_token=config.cls_token,
            positions=config.positions,
            norm=final_norm,
            video=patch[0] * config.grid[0] > 1,
        )

    @classmethod
    def of_student(cls, student: "Student", patch: Triple, channels: int) -> "Arch":
        """A pre-training model of ours."""
        d, a = student.decoder, student.align
        align = None
        if a is not None:
            generator = Stack.of(a.generator, a.generator_depth) if a.generator and a.student_gen else None
            count = max(len(a.student_direct), len(a.student_gen))
            align = Align(a.teacher_width, count, a.projection_bias, len(a.student_gen), generator)
            align = dataclasses.replace(align, mlps=a.projection_mlps)
        eps = d.norm_eps or d.block.norm_eps
        decoder = Decoder(Stack.of(d.block, d.depth), d.embed_bias, d.positions, eps)
        whole = cls.of_encoder(student.encoder, patch, channels, final_norm=True)
        return dataclasses.replace(whole, decoder=decoder, align=align)

    @classmethod
    def of_classifier(cls, classifier: "Classifier", patch: Triple, channels: int) -> "Arch":
        """A fine-tuning model of ours."""
        cls_pool = classifier.pool == "cls"
        whole = cls.of_encoder(classifier.encoder, patch, channels, final_norm=cls_pool)
        eps = classifier.fc_norm_eps or whole.encoder.norm_eps
        return dataclasses.replace(whole, classes=classifier.classes, fc_norm=not cls_pool, fc_norm_eps=eps)


def _linear(name: str, inputs: int, outputs: int, bias: bool = True) -> dict[str, Shape]:
    kernel: dict[str, Shape] = {f"{name}/kernel": (inputs, outputs)}
    return kernel | {f"{name}/bias": (outputs,)} if bias else kernel


def _norm(name: str, width: int) -> dict[str, Shape]:
    return {f"{name}/scale": (width,), f"{name}/bias": (width,)}
