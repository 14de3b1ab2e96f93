"""`export`: weights of ours under the names other tools read."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from amd_jax.config import IMAGENET_MEAN, IMAGENET_STD, ConfigError
from amd_jax.convert import hf, official, store
from amd_jax.convert.arch import Arch
from amd_jax.convert.importing import describe
from amd_jax.convert.kinds import OF_ANY_PIXELS, Found, original_kind, recognise
from amd_jax.convert.official import DECODER_POSITIONS
from amd_jax.convert.probe import fixed_table
from amd_jax.convert.readers import Info
from amd_jax.convert.report import Row, layers
from amd_jax.convert.sources import PROCESSOR, open_source, read_stated
from amd_jax.convert.stated import OURS, Stated
from amd_jax.convert.tables import Entry, their_shapes

FORMATS = ("timm", "hf", "official")
WEIGHTS = "model.safetensors"


@dataclasses.dataclass
class Export:
    """What will be written.

    Attributes:
      table: everything but position tables.
      positions: our position tables to theirs.
      rename: from a name of `table` to the one in the written file.
      said: what is known of pixels and classes.
      files: the JSON files beside the weights, name to content.
    """

    found: Found
    arch: Arch
    form: str
    table: list[Entry]
    positions: dict[str, str]
    rename: Callable[[str], str]
    said: Stated
    files: dict[str, dict[str, Any]]
    rows: list[Row]


def plan_export(src: str, form: str) -> Export:
    """What exporting a run, a checkpoint or an imported folder would do.

    Raises:
      ConfigError: not weights of ours, or nothing that the format can hold.
    """
    found = recognise(open_source(src))
    if found.layout != "ours":
        raise ConfigError(f"{src}: {found.kind}, not a checkpoint of ours; import it first, then export")
    if form not in FORMATS:
        raise ConfigError(f"--format={form}: there are {', '.join(FORMATS)}")
    arch, rows = _cut(found.arch, form), list[Row]()
    said = _said(src, original_kind(found), arch, rows)
    table, files = official.table(arch), dict[str, dict[str, Any]]()
    positions = official.positions(arch)
    if form == "official" and arch.video and arch.positions != "learned":
        positions = {}
    if form == "hf":
        files["config.json"] = hf.config(arch, said.classes)
        table, positions = hf.table(arch), hf.positions(arch)
        if said.mean:
            files[PROCESSOR] = hf.processor(arch, said)
            if arch.channels == 1:
                rows.append(
                    _note("transformers' pipeline opens images in colour; hand its processor grey arrays")
                )
        rows += [_note(note) for note in hf.other_epsilons(arch)]
        rows += [Row("new", "", name, a.shape, "zero: ours has none") for name, a in hf.zeros(arch).items()]
    elif form == "timm":
        files["config.json"] = _timm_config(arch, said)
        if (eps := arch.encoder.norm_eps) != _TIMM_EPS:
            rows.append(_note(f"timm fixes the epsilon of norms at {_TIMM_EPS:g}, ours is {eps:g}"))
    if files and arch.assumed:
        rows.append(_note(f"config.json holds guesses of the import: {', '.join(arch.assumed)}"))
    if files and not said.mean:
        rows.append(_note("mean and std of the pixels are not known, so they are left out"))
    present = found.source.infos
    table = [e for e in table if _ours_at(e, 0)[0] in present]
    kept = {name for e in table for name in e.ours} | positions.keys()
    for name, shape in found.arch.shapes().items():
        if name not in kept and name in found.file.infos:
            rows.append(Row("dropped", name, "", shape, _why_dropped(form)))
    for entry in table:
        theirs = ", ".join(layers(name, 0, entry.depth or 1) for name in entry.theirs)
        rows.append(Row("used", ", ".join(entry.ours), theirs, found.arch.shapes()[entry.ours[0]]))
    for ours, theirs in positions.items():
        fixed = ours not in found.file.infos
        rows.append(Row("regenerated" if fixed else "used", ours, theirs, (), "written out" if fixed else ""))
    rename = (lambda name: hf.full_name(name, arch)) if form == "hf" else str
    return Export(found, arch, form, table, positions, rename, said, files, rows)


def _note(text: str) -> Row:
    return Row("note", "", "", (), text)


def _said(src: str, kind: str, arch: Arch, rows: list[Row]) -> Stated:
    """What is known of pixels and classes, made to fit `arch`; what is left out becomes a row."""
    said = read_stated(src)
    mean, std, classes = said.mean, said.std, said.classes
    if classes and arch.classes and len(classes) != arch.classes:
        rows.append(_note(f"{len(classes)} names for {arch.classes} classes: they are left out"))
        classes = ()
    if len(mean) not in (0, 1, arch.channels):
        rows.append(
            _note(f"mean and std are known for {len(mean)} channels, the weights have {arch.channels}")
        )
        mean, std = (), ()
    if len(mean) == 1:
        mean, std = mean * arch.channels, std * arch.channels
    if not mean and arch.channels == 3 and kind not in OF_ANY_PIXELS:
        mean, std = IMAGENET_MEAN, IMAGENET_STD
        rows.append(_note(f"mean and std are ImageNet's, as published weights of {kind} have them"))
    size = (arch.grid[1] * arch.patch[1], arch.grid[2] * arch.patch[2])
    how = said.interpolation or OURS
    return Stated(mean, std, size, how, classes if arch.classes else (), said.origin)


def run_export(plan: Export, out: str) -> Path:
    """Writes `out`/model.safetensors, and beside it the JSON files that the format has."""
    present, shapes = plan.found.source.infos, plan.arch.shapes()
    infos: dict[str, Info] = {}
    for entry in plan.table:
        dtype = present[_ours_at(entry, 0)[0]].dtype
        for theirs, shape in zip(entry.theirs, their_shapes(entry, shapes), strict=True):
            for i in range(entry.depth or 1):
                infos[plan.rename(theirs.format(i))] = Info(shape, dtype)
    tables = {theirs: _position_table(plan, ours) for ours, theirs in plan.positions.items()}
    extra = tables | _unused_norms(plan) | (hf.zeros(plan.arch) if plan.form == "hf" else {})
    infos |= {plan.rename(name): Info(array.shape, array.dtype) for name, array in extra.items()}
    metadata = {"format": "pt"} | describe(plan.found, plan.arch, plan.said)
    with store.folder(out) as folder:
        for name, content in plan.files.items():
            (folder / name).write_text(json.dumps(content, indent=2) + "\n")
        with store.writing(folder / WEIGHTS, infos, metadata) as writer:
            for entry in plan.table:
                for i in range(entry.depth or 1):
                    ours = [plan.found.source.fetch(name, None) for name in _ours_at(entry, i)]
                    for name, array in zip(entry.theirs, entry.write(ours), strict=True):
                        writer.put(plan.rename(name.format(i)), None, array)
            for name, array in extra.items():
                writer.put(plan.rename(name), None, array)
    return Path(out) / WEIGHTS


def _ours_at(entry: Entry, layer: int) -> list[str]:
    """Our names of one layer, as the recognised source has them."""
    return [name if entry.depth is None else f"{name}/{layer}" for name in entry.ours]


def _cut(arch: Arch, form: str) -> Arch:
    """What of the weights the format has a place for."""
    if form == "official":
        return arch
    if form == "hf":
        return dataclasses.replace(arch, align=None)
    if arch.video:
        raise ConfigError("timm has no ViT for videos; export with --format=hf or --format=official")
    if arch.encoder.qkv_bias == "qv":
        raise ConfigError("timm's ViT has a bias for all of q, k, v or none; export with --format=official")
    return dataclasses.replace(arch, decoder=None, align=None)


def _why_dropped(form: str) -> str:
    return "timm's ViT is the encoder and a head" if form == "timm" else "transformers has no place for it"


def _position_table(plan: Export, ours: str) -> np.ndarray:
    """`[1, (1 +) tokens, width]`, learned or written out from our fixed table."""
    arch = plan.arch
    if ours in plan.found.file.infos:
        return plan.found.file.fetch(ours, None)[None]
    kind, width = arch.positions, arch.encoder.width
    if ours == DECODER_POSITIONS:
        assert arch.decoder is not None
        kind, width = arch.decoder.positions, arch.decoder.stack.width
    return fixed_table(kind, arch.grid, width, arch.cls_token)[None]


def _unused_norms(plan: Export) -> dict[str, np.ndarray]:
    """AMD's generators have a norm that their forward pass does not use; its loader asks for it."""
    align = plan.arch.align
    if plan.form != "official" or align is None or not plan.arch.video:
        return {}
    names = [f"generators.{i}.norm" for i in range(align.generators)]
    ones, zeros = np.ones(align.teacher_width, np.float32), np.zeros(align.teacher_width, np.float32)
    return {f"{n}.weight": ones for n in names} | {f"{n}.bias": zeros for n in names}


def _timm_config(arch: Arch, said: Stated) -> dict[str, Any]:
    """config.json as `timm.create_model("local-dir:DIR")` reads it: only `model_args` reach the model."""
    from amd_jax.data.transforms import crop_share  # Pillow, which the command line starts without

    e = arch.encoder
    names = {
        (192, 12): "tiny",
        (384, 12): "small",
        (768, 12): "base",
        (1024, 24): "large",
        (1280, 32): "huge",
    }
    size, patch = names.get((e.width, e.depth), "base"), arch.patch[1]
    base = f"vit_{size}_patch{patch if (size, patch) in _TIMM_PATCHES else 16}_224"
    if size == "huge":
        base = "vit_huge_patch14_224"
    side = list(said.size)
    pixels = {"mean": list(said.mean), "std": list(said.std)} if said.mean else {}
    return {
        "architecture": base,
        "num_classes": arch.classes,
        "num_features": e.width,
        **({"label_names": list(said.classes)} if said.classes else {}),
        "model_args": {
            "img_size": side[0] if side[0] == side[1] else side,
            "patch_size": patch,
            "in_chans": arch.channels,
            "embed_dim": e.width,
            "depth": e.depth,
            "num_heads": e.heads,
            "mlp_ratio": e.mlp_width / e.width,
            "qkv_bias": e.qkv_bias == "qkv",
            "class_token": arch.cls_token,
            "global_pool": "token" if arch.cls_token and not arch.fc_norm else "avg",
            "fc_norm": arch.fc_norm,
        },
        "pretrained_cfg": {
            "input_size": [arch.channels, *side],
            "num_classes": arch.classes,
            **pixels,
            "interpolation": said.interpolation,
            "crop_pct": crop_share(side[0]),
            "crop_mode": "center",
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }


_TIMM_EPS = 1e-6  # of every norm of its ViT
_TIMM_PATCHES = {
    ("tiny", 16),
    ("small", 16),
    ("small", 32),
    ("base", 8),
    ("base", 16),
    ("base", 32),
    ("large", 16),
}
