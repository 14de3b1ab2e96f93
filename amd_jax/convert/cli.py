"""The command line: `python -m amd_jax.convert import|export|verify …`.

Exit codes are those of exits.py.
"""

import argparse
from collections.abc import Sequence

from amd_jax import exits
from amd_jax.errors import WeightsError

DESCRIPTION = "Weights in and out: MAE, VideoMAE, AMD, DMAE, Hugging Face, timm, ONNX and StableHLO."
FORMATS = ("timm", "hf", "onnx", "stablehlo", "official")
OUTPUTS = ("logits", "embedding", "tokens")
SOURCES = (
    "a .pth, .pt, .bin or .safetensors file, a Hugging Face folder, hf://ORG/NAME, a run's workdir or one of "
    "its checkpoints/STEP, or an imported folder"
)


def _numbers(text: str) -> tuple[int, int, int]:
    try:
        t, h, w = (int(n) for n in text.replace("x", ",").split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError("three numbers are needed, as 8,14,14") from error
    return t, h, w


def parser() -> argparse.ArgumentParser:
    """All subcommands and flags."""
    top = argparse.ArgumentParser("python -m amd_jax.convert", description=DESCRIPTION)
    commands = top.add_subparsers(dest="command", required=True)

    sub = commands.add_parser("import", help="any source to DIR/weights.safetensors in our names")
    sub.add_argument("src", metavar="SRC", help=SOURCES)
    sub.add_argument("--out", metavar="DIR", default="", help="where to write; not needed with --dry_run")
    sub.add_argument("--kind", default="", help="what SRC is; by default seen from its names and shapes")
    sub.add_argument("--dry_run", action="store_true", help="print the table, write nothing")
    sub.add_argument("--heads", type=int, help="attention heads of the encoder; weights do not show them")
    sub.add_argument("--decoder_heads", type=int, help="attention heads of the decoder")
    sub.add_argument("--generator_heads", type=int, help="attention heads of AMD's generators")
    sub.add_argument("--grid", type=_numbers, metavar="T,H,W", help="tokens along time, height and width")

    sub = commands.add_parser("export", help="a checkpoint of ours under the names of other tools")
    sub.add_argument(
        "src", metavar="CKPT", help="a run's workdir, one of its checkpoints, an imported folder"
    )
    sub.add_argument("--format", required=True, choices=FORMATS, help="see docs/weights.md")
    sub.add_argument(
        "--output",
        default="",
        choices=("", *OUTPUTS),
        metavar="|".join(OUTPUTS),
        help="onnx, stablehlo: what is computed; by default logits, of an encoder embedding",
    )
    sub.add_argument("--out", metavar="DIR", default="", help="where to write; not needed with --dry_run")
    sub.add_argument("--dry_run", action="store_true", help="print the table, write nothing")

    sub = commands.add_parser("verify", help="replay a recorded case of a published implementation")
    sub.add_argument("golden", metavar="GOLDEN.safetensors")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand and returns the exit code."""
    args = parser().parse_args(argv)
    run = {"import": _import, "export": _export, "verify": _verify}[args.command]
    try:
        if args.command != "verify" and not args.out and not args.dry_run:
            raise WeightsError("--out=DIR is missing; or look with --dry_run first")
        return run(args)
    except BrokenPipeError:
        return exits.USAGE
    except Exception as error:
        return exits.told(error)


def _import(args: argparse.Namespace) -> int:
    from amd_jax.convert.importing import run_import

    names = ("heads", "decoder_heads", "generator_heads", "grid")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    return _wrote(run_import(args.src, "" if args.dry_run else args.out, args.kind, given))


def _export(args: argparse.Namespace) -> int:
    from amd_jax.convert.exporting import run_export

    return _wrote(run_export(args.src, args.format, "" if args.dry_run else args.out, args.output))


def _wrote(path: object) -> int:
    if path:
        print(f"wrote {path}")
    return exits.DONE


def _verify(args: argparse.Namespace) -> int:
    from amd_jax.convert.verify import Case, errors, passes

    case = Case.load(args.golden)
    found = errors(case)
    print(f"{args.golden}: {case.kind} ({case.sizes.get('source', 'no source stated')})")
    width = max(map(len, found), default=0)
    for name, error in found.items():
        print(f"{name:<{width}}  {error:9.2e}  {'ok' if passes(name, error) else 'OUT OF TOLERANCE'}")
    failed = [name for name, error in found.items() if not passes(name, error)]
    print(f"{'FAILED' if failed else 'passed'}: {len(found) - len(failed)} of {len(found)} within tolerance")
    return exits.FAILED if failed else exits.DONE
