"""Fine-tuning a classifier, alone or with the logits of a fine-tuned teacher."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from amd_jax import methods
from amd_jax.models import build, flops, patches
from amd_jax.models.classifier import Classifier
from amd_jax.models.vit import drop_path
from amd_jax.steps.mixup import draw_mixing, mirror, mix_pixels, mix_targets, soft_targets
from amd_jax.steps.step import Batch, Metrics


@dataclasses.dataclass(frozen=True)
class Finetuning:
    """The networks and the constants of a fine-tuning run; everything in it is static."""

    model: Classifier
    teacher: Classifier | None
    patch: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mixup: float = 0.0  # α of mixup
    cutmix: float = 0.0  # α of cutmix
    mix_groups: int = 1
    smoothing: float = 0.0
    drop_path: float = 0.0
    head_drop: float = 0.0
    kd_weight: float = 0.0  # share of the teacher in the loss
    kd_temperature: float = 1.0
    kd_hard: bool = False
    teacher_mean: tuple[float, ...] = ()  # of the pixels that the teacher sees; empty: as the student
    teacher_std: tuple[float, ...] = ()

    inputs: ClassVar[tuple[str, ...]] = ("pixels", "label")

    @classmethod
    def from_config(cls, config: ConfigDict, classes: int) -> "Finetuning":
        """Reads the networks and the recipe from a config."""
        f = config.finetune
        kd = methods.of(config).teacher == "logits"
        return cls(
            model=build.classifier(config, "student", classes),
            teacher=build.classifier(config, "teacher", classes) if kd else None,
            patch=build.patch(config),
            mean=tuple(config.data.mean),
            std=tuple(config.data.std),
            mixup=f.mixup,
            cutmix=f.cutmix,
            mix_groups=f.mix_groups,
            smoothing=f.smoothing,
            drop_path=f.drop_path,
            head_drop=f.head_drop,
            kd_weight=f.kd_weight if kd else 0.0,
            kd_temperature=f.kd_temperature,
            kd_hard=f.kd_hard,
            teacher_mean=tuple(config.teacher.mean),
            teacher_std=tuple(config.teacher.std),
        )

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Frames, height, width and channels of one example."""
        t, h, w = (g * p for g, p in zip(self.model.encoder.grid, self.patch, strict=True))
        return t, h, w, len(self.mean)

    @property
    def flops_per_example(self) -> int:
        """Forward and backward of the model, forward of the teacher."""
        return flops.classify(self.model, self.patch_values, training=True) + (
            flops.classify(self.teacher, self.patch_values, training=False) if self.teacher else 0
        )

    @property
    def eight_bit_flops_per_example(self) -> int:
        """Those of the teacher in eight bits."""
        teacher = self.teacher.encoder if self.teacher else None
        return flops.in_eight_bits(teacher, self.model.encoder.tokens)

    @property
    def patch_values(self) -> int:
        """Numbers in a patch."""
        t, h, w = self.patch
        return t * h * w * len(self.mean)

    def init(self, key: jax.Array) -> Any:
        """Random parameters of the classifier."""
        return self._init(self.model, key)

    def init_frozen(self, key: jax.Array) -> Any:
        """Random parameters of the teacher; an empty dict without one."""
        return self._init(self.teacher, key) if self.teacher else {}

    def _init(self, model: Classifier, key: jax.Array) -> Any:
        x = jnp.zeros((1, model.encoder.tokens, self.patch_values))
        return model.init(key, x, jnp.arange(model.encoder.tokens)[None])["params"]

    def prepare(self, key: jax.Array, batch: Batch) -> Batch:
        """Finds each example a partner to mix with, and draws how, and drop path."""
        mix_key, drop_key = jax.random.split(key)
        out, count = dict(batch), batch["label"].shape[0]
        if self.mixup or self.cutmix:
            out |= {f"{name}_partner": mirror(batch[name], self.mix_groups) for name in self.inputs}
            out["mixing"] = draw_mixing(
                mix_key,
                count,
                self.input_shape[1:3],
                mixup_alpha=self.mixup,
                cutmix_alpha=self.cutmix,
                groups=self.mix_groups,
            )
        if self.drop_path:
            out["keep"] = drop_path(drop_key, count, self.model.encoder.depth, self.drop_path)
        if self.head_drop:
            shape = (count, self.model.encoder.block.width)
            kept = jax.random.bernoulli(jax.random.fold_in(drop_key, 1), 1 - self.head_drop, shape)
            out["head_keep"] = kept / (1 - self.head_drop)
        return out

    def _mixed(self, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Pixels and soft targets of a prepared batch, or of a part of it."""
        classes, smoothing = self.model.classes, self.smoothing
        pixels, label = batch["pixels"], batch["label"]
        if "mixing" not in batch:
            return pixels, soft_targets(label, classes, smoothing)
        mixing = batch["mixing"]
        targets = mix_targets(label, batch["label_partner"], mixing, classes, smoothing)
        return mix_pixels(pixels, batch["pixels_partner"], mixing), targets

    def logits(
        self, model: Classifier, params: Any, pixels: jax.Array, *drops: jax.Array | None
    ) -> jax.Array:
        """`[batch, classes]` for whole inputs, uint8 or in [0, 1]; `drops` are those of `Classifier`."""
        x = patches.normalize(patches.patchify(pixels, self.patch), self.mean, self.std)
        return self._classify(model, params, x, *drops)

    def teacher_logits(self, frozen: Any, pixels: jax.Array) -> jax.Array:
        """The same of the teacher, whose pixels are normalised as in its own training."""
        assert self.teacher is not None
        mean, std = self.teacher_mean or self.mean, self.teacher_std or self.std
        x = patches.normalize(patches.patchify(pixels, self.patch), mean, std)
        return self._classify(self.teacher, frozen, x)

    def _classify(self, model: Classifier, params: Any, x: jax.Array, *drops: jax.Array | None) -> jax.Array:
        at = jnp.broadcast_to(jnp.arange(model.encoder.tokens), x.shape[:2])
        return model.apply({"params": params}, x, at, *drops)  # type: ignore[return-value]

    def batch_loss(self, params: Any, frozen: Any, batch: Batch) -> tuple[jax.Array, Metrics]:
        """Cross-entropy with the (mixed, smoothed) labels, and with the teacher."""
        pixels, targets = self._mixed(batch)
        logits = self.logits(self.model, params, pixels, batch.get("keep"), batch.get("head_keep"))
        loss = optax.losses.softmax_cross_entropy(logits, targets).mean()
        if self.teacher is None:
            return loss, {}
        told = jax.lax.stop_gradient(self.teacher_logits(frozen, pixels))
        parts = {"loss_label": loss, "loss_kd": self._distillation(logits, told)}
        return (1 - self.kd_weight) * loss + self.kd_weight * parts["loss_kd"], parts

    def _distillation(self, logits: jax.Array, told: jax.Array) -> jax.Array:
        """Hard: cross-entropy with the teacher's choice. Soft: T² KL at temperature T (Hinton 2015)."""
        if self.kd_hard:
            return optax.losses.softmax_cross_entropy_with_integer_labels(logits, told.argmax(axis=-1)).mean()
        t = self.kd_temperature
        log_student, log_teacher = jax.nn.log_softmax(logits / t), jax.nn.log_softmax(told / t)
        return t**2 * optax.losses.kl_divergence_with_log_targets(log_student, log_teacher).mean()
