"""Hugging Face `transformers`: names, config.json, and the names' changes over its versions.

The names below are those of the published checkpoints (transformers 4, ViTMAE, ViT and VideoMAE); version 5
opens and saves them too, but calls them differently in memory. `published_name` knows the other spellings.
Epsilons: the blocks have `layer_norm_eps`, but VideoMAE's `decoder.norm` and `fc_norm` have PyTorch's 1e-5.
"""

import re
from typing import Any

import numpy as np

from amd_jax.config import ConfigError
from amd_jax.convert.arch import Arch, Stack
from amd_jax.convert.official import DECODER_POSITIONS, ENCODER_POSITIONS
from amd_jax.convert.stated import INTERPOLATIONS, Stated, numbered
from amd_jax.convert.tables import Arrays, Entry, linear, norm, patch_embed, same

VIDEOMAE_NORM_EPS = 1e-5  # of decoder.norm and fc_norm, fixed in modeling_videomae.py
EMBED_BIAS = "decoder.decoder_embed.bias"
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


def table(arch: Arch) -> list[Entry]:
    """Everything but position tables, under names without the base model's prefix."""
    out = patch_embed("encoder/patch_embed", "embeddings.patch_embeddings.projection", arch)
    if arch.cls_token:
        out.append(same("encoder/cls_token", "embeddings.cls_token", (1, 1, arch.encoder.width)))
    out += _blocks("encoder/blocks", "encoder.layer", arch.encoder, arch.video)
    if arch.norm:
        out += norm("encoder/norm", "layernorm")
    if arch.decoder:
        video, d = arch.video, arch.decoder
        token = "mask_token" if video else "decoder.mask_token"
        out += linear(
            "decoder_embed", "encoder_to_decoder" if video else "decoder.decoder_embed", d.embed_bias
        )
        out.append(same("decoder/mask_token", token, (1, 1, d.stack.width)))
        out += _blocks("decoder/blocks", "decoder.decoder_layers", d.stack, video)
        out += norm("decoder_norm", "decoder.norm" if video else "decoder.decoder_norm")
        out += linear("decoder_pred", "decoder.head" if video else "decoder.decoder_pred")
    if arch.fc_norm:
        out += norm("fc_norm", "fc_norm")
    return out + linear("head", "classifier") if arch.classes else out


def positions(arch: Arch) -> dict[str, str]:
    """Our position tables to theirs; VideoMAE has none in its files."""
    if arch.video:
        return {}
    out = {ENCODER_POSITIONS: "embeddings.position_embeddings"}
    return out | {DECODER_POSITIONS: "decoder.decoder_pos_embed"} if arch.decoder else out


def full_name(name: str, arch: Arch) -> str:
    """The name in a saved model: the base model's parts get its prefix."""
    if not re.match(r"(embeddings|encoder|layernorm)\.", name) or arch.task == "encoder":
        return name
    return f"{'videomae' if arch.video else 'vit'}.{name}"


def config(arch: Arch, classes: tuple[str, ...] = ()) -> dict[str, Any]:
    """config.json for `arch`; without the names of its `classes` they are LABEL_0, LABEL_1, …

    Raises:
      ConfigError: no model of transformers is like that.
    """
    e, d = arch.encoder, arch.decoder
    _check(arch)
    out: dict[str, Any] = {
        "hidden_size": e.width,
        "num_hidden_layers": e.depth,
        "num_attention_heads": e.heads,
        "intermediate_size": e.mlp_width,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02,
        "layer_norm_eps": e.norm_eps,
        "image_size": arch.grid[1] * arch.patch[1],
        "patch_size": arch.patch[1],
        "num_channels": arch.channels,
    }
    if arch.video:
        out |= {"model_type": "videomae", "qv_bias": e.qkv_bias == "qv", "use_mean_pooling": not arch.norm}
        out |= {"num_frames": arch.grid[0] * arch.patch[0], "tubelet_size": arch.patch[0]}
    else:
        out |= {"model_type": "vit_mae" if d else "vit", "qkv_bias": e.qkv_bias == "qkv"}
    if d:
        out |= {
            "decoder_hidden_size": d.stack.width,
            "decoder_num_hidden_layers": d.stack.depth,
            "decoder_num_attention_heads": d.stack.heads,
            "decoder_intermediate_size": d.stack.mlp_width,
        }
    if arch.classes:
        labels = classes or numbered(arch.classes)
        out["id2label"] = {str(i): label for i, label in enumerate(labels)}
        out["label2id"] = {label: i for i, label in enumerate(labels)}
    names = {
        (False, "pretrain"): "ViTMAEForPreTraining",
        (False, "classifier"): "ViTForImageClassification",
        (False, "encoder"): "ViTModel",
        (True, "pretrain"): "VideoMAEForPreTraining",
        (True, "classifier"): "VideoMAEForVideoClassification",
        (True, "encoder"): "VideoMAEModel",
    }
    return {"architectures": [names[arch.video, arch.task]], **out}


def processor(arch: Arch, said: Stated) -> dict[str, Any]:
    """preprocessor_config.json: our evaluation crop, and the mean, std and interpolation that are known.

    For images BiT's processor, which resizes the short side and crops as we do, in every version; ViT's own
    squeezes an image into a square.
    """
    from amd_jax.data.transforms import crop_share  # Pillow, which the command line starts without

    size = arch.grid[1] * arch.patch[1]
    return {
        "image_processor_type": "VideoMAEImageProcessor" if arch.video else "BitImageProcessor",
        "do_convert_rgb": arch.channels == 3,
        "do_resize": True,
        "size": {"shortest_edge": int(size / crop_share(size))},
        "resample": next((n for n, how in INTERPOLATIONS.items() if how == said.interpolation), 3),
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(said.mean),
        "image_std": list(said.std),
    }


def zeros(arch: Arch) -> dict[str, np.ndarray]:
    """Biases that transformers' model cannot be without and ours is (AMD's decoder embedding)."""
    if arch.video or arch.decoder is None or arch.decoder.embed_bias:
        return {}
    return {EMBED_BIAS: np.zeros(arch.decoder.stack.width, np.float32)}


def other_epsilons(arch: Arch) -> list[str]:
    """Where transformers computes with another epsilon than ours, whatever config.json says."""
    if not arch.video:
        return []
    ours = {"decoder.norm": arch.decoder.norm_eps} if arch.decoder else {}
    ours |= {"fc_norm": arch.fc_norm_eps} if arch.fc_norm else {}
    return [
        f"transformers fixes the epsilon of {name} at {VIDEOMAE_NORM_EPS:g}, ours is {eps:g}"
        for name, eps in ours.items()
        if eps != VIDEOMAE_NORM_EPS
    ]


def _check(arch: Arch) -> None:
    """Says what transformers' models cannot be."""
    e, d = arch.encoder, arch.decoder
    model = "VideoMAE" if arch.video else "ViTMAE" if d else "ViT"
    biases = ("qv", "none") if arch.video else ("qkv", "none")
    wrong = []
    if arch.cls_token == arch.video:
        wrong.append("no CLS token" if arch.video else "a CLS token")
    if arch.video and arch.positions != "sincos_1d":
        wrong.append("sincos_1d positions")
    if e.qkv_bias not in biases:
        wrong.append(f"qkv_bias {' or '.join(biases)}")
    if not arch.video and not arch.norm:
        wrong.append(
            "a final norm and the CLS token read by the head (this one averages; take --format=timm)"
        )
    if arch.patch[1] != arch.patch[2] or arch.grid[1] != arch.grid[2]:
        wrong.append("square patches and images")
    if not arch.video and arch.grid[0] * arch.patch[0] != 1:
        wrong.append("one frame")
    if d:
        if d.embed_bias and arch.video:
            wrong.append("no bias in the decoder's embedding")
        if d.positions not in (
            "sincos_1d" if arch.video else "sincos_2d",
            *([] if arch.video else ["learned"]),
        ):
            wrong.append(f"{'sincos_1d' if arch.video else 'sincos_2d'} positions in the decoder")
        if (d.stack.qkv_bias, d.stack.norm_eps) != (e.qkv_bias, e.norm_eps):
            wrong.append("the same biases and epsilon in encoder and decoder")
    if wrong:
        raise ConfigError(f"transformers' {model} has {', '.join(wrong)}; export with --format=official")


def _blocks(ours: str, theirs: str, stack: Stack, video: bool) -> list[Entry]:
    a, b, depth = f"{ours}/layers", f"{theirs}.{{}}", stack.depth
    return [
        *norm(f"{a}/norm1", f"{b}.layernorm_before", depth),
        *_split_qkv(f"{a}/attn", f"{b}.attention.attention", stack, video),
        *linear(f"{a}/attn/proj", f"{b}.attention.output.dense", depth=depth),
        *norm(f"{a}/norm2", f"{b}.layernorm_after", depth),
        *linear(f"{a}/mlp/fc1", f"{b}.intermediate.dense", depth=depth),
        *linear(f"{a}/mlp/fc2", f"{b}.output.dense", depth=depth),
    ]


def _split_qkv(ours: str, theirs: str, stack: Stack, video: bool) -> list[Entry]:
    """q, k and v in three linear layers `[width, width]`."""
    width, heads = stack.width, (stack.heads, stack.width // stack.heads)

    def read(a: Arrays) -> Arrays:
        return [np.stack([x.T.reshape(width, *heads) for x in a], axis=1)]

    def write(a: Arrays) -> Arrays:
        return [a[0][:, i].reshape(width, width).T for i in range(3)]

    names = tuple(f"{theirs}.{_QKV[n]}.weight" for n in "qkv")
    out = [Entry((f"{ours}/qkv",), names, read, write, stack.depth)]
    for n in "qkv" if stack.qkv_bias == "qkv" else "qv" if stack.qkv_bias == "qv" else "":
        name = f"{theirs}.{n}_bias" if video else f"{theirs}.{_QKV[n]}.bias"
        out.append(
            Entry(
                (f"{ours}/{n}_bias",),
                (name,),
                lambda a: [a[0].reshape(heads)],
                lambda a: [a[0].reshape(width)],
                stack.depth,
            )
        )
    return out
