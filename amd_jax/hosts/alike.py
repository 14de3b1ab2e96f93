"""What has to be alike in all processes of a run: compared by text, so that a difference can be named."""

import importlib.metadata
import sys
import time
import uuid
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from amd_jax.buckets import is_url
from amd_jax.errors import ConfigError
from amd_jax.hosts import star
from amd_jax.hosts.star import Star

Facts = Mapping[str, str]

PACKAGE = Path(__file__).parents[1]
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
NAMED = 3  # differences of a process, and processes that differ
LISTED = 100_000  # examples whose names are compared, at most
SEEN_WITHIN = 20.0  # seconds that a network file system may take to show a new file


class Listed(Protocol):
    """What a source of data says of its examples."""

    def __len__(self) -> int: ...

    def describe(self, index: int) -> str: ...


def check(facts: Facts) -> None:
    """Compares the processes, if there are several.

    Raises:
      ConfigError: in all of them; names who differs from process 0, and in what.
    """
    if (several := star.current) is not None:
        _refuse(several.ask(dict(facts), lambda of_all: _differences(several, of_all)))


def check_workdir(workdir: Path) -> None:
    """A file that process 0 makes where the workdir is, or will be, has to be seen by all.

    Raises:
      ConfigError: in all processes; names those that do not see it.
    """
    if (several := star.current) is None or is_url(workdir):  # a bucket is the same for all
        return
    above = (workdir.absolute(), *workdir.absolute().parents)
    depth, name = several.ask(None, lambda _: _make_token(workdir, above))
    token = above[min(depth, len(above) - 1)] / name
    try:
        _refuse(several.ask(_appears(token), lambda seen: _blind(several, workdir, seen)))
    finally:
        if several.index == 0:
            token.unlink(missing_ok=True)


def of_program(config_file: str) -> dict[str, str]:
    """This package's files, the libraries, and the file that made the config."""
    files = {f"the file {path.relative_to(PACKAGE.parent)}": path for path in sorted(PACKAGE.rglob("*.py"))}
    files[f"the file {Path(config_file).name}"] = Path(config_file)
    contents = {name: _crc([path.read_bytes()]) for name, path in files.items()}
    return {"Python": "{}.{}".format(*sys.version_info), **_versions(), **contents}


def of_config(keys: Mapping[str, Any]) -> dict[str, str]:
    """The keys of a config by dotted name."""
    return {f"config.{name}": repr(value) for name, value in keys.items()}


def of_source(what: str, source: Listed) -> dict[str, str]:
    """How many examples there are, and their names; of very many, some."""
    names = (source.describe(i).encode() for i in range(0, len(source), max(1, len(source) // LISTED)))
    return {f"the number of {what} examples": str(len(source)), f"the list of {what} examples": _crc(names)}


def of_weights(who: str, weights: str) -> dict[str, str]:
    """The files of a local path with their sizes; what they hold is compared when it has been read."""
    place = Path(weights)
    if not weights or not place.exists():
        return {}
    files = sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]
    return {f"the size of {who}.weights' {path.name}": str(path.stat().st_size) for path in files}


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _crc(parts: Iterable[bytes]) -> str:
    total = 0
    for part in parts:
        total = zlib.crc32(part + b"\0", total)
    return f"{total:08x}"


def _differences(several: Star, of_all: list[Facts]) -> str:
    """A line for the processes that differ from process 0; "" where all are alike."""
    first, told = of_all[0], []
    for process, facts in enumerate(of_all):
        names = [name for name in {**first, **facts} if facts.get(name) != first.get(name)]
        if names:
            found = [f"{n} is {facts.get(n, 'absent')}, not {first.get(n, 'absent')}" for n in names[:NAMED]]
            found += [f"{len(names) - NAMED} more"] if len(names) > NAMED else []
            told.append(f"in {several.name(process)} {'; '.join(found)}")
    if not told:
        return ""
    more = f"; {len(told) - NAMED} more processes differ" if len(told) > NAMED else ""
    return (
        f"the processes differ from {several.name(0)}: {'; '.join(told[:NAMED])}{more}; "
        "give all of them the same code, libraries, command and data"
    )


def _make_token(workdir: Path, above: tuple[Path, ...]) -> tuple[int, str]:
    """Where process 0 made its file: so many folders above the workdir, which need not be there yet."""
    depth = next(i for i, path in enumerate(above) if path.exists())
    name = f".amd_jax-{uuid.uuid4().hex}"
    try:
        (above[depth] / name).write_text("")
    except OSError as error:
        raise ConfigError(f"--workdir={workdir}: cannot be written to ({error.strerror})") from error
    return depth, name


def _appears(token: Path) -> bool:
    deadline = time.monotonic() + SEEN_WITHIN
    while not (seen := token.exists()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return seen


def _blind(several: Star, workdir: Path, seen: list[bool]) -> str:
    blind = [several.name(process) for process, sees in enumerate(seen) if not sees]
    if not blind:
        return ""
    return (
        f"--workdir={workdir}: {', '.join(blind)} cannot see what {several.name(0)} writes there; give a "
        "folder on a file system that all hosts share"
    )


def _refuse(line: str) -> None:
    """Raises, unless the line is empty; as all processes do so, none has to tell the others."""
    if line:
        error = ConfigError(line)
        error.alone = False  # type: ignore[attr-defined]
        raise error
