"""What a file is, from its names and shapes: its kind, and the sizes of everything in it."""

import dataclasses
import functools
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from amd_jax.config import ConfigError
from amd_jax.convert import hf, official
from amd_jax.convert.arch import Arch
from amd_jax.convert.describe import Facts, describe
from amd_jax.convert.probe import Probe
from amd_jax.convert.readers import METADATA_KEY, Info, Source
from amd_jax.convert.tables import Entry, same, their_names

# Kind -> (layout, task or "" for any, what it is). Kinds of one layout and task have the same names and
# shapes; which of them a file is can then only be said by whoever knows where it comes from.
KINDS: dict[str, tuple[str, str, str]] = {
    "mae_encoder": ("image", "encoder", "MAE, encoder only"),
    "mae_full": ("image", "pretrain", "MAE, encoder and decoder"),
    "mae_finetuned": ("image", "classifier", "MAE, fine-tuned"),
    "dmae_pretrain": ("image", "pretrain", "DMAE, pre-training"),
    "dmae_finetuned": ("image", "classifier", "DMAE, fine-tuned"),
    "videomae_encoder": ("video", "encoder", "VideoMAE, encoder only"),
    "videomae_pretrain": ("video", "pretrain", "VideoMAE, pre-training"),
    "videomae_finetuned": ("video", "classifier", "VideoMAE, fine-tuned"),
    "videomae_v2": ("video", "", "VideoMAE v2"),
    "amd_pretrain": ("video", "pretrain", "AMD student, pre-training"),
    "amd_finetuned": ("video", "classifier", "AMD student, fine-tuned"),
    "hf_vit": ("hf_image", "encoder", "Hugging Face ViT or ViTMAE, encoder only"),
    "hf_vit_classifier": ("hf_image", "classifier", "Hugging Face ViT, classification"),
    "hf_vitmae": ("hf_image", "pretrain", "Hugging Face ViTMAE, pre-training"),
    "hf_videomae_encoder": ("hf_video", "encoder", "Hugging Face VideoMAE, encoder only"),
    "hf_videomae": ("hf_video", "pretrain", "Hugging Face VideoMAE, pre-training"),
    "hf_videomae_classifier": ("hf_video", "classifier", "Hugging Face VideoMAE, classification"),
    "timm_vit": ("image", "", "timm ViT"),
    "amd_jax": ("ours", "", "a checkpoint of this package"),
}

# Kinds whose weights were trained on pixels of one or another mean and std; all others on ImageNet's.
OF_ANY_PIXELS = ("timm_vit", "hf_vit", "hf_vit_classifier", "amd_jax")

# Weights that no model of ours has, and why they are not needed. Tried in order.
_UNUSED = [
    (r"^generators\.\d+\.norm\.(weight|bias)$", "not used by the published forward pass"),
    (r"^(embeddings\.)?mask_token$", "the encoder has no mask token"),
    (r"^decoder\.decoder_embed\.bias$", "zero: transformers' ViTMAE cannot be without this bias"),
    (r"^pooler\.", "transformers' pooler stands behind the encoder and is not part of it"),
]


_COUNTS = ("depth", "projections", "generators", "mlps", "grid", "patch")


@dataclasses.dataclass(frozen=True)
class Found:
    """A recognised source.

    Attributes:
      kind: a name of `KINDS`.
      why: what gave it away.
      arch: the sizes.
      file: the tensors under the names in the file.
      names: the names that `table` uses to those in the file.
    """

    kind: str
    why: str
    layout: str
    arch: Arch
    file: Source
    names: dict[str, str]

    @functools.cached_property
    def table(self) -> list[Entry]:
        """Everything but position tables, theirs to ours."""
        if self.layout == "ours":
            return _our_table(self.arch)
        return hf.table(self.arch) if self.layout.startswith("hf_") else official.table(self.arch)

    @functools.cached_property
    def source(self) -> Source:
        """The tensors under the names that `table` uses."""
        return _layers(self.file, self.arch) if self.layout == "ours" else self.file.renamed(self.names)

    @functools.cached_property
    def positions(self) -> dict[str, str]:
        """Our position tables to theirs, of those in the file."""
        if self.layout == "ours":
            both = {n: n for n in (official.ENCODER_POSITIONS, official.DECODER_POSITIONS)}
        elif self.layout.startswith("hf_"):
            both = hf.positions(self.arch)
        else:
            both = official.positions(self.arch)
        return {ours: theirs for ours, theirs in both.items() if theirs in self.source.infos}

    @functools.cached_property
    def unused(self) -> dict[str, str]:
        """Weights that no model of ours has, by the names of `source`, and the reason."""
        expected = {n for entry in self.table for n in their_names(entry)} | {*self.positions.values()}
        rest = self.source.infos.keys() - expected
        reasons = ((n, next((why for p, why in _UNUSED if re.search(p, n)), "")) for n in rest)
        return {name: why for name, why in sorted(reasons) if why}

    def name_in_file(self, name: str) -> str:
        """Where a tensor of `source` comes from."""
        return self.names.get(name, name)

    def layers_in_file(self, name: str, start: int, stop: int) -> str:
        """The names of `source` for some layers, `{}` being the number, as one name of the file."""
        first = self.name_in_file(name.format(start)).removesuffix(f"/{start}")
        span = str(start) if stop - start == 1 else f"{start}-{stop - 1}"
        before, number, after = first.rpartition(f".{start}.")  # the layer is the last number in a name
        return f"{before}.{span}.{after}" if number else first

    def taken_as(self, arch: Arch) -> "Found":
        """The same file with other guesses."""
        return dataclasses.replace(self, arch=arch)


def recognise(source: Source, kind: str = "", given: Facts | None = None) -> Found:
    """Finds out what a source holds.

    Args:
      source: the opened file.
      kind: a name of `KINDS` if the user insists on it.
      given: facts stated by the user; they win.

    Raises:
      ConfigError: nothing that is known, or not of the `kind` asked for.
    """
    if kind and kind not in KINDS:
        raise ConfigError(f"no kind is called {kind!r}; there are {', '.join(KINDS)}")
    layout, names = _layout(source)
    if layout == "ours":
        if kind not in ("", "amd_jax"):
            raise ConfigError(f"{source.path}: not {kind}, but a checkpoint of this package (amd_jax)")
        return _ours(source, given or Facts())
    stated = _stated(source)  # our own exports say more than their config.json: what was a guess stays one
    facts = Facts.of(stated) if stated else Facts.of_hf(source.config) if source.config else Facts()
    arch = describe(Probe(source.renamed(names)), layout, facts.under(given or Facts()))
    found, why = _kind(layout, arch, source, names)
    if kind:
        asked_layout, asked_task, what = KINDS[kind]
        if asked_layout != layout or asked_task not in ("", arch.task):
            raise ConfigError(f"{source.path}: not {kind} ({what}), it looks like {found}: {why}")
        found, why = kind, "as you said; names and shapes agree"
    return Found(found, why, layout, arch, source, names)


def original_kind(found: Found) -> str:
    """What a source is, and of an imported folder what it was imported from."""
    if found.layout != "ours":
        return found.kind
    return str(json.loads(found.file.metadata[METADATA_KEY]).get("kind", found.kind))


def _layout(source: Source) -> tuple[str, dict[str, str]]:
    """The layout, and the names that its table uses to the names in the file."""
    names = dict.fromkeys(source.infos)
    if any(n.endswith("/layers/attn/qkv") for n in names):
        return "ours", {n: n for n in names}
    stripped = {n: n for n in names}
    for prefix in ("module.", "_orig_mod.", "model.", "backbone."):
        if stripped and all(n.startswith(prefix) for n in stripped):
            stripped = {n.removeprefix(prefix): old for n, old in stripped.items()}
    kernel = next((n for n in stripped if n.endswith("patch_embeddings.projection.weight")), None)
    if kernel:
        video = len(source.infos[stripped[kernel]].shape) == 5
        named = {hf.published_name(n, video): old for n, old in stripped.items()}
        if len(named) != len(stripped):
            raise ConfigError(f"{source.path}: the same weight under two of transformers' spellings")
        return "hf_video" if video else "hf_image", named
    kernel = next((n for n in stripped if n.endswith("patch_embed.proj.weight")), None)
    if kernel is None:
        some = ", ".join(list(names)[:4]) or "nothing"
        raise ConfigError(
            f"{source.path}: no patch embedding of a known kind in it; it has {some}, …; known are "
            f"{', '.join(KINDS)}"
        )
    video = len(source.infos[stripped[kernel]].shape) == 5
    if all(n.startswith("encoder.") for n in stripped):
        stripped = {n.removeprefix("encoder."): old for n, old in stripped.items()}
    return "video" if video else "image", stripped


def _kind(layout: str, arch: Arch, source: Source, names: Mapping[str, str]) -> tuple[str, str]:
    """The likeliest kind, and what speaks for it."""
    task = arch.task
    if layout == "hf_image":
        kind = {"encoder": "hf_vit", "classifier": "hf_vit_classifier", "pretrain": "hf_vitmae"}[task]
        return kind, "transformers' names, image patches"
    if layout == "hf_video":
        kind = {"encoder": "hf_videomae_encoder", "classifier": "hf_videomae_classifier"}.get(
            task, "hf_videomae"
        )
        return kind, "transformers' names, tubelets"
    if layout == "video":
        if arch.align:
            return "amd_pretrain", "projection heads beside a video decoder"
        # The giant's MLP is 48/11 of its width; Kinetics-710 is VideoMAE v2's own set of labels.
        if arch.encoder.mlp_width * 11 == arch.encoder.width * 48 or arch.classes == 710:
            return (
                "videomae_v2",
                f"width {arch.encoder.width}, MLP {arch.encoder.mlp_width}, {arch.classes} classes",
            )
        if task == "classifier":
            return "videomae_finetuned", "tubelets and a head (AMD's fine-tuned students have the same names)"
        return f"videomae_{task}", "tubelets" + (" and a decoder" if task == "pretrain" else ", no head")
    if arch.align or any(n.startswith("aligned_feature_projection_heads") for n in names):
        return "dmae_pretrain", "feature projection heads beside MAE's decoder"
    if task == "pretrain":
        return "mae_full", "MAE's encoder and decoder"
    if source.wrapper and task == "classifier":
        return "mae_finetuned", f"a head, in a checkpoint's {source.wrapper!r} (DMAE's have the same names)"
    if arch.positions == "sincos_2d" and task == "encoder":
        return "mae_encoder", "no head, MAE's fixed position table"
    return "timm_vit", "timm's names" + (", with a head" if task == "classifier" else ", no head")


def _stated(source: Source) -> Arch | None:
    """The description that our own files carry."""
    text = source.metadata.get(METADATA_KEY)
    if text is None:
        return None
    try:
        data = json.loads(text)["arch"]
        _check_numbers(data)
        return Arch.from_json(data)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{source.path}: its description under {METADATA_KEY!r} is not readable") from error


def _check_numbers(data: Any, key: str = "") -> None:
    """A description is as little to be trusted as the rest of a file: no size may exhaust the machine.

    Raises:
      ValueError: a number that no model has.
    """
    if isinstance(data, dict):
        for name, value in data.items():
            _check_numbers(value, name)
    elif isinstance(data, list):
        for value in data:
            _check_numbers(value, key)
    elif isinstance(data, int) and not 0 <= data <= (1000 if key in _COUNTS else 10**6):
        raise ValueError(f"{key} is {data}")


def _ours(source: Source, given: Facts) -> Found:
    """Weights under our own names; the description says what the shapes do not."""
    arch = _stated(source)
    if arch is None:
        raise ConfigError(f"{source.path}: our names, but no description of the sizes; import it anew")
    if given.heads or given.decoder_heads:
        raise ConfigError(f"{source.path}: imported already; give the heads when importing from the original")
    arch = dataclasses.replace(arch, grid=given.grid or arch.grid)
    return Found("amd_jax", "this package's names", "ours", arch, source, {})


def _our_table(arch: Arch) -> list[Entry]:
    tables = (official.ENCODER_POSITIONS, official.DECODER_POSITIONS)
    shapes = {name: shape for name, shape in arch.shapes().items() if name not in tables}
    return [
        same(name, f"{name}/{{}}", depth=shape[0]) if "blocks/layers/" in name else same(name, name)
        for name, shape in shapes.items()
    ]


def _layers(source: Source, arch: Arch) -> Source:
    """Stacked arrays as one tensor for each layer, `…/attn/qkv/0`; heads cut as `arch` says."""
    shapes = arch.shapes()
    infos: dict[str, Info] = {}
    home: dict[str, tuple[str, int | None]] = {}
    for name, info in source.infos.items():
        if "blocks/layers/" not in name:
            infos[name], home[name] = info, (name, None)
            continue
        want = shapes.get(name, info.shape)
        # How features are shared out among heads is a matter of the shape alone.
        shape = want if "/attn/" in name and math.prod(want) == math.prod(info.shape) else info.shape
        for i in range(shape[0]):
            infos[f"{name}/{i}"], home[f"{name}/{i}"] = Info(shape[1:], info.dtype), (name, i)

    def fetch(name: str, layer: int | None) -> Any:
        assert layer is None
        return source.fetch(*home[name]).reshape(infos[name].shape)

    return dataclasses.replace(source, infos=infos, fetch=fetch)
