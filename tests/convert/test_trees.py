"""Checkpoints of ours are loaded by comparing trees: what a model adds needs no line in the converter."""

from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

from amd_jax.convert.load import Loaded, load_classifier, load_encoder, load_student
from amd_jax.convert.network import parameter_shapes
from amd_jax.errors import UserError
from amd_jax.models import build
from amd_jax.models.blocks import Linear
from amd_jax.models.classifier import Classifier
from amd_jax.models.masking import Masks
from amd_jax.models.student import Student, StudentOutput
from amd_jax.steps.train_state import TrainState
from amd_jax.train.checkpoint import Checkpoints
from amd_jax.trees import flatten, nest
from amd_jax.workdir import save_config
from tests.convert.conftest import Weights, run
from tests.runs import tiny

NEW = {"temperature", "odd_head/kernel", "odd_head/bias"}


class OddStudent(Student):
    """A student with a parameter and a head that nobody has heard of."""

    @nn.compact
    def __call__(self, patches: jax.Array, masks: Masks, predict_all: bool = False) -> StudentOutput:
        out = super().__call__(patches, masks, predict_all)
        temperature = self.param("temperature", nn.initializers.ones, (3,))
        return out.replace(pixels=out.pixels + Linear(1, name="odd_head")(out.pixels) * temperature.mean())


class OddClassifier(Classifier):
    """A classifier with a second head."""

    @nn.compact
    def __call__(self, patches: jax.Array, indices: jax.Array, keep: jax.Array | None = None) -> jax.Array:
        return Linear(2, name="odd_head")(super().__call__(patches, indices, keep))


def _models() -> tuple[Student, OddStudent, tuple[int, int, int], int]:
    """The smoke run's student, the same with additions, its patch, and channels."""
    config = tiny()
    plain = build.student(config)
    odd = OddStudent(plain.encoder, plain.decoder, plain.align)
    return plain, odd, build.patch(config), config.data.channels


def _trained(model: Any, folder: Path) -> Weights:
    """Makes the workdir of a run that trained `model`; returns its parameters."""
    rng = np.random.default_rng(0)
    _, _, (t, h, w), channels = _models()
    shapes = parameter_shapes(model, t * h * w * channels)
    params = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    checkpoints = Checkpoints(str(folder), keep=1)
    checkpoints.save(TrainState.create(nest(params), optax.identity()), 1, {})
    checkpoints.close()
    save_config(str(folder), tiny())
    return params


def _same(loaded: Loaded, params: Weights) -> None:
    flat = flatten(loaded.params)
    assert flat.keys() == params.keys()
    assert all(np.array_equal(flat[name], params[name]) for name in flat)


def test_a_new_parameter_and_a_new_head_come_back_as_they_were(tmp_path: Path) -> None:
    _, odd, patch, channels = _models()
    params = _trained(odd, tmp_path / "run")
    assert params.keys() >= NEW
    loaded = load_student(str(tmp_path / "run"), odd, patch, channels)
    assert not loaded.new
    _same(loaded, params)
    assert run("import", tmp_path / "run", "--out", tmp_path / "ours") == 0
    _same(load_student(str(tmp_path / "ours"), odd, patch, channels), params)


def test_a_new_head_on_a_classifier_comes_back(tmp_path: Path) -> None:
    plain, _, patch, channels = _models()
    odd = OddClassifier(plain.encoder, 10)
    params = _trained(odd, tmp_path / "run")
    loaded = load_classifier(str(tmp_path / "run"), odd, patch, channels)
    assert not loaded.new
    _same(loaded, params)


def test_what_only_the_model_has_is_new_and_what_only_the_run_has_is_dropped(tmp_path: Path) -> None:
    plain, odd, patch, channels = _models()
    params = {model: _trained(model, tmp_path / name) for name, model in (("plain", plain), ("odd", odd))}
    loaded = load_student(str(tmp_path / "plain"), odd, patch, channels)
    assert loaded.new.keys() == NEW
    _same(loaded, params[plain])
    loaded = load_student(str(tmp_path / "odd"), plain, patch, channels)
    assert not loaded.new
    _same(loaded, {name: params[odd][name] for name in params[plain]})
    for name in NEW:
        assert any(line.startswith(f"dropped      {name}") and "not needed" in line for line in loaded.report)


def test_an_export_names_what_the_format_has_no_place_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, odd, _, _ = _models()
    _trained(odd, tmp_path / "run")
    for form in ("official", "hf", "timm"):
        assert run("export", tmp_path / "run", f"--format={form}", "--out", tmp_path / form) == 0
        out = capsys.readouterr().out
        assert all(f"dropped      {name}" in out for name in NEW)


def test_encoder_of_another_shape_is_an_error_that_names_both_sides(tmp_path: Path) -> None:
    plain, _, patch, channels = _models()
    params = _trained(plain, tmp_path / "run")
    params["encoder/cls_token"] = np.zeros(7, np.float32)
    checkpoints = Checkpoints(str(tmp_path / "run"), keep=1)
    checkpoints.save(TrainState.create(nest(params), optax.identity()), 2, {})
    checkpoints.close()
    with pytest.raises(UserError, match=r"encoder/cls_token is \[7\] in the file, .* is \[32\] here"):
        load_student(str(tmp_path / "run"), plain, patch, channels)


def test_a_frozen_encoder_may_lack_nothing(tmp_path: Path) -> None:
    plain, _, patch, channels = _models()
    params = _trained(plain, tmp_path / "run")
    del params["encoder/blocks/layers/norm2/scale"]
    checkpoints = Checkpoints(str(tmp_path / "run"), keep=1)
    checkpoints.save(TrainState.create(nest(params), optax.identity()), 2, {})
    checkpoints.close()
    with pytest.raises(UserError, match="norm2/scale"):
        load_encoder(str(tmp_path / "run"), plain.encoder, patch, channels, final_norm=True)
