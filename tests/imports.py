"""The imports of the project, read off its files.

`python -m tests.imports` draws them in docs/architecture.md: a box a package, and arrows from who imports to
what is imported; the files at the top of `amd_jax/` are the ground floor and the commands.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS = ("amd_jax", "configs")
FILES = sorted(path for folder in OURS for path in (ROOT / folder).rglob("*.py"))
DRAWING = ROOT / "docs" / "architecture.md"

# From the ground up: a module imports from its own floor and from lower ones, never from a higher one.
FLOORS = ("ground", "models", "steps", "data and convert", "evals", "train", "commands")
COMMANDS = (
    "__main__",
    "bench",
    "command",
    "compare",
    "gpu_check",
    "main",
    "measuring",
    "plan",
    "planning",
    "probe",
    "use",
)  # of the top level; its other files are the ground
PACKAGES = {"data": "data and convert", "convert": "data and convert", "hosts": "ground"}


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


def box(module: str) -> str:
    """The package of a module, or for a file at the top of `amd_jax/` its own name."""
    return module.split(".")[1] if "." in module else module


def floor(module: str) -> str:
    """The floor of a module of `amd_jax`."""
    name = box(module)
    if name in COMMANDS or module == "amd_jax":  # whose `load` is `amd_jax.use`'s
        return "commands"
    top = (ROOT / "amd_jax" / name).is_dir()
    return PACKAGES.get(name, name) if top else "ground"


def drawing() -> str:
    """The floors as a mermaid graph; all may import the ground, so no arrow says it."""
    modules = [name for name in MODULES if inside(name, "amd_jax") and name != "amd_jax"]
    lines = ["```mermaid", "graph TD"]
    for storey in reversed(FLOORS[1:]):
        boxes = sorted({box(name) for name in modules if floor(name) == storey})
        shown = [f'{name}["{name}/"]' if (ROOT / "amd_jax" / name).is_dir() else name for name in boxes]
        lines += [
            f'  subgraph {storey.replace(" ", "_")}_floor["{storey}"]',
            *(f"    {x}" for x in shown),
            "  end",
        ]
    ground = sorted({box(name) for name in modules if floor(name) == "ground"})
    rows = (", ".join(ground[i : i + 6]) for i in range(0, len(ground), 6))
    lines.append(f'  ground["{"<br>".join(rows)}"]')
    pairs = {(box(a), box(b)) for a in modules for b in ours(a) if floor(b) != "ground" and b in modules}
    lines += sorted(f"  {a} --> {b}" for a, b in pairs if a != b)
    return "\n".join([*lines, "```"])


def drawn(page: str) -> str:
    """`page` with its drawing made anew."""
    before, rest = page.split("```mermaid", 1)
    return before + drawing() + rest.split("```", 1)[1]


if __name__ == "__main__":
    DRAWING.write_text(drawn(DRAWING.read_text()))
