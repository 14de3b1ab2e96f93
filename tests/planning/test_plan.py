"""The command: what it knows without a compiler, what it keeps, its mistakes, and what it asks a TPU's."""

import dataclasses
import gzip
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amd_jax import hardware
from amd_jax.compilation_cache import folder
from amd_jax.errors import ConfigError
from amd_jax.planning import compiling, printed, recipe, roofline, sweep
from amd_jax.planning.target import find_libtpu, quiet, target
from configs import compare_fashion, finetune_vitb_in1k, vitb_in1k, vitb_k400, vitb_ssv2
from tests import QUICK
from tests.runs import ROOT
from tests.tpu import needs_libtpu

SMOKE = vitb_in1k.get_config("smoke")


def silent(line: str) -> None:
    """No progress."""


def planned(topology: str, config: Any = SMOKE, examples: int = 10_000) -> roofline.Estimate:
    """A plan without a compiler."""
    return sweep.Planner(target(topology), examples, 10, silent).plan(recipe.plannable(config))


def start(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m amd_jax.plan` of the smoke config as a user starts it."""
    environment = {**os.environ, "XLA_FLAGS": QUICK, "XDG_CACHE_HOME": str(folder)}
    environment.pop("JAX_PLATFORMS", None)
    command = [sys.executable, "-m", "amd_jax.plan", "--config=configs/vitb_in1k.py:smoke", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_memory_is_that_of_the_arrays() -> None:
    found = planned("gpu:8xa100")
    state = sweep.Planner(target("cpu"), 10_000, 10, silent)
    assert found.memory["optimizer"] == 2 * found.memory["parameters"] + 2 * 4 + 4  # two moments, counts
    assert found.memory["batch"] == 32 // 8 * 32 * 32 * 3
    assert found.memory["running mean"] == 0
    assert state.plan(recipe.plannable(SMOKE)).memory["batch"] == 32 * 32 * 32 * 3
    assert "temporaries" not in found.memory
    assert found.fits is None


def test_shared_parameters_take_less_of_a_chip() -> None:
    config = vitb_in1k.get_config("smoke")
    config.mesh.fsdp = 8
    assert planned("gpu:8xa100", config).memory["parameters"] < planned("gpu:8xa100").memory["parameters"] / 3


def test_the_bound_without_a_compiler_is_the_models_flops_at_the_peak() -> None:
    found = planned("gpu:8xa100")
    assert found.dtype == "bfloat16"
    assert found.bounds == {"compute": pytest.approx(found.model_flops / 8 / 312e12)}
    best, *stated = found.spans()
    assert (best.mfu, best.chip_hours) == (1.0, pytest.approx(8 * best.hours))
    assert best.hours == pytest.approx(found.steps * best.step / 3600)
    assert [span.mfu for span in stated] == list(roofline.STATED_MFU)
    assert stated[0].step == pytest.approx(2 * best.step)


def test_a_teacher_in_eight_bits_is_counted_at_their_peak_and_takes_half_the_memory() -> None:
    """Where a chip has none for them, at that of 16 bits."""
    config = vitb_in1k.get_config("smoke")
    found = {}
    for config.teacher.dtype in ("", "int8", "fp8"):
        found[config.teacher.dtype] = planned("gpu:8xa100", config)
    plain, int8, fp8 = found.values()
    assert (plain.eight_bit_flops, plain.eight_bit) == (0, "")
    assert 0 < int8.eight_bit_flops < plain.model_flops == int8.model_flops
    times = (plain.model_flops - int8.eight_bit_flops) / 312e12, int8.eight_bit_flops / 624e12
    assert int8.bounds == {"compute": pytest.approx(sum(times) / 8)}
    assert int8.spans()[0].mfu == pytest.approx(1)
    assert fp8.bounds == plain.bounds
    assert int8.memory["teacher"] == fp8.memory["teacher"] < plain.memory["teacher"]
    assert "of these in int8, of the model" in printed.page("x", int8)
    assert "of these in" not in printed.page("x", plain)


def test_a_cpu_has_no_bound_and_computes_in_its_own_type() -> None:
    found = planned("cpu")
    assert (found.dtype, found.bounds, found.spans(), found.available) == ("float32", {}, [], None)
    assert "A step takes at least" not in printed.page("x", found)


@pytest.mark.parametrize(
    ("topology", "asked", "found"),
    [
        ("cpu", "auto", "heads"),
        ("cpu", "xla", "xla"),
        ("gpu:h100", "auto", "xla"),
        ("gpu:h100", "heads", "heads"),
        ("gpu:h100", "cudnn", "xla"),  # which has the same shapes
    ],
)
def test_a_plan_is_of_the_attention_that_a_run_would_take(
    topology: str, asked: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = vitb_in1k.get_config("smoke")
    config.model.attention = asked
    build, built = sweep.programs.build, []

    def noted(config: Any, *rest: Any) -> Any:
        built.append(config.model.attention)
        return build(config, *rest)

    monkeypatch.setattr(sweep.programs, "build", noted)
    planned(topology, config)
    assert built == [found]


def test_what_is_waited_for_adds_to_the_rest() -> None:
    found = dataclasses.replace(
        planned("gpu:8xa100"), bounds={"compute": 3.0, "memory": 5.0, "interconnect": 4.0}, waited=1.0
    )
    assert (found.bound, found.as_compiled) == (5.0, 6.0)
    assert dataclasses.replace(found, waited=4.0).as_compiled == 9.0


def test_a_program_that_does_not_fit_is_a_sentence_with_keys_to_change() -> None:
    found = dataclasses.replace(planned("gpu:h200"), too_large="Ran out of memory")
    words = printed.verdict(found)
    assert found.fits is False
    for part in ("Ran out of memory", "accum_steps", "model.remat", "mesh.fsdp", "batch_size (now 32)"):
        assert part in words
    found = dataclasses.replace(found, too_large="", available=1)
    assert printed.verdict(found).startswith("It does not fit.")
    found = dataclasses.replace(found, available=1000, compiled=True)
    assert (dataclasses.replace(found, peak_memory=1001).fits, found.total > 1000) == (False, True)
    found = dataclasses.replace(found, peak_memory=999)  # not all temporaries live at once
    assert (found.fits, printed.verdict(found)) == (True, "It fits, with 0.000 MiB to spare.")


def test_the_largest_batch_is_a_multiple_of_what_the_mesh_shares() -> None:
    memory = {"parameters": 100, "batch": 8, "temporaries": 24}
    found = dataclasses.replace(planned("gpu:8xa100"), memory=memory, available=250)
    assert found.largest_batch == 32 * 150 // 32 // 8 * 8
    assert dataclasses.replace(found, repeats=4).largest_batch == 150
    assert dataclasses.replace(found, peak_memory=116).largest_batch == 32 * 150 // 16 // 8 * 8
    assert planned("gpu:8xa100").largest_batch is None


@pytest.mark.parametrize(
    ("config", "file", "expected"),
    [
        (vitb_in1k, "configs/vitb_in1k.py", (1_281_167, 1000)),
        (vitb_k400, "configs/vitb_k400.py", (240_436, 400)),
        (vitb_ssv2, "configs/vitb_ssv2.py:x", (168_913, 174)),
    ],
)
def test_published_data_sets_are_known_by_name(config: Any, file: str, expected: tuple[int, int]) -> None:
    assert recipe.size(config.get_config(), file, None, None) == expected
    assert recipe.size(config.get_config(), file, 100, None) == (100, expected[1])


def test_other_data_sets_have_to_be_told() -> None:
    config = vitb_k400.get_config()
    with pytest.raises(ConfigError, match="give --examples and --classes"):
        recipe.size(config, "mine.py", None, 10)
    assert recipe.size(config, "mine.py", 7, 10) == (7, 10)
    config = finetune_vitb_in1k.get_config()
    config.data.share = 0.5
    assert recipe.size(config, "mine.py", None, None) == (640_583, 1000)


def test_a_plan_needs_no_weights_and_changes_no_config() -> None:
    config = vitb_in1k.get_config()
    config.teacher.weights = "/no/such/file"
    assert recipe.plannable(config).teacher.random
    assert config.teacher.weights
    with pytest.raises(ConfigError, match="method="):
        recipe.plannable(compare_fashion.get_config())


@pytest.mark.parametrize(
    ("name", "chips", "hosts"),
    [
        ("cpu", 1, 1),
        ("gpu:h200", 1, 1),
        ("gpu:16xh100", 16, 2),
        ("v5e:16x16", 256, 64),
        ("v5e:2x4", 8, 1),
        ("v4:2x2x4", 16, 4),
    ],
)
def test_topologies(name: str, chips: int, hosts: int) -> None:
    found = target(name)
    assert (found.chips, found.hosts) == (chips, hosts)


@pytest.mark.parametrize("name", ["tpu", "v5e", "v9:2x2", "gpu:t5", "gpu:0xh100", "h100:2x2", "v5e:0x2", ""])
def test_a_topology_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="they look like v5e:16x16"):
        target(name)


def test_chips_have_a_peak() -> None:
    for chip in hardware.CHIPS.values():
        assert hardware.peak_flops(chip.kind, "bfloat16")


class TestKept:
    """Compiled programs."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def ask(self, name: str = "a", size: int = 4, devices: Any = None) -> compiling.Compiled:
        lowered = jax.jit(lambda x: x + 1).lower(jax.ShapeDtypeStruct((size,), jnp.float32))
        return compiling.compiled(lowered, name, devices or jax.devices()[:1], silent)

    def test_a_program_is_compiled_once(self) -> None:
        first, again = self.ask(), self.ask()
        assert (first.kept, again.kept) == (False, True)
        assert dataclasses.replace(again, kept=False) == first
        assert first.total >= 2 * 4 * 4

    def test_another_program_compiler_or_order_of_devices_is_another(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.ask()
        assert not self.ask(name="b").kept
        assert not self.ask(size=5).kept
        assert not self.ask(devices=jax.devices()[1:2]).kept
        monkeypatch.setenv("LIBTPU_INIT_ARGS", "--flag=true")
        assert not self.ask().kept

    def test_a_damaged_file_is_compiled_again(self) -> None:
        for damage in (b"", b"no gzip", gzip.compress(b"{}"), gzip.compress(b"[1]")):
            self.ask()
            (file,) = folder("plan").iterdir()
            file.write_bytes(damage)
            assert not self.ask().kept
        assert self.ask().kept

    def test_a_folder_that_cannot_be_written_is_no_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", "/proc/no/such")
        assert not self.ask().kept

    def test_what_does_not_fit_is_kept_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(self: Any) -> None:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out (1.5G of 1.2G). More.\nmore")

        monkeypatch.setattr(jax.stages.Lowered, "compile", fail)
        assert self.ask().too_large == "Ran out (1.5G of 1.2G)"
        assert self.ask().kept


class TestSweep:
    """Other shapes, with numbers in place of a compiler's."""

    def rows(self, memory: int = 100) -> list[sweep.Row]:
        """A grid in which fsdp=8 is fastest but too large, and half the batch takes half the memory."""
        own = dataclasses.replace(planned("gpu:8xa100"), memory={"temporaries": memory}, compiled=True)

        class Fake:
            def plan(self, config: Any) -> roofline.Estimate:
                if config.mesh.fsdp == 8 and config.model.remat:
                    raise ConfigError("no")
                step = 1.0 if config.mesh.fsdp == 8 else 2.0 + config.model.remat - config.accum_steps / 10
                return dataclasses.replace(
                    own,
                    bounds={"compute": step},
                    too_large="too large" if config.mesh.fsdp == 8 else "",
                    memory={"temporaries": memory * config.batch_size // 32},
                    batch_size=config.batch_size,
                )

        own = dataclasses.replace(own, bounds={"compute": 1.9}, available=800)
        return sweep.sweep(Fake(), SMOKE, own)  # type: ignore[arg-type]

    def test_the_fastest_that_fits_is_recommended(self) -> None:
        rows = self.rows()
        best = sweep.fastest(rows)
        assert best is not None
        assert (best.fsdp, best.accum_steps, best.remat, best.batch_size) == (1, 2, False, 32)
        text = sweep.page(rows)
        assert "Fastest that fits: --config.mesh.fsdp=1 --config.accum_steps=2" in text
        assert "fsdp=8, 1 passes: no" in text
        assert len(rows) == 9

    def test_the_largest_batch_is_on_the_line_through_two(self) -> None:
        assert sweep.largest_batch(self.rows()) == 256


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--topology is missing"),
        (("--topology=v9:1x1",), "--topology=v9:1x1: not known"),
        (("--topology=gpu:h200", "--sweep"), "--sweep asks a compiler"),
        (("--topology=cpu", "--json=/no/such/folder/file"), "--json=/no/such/folder/file: not a file"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    result = start(tmp_path, *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


@needs_libtpu
@pytest.mark.slow
def test_a_tpus_compiler_is_asked_once(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    first = start(tmp_path, "--topology=v5e:2x4", f"--json={file}")
    assert (first.returncode, first.stderr) == (0, "")
    found = json.loads(file.read_text())
    assert (found["chips"], found["hosts"], found["dtype"], found["kept"]) == (8, 1, "bfloat16", False)
    # Rows of 32 features fill up tiles of 128, but nobody computes more for it.
    assert found["compiled_flops"] == pytest.approx(found["model_flops"] / 8, rel=0.05)
    assert {row["kind"] for row in found["sent"]} == {"all-reduce"}
    reduced = sum(row["bytes"] for row in found["sent"])
    assert found["memory"]["parameters"] / 2 <= reduced <= 1.1 * found["memory"]["parameters"]
    assert found["memory"]["temporaries"] > 0
    assert found["unknown_loops"] == 0
    assert np.isclose(found["bounds"]["compute"], found["compiled_flops"] / 197e12)
    assert "It fits" in first.stdout
    again = start(tmp_path, "--topology=v5e:2x4", f"--json={file}")
    assert "compiled before" in again.stdout
    assert json.loads(file.read_text()) == found | {"kept": True}


def test_a_missing_compiler_is_a_line_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ConfigError, match=r"pip install -r requirements-plan\.txt"):
        find_libtpu()


def test_what_libraries_write_is_held_back_and_shown_if_something_breaks(capfd: Any) -> None:
    with quiet():
        os.write(2, b"noise")
    assert capfd.readouterr().err == ""

    def fail() -> None:
        with quiet():
            os.write(2, b"the reason")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        fail()
    assert caught.value.__notes__ == ["the reason"]
