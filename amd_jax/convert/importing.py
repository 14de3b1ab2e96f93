"""`import`: any source to a folder of ours."""

import json
from pathlib import Path

from amd_jax.buckets import place
from amd_jax.convert.account import summary
from amd_jax.convert.describe import Facts
from amd_jax.convert.files.opening import WEIGHTS, open_source, read_stated
from amd_jax.convert.files.stated import Stated
from amd_jax.convert.files.tensors import METADATA_KEY, folder, write_safetensors
from amd_jax.convert.kinds import KINDS, Found, recognise
from amd_jax.convert.matching import Want, match
from amd_jax.convert.network import Network

FORMAT = 1  # of the description in the metadata


def run_import(src: str, out: str, kind: str, given: Facts) -> Path | None:
    """Prints what becomes of every weight of `src`; writes `out`/weights.safetensors, unless `out` is empty.

    The stored types are those of the source.

    Raises:
      WeightsError: it cannot be read, does not fit its kind, or `out` cannot be written.
    """
    found, said = recognise(open_source(src), kind, given), read_stated(src)
    whole = match(found, Want.all_of(found))
    lines = [*headline(found), *said.lines(), *map(str, whole.rows), summary(whole.rows)]
    print("\n".join(lines), flush=True)
    if not out:
        return None
    with folder(out) as path:
        write_safetensors(path / WEIGHTS, whole.arrays, metadata(found, found.network, said))
    return place(out) / WEIGHTS


def metadata(found: Found, network: Network, said: Stated) -> dict[str, str]:
    """The metadata of our files: where the weights are from, every size, and what was said of the pixels."""
    about = {"format": FORMAT, "kind": found.kind, "source": found.source.path, "arch": network.to_json()}
    if said.mean or said.classes:
        about["stated"] = said.to_json()
    return {METADATA_KEY: json.dumps(about, sort_keys=True)}


def headline(found: Found) -> list[str]:
    """What a source was recognised as, and what had to be guessed."""
    what = f"{found.kind}, {KINDS[found.kind][2]} ({found.why}; {found.source.what})"
    return [f"{found.source.path}: {what}", *found.network.lines()]
