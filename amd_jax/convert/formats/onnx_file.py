"""`--format=onnx`: one file that ONNX Runtime and others compute, from uint8 pixels to the output."""

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from amd_jax.convert.formats import computing
from amd_jax.convert.formats.computing import ABOUT, INPUT, Program, cut
from amd_jax.convert.formats.subject import Contents, Subject
from amd_jax.errors import WeightsError

__all__ = ["contents", "cut"]

FILE = "model.onnx"
OPSET = 18
INSTALL = "pip install -r requirements-export.txt && pip install --no-deps jax2onnx==0.17.1"
_MOST_BYTES = 2**31 - 2**24  # of a protocol buffer, less what the graph itself takes
_CODE = """\
import numpy as np
import onnxruntime
{pillow}
{prepare}
session = onnxruntime.InferenceSession("model.onnx")
({output},) = session.run(None, {{"pixels": pixels[None]}})
"""
_SOFTMAX = """\
probabilities = np.exp(logits - logits.max(axis=-1, keepdims=True))
probabilities /= probabilities.sum(axis=-1, keepdims=True)
"""


def contents(subject: Subject) -> Contents:
    """The graph, and what it says of itself once more as JSON.

    Raises:
      WeightsError: jax2onnx is missing, or the weights are more than such a file holds.
    """
    try:
        import jax2onnx  # noqa: F401
    except ImportError as error:
        raise WeightsError(f"--format=onnx needs jax2onnx ({error}); {INSTALL}") from error
    made = computing.make(subject)
    if (size := sum(array.nbytes for array in made.weights.values())) > _MOST_BYTES:
        raise WeightsError(
            f"{size / 2**30:.1f} GiB of weights, an ONNX file holds 2; take --format=stablehlo"
        )
    pillow = "from PIL import Image\n" if len(made.shape) == 3 else ""
    code = _CODE.format(pillow=pillow, prepare=computing.preparing(made), output=made.output)
    code += _SOFTMAX if made.output == "logits" else ""
    return Contents({FILE: lambda path: _write(made, path), ABOUT: made.json}, "onnx", code)


def _write(made: Program, path: Path) -> None:
    import onnx_ir
    from jax2onnx import to_onnx

    weights = jax.tree.map(jnp.asarray, made.weights)  # positions are looked up in them while this is traced
    (batch,) = export.symbolic_shape("batch")
    with _quiet():
        graph = to_onnx(
            lambda pixels: made.call(weights, pixels),
            [jax.ShapeDtypeStruct((batch, *made.shape), np.uint8)],
            model_name="amd_jax",
            opset=OPSET,
            return_mode="ir",
            input_names=[INPUT],
            output_names=[made.output],
        )
        _drop_unused(graph.graph)
        for key, value in made.about.items():
            graph.metadata_props[key] = json.dumps(value)
        onnx_ir.save(graph, path)


def _drop_unused(graph: Any) -> None:
    """Constants that jax2onnx leaves in the bodies of loops; ONNX Runtime warns of each at every start."""
    for node in graph:
        for attribute in node.attributes.values():
            if attribute.type.name == "GRAPH":
                inner = attribute.value.initializers
                for name in [name for name, value in inner.items() if not value.uses()]:
                    del inner[name]
                _drop_unused(attribute.value)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """jax2onnx tells of each library whose operators it would know if that were installed, and onnx_ir of
    each inner value whose type jax2onnx leaves to whoever reads the file.
    """
    loggers = [logging.getLogger(name) for name in ("jax2onnx", "onnx_ir")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
