"""cuDNN's attention beside XLA's: outputs, gradients and time, in the shapes of the published configs."""

import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from amd_jax.config_files import load
from amd_jax.gpu_check.rows import FAILED, SKIPPED, Setting, first_line, judged
from amd_jax.measuring.windows import Schedule, timed
from amd_jax.steps.pretrain import Pretraining

TOLERANCE = 0.02  # of an array's largest value; bfloat16 has 8 bits
TIMES = 3.0  # as far from float32 as XLA's in the same type, at most
Shape = tuple[int, int, int, int]  # batch, tokens, heads, features of a head


def check(setting: Setting) -> None:
    """cuDNN's needs a 16-bit type and a GPU since Ampere; a CPU compares XLA's with itself."""
    name = "cudnn" if setting.full else "xla"
    for what, shape in dict(shapes(setting.full)).items():
        label = f"{what} {'×'.join(map(str, shape))}"
        try:
            _one(setting, label, shape, name)
        except (NotImplementedError, ValueError) as error:  # what this cuDNN or GPU does not have
            setting.add("attention", label, SKIPPED, f"{name}: {first_line(error)}")
        except RuntimeError as error:
            setting.add("attention", label, FAILED, f"{name}: {first_line(error)}")


def shapes(full: bool) -> Iterator[tuple[str, Shape]]:
    """The attentions of a step of AMD on images and on videos."""
    for config, batch in (("vitb_in1k", 64), ("vitb_k400", 8)) if full else (("vitb_in1k", 8),):
        task = Pretraining.from_config(load(config, "" if full else "smoke"))
        student, times = task.student, task.student.encoder.grid[0]
        assert task.teacher is not None
        cls = student.encoder.cls_token
        tokens = {
            "student": (student.encoder.block, task.student_visible * times + cls),
            "teacher": (task.teacher.config.block, task.teacher_visible * times + cls),
            "decoder": (student.decoder.block, student.encoder.tokens + cls),
        }
        for who, (block, count) in tokens.items():
            yield f"{config} {who}", (batch, count, block.heads, block.width // block.heads)


def _one(setting: Setting, label: str, shape: Shape, name: str) -> None:
    rng = np.random.default_rng(0)
    arrays = [jnp.asarray(rng.normal(size=shape), jnp.bfloat16) for _ in range(4)]
    with jax.default_matmul_precision("highest"):
        exact = _results("xla", [x.astype(jnp.float32) for x in arrays])
    errors = {who: _errors(_results(who, arrays), exact) for who in dict.fromkeys((name, "xla"))}
    seconds = {who: _seconds(who, arrays) for who in errors}
    parts = ("output", "gradients")
    limits = [max(TIMES * x, TOLERANCE / 4) for x in errors["xla"]]
    result = judged((e, min(TOLERANCE, limit)) for e, limit in zip(errors[name], limits, strict=True))
    texts = (
        f"{who} {', '.join(f'{p} {e:.1e}' for p, e in zip(parts, errors[who], strict=True))}, "
        f"{seconds[who] * 1e3:.2f} ms"
        for who in errors
    )
    text = "; ".join(texts)
    setting.add("attention", label, result, text, {"errors": errors, "seconds": seconds})


def _run(name: Any, q: jax.Array, k: jax.Array, v: jax.Array, g: jax.Array) -> Any:
    """The output, and the gradients of what the output is pulled along `g` by."""
    out, pull = jax.vjp(lambda *x: jax.nn.dot_product_attention(*x, implementation=name), q, k, v)
    return out, *pull(g)


_compiled = jax.jit(_run, static_argnums=0)


def _results(name: str, arrays: list[jax.Array]) -> list[np.ndarray]:
    return [np.asarray(x, np.float64) for x in jax.device_get(_compiled(name, *arrays))]


def _errors(found: list[np.ndarray], exact: list[np.ndarray]) -> tuple[float, float]:
    """Of the output and of the gradients, the largest over the largest value."""
    each = [float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(found, exact, strict=True)]
    return each[0], max(each[1:])


def _seconds(name: str, arrays: list[jax.Array]) -> float:
    """Of the output and the gradients."""

    def window(times: int) -> float:
        began = time.perf_counter()
        for _ in range(times):
            out = _compiled(name, *arrays)
        jax.block_until_ready(out)
        return time.perf_counter() - began

    window(1)
    return timed(window, Schedule(5, max(1, min(100, int(0.02 / window(1)))))).median
