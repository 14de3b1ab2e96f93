"""`python -m amd_jax.gpu_check [--cpu] [--minutes=9] [--json=FILE]`: what only a GPU can show.

Recorded outputs and gradients; five steps of every method beside this machine's CPU; cuDNN's attention beside
XLA's; whether runs repeat to the bit; the bench of the published configs. Each check is a process of its own,
so that one that dies takes no other with it, and what there is no time for is skipped. Exit code 1: something
differs by more than the tolerance that stands beside it, or failed.

It needs jax, flax, optax, ml-collections and safetensors. Without a GPU the sizes are small.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

from amd_jax import exits
from amd_jax.data import jobs
from amd_jax.errors import ConfigError
from amd_jax.gpu_check.rows import FAILED, RESULTS, SKIPPED, Row, Setting, read

METHODS = ("amd", "dmae", "mae", "videomae", "kd", "finetune")
CHECKS = ("goldens", "steps", "repeated", "attention", "speed")  # worth knowing in this order
LEAST = 20  # seconds under which no check is begun
TOGETHER = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # several processes have to fit on one GPU


@dataclasses.dataclass(frozen=True)
class Starter:
    """Starts checks, each a process, until the time is over."""

    environment: dict[str, str]
    until: float
    folder: Path

    def run(self, name: str, again: str = "", together: bool = False) -> list[Row]:
        """The rows that the check found; one that says so where it had no time or died."""
        left = self.until - time.monotonic()
        if left < LEAST:
            return [Row(name, "", SKIPPED, "no time left")]
        print(f"[{left:4.0f} s left] {name} {again}".rstrip(), file=sys.stderr, flush=True)
        out = self.folder / f"{name}{again}.jsonl"
        command = [sys.executable, "-m", "amd_jax.gpu_check", f"--check={name}", f"--rows={out}"]
        environment = self.environment | (TOGETHER if together else {})
        try:
            done = subprocess.run(command, env=environment, timeout=left, check=False)
        except subprocess.TimeoutExpired:
            return [*read(out), Row(name, "", SKIPPED, "no time left to finish it")]
        if done.returncode:
            return [*read(out), Row(name, "", FAILED, f"its process ended with {done.returncode}")]
        return read(out)


def found_by(
    start: Starter, chosen: Sequence[str], methods: Sequence[str], full: bool
) -> Iterator[list[Row]]:
    """The rows of the chosen checks, as they come."""
    from amd_jax.gpu_check import repeated, speed

    # Programs for correctness are small and take long to compile: on cores of their own. Where something is
    # timed, or kernels are chosen by their time, a process is alone.
    names = ["goldens"] if "goldens" in chosen else []
    names += [f"steps:{method}" for method in methods] if "steps" in chosen else []
    with ThreadPoolExecutor(max(1, jobs.cores() // 2)) as pool:
        yield from pool.map(lambda name: start.run(name, together=True), names)
    if "repeated" in chosen:
        yield (first := start.run("repeated"))
        second = start.run("repeated", "-again")
        yield [*repeated.across(first, second), *(row for row in second if not row.numbers)]
    if "attention" in chosen:
        yield start.run("attention")
    for variant in speed.variants(full) if "speed" in chosen else ():
        yield start.run(f"speed:{variant.name}")


def one(name: str, setting: Setting) -> None:
    """Runs a check in this process."""
    from amd_jax.gpu_check import cudnn, device, five_steps, recorded, repeated, speed

    name, _, which = name.partition(":")
    simple = {
        "device": device.check,
        "goldens": recorded.check,
        "attention": cudnn.check,
        "repeated": repeated.check,
    }
    if name == "speed":
        speed.check(setting, which)
    elif name == "steps":
        five_steps.check(setting, which)
    else:
        simple[name](setting)


def child(name: str, rows: Path) -> int:
    """One check, in a process that was started for it."""
    import jax

    from amd_jax import compilation_cache

    if name != "repeated":  # there, what is compiled anew has to be the same
        compilation_cache.enable()
    try:
        one(name, Setting(jax.default_backend() != "cpu", rows))
    except Exception as error:
        return exits.told(error)
    return exits.DONE


def parent(args: argparse.Namespace) -> int:
    """All checks; prints their rows as they come, and a last line."""
    environment = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92", **os.environ}
    if args.cpu:
        environment["JAX_PLATFORMS"] = "cpu"
    elif environment.get("JAX_PLATFORMS", "") not in ("", "cpu"):
        environment["JAX_PLATFORMS"] += ",cpu"  # steps are compared with it
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        until = time.monotonic() + 60 * args.minutes
        start = Starter(environment, until, Path(folder))
        rows += tell(start.run("device"))
        full = rows[0].numbers.get("platform", "cpu") != "cpu"
        if not full:
            print("no accelerator: small sizes on the CPU, which only shows that the checks run", flush=True)
        if rows[0].numbers:
            for found in found_by(start, args.checks.split(","), args.methods.split(","), full):
                rows += tell(found)
    if args.json:
        text = json.dumps([dataclasses.asdict(row) for row in rows], indent=2)
        Path(args.json).write_text(text + "\n")
    counts = {result: sum(row.result == result for row in rows) for result in RESULTS}
    print(", ".join(f"{count} {result}" for result, count in counts.items() if count))
    return exits.FAILED if any(row.bad for row in rows) else exits.DONE


def tell(rows: list[Row]) -> list[Row]:
    """Prints rows of the table."""
    for row in rows:
        print(f"{row.check:<20} {row.what:<34} {row.result:<8} {row.text}".rstrip(), flush=True)
    return rows


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, as for everything else that is wrong."""
        raise ConfigError(message)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """What the command line says; raises ConfigError."""
    parser = _Parser(prog="python -m amd_jax.gpu_check", description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--cpu", action="store_true", help="leave the GPU alone: small sizes")
    parser.add_argument("--minutes", type=float, default=9.0, help="what does not fit into them is skipped")
    parser.add_argument("--checks", default=",".join(CHECKS), help="which of them")
    parser.add_argument("--methods", default=",".join(METHODS), help="whose steps are compared")
    parser.add_argument("--json", help="also write the rows into this file")
    parser.add_argument("--check", help=argparse.SUPPRESS)  # in a process started for it
    parser.add_argument("--rows", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    for option, known in (("methods", METHODS), ("checks", CHECKS)):
        if unknown := set(getattr(args, option).split(",")) - set(known):
            raise ConfigError(f"--{option}={','.join(sorted(unknown))}: choose from {','.join(known)}")
    if args.json and not os.access(Path(args.json).absolute().parent, os.W_OK):
        raise ConfigError(f"--json={args.json}: not a file that can be written")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code."""
    try:
        args = _arguments(argv)
    except ConfigError as error:
        return exits.told(error)
    return child(args.check, Path(args.rows)) if args.check else parent(args)


if __name__ == "__main__":
    sys.exit(main())
