"""Probes of an encoder: kNN by its definition; features on any mesh; in a run and from the command line."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from amd_jax import probe
from amd_jax.data import sources
from amd_jax.data.example import Example
from amd_jax.errors import DataError
from amd_jax.evals import features as evals
from amd_jax.sharding import make_mesh, replicated
from amd_jax.steps.pretrain import Pretraining
from amd_jax.train import loop, setup
from tests.runs import losses, metrics, tiny


class FewImages:
    """The first images of the embedded set; every `broken`-th cannot be read."""

    num_classes = 10

    def __init__(self, split: sources.Split, length: int, broken: int = 0) -> None:
        self.source, self.length, self.broken = sources.EmbeddedSource(split), length, broken

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Example:
        if self.broken and index % self.broken == 1:
            raise OSError("broken")
        return self.source[index]

    def describe(self, index: int) -> str:
        return str(index)


def knn_by_definition(train: Any, test: Any, classes: int, k: int, temperature: float) -> float:
    """Wu et al. 2018, equation by equation, in float64."""
    (memory, labels), (queries, targets) = train, test
    memory, queries = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (memory, queries))
    hits = 0
    for query, target in zip(queries, targets, strict=True):
        similarity = memory @ query
        votes = np.zeros(classes)
        for near in np.argsort(-similarity)[:k]:
            votes[labels[near]] += np.exp(similarity[near] / temperature)
        hits += np.argmax(votes) == target
    return 100 * hits / len(targets)


@given(
    seed=st.integers(0, 2**32 - 1),
    k=st.sampled_from([1, 5, 40, 200]),
    temperature=st.sampled_from([0.07, 1.0]),
)
def test_knn_is_its_definition_in_chunks_of_any_size(seed: int, k: int, temperature: float) -> None:
    generator = np.random.default_rng(seed)
    train, test = ((generator.normal(size=(n, 5)), generator.integers(0, 4, n)) for n in (60, 23))
    expected = knn_by_definition(train, test, 4, k, temperature)
    train, test = ((x.astype(np.float32), labels) for x, labels in (train, test))
    for chunk in (1, 7, 100):
        assert evals.knn(train, test, 4, k, temperature, chunk) == pytest.approx(expected)


def test_a_small_temperature_does_not_overflow() -> None:
    x, labels = np.eye(3, dtype=np.float32), np.arange(3)
    assert evals.knn((x, labels), (x, labels), 3, k=3, temperature=1e-3) == 100


def encoded(config: ConfigDict, source: sources.Source, devices: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of the untrained encoder on a mesh of so many devices."""
    params = jax.jit(Pretraining.from_config(config).init)(jax.random.key(0))["encoder"]
    mesh = make_mesh(devices=jax.devices()[:devices])
    encode = evals.make_encoder(config, mesh)
    with jax.transfer_guard("disallow"):
        return evals.features(encode, jax.device_put(params, replicated(mesh)), config, source, mesh)


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_eight_devices_encode_what_one_does_and_only_what_can_be_read(pool: str) -> None:
    config = tiny(eval__batch_size=16, probe__pool=pool)
    source = FewImages("eval", 41, broken=10)
    (one, labels), (eight, labels_of_eight) = (encoded(config, source, n) for n in (1, 8))
    readable = [i for i in range(41) if i % 10 != 1]
    np.testing.assert_array_equal(labels, [source[i].label for i in readable])
    np.testing.assert_array_equal(labels, labels_of_eight)
    assert one.shape == (len(readable), 32)
    np.testing.assert_allclose(one, eight, atol=1e-5)


def test_the_pools_differ() -> None:
    source = FewImages("eval", 8)
    mean, cls = (encoded(tiny(eval__batch_size=8, probe__pool=p), source, 1)[0] for p in ("mean", "cls"))
    assert np.abs(mean - cls).max() > 0.1


@pytest.fixture
def probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, ConfigDict]:
    """A run of 7 steps that is probed every 3, on one device and few images."""
    device = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda *args: device)
    monkeypatch.setattr(sources, "make_source", lambda data, split: FewImages(split, 80))
    config = tiny(method="mae", steps=7, probe__every_epochs=0.3, probe__examples=48, eval__batch_size=32)
    loop.train(setup.prepare(config, str(tmp_path / "run")))
    return tmp_path / "run", config


def test_a_run_is_probed_every_so_many_epochs_and_at_the_end(
    probed: tuple[Path, ConfigDict], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, config = probed
    scores = [line for line in metrics(run) if "knn_top1" in line]
    assert [line["step"] for line in scores] == [3, 6, 7]
    assert all(line.keys() == {"step", "probe_top1", "knn_top1"} for line in scores)
    assert all(0 <= line[name] <= 100 for line in scores for name in ("probe_top1", "knn_top1"))

    config.eval.only = True
    again = loop.evaluate_only(setup.prepare(config, str(run)))
    assert again == pytest.approx({name: scores[-1][name] for name in again}, abs=1e-3)

    capsys.readouterr()
    assert probe.main([str(run), "--untrained", "--k=5"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split("  ")[0] == "encoder"
    assert "linear probe, top-1 %" in header
    assert "kNN, top-1 %" in header
    rows = {line.split()[0]: [float(x) for x in line.split()[1:]] for line in lines[:2]}
    assert rows.keys() == {"untrained", "run"}
    assert rows["run"][0] == pytest.approx(scores[-1]["probe_top1"], abs=0.06)

    assert probe.main([str(run), "--config.student.width=64"]) == 2
    assert "its weights do not fit the config with student.width" in capsys.readouterr().err

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "make_prober", lambda *args: pytest.fail("probed"))
        loop.train(setup.prepare(tiny(method="mae", steps=7), str(tmp_path / "without")))
    assert losses(run) == losses(tmp_path / "without")


def test_options_are_the_configs_keys_and_are_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "run_config", lambda workdir: tiny())
    assert probe.main([str(tmp_path), "--optimizer=lars", "--epochs=5"]) == 2
    assert "probe.warmup_epochs=10" in capsys.readouterr().err


WRONG = [
    (["--optimizer=sgd"], "--optimizer: invalid choice: 'sgd'"),
    (["--config.data.pth=x"], "--config.data.pth: no such key; did you mean data.path"),
    (["--config.data.flip=maybe"], "--config.data.flip: 'maybe' is no bool"),
    (["--config.data.image_size=33"], "data.image_size=33 is not a multiple"),
    (["--config.model.attention=cudnn"], "model.attention='cudnn' needs a GPU"),
    (["--nosuch=1"], "--nosuch=1"),
    (["--config.data.source=folder", "--config.data.path=/no/such"], "data.path='/no/such': no such folder"),
]


@pytest.mark.parametrize(("options", "words"), WRONG, ids=[words for _, words in WRONG])
def test_a_wrong_option_is_one_line_and_exit_code_2(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "run_config", lambda workdir: tiny())
    monkeypatch.setattr(probe, "load_params", lambda workdir: ({"encoder": {}}, 1))
    assert probe.main(["a run", *options]) == 2
    out, err = capsys.readouterr()
    assert words in err
    assert (out, err.count("\n")) == ("", 1)


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[ConfigDict]:
    """The configs that runs "a" (of a GPU: cuDNN's attention, bfloat16) and "b" are probed with."""
    recorded = {"a": {"model__attention": "cudnn", "model__dtype": "bfloat16"}, "b": {}}
    monkeypatch.setattr(probe, "run_config", lambda workdir: tiny(**recorded[workdir]))
    monkeypatch.setattr(probe, "load_params", lambda workdir: ({"encoder": {}}, 1))
    configs: list[ConfigDict] = []
    scores = {"probe_top1": 1.0, "knn_top1": 2.0}
    monkeypatch.setattr(probe, "probe_params", lambda config, params: configs.append(config) or scores)
    return configs


def test_any_key_can_be_changed_and_is_in_all_runs(scored: list[ConfigDict]) -> None:
    changes = ["path=elsewhere", "mean=(0.1, 0.2, 0.3)", "flip=False"]
    options = [f"--config.data.{change}" for change in changes]
    assert probe.main(["a", "b", *options, "--config.probe.k=5", "--temperature=1"]) == 0
    assert len(scored) == 2
    for config in scored:
        assert config.data.path == "elsewhere"
        assert config.data.mean == (0.1, 0.2, 0.3)
        assert config.data.flip is False
        assert (config.probe.k, config.probe.temperature) == (5, 1.0)


def test_attention_that_only_a_gpu_has_is_replaced_and_said(
    scored: list[ConfigDict], capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe.main(["a", "b"]) == 0
    assert [config.model.attention for config in scored] == ["xla", "auto"]
    assert [config.model.dtype for config in scored] == ["bfloat16", "auto"]
    assert capsys.readouterr().err.count("model.attention='cudnn' needs a GPU; probed with 'xla'") == 1


def test_attention_that_is_given_is_taken_without_a_word(
    scored: list[ConfigDict], capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe.main(["a", "--config.model.attention=xla", "--config.model.dtype=float32"]) == 0
    assert (scored[0].model.attention, scored[0].model.dtype) == ("xla", "float32")
    assert "GPU" not in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert probe.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error:")


def test_a_probe_needs_an_evaluation_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_evaluation(data: ConfigDict, split: sources.Split) -> sources.Source:
        if split == "eval":
            raise DataError("no val")
        return FewImages(split, 80)

    monkeypatch.setattr(sources, "make_source", without_evaluation)
    with pytest.raises(DataError, match="no val"):
        setup.prepare(tiny(probe__every_epochs=1.0), str(tmp_path))
