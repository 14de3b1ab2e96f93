"""`--format=timm`: an image encoder with its head, for `timm.create_model("local-dir:DIR")`."""

import math
from typing import Any

from amd_jax.convert.files.stated import Stated
from amd_jax.convert.formats import renamed
from amd_jax.convert.formats.subject import Contents, Subject, as_json
from amd_jax.convert.forward import without_pretraining
from amd_jax.convert.names import entries, official
from amd_jax.convert.network import Network
from amd_jax.errors import WeightsError
from amd_jax.models.sizes import SIZES

CONFIG = "config.json"
_EPS = 1e-6  # of every norm of its ViT
_PATCHES = {
    *(("tiny", 16), ("small", 16), ("small", 32)),
    *(("base", 8), ("base", 16), ("base", 32), ("large", 16)),
}
_CODE = """\
import timm
import torch
from PIL import Image

model = timm.create_model("local-dir:.", pretrained=True).eval()
prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
image = Image.open("image.jpg").convert("{mode}")
with torch.no_grad():
    {answer}
"""


def cut(network: Network) -> Network:
    """The encoder and its head.

    Raises:
      WeightsError: timm's ViT cannot be like that.
    """
    if network.video:
        raise WeightsError("timm has no ViT for videos; export with --format=hf or --format=official")
    if network.encoder.block.qkv_bias == "qv":
        raise WeightsError("timm's ViT has a bias for all of q, k, v or none; export with --format=official")
    return without_pretraining(network)


def contents(subject: Subject) -> Contents:
    """config.json and the weights."""
    network, said = subject.network, subject.said
    subject.note_described()
    if (eps := network.encoder.block.norm_eps) != _EPS:
        subject.note(f"timm fixes the epsilon of norms at {_EPS:g}, ours is {eps:g}")
    table = official.table(entries.Parts.of(network))
    arrays = renamed.tensors(subject, table, "timm's ViT is the encoder and a head")
    files = {renamed.WEIGHTS: renamed.writing(subject, arrays), CONFIG: as_json(config(network, said))}
    mode = "L" if network.channels == 1 else "RGB"
    return Contents(files, "timm", _CODE.format(mode=mode, answer=_answer(network)) if said.mean else "")


def _answer(network: Network) -> str:
    if network.classes:
        return "probabilities = model(prepare(image)[None]).softmax(dim=-1)"
    if network.fc_norm:
        return "features = model(prepare(image)[None])"
    patches = f"[:, {int(network.encoder.cls_token)}:]"
    return f"features = model.forward_features(prepare(image)[None]){patches}.mean(dim=1)"


def config(network: Network, said: Stated) -> dict[str, Any]:
    """config.json as timm reads it: only `model_args` reach the model."""
    e, b = network.encoder, network.encoder.block
    timms = ("tiny", "small", "base", "large", "huge")
    names = {(s.width, s.depth): name for name, s in SIZES.items() if name in timms}
    size, patch = names.get((b.width, e.depth), "base"), network.patch[1]
    base = f"vit_{size}_patch{patch if (size, patch) in _PATCHES else 16}_224"
    if size == "huge":
        base = "vit_huge_patch14_224"
    side = list(said.size)
    pixels = {"mean": list(said.mean), "std": list(said.std)} if said.mean else {}
    resize = said.before_crop(network.size)
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
            "crop_pct": _share(min(side) if len(resize) == 1 else side[0], resize[0]),
            "crop_mode": "center" if len(resize) == 1 else "squash",
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }


def _share(size: int, resize: int) -> float:
    """`crop_pct`, of which timm makes `resize` again by ⌊size / crop_pct⌋."""
    share = size / resize
    return share if math.floor(size / share) == resize else math.nextafter(share, 0)
