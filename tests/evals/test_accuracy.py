"""Accuracy by many views: one score a video, the mean of its views, on any number of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amd_jax import sharding
from amd_jax.data import pipeline
from amd_jax.data.example import Example
from amd_jax.evals.accuracy import make_scorer
from amd_jax.evals.averaging import by_example, over_views
from amd_jax.evals.features import features, make_encoder
from amd_jax.steps.finetune import Finetuning
from configs import finetune_vitb_ssv2

VIDEOS, CLASSES, CLIPS, CROPS = 13, 7, 2, 3


class Clips:
    """Videos of noise, 40 × 56; one of them cannot be read."""

    num_classes, class_names = CLASSES, ()

    def __len__(self) -> int:
        return VIDEOS

    def __getitem__(self, index: int) -> Example:
        if index == 5:
            raise OSError("gone")
        rng = np.random.default_rng(index)
        return Example(rng.integers(0, 256, (9 + index, 40, 56, 3), np.uint8), self.label(index))

    def label(self, index: int) -> int:
        return index % CLASSES

    def describe(self, index: int) -> str:
        return f"video {index}"


def case():
    config = finetune_vitb_ssv2.get_config("smoke")
    config.eval.batch_size, config.eval.clips, config.eval.crops = 24, CLIPS, CROPS
    config.data.threads = 1
    run = Finetuning.from_config(config, CLASSES)
    params = run.init(jax.random.key(0))
    kernel = params["head"]["kernel"]
    params["head"]["kernel"] = 3 * jax.random.normal(jax.random.key(1), kernel.shape)
    return config, run, params


def test_a_video_is_scored_once_by_the_mean_of_its_views_on_any_number_of_devices() -> None:
    """13 videos in batches of 24, which divide by nothing; the expected numbers come from NumPy."""
    config, run, params = case()
    batches = pipeline.eval_batches(
        config, Clips(), batch_size=1, process_index=0, process_count=1, clips=CLIPS, crops=CROPS
    )
    hits, losses, labels = [], [], []
    for batch in batches:
        if not batch["mask"][0]:
            continue
        assert batch["pixels"].shape == (6, 4, 32, 32, 3)
        assert len({view.tobytes() for view in batch["pixels"]}) == 6
        logits = np.asarray(run.logits(run.model, params, jnp.asarray(batch["pixels"])), np.float64)
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        mean, label = probabilities.mean(axis=0), int(batch["label"][0])
        hits.append((mean > mean[label]).sum())
        losses.append(-np.log(mean[label]))
        labels.append(label)
    assert labels == [i % CLASSES for i in range(VIDEOS) if i != 5]
    expected = {
        "test_top1": 100 * np.mean(np.array(hits) < 1),
        "test_top5": 100 * np.mean(np.array(hits) < 5),
        "test_loss": np.mean(losses),
        "test_examples": 12,
    }
    for devices in (1, 3, 8):
        mesh = sharding.make_mesh(devices=jax.devices()[:devices])
        score = make_scorer(config, run, Clips(), mesh, CLIPS, CROPS, "test")
        assert score(jax.device_put(params, sharding.replicated(mesh))) == pytest.approx(expected, rel=1e-5)


def test_features_are_averaged_over_the_views_of_a_video() -> None:
    config, run, params = case()
    config.method = "mae"
    mesh = sharding.make_mesh(devices=jax.devices()[:3])
    encoder = params["encoder"] | {"norm": params["fc_norm"]}
    found, labels = features(make_encoder(config, mesh), encoder, config, Clips(), mesh)
    assert found.shape == (12, run.model.encoder.block.width)
    assert labels.tolist() == [i % CLASSES for i in range(VIDEOS) if i != 5]
    one = config.copy_and_resolve_references()
    one.eval.clips = one.eval.crops = 1
    encode = make_encoder(one, mesh)
    batch = next(
        iter(
            pipeline.eval_batches(
                config, Clips(), batch_size=1, process_index=0, process_count=1, clips=CLIPS, crops=CROPS
            )
        )
    )
    views, _, _ = encode(encoder, {name: jnp.asarray(value) for name, value in batch.items()})
    np.testing.assert_allclose(found[0], np.asarray(views).mean(axis=0), rtol=1e-4, atol=1e-5)


def test_views_side_by_side_become_one() -> None:
    pixels = jnp.arange(12.0).reshape(6, 2)
    np.testing.assert_array_equal(by_example(jnp.array([4, 4, 4, 9, 9, 9]), 3), [4, 9])
    np.testing.assert_allclose(over_views(lambda x: 2 * x, pixels, 3), 2 * pixels.reshape(2, 3, 2).mean(1))
    np.testing.assert_array_equal(over_views(lambda x: x, pixels, 1), pixels)
