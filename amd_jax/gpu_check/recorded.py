"""The recorded outputs and gradients of the published implementations, computed on this device."""

from pathlib import Path

from amd_jax.convert.verify import GRADIENT_TOLERANCE, OUTPUT_TOLERANCE, Case, errors
from amd_jax.gpu_check.rows import SKIPPED, Setting, judged

GOLDENS = Path(__file__).parents[2] / "tests" / "goldens"  # only a checkout of the repository has them


def check(setting: Setting) -> None:
    """Every case, with float32 products at the highest precision, by the tolerances of `convert verify`."""
    cases = sorted(GOLDENS.glob("*.safetensors"))
    if not cases:
        setting.add("goldens", "", SKIPPED, f"{GOLDENS} is not there")
    for case in cases:
        found = errors(Case.load(str(case)))
        kinds = {"outputs": ("out/", OUTPUT_TOLERANCE), "gradients": ("grad/", GRADIENT_TOLERANCE)}
        worst = {
            kind: (max((e, name) for name, e in found.items() if name.startswith(prefix)), tolerance)
            for kind, (prefix, tolerance) in kinds.items()
        }
        text = ", ".join(f"{kind} {e:.1e} of {t:.0e} ({name})" for kind, ((e, name), t) in worst.items())
        setting.add("goldens", case.stem, judged((e, t) for (e, _), t in worst.values()), text, found)
