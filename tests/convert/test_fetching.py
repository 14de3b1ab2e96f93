"""Weights in a bucket are those on a disk, and what is said of them names the bucket."""

from pathlib import Path

import pytest
import torch

from amd_jax import buckets
from amd_jax.convert import cli
from amd_jax.convert.files.opening import open_source, read_stated
from amd_jax.errors import WeightsError
from tests.gcs import Storage
from tests.runs import assert_same, tiny, untrained


@pytest.fixture(scope="module")
def folders(storage: Storage, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder of a Hugging Face model, and a PyTorch file of the same; on disk and in a bucket."""
    here, there = tmp_path_factory.mktemp("weights"), f"{storage.new_bucket()}/weights"
    untrained(tiny(method="mae"), here / "run")
    assert cli.main(["export", str(here / "run"), "--format=hf", f"--out={here / 'hf'}"]) == 0
    tensors = {name: torch.tensor(x) for name, x in open_source(str(here / "hf")).arrays.items()}
    (here / "pth").mkdir()
    torch.save({"model": tensors}, here / "pth" / "checkpoint.pth")
    for name in ("hf", "pth"):
        buckets.filesystem().put(str(here / name), f"{there}/{name}", recursive=True)
    return here, there


@pytest.mark.parametrize("name", ["hf", "hf/model.safetensors", "pth", "pth/checkpoint.pth"])
def test_weights_are_read_from_a_bucket(name: str, folders: tuple[Path, str]) -> None:
    here, there = (open_source(f"{place}/{name}") for place in folders)
    assert_same(there.arrays, here.arrays)
    assert (there.what, there.config, there.wrapper) == (here.what, here.config, here.wrapper)
    assert there.path == here.path.replace(str(folders[0]), folders[1])
    here_said, there_said = (read_stated(f"{place}/{name}") for place in folders)
    assert there_said.mean == here_said.mean
    assert there_said.origin == here_said.origin.replace(str(folders[0]), folders[1])


def test_a_form_that_is_there_twice_is_fetched_once(folders: tuple[Path, str], storage: Storage) -> None:
    where = f"{folders[1]}/hf"
    (buckets.place(where) / "pytorch_model.bin").write_bytes(b"not wanted")
    before = storage.mark()
    assert open_source(f"{where}/").path == where
    assert not [
        line
        for line in storage.requests[before : storage.mark()]
        if "pytorch_model.bin" in line and "GET" in line
    ]


def test_what_is_wrong_is_said_of_the_bucket(bucket: str) -> None:
    with pytest.raises(WeightsError, match=f"^{bucket}/none: no such file"):
        open_source(f"{bucket}/none")
    (buckets.place(bucket) / "cut.safetensors").write_bytes(b"\x10")
    with pytest.raises(WeightsError, match=f"^{bucket}/cut.safetensors: not a whole safetensors file"):
        open_source(f"{bucket}/cut.safetensors")
