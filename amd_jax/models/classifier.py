"""A ViT with a linear head, for fine-tuning and evaluation."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from amd_jax.models.blocks import Linear, layer_norm
from amd_jax.models.vit import ViT, ViTConfig


class Classifier(nn.Module):
    """Encoder, pooling, head.

    `pool` "cls" reads the CLS token after the final norm (MAE); "mean" averages the patch tokens of the
    last block and then normalises ("fc_norm": MAE with global pooling, VideoMAE).
    """

    encoder: ViTConfig
    classes: int
    pool: str = "cls"
    head_std: float = 0.02  # of the head's initial weights; 0 starts from zero
    fc_norm_eps: float | None = None  # where it is not the blocks' (Hugging Face's VideoMAE)

    @nn.compact
    def __call__(
        self,
        patches: jax.Array,
        indices: jax.Array,
        keep: jax.Array | None = None,
        head_keep: jax.Array | None = None,
    ) -> jax.Array:
        """Logits `[batch, classes]`, float32, for `[batch, tokens, patch values]` normalised patches.

        `keep` are drop path's factors, see `ViT`; `head_keep` `[batch, width]` dropout's before the head.
        """
        encoder = ViT(self.encoder, final_norm=self.pool == "cls", name="encoder")
        x, _ = encoder(patches, indices, keep=keep)
        if self.pool == "cls":
            x = x[:, 0]
        else:
            x = x[:, self.encoder.cls_token :].astype(jnp.float32).mean(axis=1)
            x = layer_norm("fc_norm", self.fc_norm_eps or self.encoder.block.norm_eps)(x)
        x = x if head_keep is None else x * head_keep
        init = nn.initializers.truncated_normal(self.head_std) if self.head_std else nn.initializers.zeros
        return Linear(self.classes, kernel_init=init, name="head")(x)
