"""Prepare a TFDS data set as ArrayRecord, the form that `data.source = 'tfds'` reads.

    python -m amd_jax.data.prepare --name=fashion_mnist --data_dir=DIR [--manual_dir=DIR]

Without `--manual_dir`, TFDS downloads the set. With it, the files are taken from that folder: ImageNet's two
tar files (`--name=imagenet2012`), or, for MNIST-like sets, the files of the original download. Preparing is
the only thing that needs TensorFlow (`pip install -r requirements-tfds.txt`); reading does not.
"""

import argparse
import importlib.util
import struct
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from amd_jax import exits
from amd_jax.buckets import check_on_disk
from amd_jax.errors import DataError

# The files of sets whose copies may lack the gzip header that TFDS expects.
_GZIP_FILES = {
    "fashion_mnist": (
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
    ),
}


def prepare(name: str, data_dir: str, manual_dir: str | None = None) -> str:
    """Prepare the set and return the folder it was written to.

    Raises:
      DataError: TensorFlow is missing, the name is unknown, or files are missing in `manual_dir`.
    """
    if manual_dir and not Path(manual_dir).is_dir():
        raise DataError(f"--manual_dir={manual_dir}: no such folder; put the original files there")
    if importlib.util.find_spec("tensorflow") is None:
        raise DataError("Preparing a TFDS set needs TensorFlow: pip install -r requirements-tfds.txt")
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    except tfds.core.DatasetNotFoundError as error:
        raise DataError(f"--name={name}: TFDS knows no set of this name") from error
    with tempfile.TemporaryDirectory(prefix="amd_jax_prepare_") as scratch:
        download_dir = None
        if manual_dir and name in _GZIP_FILES:
            restore_gzip_headers(Path(manual_dir), _GZIP_FILES[name], Path(scratch))
            # TFDS takes a file from its manual_dir before it asks the network, and unpacks it into
            # download_dir, where nobody would look for it again.
            manual_dir, download_dir = scratch, f"{scratch}/unpacked"
        builder.download_and_prepare(
            download_dir=download_dir,
            download_config=tfds.download.DownloadConfig(manual_dir=manual_dir),
        )
    return str(builder.data_dir)


def restore_gzip_headers(source: Path, names: Iterable[str], target: Path) -> None:
    """Copy the gzip files `names` to `target` with the header of the original release.

    TFDS compares checksums of the compressed files. Debian's `dataset-fashion-mnist` has the same streams
    but its packaging dropped the time stamp and the name from their headers; both are known, so the
    original bytes can be had again. Files that have their header are copied as they are.

    Raises:
      DataError: a file is missing or is not gzip.
    """
    for name in names:
        path = source / name
        if not path.is_file():
            raise DataError(f"--manual_dir={source}: {name} is missing; put the original file there")
        raw = path.read_bytes()
        if raw[:2] != b"\x1f\x8b":
            raise DataError(f"--manual_dir={source}: {name} is not a gzip file; download it again")
        if raw[3] == 0:  # no optional header fields: this is where the name was
            stem = name.removesuffix(".gz")
            mtime = 1504176606 if stem.startswith("train") else 1504176627
            header = b"\x1f\x8b\x08\x08" + struct.pack("<I", mtime) + b"\x00\x03"
            raw = header + stem.encode() + b"\0" + raw[10:]
        (target / name).write_bytes(raw)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepares a set; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m amd_jax.data.prepare")
    parser.add_argument("--name", required=True, help="TFDS name, e.g. fashion_mnist or imagenet2012")
    parser.add_argument("--data_dir", required=True, help="where the prepared set goes (data.path)")
    parser.add_argument("--manual_dir", help="folder with the original files: nothing is downloaded")
    args = parser.parse_args(arguments)
    try:
        check_on_disk("--data_dir", args.data_dir)
        folder = prepare(args.name, args.data_dir, args.manual_dir)
    except Exception as error:
        return exits.told(error)
    print(f"Prepared in {folder}")
    print(f"Use it with data.source='tfds', data.name={args.name!r}, data.path={args.data_dir!r}")
    return exits.DONE


if __name__ == "__main__":
    sys.exit(main())
