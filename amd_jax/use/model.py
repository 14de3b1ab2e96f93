"""Trained weights as a model that can be shown images or videos: features, tokens, classes.

import amd_jax

model = amd_jax.load("runs/student")           # or a .pth, .safetensors, a timm or Hugging Face folder, hf://…
model.embed(["cat.jpg", "dog.jpg"])            # [2, width]
model.classify(["cat.jpg"])                    # [1, classes], if it has classes
"""

import dataclasses
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from amd_jax.buckets import place
from amd_jax.convert import forward
from amd_jax.convert.files.opening import open_source, read_stated, run_of
from amd_jax.convert.kinds import recognise
from amd_jax.convert.network import Network
from amd_jax.data import sampling
from amd_jax.data.jobs import cores
from amd_jax.data.sampling import Sampler
from amd_jax.errors import ConfigError, WeightsError
from amd_jax.sharding import batch_sharding, make_mesh, replicated
from amd_jax.use import preparation

Pool = Literal["", "mean", "cls"]


class Model:
    """Weights on this machine's devices, and how they want their pixels.

    Attributes:
      network: what the weights are.
      prepare: from an input to the pixels that the model sees.
      classes: names by label; empty where nobody knows them.
    """

    def __init__(
        self,
        network: Network,
        params: Any,
        prepare: preparation.Preparation,
        classes: tuple[str, ...] = (),
        dtype: str = "auto",
    ) -> None:
        """Puts the weights on the devices.

        Args:
          network: of the weights.
          params: nested dict of arrays: "encoder", and of a classifier "head" and perhaps "fc_norm".
          prepare: from an input to pixels.
          classes: their names.
          dtype: compute type; "auto": float32 on CPUs, bfloat16 elsewhere.
        """
        self._mesh = make_mesh(devices=jax.local_devices())
        if dtype == "auto":
            dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
        compute = jnp.dtype(dtype)
        block = dataclasses.replace(network.encoder.block, dtype=compute, residual=compute)
        self.network = dataclasses.replace(network, encoder=dataclasses.replace(network.encoder, block=block))
        self.prepare, self.classes = prepare, classes
        self._params = jax.device_put(params, replicated(self._mesh))
        self._compiled: dict[str, Callable[..., jax.Array]] = {}

    def __repr__(self) -> str:
        return "\n".join([*self.network.lines(), f"pixels: {self.prepare}"])

    def embed(self, inputs: Any, *, pool: Pool = "", batch_size: int = 64) -> np.ndarray:
        """One feature an input, float32 [inputs, width].

        Args:
          inputs: a list of paths, Pillow images or uint8 arrays, or one of them; see
            `preparation.Preparation.__call__`. An array [N, H, W, C] (videos: [N, T, H, W, C]) is N of them.
          pool: "mean" of the patch tokens after the final norm, as probes read it, or the "cls" token. By
            default what the classifier's head reads, and the mean where there is no head.
          batch_size: inputs on the devices at a time.

        Raises:
          DataError: an input cannot be read.
          ConfigError: a "cls" token is asked for, and there is none.
        """
        self.check_pool(pool)
        return self._all(f"embed{pool}", inputs, batch_size)

    def tokens(self, inputs: Any, *, batch_size: int = 64) -> np.ndarray:
        """Every token after the final norm, float32 [inputs, tokens, width]; CLS and registers first.

        Patches follow in the order time, height, width; `network.encoder.grid` says how many of each. Of a
        classifier that pools the mean they are the last block's, which no norm follows.
        """
        return self._all("tokens", inputs, batch_size)

    def classify(self, inputs: Any, *, batch_size: int = 64) -> np.ndarray:
        """Probabilities, float32 [inputs, classes]; of several views the mean.

        Raises:
          WeightsError: the weights have no classes.
          DataError: an input cannot be read.
        """
        self.check_classes()
        return self._all("classify", inputs, batch_size)

    def check_pool(self, pool: str) -> None:
        """Raises ConfigError for a feature that this encoder does not have."""
        if pool not in ("", "mean", "cls"):
            raise ConfigError(f"pool={pool!r}: there are 'mean' and 'cls'")
        if pool == "cls" and not self.network.encoder.cls_token:
            raise ConfigError("pool='cls': this encoder has no CLS token")

    def check_classes(self) -> None:
        """Raises WeightsError for weights that cannot classify."""
        if not self.network.classes:
            raise WeightsError("these weights are an encoder and have no classes: fine-tune them first")

    @property
    def checksum(self) -> int:
        """Another for other weights."""
        total = 0
        for leaf in jax.tree.leaves(jax.device_get(self._params)):
            total = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), total)
        return total

    def batches(
        self, inputs: Iterable[Any], batch_size: int, failed: Callable[[int, Exception], None] | None = None
    ) -> Iterator[tuple[list[int], np.ndarray]]:
        """Numbers of inputs and their views, uint8 [inputs, views, T, H, W, C], read ahead by threads.

        Args:
          inputs: see `embed`.
          batch_size: inputs in a batch.
          failed: takes the number of an input that cannot be read, and why; None: that is raised.
        """
        numbers: list[int] = []
        views: list[np.ndarray] = []
        for number, found in _ahead(self.prepare, inputs, 2 * batch_size):
            try:
                views.append(found.result())
            except Exception as error:
                if failed is None:
                    raise
                failed(number, error)
                continue
            numbers.append(number)
            if len(numbers) == batch_size:
                yield numbers, np.stack(views)
                numbers, views = [], []
        if numbers:
            yield numbers, np.stack(views)

    def run(self, what: str, views: np.ndarray) -> np.ndarray:
        """`embed`, `tokens` or `classify` of views [inputs, views, T, H, W, C]: their mean."""
        number = len(views)
        # Few shapes, so that few programs are compiled, and as many rows on each device.
        size = self._mesh.size
        while size < number:
            size *= 2
        padded = np.concatenate([views, np.zeros((size - number, *views.shape[1:]), np.uint8)])
        where = batch_sharding(self._mesh)
        total: Any = 0
        for view in range(views.shape[1]):
            total += self._function(what)(self._params, jax.device_put(padded[:, view], where))
        return np.asarray(total)[:number] / views.shape[1]

    def _all(self, what: str, inputs: Any, batch_size: int) -> np.ndarray:
        given = preparation.several(inputs, self.prepare.frames)
        if not given:
            raise ConfigError("no inputs")
        return np.concatenate([self.run(what, views) for _, views in self.batches(given, batch_size)])

    def _function(self, what: str) -> Callable[..., jax.Array]:
        if what not in self._compiled:
            self._compiled[what] = jax.jit(self._forward(what), out_shardings=batch_sharding(self._mesh))
        return self._compiled[what]

    def _forward(self, what: str) -> Callable[[Any, jax.Array], jax.Array]:
        """From parameters and pixels [batch, T, H, W, C] to what is wanted, float32."""
        mean, std = self.prepare.mean, self.prepare.std
        if what == "tokens":
            return forward.make(self.network, "tokens", mean, std)
        if what != "classify":
            return forward.make(self.network, "embedding", mean, std, what.removeprefix("embed"))
        logits = forward.make(self.network, "logits", mean, std)
        return lambda params, pixels: jax.nn.softmax(logits(params, pixels))


def load(
    src: str | os.PathLike[str], *, clips: int = 1, crops: int = 1, dtype: str = "auto", kind: str = ""
) -> Model:
    """Reads weights of any kind that `convert import` reads, and what is stated of their pixels and classes.

    Args:
      src: a run's workdir or a checkpoint of it, a .pth, .pt, .bin or .safetensors file, a folder of timm's
        or Hugging Face's, hf://ORG/NAME, an imported folder.
      clips: of a video, whose features or probabilities are averaged.
      crops: of each clip, along its longer side.
      dtype: compute type; "auto": float32 on CPUs, bfloat16 elsewhere.
      kind: what the file is, where names and shapes do not show it; see `convert.kinds.KINDS`.

    Raises:
      WeightsError: unreadable, or weights of nothing that is known.
    """
    src = os.fspath(src)
    found = recognise(open_source(src), kind)
    network = forward.without_pretraining(found.network)
    said = read_stated(src)
    prepare = preparation.make(network, said, clips, crops, _sampler(src, clips))
    names = said.classes if len(said.classes) == network.classes else ()
    return Model(network, forward.parameters(found), prepare, names, dtype)


def _sampler(src: str, clips: int) -> Sampler | None:
    """How a run of ours tests on videos."""
    if src.startswith("hf:") or (run := run_of(place(src))[0]) is None:
        return None
    from amd_jax.workdir import run_config  # orbax, which only runs need

    data = run_config(str(run)).data
    if data.frames == 1:
        return None
    return sampling.make(data.sampling, "test", frames=data.frames, stride=data.stride, clips=clips)


def _ahead(
    work: Callable[[Any], np.ndarray], inputs: Iterable[Any], most: int
) -> Iterator[tuple[int, Future[np.ndarray]]]:
    """`work` of each input, by threads and in order; so many at most wait for their reader."""
    with ThreadPoolExecutor(cores()) as pool:
        waiting: deque[tuple[int, Future[np.ndarray]]] = deque()
        for number, given in enumerate(inputs):
            waiting.append((number, pool.submit(work, given)))
            if len(waiting) >= most:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
