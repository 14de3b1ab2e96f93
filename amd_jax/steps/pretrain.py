"""Masked pre-training, with a teacher (AMD, DMAE) or without (MAE)."""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from amd_jax.models import build, flops, patches
from amd_jax.models.masking import Masks, nested_masks
from amd_jax.models.student import Student, StudentOutput
from amd_jax.models.vit import ViT
from amd_jax.steps import losses
from amd_jax.steps.step import Batch, Metrics


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """The networks and the constants of a pre-training run; everything in it is static."""

    student: Student
    teacher: ViT | None
    loss: losses.LossConfig
    patch: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    student_visible: int  # positions of a frame
    teacher_visible: int
    teacher_mean: tuple[float, ...] = ()  # of the pixels that the teacher sees; empty: as the student
    teacher_std: tuple[float, ...] = ()
    teacher_patch: tuple[int, int, int] | None = None  # None: as the student's
    teacher_resize: str = "bicubic"  # how images become its size, where its patches are of another

    inputs: ClassVar[tuple[str, ...]] = ("pixels",)

    @classmethod
    def from_config(cls, config: ConfigDict, classes: int = 0) -> "Pretraining":
        """Reads the method, the networks and the loss from a config; labels have no part in it."""
        del classes
        student_visible, teacher_visible = build.visible(config)
        names = [field.name for field in dataclasses.fields(losses.LossConfig)]
        return cls(
            student=build.student(config),
            teacher=build.teacher(config),
            loss=losses.LossConfig(**{name: config.loss[name] for name in names}),
            patch=build.patch(config),
            mean=tuple(config.data.mean),
            std=tuple(config.data.std),
            student_visible=student_visible,
            teacher_visible=teacher_visible,
            teacher_mean=tuple(config.teacher.mean),
            teacher_std=tuple(config.teacher.std),
            teacher_patch=build.teacher_patch(config),
            teacher_resize=config.teacher.resize or "bicubic",
        )

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Frames, height, width and channels of one example."""
        t, h, w = (g * p for g, p in zip(self.student.encoder.grid, self.patch, strict=True))
        return t, h, w, len(self.mean)

    @property
    def flops_per_example(self) -> int:
        """Student forward and backward, teacher forward."""
        times = self.student.encoder.grid[0]
        seen = (self.student_visible * times, self.teacher_visible * times)
        both = (self.patch, self.teacher_patch or self.patch)
        values, teacher_values = (math.prod(patch) * len(self.mean) for patch in both)
        teacher = self.teacher.config if self.teacher else None
        return flops.pretrain_step(self.student, teacher, seen, values, teacher_values)

    @property
    def eight_bit_flops_per_example(self) -> int:
        """Those of the teacher in eight bits."""
        teacher = self.teacher.config if self.teacher else None
        return flops.in_eight_bits(teacher, self.teacher_visible * self.student.encoder.grid[0])

    def prepare(self, key: jax.Array, batch: Batch) -> Batch:
        """The masks of a step."""
        return {"pixels": batch["pixels"], "masks": self.masks(key, batch["pixels"].shape[0])}

    def batch_loss(self, params: Any, frozen: Any, batch: Batch) -> tuple[jax.Array, Metrics]:
        """The fused loss of a prepared batch."""
        return self.loss_fn(params, frozen, batch["pixels"], batch["masks"])

    def masks(self, key: jax.Array, batch: int) -> Masks:
        """Nested masks for a batch."""
        grid = self.student.encoder.grid
        return nested_masks(key, batch, grid, self.student_visible, self.teacher_visible)

    def init(self, key: jax.Array) -> Any:
        """Random student parameters."""
        masks = self.masks(key, 1)
        return self.student.init(key, self._visible(self._blank(), masks.student), masks)["params"]

    def init_frozen(self, key: jax.Array) -> Any:
        """Random teacher parameters; an empty dict without a teacher."""
        if self.teacher is None:
            return {}
        at, blank = self.masks(key, 1).teacher, self._blank_pixels()
        return self.teacher.init(key, self._teacher_visible(self._teacher_patches(blank), at), at)["params"]

    def student_output(
        self, params: Any, pixels: jax.Array, masks: Masks, predict_all: bool = False
    ) -> StudentOutput:
        """The student on `[batch, frames, height, width, channels]` pixels, uint8 or in [0, 1]."""
        x = self._visible(patches.patchify(pixels, self.patch), masks.student)
        return self.student.apply({"params": params}, x, masks, predict_all)  # type: ignore[return-value]

    def teacher_features(self, params: Any, pixels: jax.Array, masks: Masks) -> dict[int, jax.Array]:
        """The frozen teacher's tapped layers, `[batch, (1 +) teacher-visible, width]` each."""
        assert self.teacher is not None
        assert self.student.align is not None
        x = self._teacher_visible(self._teacher_patches(pixels), masks.teacher)
        config, taps = self.teacher.config, self.student.align.teacher_layers
        _, tapped = self.teacher.apply({"params": params}, x, masks.teacher, taps)
        if config.registers:  # they stand for no patch
            tapped = {
                layer: jnp.concatenate([y[:, : config.cls_token], y[:, config.prefix :]], axis=1)
                for layer, y in tapped.items()
            }
        return jax.lax.stop_gradient(tapped)  # type: ignore[arg-type]

    def targets(self, pixels: jax.Array, at: jax.Array) -> jax.Array:
        """What the decoder has to predict at the tokens `at`."""
        x = patches.gather_tokens(patches.patchify(pixels, self.patch), at)
        return losses.pixel_targets(x, self.loss.target, self.mean, self.std)

    def loss_fn(
        self, params: Any, teacher_params: Any, pixels: jax.Array, masks: Masks
    ) -> tuple[jax.Array, Metrics]:
        """The fused loss and its parts."""
        out = self.student_output(params, pixels, masks)
        direct, gen = self.aligned_teacher(teacher_params, pixels, masks)
        targets = self.targets(pixels, masks.hidden)
        return losses.fused_loss(out.pixels, targets, (out.direct, direct), (out.gen, gen), self.loss)

    def aligned_teacher(
        self, params: Any, pixels: jax.Array, masks: Masks
    ) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
        """The teacher's side of direct and of generative alignment, a layer each."""
        a = self.student.align
        if a is None:
            return (), ()
        assert self.teacher is not None
        features = self.teacher_features(params, pixels, masks)
        cls, n = int(self.teacher.config.cls_token), masks.student.shape[1]
        first = 0 if a.cls_token else cls
        direct = tuple(features[layer][:, first : cls + n] for layer in a.teacher_direct)
        return direct, tuple(features[layer][:, cls + n :] for layer in a.teacher_gen)

    def _visible(self, patched: jax.Array, at: jax.Array) -> jax.Array:
        """Gathers first, so that only patches somebody sees are normalised and embedded."""
        return patches.normalize(patches.gather_tokens(patched, at), self.mean, self.std)

    def _teacher_patches(self, pixels: jax.Array) -> jax.Array:
        """As many patches as the student's; where they are of another size, of images resized to it."""
        patch = self.teacher_patch or self.patch
        if patch != self.patch:
            _, rows, columns = self.student.encoder.grid
            pixels = patches.resized(pixels, (rows * patch[1], columns * patch[2]), self.teacher_resize)
        return patches.patchify(pixels, patch)

    def _teacher_visible(self, patched: jax.Array, at: jax.Array) -> jax.Array:
        """The same for the teacher, whose pixels are normalised as in its own training."""
        mean, std = self.teacher_mean or self.mean, self.teacher_std or self.std
        return patches.normalize(patches.gather_tokens(patched, at), mean, std)

    def _blank_pixels(self) -> jax.Array:
        return jnp.zeros((1, *self.input_shape), jnp.uint8)

    def _blank(self) -> jax.Array:
        return patches.patchify(self._blank_pixels(), self.patch)
