"""A local folder that is copied into a bucket: metrics and events grow, and in a bucket no file can."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from absl import logging

from amd_jax import buckets


class Mirror:
    """The local side of a run's folder in a bucket; what cannot be uploaded is told and tried again.

    Attributes:
      folder: where to write.
    """

    def __init__(self, where: Path, names: tuple[str, ...]) -> None:
        """Args: `where` in the bucket, `names` of the files that are there already and go on growing.

        Raises:
          ConfigError: one of them cannot be read.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="amd_jax_"))
        self._where = where
        self._sent: dict[Path, tuple[int, int]] = {}
        self._late = False
        with buckets.told(str(where)):
            for name in names:
                if (where / name).exists():
                    (self.folder / name).write_bytes((where / name).read_bytes())

    def send(self) -> None:
        """Uploads the files that have changed since the last time."""
        files = {path: _version(path) for path in self.folder.rglob("*") if path.is_file()}
        new = [path for path, version in files.items() if self._sent.get(path) != version]
        if not new:
            return
        with self._survive():
            there = [str(self._where / path.relative_to(self.folder)) for path in new]
            buckets.filesystem().put([str(path) for path in new], there)
            self._sent |= {path: files[path] for path in new}
            self._late = False

    def close(self) -> None:
        """Uploads for the last time, and removes the local folder unless it is needed."""
        self.send()
        if self._late:
            logging.warning("what is missing in %s is kept in %s", self._where, self.folder)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

    @contextlib.contextmanager
    def _survive(self) -> Iterator[None]:
        try:
            yield
        except buckets.errors() as error:
            if not self._late:
                logging.warning(
                    "metrics and pictures are not uploaded, the run goes on: %s", buckets.reason(error)
                )
            self._late = True


def _version(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
