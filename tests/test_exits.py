"""One table of exit codes, which every command uses and the README shows."""

import ast
import re

import jax
import pytest
from absl import flags

from amd_jax import __main__ as all_commands
from amd_jax import bench, exits, main, plan, probe
from amd_jax.compare import __main__ as compare
from amd_jax.convert import cli
from amd_jax.data import manifest, moving, prepare, prepare_video
from amd_jax.errors import ConfigError
from amd_jax.gpu_check import __main__ as gpu_check
from amd_jax.signals import StoppedBySignal
from amd_jax.train.checkpoint import NotSavedError
from amd_jax.train.loop import NonFiniteError
from amd_jax.use import embed, predict
from tests.runs import ROOT


def nameless() -> None:
    """`amd-jax` with the name of no command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["amd-jax", "trian"])
        all_commands.main()


COMMANDS = {
    "amd_jax/__main__.py": nameless,
    "amd_jax/main.py": lambda: main.parse(["main", "--workdir=W"]),
    "amd_jax/compare/__main__.py": lambda: compare.parse(["compare", "--workdir=W"]),
    "amd_jax/plan.py": lambda: plan.parse(["plan", "--topology=cpu"]),
    "amd_jax/bench.py": lambda: bench.parse(["bench", "--steps=1"]),
    "amd_jax/gpu_check/__main__.py": lambda: gpu_check.main(["--json=/no/such/file"]),
    "amd_jax/use/embed.py": lambda: embed.main(["/no/such/file", "--data=D", "--out=F.npz"]),
    "amd_jax/use/predict.py": lambda: predict.main(["/no/such/file", "image.png"]),
    "amd_jax/probe.py": lambda: probe.main(["/no/such/run"]),
    "amd_jax/convert/__main__.py": lambda: cli.main(["import", "/no/such/file", "--dry_run"]),
    "amd_jax/data/manifest.py": lambda: manifest.main(["check", "--root=/no/such"]),
    "amd_jax/data/moving.py": lambda: moving.main(["--out=/proc/no/such", "--train=1", "--eval=1"]),
    "amd_jax/data/prepare_video.py": lambda: prepare_video.main(
        ["--source=folder", "--path=/no/such", "--output=/no/such"]
    ),
    "amd_jax/data/prepare.py": lambda: prepare.main(
        ["--name=mnist", "--data_dir=/no/such", "--manual_dir=/no/such"]
    ),
}
NO_CODES = {"amd_jax/config.py", "amd_jax/data/embedded/make.py"}  # they print or write one thing


def modules() -> dict[str, str]:
    """The package's files and their text."""
    return {str(p.relative_to(ROOT)): p.read_text() for p in (ROOT / "amd_jax").rglob("*.py")}


def test_every_command_is_known_here() -> None:
    started = {name for name, text in modules().items() if '__name__ == "__main__"' in text}
    started |= {name for name in modules() if name.endswith("__main__.py")}
    assert started == COMMANDS.keys() | NO_CODES


@pytest.mark.parametrize("name", COMMANDS)
def test_a_mistake_is_one_line_and_the_tables_code(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = COMMANDS[name]()
    except SystemExit as end:
        code = end.code
    finally:
        flags.FLAGS.unparse_flags()
        flags.FLAGS.mark_as_parsed()
    assert code == exits.USAGE
    err = capsys.readouterr().err
    assert err.startswith("error:")
    assert len(err.splitlines()) == 1


def test_no_other_file_names_an_exit_code() -> None:
    for name, text in modules().items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("sys.exit", "os._exit", "exit"):
                given = [ast.unparse(a) for a in node.args if isinstance(a, ast.Constant)]
                assert not given, f"{name}: exits with {given}"
            if isinstance(node, ast.FunctionDef) and node.name == "main":
                returned = [n.value for n in ast.walk(node) if isinstance(n, ast.Return) and n.value]
                assert not [v for v in returned if isinstance(v, ast.Constant)], (
                    f"{name}: main returns a number"
                )


def test_every_way_to_end_has_its_code() -> None:
    memory = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes.\nmore")
    for error, code in (
        (ConfigError("x"), exits.USAGE),
        (NonFiniteError("x"), exits.NON_FINITE),
        (NotSavedError("x"), exits.UNSAVED),
        (StoppedBySignal("x"), exits.STOPPED),
        (memory, exits.USAGE),
    ):
        end = exits.ending(error)
        assert end is not None
        assert end[0] == code
        assert "\n" not in end[1]
    assert "accum_steps" in exits.ending(memory)[1]  # type: ignore[index]
    assert exits.ending(jax.errors.JaxRuntimeError("INTERNAL: x")) is None
    with pytest.raises(ZeroDivisionError):
        exits.told(ZeroDivisionError())


def test_the_readme_shows_the_table() -> None:
    def rows(text: str) -> list[str]:
        return re.findall(r"^\| \d+ \|.*\|$", text, re.MULTILINE)

    assert exits.__doc__ is not None
    assert rows((ROOT / "README.md").read_text()) == rows(exits.__doc__)
    codes = [
        exits.DONE,
        exits.FAILED,
        exits.USAGE,
        exits.NON_FINITE,
        exits.UNSAVED,
        exits.STOPPED,
        exits.LOST,
    ]
    assert [int(row.split("|")[1]) for row in rows(exits.__doc__)] == codes
