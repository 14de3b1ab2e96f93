"""Imports point one way. This reads the imports of every module and holds the map of README.md.

commands → loop → setup, evals → program, data, convert → steps → models → masks, losses, patches → the ground
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("amd_jax", "configs")
FILES = sorted(path for folder in OURS for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    """`amd_jax/models/vit.py` as `amd_jax.models.vit`, a package's `__init__.py` as the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}


def imports_in(source: str, package: str) -> set[str]:
    """All that `source` imports, at any depth; `from a import b` is `a.b` if that is a module of ours."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: -node.level or None]) if node.level else ""
            origin = ".".join(filter(None, (base, node.module)))
            for alias in node.names:
                full = f"{origin}.{alias.name}"
                found.add(full if full in MODULES else origin)
    return found


IMPORTS = {name: imports_in(path.read_text(), name) for name, path in MODULES.items()}


def inside(name: str, *packages: str) -> bool:
    """Whether `name` is one of `packages` or lies in one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def ours(module: str) -> set[str]:
    """What `module` imports of this project."""
    return {name for name in IMPORTS[module] if inside(name, *OURS)}


def importers(*packages: str) -> set[str]:
    """The modules that import any of `packages`."""
    return {module for module, names in IMPORTS.items() if any(inside(name, *packages) for name in names)}


def under(package: str) -> list[str]:
    """The modules of a package; at least one, so that no test passes for want of modules."""
    found = [module for module in MODULES if inside(module, package)]
    assert found, package
    return found


def test_the_reader_of_imports_sees_every_form() -> None:
    source = "import jax.numpy as jnp\nfrom amd_jax import losses\nfrom amd_jax.config import KEYS\n"
    source += "def f():\n    from torch import nn\n"
    assert imports_in(source, "amd_jax") == {"jax.numpy", "amd_jax.losses", "amd_jax.config", "torch"}


@pytest.mark.parametrize(
    "module", ["methods", "masking", "patches", "sharding", "train_state", "trees", "processes"]
)
def test_the_foundations_import_nothing_of_ours(module: str) -> None:
    assert ours(f"amd_jax.{module}") == set()


def test_the_config_knows_the_names_of_the_methods() -> None:
    assert ours("amd_jax.config") == {"amd_jax.methods"}


@pytest.mark.parametrize("module", under("amd_jax.evals"))
def test_evaluations_know_nothing_of_runs(module: str) -> None:
    above = ("setup", "loop", "checkpoint", "weights", "convert", "compare", "train", "probe", "main")
    assert not any(inside(name, *(f"amd_jax.{a}" for a in above)) for name in ours(module))


def test_a_program_knows_nothing_of_data_weights_or_checkpoints() -> None:
    above = ("data", "convert", "weights", "checkpoint", "setup", "loop", "evals")
    assert not any(inside(name, *(f"amd_jax.{a}" for a in above)) for name in ours("amd_jax.train.program"))


def test_the_linear_probe_knows_features_only() -> None:
    assert ours("amd_jax.evals.linear") == set()


def test_losses_know_only_the_patch_layout() -> None:
    assert ours("amd_jax.losses") == {"amd_jax.patches"}


@pytest.mark.parametrize("module", under("amd_jax.data"))
def test_data_knows_neither_networks_nor_steps_nor_jax(module: str) -> None:
    """Its workers are processes that must not touch an accelerator."""
    forbidden = ("jax", "jaxlib", "flax", "optax", "amd_jax.models", "amd_jax.steps", "amd_jax.convert")
    assert [name for name in IMPORTS[module] if inside(name, *forbidden)] == []
    assert all(inside(name, "amd_jax.data", "amd_jax.config", "amd_jax.exits") for name in ours(module))


@pytest.mark.parametrize("module", under("amd_jax.models"))
def test_models_know_only_masks_and_each_other(module: str) -> None:
    assert all(inside(name, "amd_jax.models", "amd_jax.masking", "amd_jax.methods") for name in ours(module))


@pytest.mark.parametrize("module", under("amd_jax.steps"))
def test_steps_know_only_the_mathematics(module: str) -> None:
    allowed = ("models", "losses", "masking", "methods", "mixup", "patches", "train_state", "optim", "steps")
    assert all(inside(name, *(f"amd_jax.{a}" for a in allowed)) for name in ours(module))


def test_only_convert_may_import_other_frameworks() -> None:
    assert all(inside(module, "amd_jax.convert") for module in importers("torch", "transformers", "timm"))


def test_only_preparing_a_data_set_may_import_tensorflow() -> None:
    assert importers("tensorflow") <= {"amd_jax.data.prepare"}


def test_tensorflow_datasets_are_imported_where_they_are_used_and_only_there() -> None:
    for module in importers("tensorflow_datasets"):
        assert inside(module, "amd_jax.data")
        top = ast.parse(MODULES[module].read_text()).body
        lines = [ast.unparse(node) for node in top if isinstance(node, ast.Import | ast.ImportFrom)]
        assert not any("tensorflow_datasets" in line for line in lines)


@pytest.mark.parametrize("module", [m for m in under("configs") if m not in ("configs", "configs.common")])
def test_configs_import_only_ml_collections_and_common(module: str) -> None:
    assert IMPORTS[module] <= {"ml_collections", "configs.common", "collections.abc", "typing"}


def test_common_alone_knows_where_config_keys_are_declared() -> None:
    assert ours("configs.common") == {"amd_jax.config"}


def test_the_package_never_imports_its_configs() -> None:
    assert all(inside(module, "configs") for module in importers("configs"))


def test_only_a_command_hands_over_to_the_loop() -> None:
    assert all(inside(module, "amd_jax.main", "amd_jax.compare") for module in importers("amd_jax.loop"))


def test_nothing_but_a_comparison_knows_of_comparisons() -> None:
    assert all(inside(module, "amd_jax.compare") for module in importers("amd_jax.compare"))


def test_nothing_imports_in_a_circle() -> None:
    graph = {module: {name for name in ours(module) if name != module} for module in MODULES}
    # A package's own name says nothing: `import amd_jax` runs an empty file.
    while leaves := {module for module, names in graph.items() if not names & graph.keys()}:
        graph = {module: names for module, names in graph.items() if module not in leaves}
    assert sorted(graph) == []


def test_no_module_is_called_utils() -> None:
    assert [module for module in MODULES if "util" in module.rsplit(".", 1)[-1]] == []
