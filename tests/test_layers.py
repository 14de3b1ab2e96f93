"""Imports point one way: this holds the floors that docs/architecture.md draws."""

import ast

import pytest

from tests.imports import (
    DRAWING,
    FLOORS,
    IMPORTS,
    MODULES,
    drawn,
    floor,
    imports_in,
    inside,
    ours,
)  # fmt: skip

OF_THE_PACKAGE = sorted(name for name in MODULES if inside(name, "amd_jax") and name != "amd_jax")


def importers(*packages: str) -> set[str]:
    """The modules that import any of `packages`."""
    return {module for module, names in IMPORTS.items() if any(inside(name, *packages) for name in names)}


def under(package: str) -> list[str]:
    """The modules of a package; at least one, so that no test passes for want of modules."""
    found = [module for module in MODULES if inside(module, package)]
    assert found, package
    return found


def test_the_reader_of_imports_sees_every_form() -> None:
    source = "import jax.numpy as jnp\nfrom amd_jax.steps import losses\nfrom amd_jax.config import KEYS\n"
    source += "def f():\n    from torch import nn\n"
    assert imports_in(source, "amd_jax") == {"jax.numpy", "amd_jax.steps.losses", "amd_jax.config", "torch"}


@pytest.mark.parametrize("module", OF_THE_PACKAGE)
def test_a_module_imports_from_its_own_floor_or_a_lower_one(module: str) -> None:
    height = FLOORS.index(floor(module))
    above = [other for other in ours(module) - {"amd_jax"} if FLOORS.index(floor(other)) > height]
    assert above == []


def test_the_drawing_shows_the_imports() -> None:
    """`python -m tests.imports` makes it."""
    page = DRAWING.read_text()
    assert page == drawn(page)


@pytest.mark.parametrize("module", ["errors", "methods", "processes", "trees", "sharding"])
def test_the_foundations_import_nothing_of_ours(module: str) -> None:
    assert ours(f"amd_jax.{module}") == set()


def test_the_config_knows_the_names_of_the_methods() -> None:
    assert ours("amd_jax.config") == {"amd_jax.errors", "amd_jax.methods"}


def test_a_program_knows_nothing_of_data_weights_or_checkpoints() -> None:
    above = ("data", "convert", "evals", "train.weights", "train.checkpoint", "train.setup", "train.loop")
    assert not any(inside(name, *(f"amd_jax.{a}" for a in above)) for name in ours("amd_jax.train.program"))


def test_the_linear_probe_knows_features_only() -> None:
    assert ours("amd_jax.evals.linear") == set()


def test_losses_know_only_the_patch_layout() -> None:
    assert ours("amd_jax.steps.losses") == {"amd_jax.models.patches"}


@pytest.mark.parametrize("module", under("amd_jax.data"))
def test_data_knows_neither_networks_nor_steps_nor_jax(module: str) -> None:
    """Its workers are processes that must not touch an accelerator."""
    forbidden = ("jax", "jaxlib", "flax", "optax", "amd_jax.models", "amd_jax.steps", "amd_jax.convert")
    assert [name for name in IMPORTS[module] if inside(name, *forbidden)] == []
    allowed = ("buckets", "data", "config", "errors", "exits", "methods")
    assert all(inside(name, *(f"amd_jax.{a}" for a in allowed)) for name in ours(module))


@pytest.mark.parametrize("module", under("amd_jax.models"))
def test_models_know_only_masks_and_each_other(module: str) -> None:
    assert all(inside(name, "amd_jax.models", "amd_jax.config", "amd_jax.methods") for name in ours(module))


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


SIMPLE = {"ml_collections", "configs.common", "configs.comparing", "collections.abc", "typing"}


@pytest.mark.parametrize("module", [m for m in under("configs") if m not in ("configs", "configs.common")])
def test_configs_import_only_ml_collections_and_what_they_share(module: str) -> None:
    assert IMPORTS[module] <= SIMPLE


def test_common_alone_knows_where_config_keys_are_declared() -> None:
    assert ours("configs.common") == {"amd_jax.config"}


def test_the_package_never_imports_its_configs() -> None:
    assert all(inside(module, "configs") for module in importers("configs"))


def test_only_a_command_hands_over_to_the_loop() -> None:
    assert all(
        inside(module, "amd_jax.main", "amd_jax.compare") for module in importers("amd_jax.train.loop")
    )


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


def test_one_file_has_one_name() -> None:
    """Whoever looks for a file by its name finds one."""
    names = sorted(path.name for path in MODULES.values() if not path.name.startswith("__"))
    assert names == sorted(set(names))
