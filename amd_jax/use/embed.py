"""Features of many files: `amd-jax embed SRC --data=DIR|LIST --out=FILE.parquet|FILE.npz`.

A row a file: its name, its label if it has one, its feature. Files that cannot be read are told, counted and
left out. The same command goes on where it was stopped. Exit codes are those of exits.py.
"""

import argparse
import math
import os
import sys
from collections.abc import Sequence

import numpy as np

from amd_jax import exits
from amd_jax.convert.cli import SOURCES
from amd_jax.use.listing import listing

PART = 16  # batches that are kept together


def parser() -> argparse.ArgumentParser:
    """All flags."""
    top = argparse.ArgumentParser("amd-jax embed", description=__doc__.split(":")[0])
    top.add_argument("src", metavar="SRC", help=SOURCES)
    top.add_argument("--data", required=True, help="a folder of images or videos, or a list `path label`")
    top.add_argument("--root", default="", help="what paths of a list start from; by default its folder")
    top.add_argument("--out", required=True, help="FILE.parquet or FILE.npz")
    top.add_argument(
        "--pool", default="", choices=("mean", "cls"), help="what is a feature: see load's embed"
    )
    top.add_argument("--batch_size", type=int, default=64, help="files on the devices at a time")
    top.add_argument("--clips", type=int, default=1, help="clips of a video, whose mean is taken")
    top.add_argument("--crops", type=int, default=1, help="crops of a clip, whose mean is taken")
    top.add_argument("--kind", default="", help="what SRC is, where names and shapes do not show it")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the file; returns the exit code."""
    args = parser().parse_args(argv)
    try:
        print(embed(args))
    except Exception as error:
        return exits.told(error)
    return exits.DONE


def embed(args: argparse.Namespace) -> str:
    """Writes the file, and says what is in it.

    Raises:
      UserError: of weights, data or options.
    """
    from amd_jax.data.jobs import Progress
    from amd_jax.use import model as models
    from amd_jax.use.features_file import FeaturesFile

    model = models.load(args.src, clips=args.clips, crops=args.crops, kind=args.kind)
    files = listing(args.data, args.root, videos=model.prepare.frames > 1)
    if model.prepare.assumed:
        print(f"{args.src} does not say it, so {model.prepare.assumed} are assumed", file=sys.stderr)
    model.check_pool(args.pool)
    plan = {"weights": model.checksum, "files": files.checksum, "prepare": repr(model.prepare)}
    plan |= {"pool": args.pool, "batch_size": args.batch_size}
    file = FeaturesFile(args.out, plan)
    width = model.network.encoder.block.width
    size, total = args.batch_size * PART, len(files.names)
    parts = math.ceil(total / size)
    left = [part for part in range(parts) if not file.done(part)]
    progress = Progress("files", total, total - sum(min(size, total - part * size) for part in left))
    for part in left:
        span = range(part * size, min((part + 1) * size, total))
        failed: dict[int, str] = {}

        def note(number: int, error: Exception, span: range = span, failed: dict[int, str] = failed) -> None:
            failed[span[number]] = str(error)
            print(f"left out: {error}", file=sys.stderr)

        numbers, features = [], [np.zeros((0, width), np.float32)]
        for which, views in model.batches(map(files.path, span), args.batch_size, note):
            numbers += [span[n] for n in which]
            features.append(model.run(f"embed{args.pool}", views))
        file.write(part, numbers, np.concatenate(features), failed)
        for _ in span:
            progress.step()
    progress.end()
    number, failures = file.join(parts, files)
    what = f"{number} features of width {width}"
    skipped = f"; {len(failures)} of {total} files could not be read" if failures else ""
    return f"wrote {os.fspath(args.out)}: {what}{skipped}"


if __name__ == "__main__":
    sys.exit(main())
