"""A file of features that is written in parts, so that a run that was stopped goes on."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from amd_jax.errors import ConfigError, DataError
from amd_jax.use.listing import Listing

SUFFIXES = (".parquet", ".npz")


class FeaturesFile:
    """`OUT`, and until it is whole `OUT.parts/`: the plan, and one file for each part that is done."""

    def __init__(self, out: str, plan: Mapping[str, Any]) -> None:
        """Looks for what an earlier run has left.

        Args:
          out: FILE.parquet or FILE.npz.
          plan: what decides the features, plain JSON; parts of another plan are not gone on with.

        Raises:
          ConfigError: the file's name says no format.
          DataError: there are parts of another plan, or nothing can be written there.
        """
        self._out, self._parts = Path(out), Path(f"{out}.parts")
        if self._out.suffix not in SUFFIXES:
            raise ConfigError(f"--out={out}: it must end in {' or '.join(SUFFIXES)}")
        try:
            self._parts.mkdir(parents=True, exist_ok=True)
            noted = self._parts / "plan.json"
            if noted.is_file() and json.loads(noted.read_text()) != plan:
                raise DataError(f"{self._parts}: of other weights, files or options; remove it to begin anew")
            noted.write_text(json.dumps(plan))
        except (OSError, ValueError) as error:
            raise DataError(f"{self._parts}: cannot be used ({error})") from error

    def done(self, part: int) -> bool:
        """Whether a part is there."""
        return self._part(part).is_file()

    def write(self, part: int, numbers: list[int], features: np.ndarray, failed: Mapping[int, str]) -> None:
        """A part, whole or not at all.

        Args:
          part: its number.
          numbers: of the files in the listing.
          features: [numbers, width].
          failed: why others of its files could not be read.
        """
        path = self._part(part)
        temporary = path.with_suffix(".tmp")
        with open(temporary, "wb") as file:
            why = json.dumps({str(number): text for number, text in failed.items()})
            np.savez(file, numbers=np.array(numbers, np.int64), features=features, failed=np.array(why))
        os.replace(temporary, path)

    def join(self, parts: int, files: Listing) -> tuple[int, dict[str, str]]:
        """Makes the file of its parts and removes them; the number of features, and the files without one.

        Raises:
          DataError: no file could be read, so that nothing is written.
        """
        rows = [part[0] for part in self._all(parts)]
        failed = {files.names[n]: why for part in self._all(parts) for n, why in part[2].items()}
        numbers = np.concatenate(rows)
        if not len(numbers):
            name, why = next(iter(failed.items()))
            raise DataError(f"none of {len(files.names)} files could be read (the first, {name}: {why})")
        temporary = self._out.with_name(f"{self._out.name}.tmp")
        if self._out.suffix == ".npz":
            self._join_npz(temporary, parts, files, numbers)
        else:
            self._join_parquet(temporary, parts, files)
        os.replace(temporary, self._out)
        shutil.rmtree(self._parts)
        return len(numbers), failed

    def _join_npz(self, path: Path, parts: int, files: Listing, numbers: np.ndarray) -> None:
        columns = _columns(files, numbers)
        features = np.concatenate([part[1] for part in self._all(parts) if len(part[0])])
        with open(path, "wb") as file:
            named: dict[str, Any] = {name: np.array(column) for name, column in columns.items()}
            np.savez(file, features=features, **named)

    def _join_parquet(self, path: Path, parts: int, files: Listing) -> None:
        writer = None
        for numbers, features, _ in self._all(parts):
            if not len(numbers):
                continue
            flat = pa.array(np.ascontiguousarray(features, np.float32).ravel())
            column = pa.FixedSizeListArray.from_arrays(flat, features.shape[1])
            table = pa.table({**_columns(files, numbers), "features": column})
            writer = writer or parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
        assert writer is not None
        writer.close()

    def _all(self, parts: int) -> Iterator[tuple[np.ndarray, np.ndarray, dict[int, str]]]:
        for part in range(parts):
            with np.load(self._part(part)) as found:
                failed = {int(n): why for n, why in json.loads(str(found["failed"])).items()}
                yield found["numbers"], found["features"], failed

    def _part(self, part: int) -> Path:
        return self._parts / f"{part:06d}.npz"


def _columns(files: Listing, numbers: np.ndarray) -> dict[str, list[str]]:
    """Names, and labels where there are any."""
    columns = {"name": [files.names[n] for n in numbers]}
    return columns | ({"label": [files.labels[n] for n in numbers]} if any(files.labels) else {})
