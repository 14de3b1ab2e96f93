"""What a run needs before its first step, and in which order mistakes are found."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from amd_jax import sharding
from amd_jax.errors import ConfigError, DataError, UserError
from amd_jax.evals.evaluation import Setting
from amd_jax.evals.evaluators import make_evaluations
from amd_jax.train import program, setup
from amd_jax.train.random_arrays import draw
from amd_jax.train.weights import load_start, load_teacher
from amd_jax.trees import flatten, path_name
from amd_jax.workdir import save_config
from configs import finetune_vitb_in1k, kd_vitb_in1k, vitb_in1k
from tests.runs import assert_same, tiny, untrained


@pytest.fixture
def one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the eight devices, for which other tests have compiled the same step."""
    device = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda *args: device)


@pytest.mark.slow
def test_new_parameters_are_drawn_as_without_a_file_and_the_others_are_the_files(tmp_path: Path) -> None:
    """To the bit, shared over eight devices; the running mean starts as a copy that is no second owner."""
    file = flatten(untrained(tiny(method="mae"), tmp_path / "mae"))
    config = finetune_vitb_in1k.get_config("smoke")
    config.finetune.ema = 0.9
    run = program.build(config, sharding.make_mesh(2, 2, 2), examples=10_000, classes=10)
    assert load_start(config, run.task) == {}
    without = draw(run.init_state, config.seed, run.state, {})

    config.student.weights = str(tmp_path / "mae")
    start = load_start(config, run.task)
    given = sharding.place(start, sharding.shardings(start, run.mesh, path_name))
    state = draw(run.init_state, config.seed, run.state, given)
    assert jax.tree.map(lambda x: x.sharding, state) == program.where(run.state)
    new, filled, drawn = flatten(state.params), flatten(start), flatten(without.params)
    news = {"head/kernel", "head/bias", "fc_norm/scale", "fc_norm/bias"}
    assert drawn.keys() - filled.keys() == news
    assert_same(new, drawn | filled)
    name = "encoder/blocks/layers/mlp/fc1/kernel"
    np.testing.assert_array_equal(filled[name], file[name])
    assert_same(state.ema, state.params)
    assert_same(state.opt_state, without.opt_state)
    for mean, own in zip(jax.tree.leaves(state.ema), jax.tree.leaves(state.params), strict=True):
        mean, own = (x.addressable_shards[0].data.unsafe_buffer_pointer() for x in (mean, own))
        assert mean != own


@pytest.mark.parametrize("config", [vitb_in1k, kd_vitb_in1k])
def test_a_teacher_in_eight_bits_is_loaded_in_floats(config: Any, tmp_path: Path) -> None:
    """From the same files, and rounded after that."""
    taught, own = config.get_config("smoke"), config.get_config("smoke")
    own.method = "finetune" if own.method == "kd" else "mae"
    own.student.update({k: v for k, v in own.teacher.items() if k in own.student})
    own.finetune.pool = own.finetune.teacher_pool
    untrained(own, tmp_path / "teacher")
    taught.teacher.weights = str(tmp_path / "teacher")
    found = []
    for taught.teacher.dtype in ("", "int8"):
        run = program.build(taught, sharding.make_mesh(1, 1, 1, jax.devices()[:1]), 10_000, 10)
        found.append(load_teacher(taught, run.task))
    assert_same(flatten(found[0]), flatten(found[1]))


def test_nothing_is_on_disk_before_everything_is_known_to_work(
    one_device: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last thing that can go wrong is memory, after compiling."""
    monkeypatch.setattr(setup.preflight, "step_memory", lambda compiled, platform: 2**60)
    with pytest.raises(ConfigError, match="a step needs"):
        setup.prepare(tiny(), str(tmp_path / "new" / "run"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data.source": "folder", "data.path": "/no/such/place"}, "no such folder"),
        ({"data.source": "embedded", "data.eval_split": "test"}, "fixed splits"),
        ({"mesh.fsdp": 3}, "mesh.fsdp"),
        ({"batch_size": 12}, "do not divide over 8 devices"),
        ({"steps": 0, "epochs": 0.0001}, "less than one step"),
    ],
)
def test_a_mistake_is_found_before_a_teacher_is_read(
    changes: dict[str, object], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "load_teacher", None)  # calling it would be a TypeError
    teacher = tmp_path / "teacher"
    teacher.mkdir()
    config = tiny(**changes, **{"teacher.weights": str(teacher), "teacher.random": False})
    config.teacher.mean = config.teacher.std = (0.5, 0.5, 0.5)
    monkeypatch.setattr(setup, "with_teacher_pixels", lambda config: config)
    with pytest.raises(UserError, match=words):
        setup.prepare(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_place_that_cannot_be_a_workdir_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="not a directory"):
        setup.prepare(tiny(), str(tmp_path / "file" / "run"))


def test_processes_that_read_other_data_are_refused_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Star:
        """Process 0 of two; the other one sees the workdir, but has found fewer images."""

        index = 0

        def ask(self, word: Any, judge: Any) -> Any:
            other = {**word, "the number of training examples": "9999"} if isinstance(word, dict) else word
            return judge([word, other])

        def name(self, process: int) -> str:
            return f"process {process}"

    monkeypatch.setattr(setup.star, "current", Star())
    monkeypatch.setattr(setup.programs, "build", None)  # calling it would be a TypeError
    with pytest.raises(ConfigError, match="in process 1 the number of training examples is 9999, not 10000"):
        setup.prepare(tiny(), str(tmp_path / "new" / "run"))
    assert list(tmp_path.iterdir()) == []


def test_pre_training_does_without_an_evaluation_split_and_without_labels(
    one_device: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Then pictures are of training images; a probe of labelled ones needs the split."""
    for number in range(10):
        path = tmp_path / "images/train/a" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40, 40, 3), 20 * number, np.uint8)).save(path)
    config = tiny(data__source="folder", data__path=str(tmp_path / "images"))
    config.probe.every_epochs = 1.0
    with pytest.raises(DataError, match="no folder val"):
        setup.prepare(config, str(tmp_path / "other"))
    config.data.path += "/train/a"  # no classes, no labels: nothing to probe by
    run = setup.prepare(config, str(tmp_path / "run"))
    assert run.eval_source is run.source
    assert "probe: left out" in capsys.readouterr().out
    setting = Setting(config, run.program.task, run.program.mesh, run.source, run.eval_source, 1.0)
    assert make_evaluations(setting) == []
    tuned = finetune_vitb_in1k.get_config("smoke")
    tuned.data.update({"source": "folder", "path": config.data.path})
    with pytest.raises(ConfigError, match="method='finetune' needs labels"):
        setup.prepare(tuned, str(tmp_path / "tuned"))


def test_a_continued_run_tells_which_keys_are_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    untrained(tiny(), tmp_path / "run")
    before = tiny(log__every=7)
    save_config(str(tmp_path / "run"), before)
    setup._report_changed_keys(str(tmp_path / "run"), tiny(log__every=3))
    assert "log.every was 7 when this run began and is 3 now" in caplog.text
