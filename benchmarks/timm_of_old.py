"""What the released code of AMD and DMAE imports of timm 0.3.2, which no longer installs: plain ViT parts."""

import sys
from types import ModuleType
from typing import Any

import torch
from torch import nn


class PatchEmbed(nn.Module):
    """Patches of an image as a convolution."""

    def __init__(self, img_size: int, patch_size: int, in_chans: int, embed_dim: int) -> None:
        super().__init__()
        self.img_size, self.patch_size = (img_size, img_size), (patch_size, patch_size)
        self.num_patches = (img_size // patch_size) ** 2
        self.proj = nn.Conv2d(in_chans, embed_dim, patch_size, patch_size)

    def forward(self, x: Any) -> Any:
        return self.proj(x).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Softmax attention, written out as there."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Any) -> Any:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * (c // self.num_heads) ** -0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, n, c))


class Mlp(nn.Sequential):
    """Linear, GELU, linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class Block(nn.Module):
    """A pre-norm block."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float,
        qkv_bias: bool,
        norm_layer: Any,
        qk_scale: None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        assert qk_scale is None
        self.drop_path = drop_path
        self.norm1, self.norm2 = norm_layer(dim), norm_layer(dim)
        self.attn = Attention(dim, num_heads, qkv_bias)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Any) -> Any:
        x = x + drop_path(self.attn(self.norm1(x)), self.drop_path, self.training)
        return x + drop_path(self.mlp(self.norm2(x)), self.drop_path, self.training)


class VisionTransformer(nn.Module):
    """The parts of a classifier, which is put together where it is used."""

    def __init__(
        self,
        patch_size: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        qkv_bias: bool,
        norm_layer: Any,
        num_classes: int,
        drop_path_rate: float,
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(224, patch_size, 3, embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, self.patch_embed.num_patches + 1, embed_dim))
        self.pos_drop, self.norm = nn.Identity(), norm_layer(embed_dim)
        rates = torch.linspace(0, drop_path_rate, depth).tolist()
        blocks = [Block(embed_dim, num_heads, mlp_ratio, qkv_bias, norm_layer, None, p) for p in rates]
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Linear(embed_dim, num_classes)

    def forward(self, x: Any) -> Any:
        return self.head(self.forward_features(x))  # which the released class has


def drop_path(x: Any, rate: float = 0.0, training: bool = False) -> Any:
    """Leaves a block out for some of the examples."""
    if not rate or not training:
        return x
    return x * x.new_empty(len(x), *[1] * (x.ndim - 1)).bernoulli_(1 - rate) / (1 - rate)


def install() -> None:
    """`import timm` finds these from now on."""
    names: dict[str, dict[str, Any]] = {
        "timm": {"__version__": "0.3.2"},
        "timm.models": {},
        "timm.models.vision_transformer": {
            part.__name__: part for part in (PatchEmbed, Block, Mlp, VisionTransformer)
        },
        "timm.models.layers": {
            "drop_path": drop_path,
            "to_2tuple": lambda x: x if isinstance(x, tuple) else (x, x),
            "trunc_normal_": torch.nn.init.trunc_normal_,
        },
        "timm.models.registry": {"register_model": lambda function: function},
    }
    for name, members in names.items():
        sys.modules[name] = module = ModuleType(name)
        module.__dict__.update(members)
        if "." in name:  # a submodule is an attribute, too
            parent, _, child = name.rpartition(".")
            setattr(sys.modules[parent], child, module)
