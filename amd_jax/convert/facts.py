"""What config.json says of a model beyond its weights: that of transformers, and that of timm.

The facts and their names are those of describe.py.
"""

import re
from collections.abc import Mapping
from typing import Any

from amd_jax.convert.names.hf import VIDEOMAE_NORM_EPS
from amd_jax.errors import WeightsError

Facts = dict[str, Any]

# By model_type, what config.json may leave out, and the facts that it never says.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "clip_vision_model": {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "patch_size": 32},
    "siglip_vision_model": {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6},
    "dinov2": {"layer_norm_eps": 1e-6, "patch_size": 14},
    "dinov2_with_registers": {"layer_norm_eps": 1e-6, "patch_size": 14},
    "dinov3_vit": {"layer_norm_eps": 1e-5, "num_attention_heads": 6},
    "vit": {},
    "vit_mae": {"decoder_num_attention_heads": 16},
    "videomae": {"decoder_num_attention_heads": 6},
}
_ACTIVATIONS = {"gelu": "gelu", "quick_gelu": "quick_gelu", "gelu_pytorch_tanh": "gelu_tanh"}
_NAFLEX = (
    "NaFlex takes images of every shape, whose patches are no grid; take a SigLIP 2 of one size, "
    "as google/siglip2-base-patch16-224"
)
# timm's architectures, the first that fits: what their weights do not show, as timm 1.0 builds them.
_TIMM: tuple[tuple[str, Facts], ...] = (
    (r"^vit_7b_patch16_dinov3", {"heads": 32, "norm_eps": 1e-5, "positions": "rotary", "mlp": "gelu"}),
    (r"^vit_huge_plus_patch16_dinov3", {"heads": 20, "norm_eps": 1e-5, "positions": "rotary", "mlp": "gelu"}),
    (r"^vit_\w+_dinov3", {"norm_eps": 1e-5, "positions": "rotary", "mlp": "gelu"}),
    (r"^vit_\w+_dinov2", {"mlp": "gelu"}),
    (r"^vit_\w+_clip_quickgelu_", {"norm_eps": 1e-5, "mlp": "quick_gelu"}),
    (r"^vit_\w+_clip_", {"norm_eps": 1e-5, "mlp": "gelu"}),
    (r"^vit_giantopt_\w+_siglip", {"heads": 16, "mlp": "gelu_tanh"}),
    (r"^vit_(so400m_patch16|base_patch32)_siglip|^vit_large_patch16_siglip\w*_512", {"mlp": "gelu_tanh"}),
    (r"^vit_\w+_siglip", {"mlp": "gelu"}),
)


def of_config(config: Mapping[str, Any]) -> Facts:
    """What a config.json says; empty if it is of a kind that is not known here.

    Raises:
      WeightsError: a model unlike ours, or not such a config.
    """
    if isinstance(config.get("architecture"), str):
        return _of_timm(config)
    kind = config.get("model_type")
    if isinstance(kind, str) and kind.startswith("siglip2"):
        raise WeightsError(f"config.json: {_NAFLEX}")
    if kind in ("clip", "siglip"):  # with a text tower beside the images'
        inner = config.get("vision_config")
        kind = f"{kind}_vision_model"
        config = inner if isinstance(inner, Mapping) else {}
    if kind not in _DEFAULTS:
        return {}
    return _of_transformers(kind, _DEFAULTS[kind] | {k: v for k, v in config.items() if v is not None})


def _of_transformers(kind: str, config: Mapping[str, Any]) -> Facts:
    act, gated = config.get("hidden_act", "gelu"), config.get("use_gated_mlp") is True
    if gated and act != "silu":
        raise WeightsError(f"config.json: the gate of its MLP has hidden_act {act!r}, ours has silu")
    if not gated and act not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        raise WeightsError(f"config.json: hidden_act is {act!r}; known are {known}")
    video = kind == "videomae"
    heads = config.get("decoder_num_attention_heads")
    try:
        image, patch = config.get("image_size", 224), config.get("patch_size", 16)
        (ih, iw), (ph, pw) = (x if isinstance(x, list) else (x, x) for x in (image, patch))
        frames = config.get("num_frames", 16) // config.get("tubelet_size", 2) if video else 1
        facts = {
            "heads": int(config.get("num_attention_heads", 12)),
            "decoder_heads": heads and int(heads),
            "grid": (int(frames), int(ih // ph), int(iw // pw)),
            "norm_eps": float(config.get("layer_norm_eps", 1e-12)),
            "decoder_norm_eps": VIDEOMAE_NORM_EPS if video else None,
            "fc_norm_eps": VIDEOMAE_NORM_EPS if video else None,
            "mlp": "swiglu" if gated or config.get("use_swiglu_ffn") is True else _ACTIVATIONS[act],
            "antialias": kind == "dinov2_with_registers",
        }
        if kind == "dinov3_vit":
            facts |= {"positions": "rotary", "rope_theta": float(config.get("rope_theta", 100.0))}
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise WeightsError(f"config.json: its sizes are not readable ({error})") from error
    return facts


def _of_timm(config: Mapping[str, Any]) -> Facts:
    """By the architecture's name; of a ViT that is not in the table, how timm interpolates positions."""
    name, args = config["architecture"].split(".")[0], config.get("model_args")
    if "naflex" in name:
        raise WeightsError(f"config.json: {_NAFLEX}")
    if not name.startswith("vit_"):
        return {}
    facts = next((facts for pattern, facts in _TIMM if re.search(pattern, name)), {})
    if not isinstance(args, Mapping):
        args = {}
    more: Facts = {"antialias": True, **facts}
    if isinstance(heads := args.get("num_heads"), int):
        more["heads"] = heads
    # A square is seen from the number of positions.
    if isinstance(size := args.get("img_size"), list) and isinstance(patch := args.get("patch_size"), int):
        more["grid"] = (1, *(int(side) // max(1, patch) for side in size))
    return more
