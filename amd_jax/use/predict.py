"""The likeliest classes of files: `amd-jax predict SRC FILE… [--html=PAGE.html]`.

Exit codes are those of exits.py; a file that cannot be read is told and left out.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from amd_jax import exits
from amd_jax.convert.cli import SOURCES
from amd_jax.errors import DataError


def parser() -> argparse.ArgumentParser:
    """All flags."""
    top = argparse.ArgumentParser("amd-jax predict", description=__doc__.split(":")[0])
    top.add_argument("src", metavar="SRC", help=f"of a classifier: {SOURCES}")
    top.add_argument("files", nargs="+", metavar="FILE", help="images or videos")
    top.add_argument("--top", type=int, default=5, help="how many classes are told")
    top.add_argument("--html", default="", metavar="PAGE", help="also write a page with the pictures")
    top.add_argument("--clips", type=int, default=1, help="clips of a video, whose mean is taken")
    top.add_argument("--crops", type=int, default=1, help="crops of a clip, whose mean is taken")
    top.add_argument("--kind", default="", help="what SRC is, where names and shapes do not show it")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a line a file; returns the exit code."""
    args = parser().parse_args(argv)
    try:
        _predict(args)
    except Exception as error:
        return exits.told(error)
    return exits.DONE


def _predict(args: argparse.Namespace) -> None:
    from amd_jax.use import model as models
    from amd_jax.use import page

    model = models.load(args.src, clips=args.clips, crops=args.crops, kind=args.kind)
    model.check_classes()
    cards: list[page.Card] = []

    def note(number: int, error: Exception) -> None:
        print(f"left out: {error}", file=sys.stderr)

    for numbers, views in model.batches(args.files, 64, note):
        for number, shown, chances in zip(numbers, views, model.run("classify", views), strict=True):
            card = page.Card(args.files[number], _middle(shown), top(chances, model.classes, args.top))
            told = ", ".join(f"{name} {100 * chance:.1f} %" for name, chance in card.classes)
            print(f"{card.name}: {told}", flush=True)
            cards.append(card)
    if not cards:
        raise DataError(f"none of {len(args.files)} files could be read")
    if args.html:
        text = page.page(f"{args.src}", model.network.lines(), cards)
        try:
            Path(args.html).write_text(text, encoding="utf-8")
        except OSError as error:
            raise DataError(f"--html={args.html}: cannot be written ({error.strerror})") from error
        print(f"wrote {args.html}")


def top(chances: np.ndarray, classes: Sequence[str], number: int) -> list[tuple[str, float]]:
    """The likeliest classes and their probabilities; without names, by number."""
    order = np.argsort(-chances, kind="stable")[:number]
    return [(classes[i] if classes else f"class {i}", float(chances[i])) for i in order]


def _middle(views: np.ndarray) -> Any:
    """The middle frame of the middle view [views, T, H, W, C]: what the model saw."""
    view = views[len(views) // 2]
    return view[len(view) // 2]


if __name__ == "__main__":
    sys.exit(main())
