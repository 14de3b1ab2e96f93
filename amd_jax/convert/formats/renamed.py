"""Weights under the names that other tools give them."""

from collections.abc import Iterable

import numpy as np

from amd_jax.convert.account import Row
from amd_jax.convert.files.tensors import Arrays, write_safetensors
from amd_jax.convert.formats.subject import Subject, Write
from amd_jax.convert.guesses import fixed_table
from amd_jax.convert.importing import metadata
from amd_jax.convert.names import entries
from amd_jax.convert.names.entries import Entry
from amd_jax.convert.network import DECODER_POSITIONS, ENCODER_POSITIONS, Network

WEIGHTS = "model.safetensors"


def tensors(subject: Subject, table: Iterable[Entry], why_dropped: str) -> Arrays:
    """The weights by the names of `table`; every weight of ours becomes a row."""
    found, network, rows = subject.found, subject.network, subject.rows
    fixed = {} if network.video else _fixed_tables(network)
    arrays = found.arrays | {name: array for name, array in fixed.items() if name not in found.arrays}
    written = entries.writable(table, arrays)
    theirs = {name: ", ".join(entry.theirs) for entry in written for name in entry.ours}
    order = list(theirs)  # of the model, not of the file
    for name in sorted(found.arrays, key=lambda n: order.index(n) if n in theirs else len(order)):
        array = found.arrays[name]
        span = f"0-{len(array) - 1}" if len(array) > 1 else "0"
        if name in theirs:
            rows.append(Row("used", name, theirs[name].replace("{}", span), array.shape))
        else:
            rows.append(Row("dropped", name, "", array.shape, why_dropped))
    for name in fixed.keys() & theirs.keys() - found.arrays.keys():
        rows.append(Row("regenerated", name, theirs[name], (), "written out"))
    return entries.write(written, arrays)


def writing(subject: Subject, arrays: Arrays) -> Write:
    """Writes them, with what is known of them in the header."""
    header = {"format": "pt"} | metadata(subject.found, subject.network, subject.said)
    return lambda path: write_safetensors(path, arrays, header)


def _fixed_tables(network: Network) -> dict[str, np.ndarray]:
    """The position tables, written out, that are in the files of image models."""
    e, d = network.encoder, network.decoder
    kinds = {ENCODER_POSITIONS: (e.positions, e.block.width)}
    if d:
        kinds[DECODER_POSITIONS] = (d.positions, d.block.width)
    return {
        name: fixed_table(kind, e.grid, width, e.cls_token)
        for name, (kind, width) in kinds.items()
        if kind != "learned"
    }
