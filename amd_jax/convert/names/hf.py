"""Hugging Face `transformers`: names, config.json, and the names' changes over its versions.

The names below are those of the published checkpoints (transformers 4, ViTMAE, ViT and VideoMAE); version 5
opens and saves them too, but calls them differently in memory. `published_name` knows the other spellings.
Epsilons: the blocks have `layer_norm_eps`, but VideoMAE's `decoder.norm` and `fc_norm` have PyTorch's 1e-5.
"""

import re
from typing import Any

import numpy as np

from amd_jax.convert.files.stated import INTERPOLATIONS, Stated, numbered
from amd_jax.convert.names.entries import (
    Entry,
    Parts,
    linear,
    norm,
    patch_embed,
    positions,
    same,
    separate_qkv,
    token,
)
from amd_jax.convert.network import DECODER_POSITIONS, ENCODER_POSITIONS, Network
from amd_jax.errors import WeightsError

VIDEOMAE_NORM_EPS = 1e-5  # of decoder.norm and fc_norm, fixed in modeling_videomae.py
EMBED_BIAS = "decoder.decoder_embed.bias"
_MODELS = {
    (False, "pretrain"): "ViTMAEForPreTraining",
    (False, "classifier"): "ViTForImageClassification",
    (False, "encoder"): "ViTModel",
    (True, "pretrain"): "VideoMAEForPreTraining",
    (True, "classifier"): "VideoMAEForVideoClassification",
    (True, "encoder"): "VideoMAEModel",
}
_QKV = {"q": "query", "k": "key", "v": "value"}
_RENAMED = [
    (r"^decoder\.decoder_encoder\.layer\.", "decoder.decoder_layers."),  # ViTMAE as version 5 saves it
    (r"^layers\.", "encoder.layer."),
    *((rf"\.attention\.{k}_proj\.", f".attention.attention.{v}.") for k, v in _QKV.items()),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
]


def published_name(name: str, video: bool) -> str:
    """A name as the published checkpoints have it, without the base model's prefix `vit.` or `videomae.`."""
    name = re.sub(r"^(vit|videomae)\.", "", name)
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    if video:
        name = re.sub(r"\.attention\.(query|value)\.bias$", lambda m: f".attention.{m[1][0]}_bias", name)
    return name


def table(parts: Parts) -> list[Entry]:
    """Everything that there may be, without the base model's prefix. VideoMAE stores no positions."""
    video = parts.video
    out = [
        *patch_embed("embeddings.patch_embeddings.projection", parts),
        token("encoder/cls_token", "embeddings.cls_token"),
        *_blocks("encoder/blocks", "encoder.layer", video),
        *norm("encoder/norm", "layernorm"),
        *norm("fc_norm", "fc_norm"),
        *linear("head", "classifier"),
    ]
    if parts.pretrain:
        out += linear("decoder_embed", "encoder_to_decoder" if video else "decoder.decoder_embed")
        out.append(token("decoder/mask_token", "mask_token" if video else "decoder.mask_token"))
        out += _blocks("decoder/blocks", "decoder.decoder_layers", video)
        out += norm("decoder_norm", "decoder.norm" if video else "decoder.decoder_norm")
        out += linear("decoder_pred", "decoder.head" if video else "decoder.decoder_pred")
    if not video:
        out.append(positions(ENCODER_POSITIONS, "embeddings.position_embeddings"))
        out.append(positions(DECODER_POSITIONS, "decoder.decoder_pos_embed"))
    return out


def full_name(name: str, network: Network) -> str:
    """The name in a saved model: the base model's parts get its prefix."""
    if not re.match(r"(embeddings|encoder|layernorm)\.", name) or network.task == "encoder":
        return name
    return f"{'videomae' if network.video else 'vit'}.{name}"


def config(network: Network, classes: tuple[str, ...] = ()) -> dict[str, Any]:
    """config.json for `network`; without the names of its `classes` they are LABEL_0, LABEL_1, …

    Raises:
      WeightsError: no model of transformers is like that.
    """
    e, b, d = network.encoder, network.encoder.block, network.decoder
    _check(network)
    size = network.size
    out: dict[str, Any] = {
        "hidden_size": b.width,
        "num_hidden_layers": e.depth,
        "num_attention_heads": b.heads,
        "intermediate_size": b.mlp_width,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02,
        "layer_norm_eps": b.norm_eps,
        "image_size": size[0] if size[0] == size[1] else list(size),
        "patch_size": network.patch[1],
        "num_channels": network.channels,
    }
    if network.video:
        out |= {"model_type": "videomae", "qv_bias": b.qkv_bias == "qv", "use_mean_pooling": not network.norm}
        out |= {"num_frames": network.encoder.grid[0] * network.patch[0], "tubelet_size": network.patch[0]}
    else:
        out |= {"model_type": "vit_mae" if d else "vit", "qkv_bias": b.qkv_bias == "qkv"}
    if d:
        out |= {
            "decoder_hidden_size": d.block.width,
            "decoder_num_hidden_layers": d.depth,
            "decoder_num_attention_heads": d.block.heads,
            "decoder_intermediate_size": d.block.mlp_width,
        }
    if network.classes:
        labels = classes or numbered(network.classes)
        out["id2label"] = {str(i): label for i, label in enumerate(labels)}
        out["label2id"] = {label: i for i, label in enumerate(labels)}
    return {"architectures": [_MODELS[network.video, network.task]], **out}


def processor(network: Network, said: Stated) -> dict[str, Any]:
    """preprocessor_config.json: what is known of the pixels; where no crop is, our evaluation's.

    For images BiT's processor, which resizes the short side and crops as we do, in every version; ViT's own
    squeezes an image into a square. For videos VideoMAE's, whose short side becomes the crop: no margin.
    """
    height, width = network.size
    resize = (min(height, width),) if network.video else said.before_crop(network.size)
    if len(resize) == 1:  # of a shape's longer side, so that no image ends within the crop
        resize = (round(resize[0] * max(height, width) / min(height, width)),)
    sides = ("shortest_edge",) if len(resize) == 1 else ("height", "width")
    return {
        "image_processor_type": "VideoMAEImageProcessor" if network.video else "BitImageProcessor",
        "do_convert_rgb": network.channels == 3,
        "do_resize": True,
        "size": dict(zip(sides, resize, strict=True)),
        "resample": next((n for n, how in INTERPOLATIONS.items() if how == said.interpolation), 3),
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(said.mean),
        "image_std": list(said.std),
    }


def zeros(network: Network) -> dict[str, np.ndarray]:
    """Biases that transformers' model cannot be without and ours is (AMD's decoder embedding)."""
    if network.video or network.decoder is None or network.decoder.embed_bias:
        return {}
    return {EMBED_BIAS: np.zeros(network.decoder.block.width, np.float32)}


def other_epsilons(network: Network) -> list[str]:
    """Where transformers computes with another epsilon than ours, whatever config.json says."""
    eps, d = network.encoder.block.norm_eps, network.decoder
    ours = {"decoder.norm": d.norm_eps or eps} if d else {}
    ours |= {"fc_norm": network.fc_norm_eps or eps} if network.fc_norm else {}
    return [
        f"transformers fixes the epsilon of {name} at {VIDEOMAE_NORM_EPS:g}, ours is {eps:g}"
        for name, eps in ours.items()
        if network.video and eps != VIDEOMAE_NORM_EPS
    ]


def _check(network: Network) -> None:
    """Says what transformers' models cannot be."""
    e, b, d = network.encoder, network.encoder.block, network.decoder
    video, grid, patch = network.video, e.grid, network.patch
    fixed, bias = ("sincos_1d", "qv") if video else ("sincos_2d", "qkv")
    wrong = {
        "no CLS token" if video else "a CLS token": e.cls_token == video,
        "sincos_1d positions": video and e.positions != fixed,
        f"qkv_bias {bias} or none": b.qkv_bias not in (bias, "none"),
        "square patches": patch[1] != patch[2],
        "square images": bool(d) and not video and grid[1] != grid[2],
        "one frame": not video and grid[0] * patch[0] != 1,
    }
    if d:
        wrong |= {
            "no bias in the decoder's embedding": d.embed_bias and video,
            f"{fixed} positions in the decoder": d.positions not in (fixed, fixed if video else "learned"),
            "the same biases and epsilon in encoder and decoder": (d.block.qkv_bias, d.block.norm_eps)
            != (b.qkv_bias, b.norm_eps),
        }
    if any(wrong.values()):
        model = "VideoMAE" if video else "ViTMAE" if d else "ViT"
        has = ", ".join(what for what, true in wrong.items() if true)
        raise WeightsError(f"transformers' {model} has {has}; export with --format=official")


def _blocks(ours: str, theirs: str, video: bool) -> list[Entry]:
    a, b = f"{ours}/layers", f"{theirs}.{{}}"
    attn = f"{b}.attention.attention"
    qkv = separate_qkv(f"{a}/attn/qkv", tuple(f"{attn}.{name}" for name in _QKV.values()))
    biases = [(n, f"{attn}.{n}_bias" if video else f"{attn}.{name}.bias") for n, name in _QKV.items()]
    return [
        *norm(f"{a}/norm1", f"{b}.layernorm_before"),
        *(qkv, *(same(f"{a}/attn/{n}_bias", name) for n, name in biases)),
        *linear(f"{a}/attn/proj", f"{b}.attention.output.dense"),
        *norm(f"{a}/norm2", f"{b}.layernorm_after"),
        *linear(f"{a}/mlp/fc1", f"{b}.intermediate.dense"),
        *linear(f"{a}/mlp/fc2", f"{b}.output.dense"),
    ]
