"""The two ways to pool: the CLS token after the final norm, or the mean of patch tokens and then a norm."""

import dataclasses

import jax
import numpy as np
import pytest

from amd_jax.models.blocks import BlockConfig
from amd_jax.models.classifier import Classifier
from amd_jax.models.vit import ViT, ViTConfig

ENCODER = ViTConfig(BlockConfig(width=16, heads=2, mlp_width=32), 1, (1, 2, 3))


@pytest.mark.parametrize(("pool", "cls_token"), [("cls", True), ("mean", True), ("mean", False)])
def test_logits_are_the_head_of_the_pooled_features(pool: str, cls_token: bool) -> None:
    encoder = dataclasses.replace(ENCODER, cls_token=cls_token)
    patches = np.random.default_rng(0).normal(size=(2, 6, 5)).astype(np.float32)
    at = np.tile(np.arange(6), (2, 1))
    model = Classifier(encoder, 4, pool)
    shapes = jax.eval_shape(model.init, jax.random.key(0), patches, at)["params"]
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda s: rng.normal(0, 0.3, s.shape).astype(np.float32), shapes)
    logits = jax.jit(model.apply)({"params": params}, patches, at)

    body = {name: value for name, value in params["encoder"].items() if name != "norm"}
    x, _ = jax.jit(ViT(encoder, final_norm=False).apply)({"params": body}, patches, at)
    x = np.asarray(x)
    pooled = x[:, 0] if pool == "cls" else x[:, int(cls_token) :].mean(1)
    norm = params["encoder"]["norm"] if pool == "cls" else params["fc_norm"]
    pooled = (pooled - pooled.mean(-1, keepdims=True)) / np.sqrt(pooled.var(-1, keepdims=True) + 1e-6)
    expected = (pooled * norm["scale"] + norm["bias"]) @ params["head"]["kernel"] + params["head"]["bias"]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    assert ("norm" in params["encoder"]) == (pool == "cls")
