"""Files from strangers: what is read is right, nothing is run, and what is wrong is said in one line."""

import argparse
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from amd_jax.convert.files.opening import open_source, read_stated
from amd_jax.convert.files.pickles import read_pickle
from amd_jax.convert.files.tensors import METADATA_KEY
from amd_jax.errors import UserError
from tests.convert.conftest import as_ours, image_arch, imported, mae_arch, published, random_params, run

torch = pytest.importorskip("torch")

FORMATS = {"zip": True, "before PyTorch 1.6": False}


def _tensors(weights: dict[str, np.ndarray]) -> dict[str, Any]:
    return {k: torch.from_numpy(v.copy()) for k, v in weights.items()}


class Touch:
    """Unpickled by a trusting reader, it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("zipped", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_pytorch_file_reads_as_pytorch_reads_it(zipped: bool, dtype: Any, tmp_path: Path) -> None:
    base = torch.randn(6, 5).to(dtype)
    tensors = {
        "plain": torch.randn(3, 4).to(dtype),
        "transposed view": base[1:4].t(),
        "shared": base,
        "parameter": torch.nn.Parameter(torch.randn(2, 2).to(dtype)),
        "empty": torch.zeros(0, 3).to(dtype),
    }
    torch.save(tensors, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    source = open_source(str(tmp_path / "x.pth"))
    assert source.arrays.keys() == tensors.keys()
    for name, tensor in tensors.items():
        read = source.arrays[name].astype(np.float64)
        assert np.array_equal(read, tensor.detach().double().numpy())


@pytest.mark.parametrize("zipped", FORMATS.values(), ids=FORMATS)
def test_checkpoint_with_arguments_and_optimizer_opens(zipped: bool, tmp_path: Path) -> None:
    content = {
        "model": _tensors(published(mae_arch())),
        "optimizer": {"state": {0: torch.zeros(2)}},
        "args": argparse.Namespace(lr=1e-3, output=Path("/x"), device=torch.device("cpu")),
        "epoch": np.float64(3),
    }
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    source = open_source(str(tmp_path / "x.pth"))
    assert source.wrapper == "model"
    assert source.skipped.keys() == {"optimizer", "args", "epoch"}
    assert run("import", tmp_path / "x.pth", "--out", tmp_path / "out") == 0


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "backbone."])
def test_wrappers_and_prefixes_make_no_difference(prefix: str, tmp_path: Path) -> None:
    weights = _tensors(published(mae_arch()))
    torch.save({"model": {prefix + k: v for k, v in weights.items()}}, tmp_path / "a.pth")
    torch.save(weights, tmp_path / "b.pt")
    for name in ("a.pth", "b.pt"):
        assert run("import", tmp_path / name, "--out", tmp_path / name[0]) == 0
    a, b = imported(tmp_path / "a"), imported(tmp_path / "b")
    assert all(np.array_equal(a[k], b[k]) for k in a.keys() | b.keys())


@pytest.mark.parametrize("how", ["zip", "legacy", "bare pickle", "as safetensors"])
def test_hostile_pickle_runs_nothing(how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trap, path = tmp_path / "trap", tmp_path / ("x.safetensors" if how == "as safetensors" else "x.pth")
    content = {"model": {"a": torch.zeros(2)}, "args": Touch(trap)}
    if how == "bare pickle":
        path.write_bytes(pickle.dumps(content["args"]))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how != "legacy")
    assert run("import", path, "--out", tmp_path / "out") == 2
    assert not trap.exists()
    assert not (tmp_path / "out").exists()
    error = capsys.readouterr().err.strip()
    assert "refused, it asks to run" in error
    assert "mkdir" in error
    assert "\n" not in error


@pytest.mark.parametrize(
    "code",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"ctorch\nload\n(S'x'\ntR.",
        b"cargparse\nNamespace\n(tR}S'__class__'\nS'x'\nsb.",
        b"cargparse\nNamespace\n}S'__init__'\nS'x'\nsb.",
        b"ccollections\nOrderedDict\nN}S'x'\nS'y'\ns\x86b.",
        b"ctorch._utils\n_rebuild_tensor_v2\n(NI0\n(I9\nt(I1\nttR.",
    ],
)
def test_crafted_opcodes_end_in_one_error(code: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(b"\x80\x02" + code)
    with pytest.raises(UserError):
        open_source(str(tmp_path / "x.pth"))


def test_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"refused, it asks to run torch\.nn"):
        open_source(str(tmp_path / "x.pth"))


def test_view_that_reaches_out_of_its_storage_is_refused(tmp_path: Path) -> None:
    x = torch.zeros(4)
    torch.save({"a": x}, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    data = (tmp_path / "x.pth").read_bytes()
    shape = data.index(b"K\x04\x85")  # the tuple (4,)
    (tmp_path / "x.pth").write_bytes(data[: shape + 1] + b"\xf0" + data[shape + 2 :])
    with pytest.raises(UserError, match="beyond its storage"):
        open_source(str(tmp_path / "x.pth"))


@pytest.fixture(scope="module")
def good_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The same weights in three containers."""
    folder = tmp_path_factory.mktemp("good")
    weights = published(image_arch())
    save_file(weights, folder / "x.safetensors")
    for zipped in (True, False):
        torch.save(_tensors(weights), folder / f"{zipped}.pth", _use_new_zipfile_serialization=zipped)
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize("name", ["x.safetensors", "True.pth", "False.pth"])
@given(part=st.floats(0, 1, exclude_max=True))
def test_file_cut_anywhere_is_one_error(
    name: str, good_files: dict[str, bytes], part: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("cut") / name
    data = good_files[name]
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(UserError) as caught:
        open_source(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["x.safetensors", "True.pth", "False.pth"])
@given(at=st.floats(0, 0.2), value=st.integers(0, 255))
def test_damaged_byte_never_ends_in_a_traceback(
    name: str, good_files: dict[str, bytes], at: float, value: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("damaged") / name
    data = bytearray(good_files[name])
    data[int(at * len(data))] = value
    path.write_bytes(data)
    assert run("import", path, "--dry_run") in (0, 2)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>not found</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        (b"PK\x03\x04 not really a zip", "damaged or cut short"),
        (b"just some text that is long enough", "neither safetensors nor"),
        (b"\xff\xff\xff\xff\xff\xff\xff\x7f{}", "not a whole safetensors"),
    ],
)
def test_wrong_files_are_named(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(UserError, match=says):
        open_source(str(tmp_path / "x.pth"))


def test_torchscript_program_is_not_taken_for_weights(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02}.")
        archive.writestr("x/code/__torch__.py", b"")
    with pytest.raises(UserError, match="TorchScript"):
        read_pickle(str(tmp_path / "x.pt"))


def test_safetensors_reads_as_its_library_reads_it(save: Callable[..., str]) -> None:
    weights = published(mae_arch())
    source = open_source(save(weights))
    assert all(np.array_equal(source.arrays[k], v) for k, v in weights.items())


def test_bfloat16_safetensors_opens_without_pytorch(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    x = torch.randn(4, 3).bfloat16()
    save_file({"x": x}, tmp_path / "x.safetensors")
    read = open_source(str(tmp_path / "x.safetensors")).arrays["x"]
    assert np.array_equal(read.astype(np.float32), x.float().numpy())


def test_hub_name_is_fetched_through_huggingface_hub(
    save: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    save(published(image_arch()), "model.safetensors")
    asked = []

    def snapshot(repo: str, **_: Any) -> str:
        asked.append(repo)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert open_source("hf://org/name").arrays
    assert asked == ["org/name"]


def test_what_the_hub_says_of_pixels_is_fetched_with_the_weights(
    save: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    save(published(image_arch()), "model.safetensors")
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5], "image_std": [0.5]}')
    asked = []

    def snapshot(repo: str, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert read_stated("hf://org/pixels").mean == (0.5,)
    assert open_source("hf://org/pixels").arrays
    assert len(asked) == 1  # once for both
    assert "preprocessor_config.json" in asked[0]


def test_hub_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def fail(*_: Any, **__: Any) -> str:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UserError, match="cannot be fetched") as caught:
        open_source("hf://org/unreachable")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("arch", "grid", [1000, 1000, 1000]),
        ("arch", "video", "qv"),
        ("arch", "positions", "nowhere"),
        ("arch", "patch", [1, 16, 16]),
        ("encoder", "heads", 10**9),
        ("encoder", "norm_eps", "small"),
    ],
)
def test_description_that_no_model_has_is_one_line(
    part: str, name: str, value: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arch = image_arch()
    data = arch.to_json()
    (data if part == "arch" else data[part])[name] = value
    about = {METADATA_KEY: json.dumps({"arch": data})}
    (tmp_path / "ours").mkdir()
    save_file(random_params(arch), tmp_path / "ours" / "weights.safetensors", metadata=about)
    for command in (("import",), ("export", "--format=timm")):
        assert run(command[0], tmp_path / "ours", *command[1:], "--dry_run") == 2
        error = capsys.readouterr().err.strip()
        assert "weights.safetensors: " in error
        assert "\n" not in error


def test_export_of_a_damaged_tree_names_both_sides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arch = image_arch()
    for change, says in (
        ({"encoder/norm/scale": np.ones(7, np.float32)}, "is [7], expected [32]"),
        ({}, "no"),
    ):
        params = random_params(arch) | change
        if not change:
            del params["encoder/norm/bias"]
        src = as_ours(arch, tmp_path / says[:2].strip(), params)
        assert run("export", src, "--format=official", "--dry_run") == 2
        assert says in capsys.readouterr().err
