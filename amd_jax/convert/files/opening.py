"""From what the user calls SRC to its weights: a file, a folder, a hub name, a checkpoint of ours."""

import contextlib
import dataclasses
import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from amd_jax.buckets import SCHEME, place
from amd_jax.config import height_width
from amd_jax.convert.files import stated
from amd_jax.convert.files.fetching import fetch
from amd_jax.convert.files.pickles import read_pickle
from amd_jax.convert.files.tensors import METADATA_KEY, Source, read_metadata, read_safetensors
from amd_jax.errors import WeightsError
from amd_jax.trees import flatten

WEIGHTS = "weights.safetensors"  # what `import` writes
PROCESSOR = "preprocessor_config.json"  # where transformers keeps mean, std and size
INSTALL = "pip install -r requirements-convert.txt"
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
_MODEL_FILES = ("model.safetensors", "pytorch_model.bin")  # those that a config.json beside them describes


def open_source(src: str) -> Source:
    """Reads weights by path, in a bucket too, or by `hf://org/name`.

    Raises:
      WeightsError: there is nothing, or nothing that can be read.
      ConfigError: the bucket cannot be read.
    """
    local = _local(src)
    path = place(local)
    with _named(src, local):
        if path.is_dir():
            source = _open_folder(path)
        elif not path.exists():
            raise WeightsError(f"{local}: no such file or folder")
        else:
            source = _open_file(local)
    return dataclasses.replace(source, path=_name(source.path, src, local))


def read_stated(src: str) -> stated.Stated:
    """What the files of `src` say of pixels and classes; only JSON and a header are read.

    Raises:
      WeightsError: one of these files is not readable.
      ConfigError: the bucket cannot be read.
    """
    local = _local(src)
    with _named(src, local):
        said = _stated(place(local))
    return dataclasses.replace(said, origin=_name(said.origin, src, local))


def _stated(path: Path) -> stated.Stated:
    if not path.is_dir():
        said = _read_folder(path.parent) if path.name in _MODEL_FILES else stated.Stated()
        return said.or_else(_read_header(path))
    run, _ = run_of(path)
    if (path / WEIGHTS).is_file():
        return _read_header(path / WEIGHTS)
    if run:
        return _read_run(run)
    header = next((path / name for name in _MODEL_FILES if (path / name).is_file()), None)
    said = _read_folder(path)
    return said.or_else(_read_header(header)) if header else said


def _read_folder(folder: Path) -> stated.Stated:
    """What timm's and transformers' files say."""
    config, processor = folder / "config.json", folder / PROCESSOR
    said = stated.Stated()
    if processor.is_file():
        said = stated.of_processor(_read_json(processor), str(processor))
    if config.is_file():
        read = _read_json(config)
        said = said.or_else(stated.of_timm(read, str(config)))
        said = said.or_else(stated.of_transformers(read, str(config)))
    return said


def _read_header(path: Path) -> stated.Stated:
    if path.suffix != ".safetensors":
        return stated.Stated()
    return stated.of_metadata(read_metadata(str(path)).get(METADATA_KEY), str(path))


def _read_run(run: Path) -> stated.Stated:
    from amd_jax.workdir import CONFIG, load_classes, run_config  # orbax, which only runs need

    data = run_config(str(run)).data
    size, how = height_width(data.image_size), stated.resizing(data.frames > 1)
    classes, origin = load_classes(str(run)), str(run / CONFIG)
    return stated.Stated(tuple(data.mean), tuple(data.std), size, how, classes, origin)


def run_of(folder: Path) -> tuple[Path | None, int | None]:
    """The workdir that `folder` is, or is a checkpoint of; and the step of that checkpoint."""
    run, step = folder, None
    if folder.parent.name == "checkpoints" and folder.name.isdigit():
        run, step = folder.parent.parent, int(folder.name)
    return (run, step) if (run / "checkpoints").is_dir() else (None, None)


def _open_file(path: str) -> Source:
    """Goes by the first bytes: suffixes are often wrong."""
    try:
        with open(path, "rb") as file:
            start = file.read(64)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not start:
        raise WeightsError(f"{path}: the file is empty")
    if start.lstrip()[:1] == b"<":
        raise WeightsError(f"{path}: a web page, not weights; the download was redirected or refused")
    if start.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{path}: a Git LFS pointer; fetch the file itself with `git lfs pull`")
    if start[:4] == b"PK\x03\x04":
        return read_pickle(path)
    if start[8:9] == b"{" or path.endswith(".safetensors"):  # before it stands the header's length
        return read_safetensors(path)
    if start[:1] == b"\x80":
        return read_pickle(path)
    raise WeightsError(f"{path}: neither safetensors nor a PyTorch file")


def _open_folder(folder: Path) -> Source:
    if (folder / WEIGHTS).is_file():
        return read_safetensors(str(folder / WEIGHTS))
    run, step = run_of(folder)
    if run:
        return _open_run(run, step)
    config = _read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    for name in _MODEL_FILES:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            source = _open_file(str(folder / name))
        elif index.is_file():
            source = _merged(str(folder), [_open_file(str(folder / part)) for part in _shards(index)])
        else:
            continue
        return _with_config(source, str(folder), config)
    files = sorted(p for p in folder.iterdir() if p.suffix in _SUFFIXES)
    if len(files) == 1:
        return _with_config(_open_file(str(files[0])), str(files[0]), config)
    names = ", ".join(p.name for p in files) or "none"
    raise WeightsError(f"{folder}: one file of weights is needed, there are: {names}; name the file itself")


def _shards(index: Path) -> list[str]:
    try:
        parts = sorted(set(_read_json(index)["weight_map"].values()))
    except (KeyError, AttributeError, TypeError) as error:
        raise WeightsError(f"{index}: not an index of shards") from error
    if any(not isinstance(p, str) or p != os.path.basename(p) for p in parts):
        raise WeightsError(f"{index}: names files outside its folder")
    for part in parts:
        if not (index.parent / part).is_file():
            raise WeightsError(f"{index.parent}: the shard {part} is missing")
    return parts


def _merged(path: str, parts: list[Source]) -> Source:
    """Several files that together hold one set of weights."""
    arrays = {name: array for part in parts for name, array in part.arrays.items()}
    if len(arrays) != sum(len(part.arrays) for part in parts):
        raise WeightsError(f"{path}: a weight is in two of its files")
    return Source(path, "shards", arrays)


def _with_config(source: Source, path: str, config: dict[str, Any]) -> Source:
    if not config:
        return dataclasses.replace(source, path=path)
    return dataclasses.replace(source, path=path, what=f"{source.what} with config.json", config=config)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(data, dict):
        raise WeightsError(f"{path}: not a JSON object")
    return data


@functools.lru_cache(maxsize=4)
def _local(src: str) -> str:
    """`src`; `hf://org/name`, or one file of it (`hf://org/name/file.pth`), is fetched once for a process.

    So are files in buckets, but for checkpoints of ours, of which only the parameters are read.
    """
    if src.startswith(SCHEME):
        path = place(src)
        return src if run_of(path)[0] else str(fetch(path, _SUFFIXES, _described(path.name)))
    if not src.startswith("hf://"):
        return src
    parts = src.removeprefix("hf://").strip("/").split("/")
    if len(parts) < 2 or not all(parts):
        raise WeightsError(f"{src}: a name on the hub is hf://ORG/NAME or hf://ORG/NAME/FILE")
    try:
        import huggingface_hub
    except ImportError as error:
        raise WeightsError(f"{src}: needs huggingface_hub; {INSTALL}") from error
    repo, file = "/".join(parts[:2]), "/".join(parts[2:])
    try:
        if file:
            return huggingface_hub.hf_hub_download(repo, file)
        about = ["config.json", PROCESSOR]
        patterns = [*about, "*.safetensors", "*.safetensors.index.json"]
        folder = huggingface_hub.snapshot_download(repo, allow_patterns=patterns)
        if not any(Path(folder).glob("*.safetensors")):
            patterns = [*about, "*.bin", "*.bin.index.json", "*.pth", "*.pt"]
            folder = huggingface_hub.snapshot_download(repo, allow_patterns=patterns)
    except Exception as error:  # the hub's client raises many kinds
        why = f"{type(error).__name__}: {error}".split("\n")[0][:200]
        raise WeightsError(f"{src}: cannot be fetched ({why})") from error
    return str(folder)


def _described(name: str) -> tuple[str, ...]:
    """The files beside a file of weights that tell of it."""
    return ("config.json", PROCESSOR) if name in _MODEL_FILES else ()


@contextlib.contextmanager
def _named(src: str, local: str) -> Iterator[None]:
    """What is said of a copy is said of what was copied."""
    try:
        yield
    except WeightsError as error:
        raise WeightsError(_name(str(error), src, local)) from error


def _name(text: str, src: str, local: str) -> str:
    if not src.startswith(SCHEME):
        return text
    return text.replace(os.path.dirname(local), src.rstrip("/").rpartition("/")[0])


def _open_run(run: Path, step: int | None) -> Source:
    """A checkpoint of a run: its parameters under their own names, and its config."""
    from amd_jax.workdir import keeps_mean, load_params, run_config

    config = run_config(str(run))
    params, step = load_params(str(run), step)
    mean = ", running mean of the weights" if keeps_mean(str(run), step) else ""
    return Source(str(run), f"checkpoint of step {step}{mean}", flatten(params), run=config, step=step)
