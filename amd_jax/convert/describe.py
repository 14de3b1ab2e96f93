"""The sizes of everything in a file of a known layout, and the facts that its weights cannot show."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from amd_jax.config import ConfigError
from amd_jax.convert import hf
from amd_jax.convert.arch import Align, Arch, Decoder, Stack, Triple
from amd_jax.convert.probe import Probe, guess_grid, guess_heads, position_kind


@dataclasses.dataclass(frozen=True)
class Facts:
    """What weights cannot show; None where it is not known. Given by hand, config.json or our metadata."""

    heads: int | None = None
    decoder_heads: int | None = None
    generator_heads: int | None = None
    grid: Triple | None = None
    norm_eps: float | None = None
    decoder_norm_eps: float | None = None
    fc_norm_eps: float | None = None
    positions: str | None = None
    decoder_positions: str | None = None
    embed_bias: bool | None = None

    def under(self, other: "Facts") -> "Facts":
        """These, with those of `other` taking precedence."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return Facts(**{k: mine[k] if theirs[k] is None else theirs[k] for k in mine})

    @classmethod
    def of(cls, arch: Arch) -> "Facts":
        """Everything a description says, but for its guesses."""
        d, a = arch.decoder, arch.align
        known = cls(
            heads=arch.encoder.heads,
            decoder_heads=d.stack.heads if d else None,
            generator_heads=a.generator.heads if a and a.generator else None,
            grid=arch.grid,
            norm_eps=arch.encoder.norm_eps,
            decoder_norm_eps=d.norm_eps if d else None,
            fc_norm_eps=arch.fc_norm_eps,
            positions=arch.positions,
            decoder_positions=d.positions if d else None,
            embed_bias=d.embed_bias if d else None,
        )
        return dataclasses.replace(known, **dict.fromkeys(arch.assumed))

    @classmethod
    def of_hf(cls, config: Mapping[str, Any]) -> "Facts":
        """What a config.json of transformers says.

        Raises:
          ConfigError: a model unlike ours, or not such a config.
        """
        if (act := config.get("hidden_act", "gelu")) != "gelu":
            raise ConfigError(f"config.json: hidden_act is {act!r}, but our blocks have the exact GELU")
        try:
            return cls._of_hf(config)
        except (TypeError, ValueError, ZeroDivisionError, AttributeError) as error:
            raise ConfigError(f"config.json: its sizes are not readable ({error})") from error

    @classmethod
    def _of_hf(cls, config: Mapping[str, Any]) -> "Facts":
        video = config.get("model_type") == "videomae"
        eps = config.get("layer_norm_eps", 1e-12)
        special = hf.VIDEOMAE_NORM_EPS if video else eps
        image, patch = config.get("image_size", 224), config.get("patch_size", 16)
        (ih, iw), (ph, pw) = (x if isinstance(x, list) else (x, x) for x in (image, patch))
        frames = config.get("num_frames", 16) // config.get("tubelet_size", 2) if video else 1
        heads = config.get("decoder_num_attention_heads")
        if heads is None and config.get("model_type") in ("vit_mae", "videomae"):
            heads = 6 if video else 16  # the defaults, which config.json may leave out
        return cls(
            heads=config.get("num_attention_heads", 12),
            decoder_heads=heads,
            grid=(frames, ih // ph, iw // pw),
            norm_eps=eps,
            decoder_norm_eps=special,
            fc_norm_eps=special,
        )


MakeStack = Callable[[str, str, int], Stack]


def describe(probe: Probe, layout: str, facts: Facts) -> Arch:
    """Reads the sizes off the shapes."""
    is_hf, video = layout.startswith("hf_"), layout.endswith("video")
    pretrain = probe.has("decoder_embed.weight", "decoder.decoder_embed.weight", "encoder_to_decoder.weight")
    enc = "encoder." if layout == "video" and pretrain else ""
    embed = "embeddings.patch_embeddings.projection" if is_hf else f"{enc}patch_embed.proj"
    kernel = probe.shape(f"{embed}.weight")
    if len(kernel) != (5 if video else 4):
        raise ConfigError(f"{probe.source.path}: {embed}.weight is {list(kernel)}, not a convolution")
    patch: Triple = (kernel[-3] if video else 1, kernel[-2], kernel[-1])
    assumed: list[str] = []

    def stack(prefix: str, key: str, guess: int) -> Stack:
        heads = getattr(facts, key)
        if heads is None:
            assumed.append(key)
        return probe.stack(prefix, heads or guess, facts.norm_eps or 1e-6)

    encoder = stack("encoder.layer" if is_hf else f"{enc}blocks", "heads", guess_heads(kernel[0]))
    cls_name, pos_name = f"{enc}cls_token", f"{enc}pos_embed"
    if is_hf:
        cls_name, pos_name = "embeddings.cls_token", "embeddings.position_embeddings"
    cls_token = probe.has(cls_name)
    grid = facts.grid
    if grid is None:
        tokens = probe.shape(pos_name)[-2] - cls_token if probe.has(pos_name) else None
        grid = guess_grid(tokens, patch, video)
        if tokens is None or video or math.isqrt(tokens) ** 2 != tokens:
            assumed.append("grid")
    fixed = "sincos_1d" if video else "sincos_2d"
    positions = facts.positions or fixed
    if probe.has(pos_name) and facts.positions is None:
        positions = position_kind(probe.source.fetch(pos_name, None), grid, cls_token)
    decoder = align = None
    if pretrain:
        decoder = _decoder(probe, layout, facts, stack, grid, cls_token)
        align = None if is_hf else _align(probe, layout, stack)
    head = "classifier.weight" if is_hf else "head.weight"
    return Arch(
        encoder=encoder,
        patch=patch,
        channels=kernel[1],
        grid=grid,
        cls_token=cls_token,
        positions=positions,
        norm=probe.has("layernorm.weight" if is_hf else f"{enc}norm.weight"),
        video=video,
        decoder=decoder,
        align=align,
        classes=probe.shape(head)[0] if probe.has(head) else 0,
        fc_norm=probe.has("fc_norm.weight"),
        fc_norm_eps=facts.fc_norm_eps or encoder.norm_eps,
        assumed=tuple(assumed),
    )


def _decoder(
    probe: Probe, layout: str, facts: Facts, stack: MakeStack, grid: Triple, cls_token: bool
) -> Decoder:
    embed, blocks, table = {
        "image": ("decoder_embed", "decoder_blocks", "decoder_pos_embed"),
        "video": ("encoder_to_decoder", "decoder.blocks", ""),
        "hf_image": ("decoder.decoder_embed", "decoder.decoder_layers", "decoder.decoder_pos_embed"),
        "hf_video": ("encoder_to_decoder", "decoder.decoder_layers", ""),
    }[layout]
    width = probe.shape(f"{embed}.weight")[0]
    blocks_of = stack(blocks, "decoder_heads", guess_heads(width, image_decoder=bool(table)))
    positions = facts.decoder_positions or ("sincos_2d" if table else "sincos_1d")
    if table and probe.has(table) and facts.decoder_positions is None:
        positions = position_kind(probe.source.fetch(table, None), grid, cls_token)
    eps = facts.decoder_norm_eps or blocks_of.norm_eps
    bias = probe.has(f"{embed}.bias") if facts.embed_bias is None else facts.embed_bias
    return Decoder(blocks_of, bias, positions, eps)


def _align(probe: Probe, layout: str, stack: MakeStack) -> Align | None:
    prefix = "aligned_feature_projection_heads" if layout == "image" else "encoder.projection_heads"
    mlps = 1 if probe.has(f"{prefix}.0.fc1.weight") else probe.count(f"{prefix}.0", r"fc1\.weight")
    count = probe.count(prefix, r"(weight|fc1\.weight|0\.fc1\.weight)")
    generators = probe.count("generators", r"blocks\.0\.norm1\.weight")
    if not count:
        return None
    first = f"{prefix}.0" if not mlps else f"{prefix}.0.fc1" if mlps == 1 else f"{prefix}.0.0.fc1"
    width = probe.shape(f"{first}.weight")[0]
    generator = None
    if generators:
        # One head for 64 features, as the published code has it at any width.
        generator = stack("generators.0.blocks", "generator_heads", max(1, width // 64))
    return Align(width, count, probe.has(f"{first}.bias"), generators, generator, mlps)
