"""`--format=stablehlo`: a program for jax alone, on CPUs, NVIDIA GPUs and TPUs, and its weights.

The weights are an argument, not constants of the program: there is no limit to their size, they are on the
device once however often it is called, and whoever likes can look at them.
"""

from pathlib import Path

import jax
import numpy as np
from jax import export

from amd_jax.convert.formats import computing
from amd_jax.convert.formats.computing import ABOUT, Program, cut
from amd_jax.convert.formats.subject import Contents, Subject
from amd_jax.errors import WeightsError

__all__ = ["contents", "cut"]

FILE, WEIGHTS = "model.stablehlo", "weights.npz"
PLATFORMS = ("cpu", "cuda", "tpu")
INSTALL = "pip install -r requirements-export.txt"
_CODE = """\
from pathlib import Path

import jax
import numpy as np
from jax import export
{pillow}
{prepare}
weights = jax.device_put(dict(np.load("weights.npz")))
program = export.deserialize(bytearray(Path("model.stablehlo").read_bytes()))
{output} = program.call(weights, pixels[None])
"""


def contents(subject: Subject) -> Contents:
    """The program, the weights, and what both are as JSON.

    Raises:
      WeightsError: flatbuffers, of which jax makes the file, are missing.
    """
    try:
        import flatbuffers  # noqa: F401
    except ImportError as error:
        raise WeightsError(f"--format=stablehlo needs flatbuffers; {INSTALL}") from error
    made = computing.make(subject)
    made.about["jax"] = jax.__version__
    files = {
        FILE: lambda path: _write(made, path),
        WEIGHTS: lambda path: np.savez(path, **made.weights),  # type: ignore[arg-type]
        ABOUT: made.json,
    }
    pillow = "from PIL import Image\n" if len(made.shape) == 3 else ""
    code = _CODE.format(pillow=pillow, prepare=computing.preparing(made), output=made.output)
    code += "probabilities = jax.nn.softmax(logits)\n" if made.output == "logits" else ""
    return Contents(files, "jax", code)


def _write(made: Program, path: Path) -> None:
    (batch,) = export.symbolic_shape("batch")
    weights = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in made.weights.items()}
    pixels = jax.ShapeDtypeStruct((batch, *made.shape), np.uint8)
    exported = export.export(jax.jit(made.call), platforms=PLATFORMS)(weights, pixels)
    path.write_bytes(exported.serialize())
