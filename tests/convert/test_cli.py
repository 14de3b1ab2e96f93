"""The command line: strict, clear, and without traces when it fails."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from amd_jax.convert.kinds import KINDS
from tests.convert.conftest import amd_arch, image_arch, imported, mae_arch, published, run, stack, video_arch

Save = Callable[..., str]
Capture = pytest.CaptureFixture[str]


def test_help_needs_neither_jax_nor_numpy_nor_torch() -> None:
    code = (
        "import sys\nfrom amd_jax.convert.cli import parser\nparser().format_help()\n"
        "print([m for m in ('jax', 'numpy', 'torch', 'flax', 'orbax') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_import_of_a_file_needs_neither_torch_nor_orbax(save: Save, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom amd_jax.convert.cli import main\n"
        f"assert main(['import', {save(published(mae_arch()))!r}, '--out', {str(tmp_path / 'o')!r}]) == 0\n"
        "print([m for m in ('torch', 'orbax') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip().endswith("[]")


def test_dry_run_prints_the_table_and_writes_nothing(save: Save, tmp_path: Path, capsys: Capture) -> None:
    src = save(published(mae_arch()))
    before = sorted(tmp_path.iterdir())
    assert run("import", src, "--dry_run") == 0
    out = capsys.readouterr().out
    assert "mae_full" in out
    assert "blocks.0-2.attn.qkv.weight -> encoder/blocks/layers/attn/qkv  [3, 32, 3, 2, 16]" in out
    assert "assumed" in out
    assert sorted(tmp_path.iterdir()) == before


def test_every_weight_of_the_file_is_in_the_table(save: Save, capsys: Capture) -> None:
    weights = published(amd_arch())
    weights |= {
        f"generators.{i}.norm.{n}": np.ones(48, np.float32) for i in range(2) for n in ("weight", "bias")
    }
    assert run("import", save(weights), "--dry_run") == 0
    out = capsys.readouterr().out
    for name in weights:
        folded = name
        for prefix, depth in (("encoder.blocks", 3), ("decoder.blocks", 2), ("0.blocks", 2), ("1.blocks", 2)):
            for i in range(depth):
                folded = folded.replace(f"{prefix}.{i}.", f"{prefix}.0-{depth - 1}.")
        assert folded in out, name
    assert "not used by the published forward pass" in out


def test_unknown_and_missing_weights_are_listed_on_both_sides(
    save: Save, tmp_path: Path, capsys: Capture
) -> None:
    weights = published(mae_arch())
    for i in range(3):
        weights[f"blocks.{i}.attn.rel_pos"] = weights.pop(f"blocks.{i}.norm2.weight")
    assert run("import", save(weights), "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "in the file but unknown: blocks.{0-2}.attn.rel_pos" in error
    assert "expected but not in the file: blocks.{0-2}.norm2.weight" in error
    assert not (tmp_path / "out").exists()


def test_wrong_shape_is_an_error(save: Save, capsys: Capture) -> None:
    weights = published(mae_arch())
    weights["blocks.1.mlp.fc2.weight"] = weights["blocks.1.mlp.fc2.weight"].T.copy()
    assert run("import", save(weights), "--dry_run") == 2
    assert "blocks.1.mlp.fc2.weight is [64, 32], expected [32, 64]" in capsys.readouterr().err


def test_integer_weights_are_an_error(save: Save, capsys: Capture) -> None:
    weights = published(mae_arch())
    weights["norm.weight"] = weights["norm.weight"].astype(np.int32)
    assert run("import", save(weights), "--dry_run") == 2
    assert "norm.weight holds int32" in capsys.readouterr().err


def test_wrong_kind_is_refused_and_the_likely_one_named(save: Save, capsys: Capture) -> None:
    assert run("import", save(published(mae_arch())), "--kind=videomae_pretrain", "--dry_run") == 2
    assert "it looks like mae_full" in capsys.readouterr().err
    assert run("import", save(published(mae_arch())), "--kind=resnet", "--dry_run") == 2
    assert all(kind in capsys.readouterr().err for kind in list(KINDS)[:1])


def test_kind_that_names_cannot_tell_apart_is_taken_as_said(save: Save, capsys: Capture) -> None:
    assert run("import", save(published(video_arch())), "--kind=amd_finetuned", "--dry_run") == 0
    assert "amd_finetuned" in capsys.readouterr().out


def test_videomae_v2_giant_is_known_by_its_mlp(save: Save, capsys: Capture) -> None:
    weights = published(video_arch(encoder=stack(44, 2, 4, 192, "qv")))
    assert run("import", save(weights), "--heads=4", "--dry_run") == 0
    assert "videomae_v2" in capsys.readouterr().out


def test_encoder_only_video_file_with_prefix(save: Save, capsys: Capture) -> None:
    weights = {
        f"encoder.{k}": v for k, v in published(video_arch(classes=0, fc_norm=False, norm=True)).items()
    }
    assert run("import", save(weights), "--dry_run") == 0
    assert "videomae_encoder" in capsys.readouterr().out


def test_checkpoint_of_a_run_is_imported_and_exported(tmp_path: Path) -> None:
    import jax
    import optax

    from amd_jax.steps.pretrain import Pretraining
    from amd_jax.steps.train_state import TrainState
    from amd_jax.train.checkpoint import Checkpoints
    from amd_jax.trees import flatten
    from amd_jax.workdir import save_config
    from tests.runs import tiny

    config = tiny()
    (tmp_path / "run").mkdir()
    save_config(str(tmp_path / "run"), config)
    shapes = jax.eval_shape(Pretraining.from_config(config).init, jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: jax.numpy.asarray(rng.normal(size=x.shape), x.dtype), shapes)
    checkpoints = Checkpoints(str(tmp_path / "run"), keep=1)
    checkpoints.save(TrainState.create(params, optax.sgd(0.1)), 3, {})
    checkpoints.close()
    wanted = flatten(params)
    for src in ("run", "run/checkpoints/3"):
        assert run("import", tmp_path / src, "--out", tmp_path / "imported") == 0
        got = imported(tmp_path / "imported")
        assert got.keys() == wanted.keys()
        assert all(np.array_equal(got[k], wanted[k]) for k in got)
    assert run("export", tmp_path / "run", "--format=official", "--out", tmp_path / "official") == 0
    assert run("import", tmp_path / "official", "--out", tmp_path / "again") == 0
    again = imported(tmp_path / "again")
    assert again.keys() == wanted.keys()
    assert all(np.array_equal(again[k], wanted[k]) for k in again)
    for form in ("timm", "hf"):
        assert run("export", tmp_path / "run", f"--format={form}", "--out", tmp_path / form) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("import", "/nowhere/x.pth", "--dry_run"), "no such file"),
        (("import", "x.pth"), "--out=DIR is missing"),
        (("import", "hf://name", "--dry_run"), "hf://ORG/NAME"),
        (("verify", "/nowhere/x.safetensors"), "cannot be read"),
    ],
)
def test_wrong_arguments_are_one_line(arguments: tuple[str, ...], says: str, capsys: Capture) -> None:
    assert run(*arguments) == 2
    error = capsys.readouterr().err.strip()
    assert says in error
    assert "\n" not in error


def test_heads_that_do_not_divide_the_width_are_refused(save: Save, capsys: Capture) -> None:
    assert run("import", save(published(mae_arch())), "--heads=5", "--dry_run") == 2
    assert "5 heads do not divide the width 32" in capsys.readouterr().err


def test_export_of_a_foreign_file_says_to_import_first(save: Save, capsys: Capture) -> None:
    assert run("export", save(published(mae_arch())), "--format=timm", "--dry_run") == 2
    assert "import it first" in capsys.readouterr().err


def test_failed_write_leaves_what_was_there(
    save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from amd_jax.convert.files import tensors

    out = tmp_path / "out"
    src = save(published(mae_arch()))
    assert run("import", src, "--out", out) == 0
    before = imported(out)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensors, "save_file", fail)
    assert run("import", src, "--out", out) == 2
    assert {p.name for p in tmp_path.iterdir()} == {"out", "weights_in.safetensors"}
    assert all(np.array_equal(imported(out)[k], before[k]) for k in before)


def test_out_that_is_a_file_is_refused(save: Save, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "out").write_text("mine")
    assert run("import", save(published(image_arch())), "--out", tmp_path / "out") == 2
    assert (tmp_path / "out").read_text() == "mine"
    assert "there is a file of that name" in capsys.readouterr().err
