"""What a file is: its kind, the model it belongs to, and its weights under our own names."""

import dataclasses
import json
import re
from collections.abc import Mapping

import numpy as np

from amd_jax.convert import describe
from amd_jax.convert.account import Row, condense
from amd_jax.convert.facts import of_config
from amd_jax.convert.files.tensors import METADATA_KEY, Source
from amd_jax.convert.names import entries, hf, official, towers
from amd_jax.convert.names.entries import Entry
from amd_jax.convert.network import DECODER_POSITIONS, ENCODER_POSITIONS, Network, Shape
from amd_jax.errors import UserError, WeightsError

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
    "hf_clip": ("hf_clip", "encoder", "Hugging Face CLIP, images"),
    "hf_siglip": ("hf_siglip", "encoder", "Hugging Face SigLIP or SigLIP 2, images"),
    "hf_dinov2": ("hf_dinov2", "encoder", "Hugging Face DINOv2, with or without registers"),
    "hf_dinov3": ("hf_dinov3", "encoder", "Hugging Face DINOv3"),
    "timm_vit": ("image", "", "timm ViT"),
    "amd_jax": ("ours", "", "a checkpoint of this package"),
}

# Of the patch embedding: transformers', four of them, and all others'.
_OFFICIAL_KERNEL = "patch_embed.proj.weight"
_KERNELS = (
    "patch_embeddings.projection.weight",
    "embeddings.patch_embedding.weight",
    "embeddings.patch_embeddings.weight",
    _OFFICIAL_KERNEL,
)

# Kinds whose weights were trained on pixels of one or another mean and std; all others on ImageNet's.
OF_ANY_PIXELS = ("timm_vit", "hf_vit", "hf_vit_classifier", *towers.FAMILIES, "amd_jax")

_TEXT = "of the texts, which nobody reads here"
# Weights that no model of ours has, and why they are not needed. Tried in order.
_UNUSED = [
    (r"^generators\.\d+\.norm\.(weight|bias)$", "not used by the published forward pass"),
    (r"^(embeddings\.)?mask_token$", "the encoder has no mask token"),
    (r"^decoder\.decoder_embed\.bias$", "zero: transformers' ViTMAE cannot be without this bias"),
    (r"^pooler\.", "transformers' pooler stands behind the encoder and is not part of it"),
    (r"^embeddings\.position_ids$", "a list of numbers"),
    (r"^(head|attn_pool)\.", "the attention pooling stands behind the encoder and is not part of it"),
    (r"^(visual_projection|classifier)\.", "stands behind the encoder and is not part of it"),
    (r"^(text_model|text_projection|logit_scale|logit_bias)(\.|$)", _TEXT),
]


@dataclasses.dataclass(frozen=True)
class Found:
    """A recognised source.

    Attributes:
      kind: a name of `KINDS`.
      why: what gave it away.
      source: the file.
      network: the model.
      arrays: our names to stored numbers, layers stacked; fixed position tables are not among them.
      origin: our names to theirs, in which `{}` is the number of a layer; of a checkpoint of ours empty.
      shapes: our names and shapes of everything that the kind of file should have.
      unused: the account of weights that no model of ours has.
    """

    kind: str
    why: str
    source: Source
    network: Network
    arrays: dict[str, np.ndarray]
    origin: dict[str, list[str]]
    shapes: dict[str, Shape]
    unused: list[Row]

    @property
    def ours(self) -> bool:
        """Whether it is a checkpoint of this package."""
        return self.kind == "amd_jax"

    def called(self, name: str, start: int = 0, stop: int = 1) -> str:
        """What the file calls a parameter of ours, or some layers of it."""
        span = str(start) if stop - start == 1 else f"{start}-{stop - 1}"
        return ", ".join(theirs.replace("{}", span) for theirs in self.origin.get(name, [name]))

    def taken_as(self, network: Network) -> "Found":
        """The same file with other guesses."""
        arrays = {name: network.cut_heads(name, array) for name, array in self.arrays.items()}
        return dataclasses.replace(self, network=network, arrays=arrays)


def recognise(source: Source, kind: str = "", given: describe.Facts | None = None) -> Found:
    """Finds out what a source holds.

    Args:
      source: the file.
      kind: a name of `KINDS` if the user insists on it.
      given: facts stated by the user; they win.

    Raises:
      WeightsError: nothing that is known, not of the `kind` asked for, or not what its kind has.
    """
    if kind and kind not in KINDS:
        raise WeightsError(f"no kind is called {kind!r}; there are {', '.join(KINDS)}")
    given = given or {}
    if any(name.endswith("/layers/attn/qkv") for name in source.arrays):
        if kind not in ("", "amd_jax"):
            raise WeightsError(f"{source.path}: not {kind}, but a checkpoint of this package (amd_jax)")
        return _ours(source, given)
    layout, names, embed = _layout(source)
    theirs = {name: source.arrays[old] for name, old in names.items()}
    # Our own exports say more than their config.json: what was a guess stays one.
    try:
        facts = _stated(source) or of_config(source.config)
        table, network = _described(theirs, layout, source.arrays[embed].shape, facts, given)
    except (UserError, ValueError, IndexError) as error:
        raise WeightsError(f"{source.path}: {' '.join(str(error).split())}") from error
    found, why = _kind(layout, network, source)
    if kind:
        asked_layout, asked_task, what = KINDS[kind]
        if asked_layout != layout or asked_task not in ("", network.task):
            raise WeightsError(f"{source.path}: not {kind} ({what}), it looks like {found}: {why}")
        found, why = kind, "as you said; names and shapes agree"
    return _read(Found(found, why, source, network, {}, {}, {}, []), table, theirs, names)


def original_kind(found: Found) -> str:
    """What a source is, and of an imported folder what it was imported from."""
    if not found.ours or METADATA_KEY not in found.source.metadata:
        return found.kind
    return str(json.loads(found.source.metadata[METADATA_KEY]).get("kind", found.kind))


def _ours(source: Source, given: describe.Facts) -> Found:
    """Weights under our own names, whatever they are; the rest is stated beside them."""
    if given.keys() - {"grid"}:
        raise WeightsError(
            f"{source.path}: imported already; give the heads when importing from the original"
        )
    tables = {n: source.arrays[n] for n in (ENCODER_POSITIONS, DECODER_POSITIONS) if n in source.arrays}
    shapes = {name: array.shape for name, array in source.arrays.items()}
    facts = _stated(source)
    try:
        facts = describe.of_run(source.run) if source.run else facts
        if facts is None:
            raise WeightsError("our names, but no description of the sizes; import it anew")
        network = describe.describe(shapes, facts | given, tables)
        arrays = {name: network.cut_heads(name, array) for name, array in source.arrays.items()}
    except (ValueError, IndexError, AttributeError, KeyError, TypeError, ZeroDivisionError) as error:
        raise WeightsError(f"{source.path}: {' '.join(str(error).split())}") from error
    shapes = {name: array.shape for name, array in arrays.items()}
    return Found("amd_jax", "this package's names", source, network, arrays, {}, shapes, [])


def _stated(source: Source) -> describe.Facts | None:
    """The description that our own files carry."""
    text = source.metadata.get(METADATA_KEY)
    if text is None:
        return None
    try:
        return describe.of_json(json.loads(text)["arch"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(
            f"{source.path}: its description under {METADATA_KEY!r} is not readable"
        ) from error


def _layout(source: Source) -> tuple[str, dict[str, str], str]:
    """The layout, the names that its table uses to the names in the file, and that of the patch embedding."""
    names = {n: n for n in source.arrays}
    for prefix in ("module.", "_orig_mod.", "model.", "backbone."):
        if names and all(n.startswith(prefix) for n in names):
            names = {n.removeprefix(prefix): old for n, old in names.items()}
    kernel = next((n for n in names if n.endswith(_KERNELS)), None)
    if kernel is None:
        some = ", ".join(list(names)[:4]) or "nothing"
        raise WeightsError(
            f"{source.path}: no patch embedding of a known kind in it; it has {some}, …; known are "
            f"{', '.join(KINDS)}"
        )
    video, old = source.arrays[names[kernel]].ndim == 5, names[kernel]
    inner = {towers.inner_name(n): old for n, old in names.items()}
    if family := towers.layout(set(inner)):
        return family, inner, old
    if not kernel.endswith(_OFFICIAL_KERNEL):
        named = {hf.published_name(n, video): old for n, old in names.items()}
        if len(named) != len(names):
            raise WeightsError(f"{source.path}: the same weight under two of transformers' spellings")
        return "hf_video" if video else "hf_image", named, old
    if all(n.startswith("encoder.") for n in names):
        names = {n.removeprefix("encoder."): old for n, old in names.items()}
    return "video" if video else "image", names, old


def _described(
    theirs: dict[str, np.ndarray], layout: str, kernel: Shape, facts: describe.Facts, given: describe.Facts
) -> tuple[list[Entry], Network]:
    """The table of a file's names, and its model."""
    if len(kernel) not in (4, 5):
        raise WeightsError(f"its patch embedding is {list(kernel)}, not a convolution")
    parts = entries.Parts.of_names(theirs, kernel)
    if layout in towers.FAMILIES:
        table = towers.table(layout, parts)
    else:
        table = (hf if layout.startswith("hf_") else official).table(parts)
    there = entries.present(table, theirs)
    both = (ENCODER_POSITIONS, DECODER_POSITIONS)
    tables = {e.ours[0]: e.read([theirs[e.theirs[0]]])[0] for e in there if e.ours[0] in both}
    seen = {"patch": parts.patch, "channels": parts.channels, "video": parts.video}
    network = describe.describe(entries.first_shapes(there, theirs), facts | seen | given, tables)
    unknown = layout in towers.FAMILIES or network.of_teachers() or "attn_pool.latent" in theirs
    if unknown and "mlp" not in facts:
        raise WeightsError(
            "its activation is not known, because weights do not show it: give the whole folder, with the "
            "config.json of a CLIP, SigLIP, DINOv2 or DINOv3 of transformers or timm"
        )
    network.shapes()  # whether a model has such sizes
    return table, network


def _read(found: Found, table: list[Entry], theirs: dict[str, np.ndarray], names: dict[str, str]) -> Found:
    """Everything under our names; strict."""
    shapes = found.network.shapes()
    there = entries.present(table, theirs)
    covered = {name for entry in there for name in entry.ours}
    absent = [e for e in table if covered.isdisjoint(e.ours) and not never_saved(e.ours[0])]
    expected = [e for e in [*there, *absent] if all(name in shapes for name in e.ours)]
    tables = {e.theirs[0]: e for e in there if e.ours[0] in (ENCODER_POSITIONS, DECODER_POSITIONS)}
    wanted = {name for e in expected for name in e.names(shapes[e.ours[0]][0])}
    rest = sorted(theirs.keys() - wanted - tables.keys())
    reasons = {name: next((why for p, why in _UNUSED if re.search(p, name)), "") for name in rest}
    parts = []
    if extra := [names[name] for name, why in reasons.items() if not why]:
        parts.append("in the file but unknown: " + condense(extra))
    if missing := sorted(wanted - theirs.keys()):
        parts.append("expected but not in the file: " + condense(missing))
    if wrong := [text for e in expected for text in _misfits(e, shapes, theirs, names)]:
        more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        parts.append("of another shape or type: " + "; ".join(wrong[:4]) + more)
    if parts:
        raise WeightsError(f"{found.source.path}: does not fit {found.kind}: {'; '.join(parts)}")
    read = [e for e in expected if e in there]
    return dataclasses.replace(
        found,
        arrays=entries.read(read, theirs, found.network),
        origin={o: [_in_file(t, names) for t in e.theirs] for e in [*read, *tables.values()] for o in e.ours},
        shapes=shapes,
        unused=_dropped(reasons, theirs, names),
    )


def _dropped(
    reasons: Mapping[str, str], theirs: Mapping[str, np.ndarray], names: Mapping[str, str]
) -> list[Row]:
    """A row for each weight that no model of ours has; one for all those of a text tower."""
    text = [names[name] for name, why in reasons.items() if why == _TEXT]
    rows = [Row("dropped", names[n], "", theirs[n].shape, why) for n, why in reasons.items() if why != _TEXT]
    return rows + ([Row("dropped", f"{len(text)} weights", "", (), _TEXT)] if text else [])


def never_saved(name: str) -> bool:
    """AMD's released code keeps its generators' mask tokens in a plain list, so they are not in its files."""
    return bool(re.fullmatch(r"generator_\d+/mask_token", name))


def _misfits(
    entry: Entry, shapes: Mapping[str, Shape], theirs: Mapping[str, np.ndarray], names: Mapping[str, str]
) -> list[str]:
    """Lines about arrays of another shape or type than they should be."""
    out = []
    for template, shape in zip(entry.theirs, entries.their_shapes(entry, shapes), strict=True):
        for name in (template.format(i) for i in range(shapes[entry.ours[0]][0] if entry.stacked else 1)):
            array = theirs.get(name)
            if array is not None and array.shape != shape:
                out.append(f"{names[name]} is {list(array.shape)}, expected {list(shape)}")
            elif array is not None and array.dtype.kind not in "fV":  # bfloat16 is of kind V
                out.append(f"{names[name]} holds {array.dtype}, not numbers with a fraction")
    return out


def _in_file(template: str, names: Mapping[str, str]) -> str:
    """A name of a table as the file has it: with its prefix, or in another spelling."""
    if "{}" not in template:
        return names[template]
    before, _, after = names[template.format(0)].rpartition(".0.")  # the layer is the last number in a name
    return f"{before}.{{}}.{after}"


def _kind(layout: str, network: Network, source: Source) -> tuple[str, str]:
    """The likeliest kind, and what speaks for it."""
    task, encoder = network.task, network.encoder
    if layout.startswith("hf_"):
        kind = next(k for k, (of, does, _) in KINDS.items() if (of, does) == (layout, task))
        return kind, f"transformers' names, {'tubelets' if network.video else 'image patches'}"
    if layout == "video":
        if network.align:
            return "amd_pretrain", "projection heads beside a video decoder"
        # The giant's MLP is 48/11 of its width; Kinetics-710 is VideoMAE v2's own set of labels.
        width, mlp = encoder.block.width, encoder.block.mlp_width
        if mlp * 11 == width * 48 or network.classes == 710:
            return "videomae_v2", f"width {width}, MLP {mlp}, {network.classes} classes"
        if task == "classifier":
            return "videomae_finetuned", "tubelets and a head (AMD's fine-tuned students have the same names)"
        return f"videomae_{task}", "tubelets" + (" and a decoder" if task == "pretrain" else ", no head")
    if network.align:
        return "dmae_pretrain", "feature projection heads beside MAE's decoder"
    if task == "pretrain":
        return "mae_full", "MAE's encoder and decoder"
    if source.wrapper and task == "classifier":
        return "mae_finetuned", f"a head, in a checkpoint's {source.wrapper!r} (DMAE's have the same names)"
    if encoder.positions == "sincos_2d" and task == "encoder":
        return "mae_encoder", "no head, MAE's fixed position table"
    return "timm_vit", "timm's names" + (", with a head" if task == "classifier" else ", no head")
