"""Pictures of masks and reconstructions: original, what the teacher sees, what the student sees, result.

Of images one sheet with a row an example. Of clips a strip, which shows a frame of each tubelet side by side
and these four below each other, and the sheet as an animation.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from amd_jax.data import pipeline
from amd_jax.evals.evaluation import Evaluation, Picture, Setting
from amd_jax.models import patches
from amd_jax.models.masking import levels_from_masks
from amd_jax.sharding import replicated
from amd_jax.steps import losses
from amd_jax.steps.pretrain import Pretraining

EXAMPLES = 8  # in a picture
STRIPS = 2  # of clips in a still picture
FRAME_SECONDS = 0.125  # of an animation
HIDDEN = 0.5  # grey level of patches that are not seen


def evaluation(setting: Setting) -> Evaluation | None:
    """Draws the same examples every time; None where `log.pictures_every` is 0."""
    config = setting.config
    if not config.log.pictures_every:
        return None
    count = min(EXAMPLES, len(setting.test))
    batches = pipeline.eval_batches(config, setting.test, batch_size=count, process_index=0, process_count=1)
    pixels = next(iter(batches))["pixels"]
    paint = make_painter(setting.task, pixels, config.seed, replicated(setting.mesh))
    return Evaluation("pictures", config.log.pictures_every, draw=lambda state: paint(state.params))


def reconstruction(pretraining: Pretraining, params: Any, pixels: jax.Array, key: jax.Array) -> jax.Array:
    """Columns of pictures for a batch `[n, frames, height, width, channels]`, uint8.

    Returns `[n, columns, frames, height, width, channels]` in [0, 1]. Without a
    teacher there are three columns. Hidden patches are predicted, visible ones are the original's; as in
    MAE's demo, per-patch normalised predictions get the true patch's mean and spread back.
    """
    run = pretraining
    masks = run.masks(key, pixels.shape[0])
    out = run.student_output(params, pixels, masks)
    original = patches.to_unit(patches.patchify(pixels, run.patch))
    truth = patches.gather_tokens(original, masks.hidden)
    predicted = losses.pixels_from_targets(out.pixels, truth, run.loss.target, run.mean, run.std)
    rows = jnp.arange(pixels.shape[0])[:, None]
    filled = original.at[rows, masks.hidden].set(jnp.clip(predicted, 0, 1))
    levels = levels_from_masks(masks)[..., None]
    columns = [original, jnp.where(levels < 1, original, HIDDEN), filled]
    if run.teacher is not None:
        columns.insert(1, jnp.where(levels < 2, original, HIDDEN))
    grid = run.student.encoder.grid
    return jnp.stack([patches.unpatchify(c, run.patch, grid) for c in columns], axis=1)


def sheet(columns: np.ndarray, gap: int = 2, smallest: int = 64) -> np.ndarray:
    """One picture `[height, width, channels]`, uint8, of `[rows, columns, h, w, channels]` in [0, 1].

    Small images are enlarged to at least `smallest` pixels a side, without smoothing.
    """
    x = np.asarray(np.rint(np.clip(columns, 0, 1) * 255), np.uint8)
    scale = max(1, -(-smallest // min(x.shape[2:4])))
    x = x.repeat(scale, axis=2).repeat(scale, axis=3)
    x = np.pad(x, ((0, 0), (0, 0), (gap, gap), (gap, gap), (0, 0)), constant_values=255)
    rows, cols, h, w, c = x.shape
    return x.transpose(0, 2, 1, 3, 4).reshape(rows * h, cols * w, c)


def strip(columns: np.ndarray, tubelet: int) -> np.ndarray:
    """One picture of `[clips, columns, frames, h, w, channels]`: frames side by side, columns as rows."""
    some = columns[:STRIPS, :, ::tubelet]
    return sheet(some.reshape(-1, *some.shape[2:]))


def save(path: Path, picture: Picture) -> None:
    """Writes `path` with the suffix .png, and of clips also .webp, animated."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path.with_suffix(".png"), [picture.still], "PNG")
    if picture.frames is not None:
        _write(path.with_suffix(".webp"), list(picture.frames), "WEBP")


def _write(path: Path, frames: list[np.ndarray], form: str) -> None:
    """`[height, width, 1 or 3]` uint8 pixels, as one file that is made in memory first."""
    images = [Image.fromarray(x.squeeze(-1) if x.shape[-1] == 1 else x) for x in frames]
    more: dict[str, Any] = {}
    if len(images) > 1:
        more = {
            "save_all": True,
            "append_images": images[1:],
            "duration": int(1000 * FRAME_SECONDS),
            "loop": 0,
        }
    buffer = io.BytesIO()
    images[0].save(buffer, form, **more)
    path.write_bytes(buffer.getvalue())


def make_painter(
    pretraining: Pretraining, pixels: np.ndarray, seed: int, replicated: jax.sharding.Sharding
) -> Callable[[Any], Picture]:
    """A function from parameters to a picture of the given examples, always with the same masks.

    Every process of a run has to call it; `replicated` places the examples on the run's mesh.
    """

    def paint(params: Any, x: jax.Array) -> jax.Array:
        return reconstruction(pretraining, params, x, jax.random.key(seed))

    jitted = jax.jit(paint, out_shardings=replicated)
    x = jax.device_put(pixels, replicated)
    tubelet = pretraining.patch[0]

    def picture(params: Any) -> Picture:
        columns = np.asarray(jax.device_get(jitted(params, x)))
        sheets = [sheet(columns[:, :, frame]) for frame in range(columns.shape[2])]
        return Picture(sheets[0]) if len(sheets) == 1 else Picture(strip(columns, tubelet), np.stack(sheets))

    return picture
