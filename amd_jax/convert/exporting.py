"""`export`: weights of ours under the names other tools read."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from amd_jax.buckets import place
from amd_jax.config import IMAGENET_MEAN, IMAGENET_STD
from amd_jax.convert.account import Row, summary
from amd_jax.convert.files.opening import PROCESSOR, open_source, read_stated
from amd_jax.convert.files.stated import Stated, resizing
from amd_jax.convert.files.tensors import folder, write_safetensors
from amd_jax.convert.guesses import fixed_table
from amd_jax.convert.importing import metadata
from amd_jax.convert.kinds import OF_ANY_PIXELS, Found, never_saved, original_kind, recognise
from amd_jax.convert.names import entries, hf, official
from amd_jax.convert.network import DECODER_POSITIONS, ENCODER_POSITIONS, Network
from amd_jax.errors import WeightsError
from amd_jax.models.sizes import SIZES

WEIGHTS = "model.safetensors"
_WHY_DROPPED = {
    "timm": "timm's ViT is the encoder and a head",
    "hf": "transformers has no place for it",
    "official": "the released code has no name for it",
}


def run_export(src: str, form: str, out: str) -> Path | None:
    """Prints what becomes of every weight of a run, a checkpoint or an imported folder.

    Writes `out`/model.safetensors, and beside it the JSON files that the format has, unless `out` is empty.

    Raises:
      WeightsError: not weights of ours, nothing that the format can hold, or `out` cannot be written.
    """
    found = recognise(open_source(src))
    if not found.ours:
        raise WeightsError(f"{src}: {found.kind}, not a checkpoint of ours; import it first, then export")
    network, rows = _cut(found.network, form), list[Row]()
    said = _said(src, original_kind(found), network, rows)
    files = _files(network, form, said, rows)
    tensors = _tensors(found, network, form, rows)
    print("\n".join([*map(str, rows), summary(rows)]), flush=True)
    if not out:
        return None
    with folder(out) as path:
        for name, content in files.items():
            (path / name).write_text(json.dumps(content, indent=2) + "\n")
        write_safetensors(path / WEIGHTS, tensors, {"format": "pt"} | metadata(found, network, said))
    return place(out) / WEIGHTS


def _cut(network: Network, form: str) -> Network:
    """What of the weights the format has a place for."""
    if more := network.of_teachers():
        raise WeightsError(f"weights with {', '.join(more)} are read as a teacher's and not written")
    if form == "official":
        return network
    if form == "hf":
        return dataclasses.replace(network, align=None)
    if network.video:
        raise WeightsError("timm has no ViT for videos; export with --format=hf or --format=official")
    if network.encoder.block.qkv_bias == "qv":
        raise WeightsError("timm's ViT has a bias for all of q, k, v or none; export with --format=official")
    return dataclasses.replace(network, decoder=None, align=None)


def _said(src: str, kind: str, network: Network, rows: list[Row]) -> Stated:
    """What is known of pixels and classes, made to fit the model; what is left out becomes a row."""
    said, channels = read_stated(src), network.channels
    mean, std, classes = said.mean, said.std, said.classes
    if classes and network.classes and len(classes) != network.classes:
        rows.append(_note(f"{len(classes)} names for {network.classes} classes: they are left out"))
        classes = ()
    if len(mean) not in (0, 1, channels):
        rows.append(_note(f"mean and std are known for {len(mean)} channels, the weights have {channels}"))
        mean, std = (), ()
    if len(mean) == 1:
        mean, std = mean * channels, std * channels
    if not mean and channels == 3 and kind not in OF_ANY_PIXELS:
        mean, std = IMAGENET_MEAN, IMAGENET_STD
        rows.append(_note(f"mean and std are ImageNet's, as published weights of {kind} have them"))
    how = said.interpolation or resizing(network.video)
    return Stated(mean, std, network.size, how, classes if network.classes else (), said.origin)


def _files(network: Network, form: str, said: Stated, rows: list[Row]) -> dict[str, dict[str, Any]]:
    """The JSON files beside the weights, name to content; what they cannot say becomes a row."""
    files: dict[str, dict[str, Any]] = {}
    if form == "hf":
        files["config.json"] = hf.config(network, said.classes)
        if said.mean:
            files[PROCESSOR] = hf.processor(network, said)
            if network.size[0] != network.size[1]:
                what = "it sees less of images of other shapes than our evaluation does"
                rows.append(_note(f"transformers' processor scales by the short side: {what}"))
        if said.mean and network.channels == 1:
            what = "videos" if network.video else "images"
            how = f"transformers' pipeline opens {what} in colour; hand its processor grey arrays"
            rows.append(_note(how))
        rows += [_note(note) for note in hf.other_epsilons(network)]
    elif form == "timm":
        files["config.json"] = _timm_config(network, said)
        if (eps := network.encoder.block.norm_eps) != _TIMM_EPS:
            rows.append(_note(f"timm fixes the epsilon of norms at {_TIMM_EPS:g}, ours is {eps:g}"))
    if files and network.assumed:
        rows.append(_note(f"config.json holds guesses of the import: {', '.join(network.assumed)}"))
    if files and not said.mean:
        rows.append(_note("mean and std of the pixels are not known, so they are left out"))
    return files


def _tensors(found: Found, network: Network, form: str, rows: list[Row]) -> dict[str, np.ndarray]:
    """What is written; every weight of ours becomes a row.

    Raises:
      WeightsError: a weight that the format needs is missing, or of another shape.
    """
    for name, shape in network.shapes().items():
        have = found.arrays[name].shape if name in found.arrays else None
        if have != shape and not (have is None and never_saved(name)):
            what = f"{name} is {list(have)}" if have else f"there is no {name}"
            raise WeightsError(f"{found.source.path}: {what}, expected {list(shape)}")
    table = (hf if form == "hf" else official).table(entries.Parts.of(network))
    fixed = {} if network.video else _fixed_tables(network)
    arrays = found.arrays | {name: array for name, array in fixed.items() if name not in found.arrays}
    written = entries.writable(table, arrays)
    theirs = {name: ", ".join(entry.theirs) for entry in written for name in entry.ours}
    order = list(theirs)  # of the model, not of the file
    for name in sorted(found.arrays, key=lambda n: order.index(n) if n in theirs else len(order)):
        array = found.arrays[name]
        span = f"0-{len(array) - 1}" if len(array) > 1 else "0"
        if name in theirs:
            rows.append(Row("used", name, theirs[name].replace("{}", span), array.shape))
        else:
            rows.append(Row("dropped", name, "", array.shape, _WHY_DROPPED[form]))
    for name in fixed.keys() & theirs.keys() - found.arrays.keys():
        rows.append(Row("regenerated", name, theirs[name], (), "written out"))
    out = entries.write(written, arrays)
    if form == "official":
        return out | _unused_norms(network)
    if form == "timm":
        return out
    zeros = hf.zeros(network)
    rows += [Row("new", "", name, array.shape, "zero: ours has none") for name, array in zeros.items()]
    return {hf.full_name(name, network): array for name, array in (out | zeros).items()}


def _fixed_tables(network: Network) -> dict[str, np.ndarray]:
    """The position tables, written out, that are in the files of image models."""
    e, d = network.encoder, network.decoder
    kinds = {ENCODER_POSITIONS: (e.positions, e.block.width)}
    if d:
        kinds[DECODER_POSITIONS] = (d.positions, d.block.width)
    return {
        name: fixed_table(kind, e.grid, width, e.cls_token)
        for name, (kind, width) in kinds.items()
        if kind != "learned"
    }


def _unused_norms(network: Network) -> dict[str, np.ndarray]:
    """AMD's generators have a norm that their forward pass does not use; its loader asks for it."""
    a = network.align
    if a is None or not network.video:
        return {}
    names = [f"generators.{i}.norm" for i in range(len(a.student_gen))]
    ones, zeros = np.ones(a.teacher_width, np.float32), np.zeros(a.teacher_width, np.float32)
    return {f"{n}.weight": ones for n in names} | {f"{n}.bias": zeros for n in names}


def _note(text: str) -> Row:
    return Row("note", "", "", (), text)


def _timm_config(network: Network, said: Stated) -> dict[str, Any]:
    """config.json as `timm.create_model("local-dir:DIR")` reads it: only `model_args` reach the model."""
    from amd_jax.data.transforms import crop_share  # Pillow, which the command line starts without

    e, b = network.encoder, network.encoder.block
    timms = ("tiny", "small", "base", "large", "huge")
    names = {(s.width, s.depth): name for name, s in SIZES.items() if name in timms}
    size, patch = names.get((b.width, e.depth), "base"), network.patch[1]
    base = f"vit_{size}_patch{patch if (size, patch) in _TIMM_PATCHES else 16}_224"
    if size == "huge":
        base = "vit_huge_patch14_224"
    side = list(said.size)
    pixels = {"mean": list(said.mean), "std": list(said.std)} if said.mean else {}
    return {
        "architecture": base,
        "num_classes": network.classes,
        "num_features": b.width,
        **({"label_names": list(said.classes)} if said.classes else {}),
        "model_args": {
            "img_size": side[0] if side[0] == side[1] else side,
            "patch_size": patch,
            "in_chans": network.channels,
            "embed_dim": b.width,
            "depth": e.depth,
            "num_heads": b.heads,
            "mlp_ratio": b.mlp_width / b.width,
            "qkv_bias": b.qkv_bias == "qkv",
            "class_token": e.cls_token,
            "global_pool": "token" if e.cls_token and not network.fc_norm else "avg",
            "fc_norm": network.fc_norm,
        },
        "pretrained_cfg": {
            "input_size": [network.channels, *side],
            "num_classes": network.classes,
            **pixels,
            "interpolation": said.interpolation,
            "crop_pct": crop_share(min(side)),
            "crop_mode": "center",
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }


_TIMM_EPS = 1e-6  # of every norm of its ViT
_TIMM_PATCHES = {
    *(("tiny", 16), ("small", 16), ("small", 32)),
    *(("base", 8), ("base", 16), ("base", 32), ("large", 16)),
}
