"""`python -m amd_jax.compare --config=configs/compare_fashion.py --workdir=DIR [--jobs=2]`.

Trains the plan's teacher and, from the same initial weights and data order, a student by each method for each
seed; scores the frozen encoders and fine-tunes them. `DIR/results.md`, `DIR/results.json` (each run's own
scores), `DIR/results.png` and the plan's other plots are renewed as results come in. What is finished is
kept: the same command goes on, and with `--jobs=0` only writes these files. Exit codes are those of exits.py.
"""

from absl import app, flags, logging

from amd_jax import command, exits
from amd_jax.buckets import check_on_disk
from amd_jax.config import KEYS
from amd_jax.errors import ConfigError

_JOBS = flags.DEFINE_integer(
    "jobs",
    1,
    "runs at a time; they share out the cores (on one accelerator: 1). 0: only write down what is finished",
    0,
)

PARTS = ("seeds", "labels", *(f"base.{name}" for name in KEYS))


def parse(argv: list[str]) -> list[str]:
    """Parses the flags of a comparison."""
    return command.parse(argv, PARTS, "amd_jax.compare")


def main(argv: list[str]) -> int:
    """Hand the plan over, and turn how it ended into an exit code."""
    del argv
    from pathlib import Path

    from amd_jax.compare import cell, grid, report, schedule

    try:
        from amd_jax.compare import plots  # before the runs, not after them
    except ImportError as error:
        message = f"the plots need matplotlib ({error}): pip install -r requirements-compare.txt"
        return exits.told(ConfigError(message))

    logging.set_verbosity(logging.WARNING)
    wanted, place = command.CONFIG.value, str(command.WORKDIR.value)

    def finished(name: str, seconds: float, results: dict[str, cell.Result]) -> None:
        print(
            f"[{len(results)}/{len(cells)}] {report.line(name, results[name])} ({seconds:.0f} s)", flush=True
        )
        renew(results)

    def renew(results: dict[str, cell.Result]) -> None:
        report.write(wanted, results, workdir)
        plots.scores_by_method(wanted, results, workdir)
        plots.curves(wanted, results, workdir)
        plots.scatters(wanted, results, workdir)

    try:
        check_on_disk("--workdir", place)
        workdir = Path(place).expanduser().absolute()
        cells = grid.cells(wanted, workdir)
        if not (_JOBS.value or workdir.is_dir()):  # mistyped, most likely
            raise ConfigError(f"--workdir={place}: there is no such folder, and --jobs=0 runs nothing")
        workdir.mkdir(parents=True, exist_ok=True)
        renew(schedule.run_all(cells, workdir, _JOBS.value, finished))
    except OSError as error:  # a workdir that cannot be written
        return exits.told(ConfigError(f"--workdir={place}: {error}"))
    except Exception as error:
        return exits.told(error)
    print((workdir / "results.md").read_text())
    return exits.DONE


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
