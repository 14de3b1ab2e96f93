"""Runs the Python of model cards where some packages are missing: `opening_process.py MISSING TIMM JOBS`.

MISSING are names with commas between them; JOBS is a folder of exports, each with its README.md and the
inputs that its code reads. Beside them comes `answer.json`: what the code calls `probabilities`, `features`
or `embedding`, or the scores by label of its `answer`. TIMM is where timm lies; empty: nobody asks for it.
"""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any


class Missing:
    """Finds nothing of some packages, and says so, before anybody else looks."""

    def __init__(self, names: list[str]) -> None:
        self._names = names

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """As importlib asks."""
        if name.split(".")[0] in self._names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def answer(readme: str) -> Any:
    """What the code of a card finds in this folder, as plain data."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    found: dict[str, Any] = {}
    exec(code, found)
    if "answer" in found:
        return {row["label"]: row["score"] for row in found["answer"]}
    return next(found[name] for name in ("probabilities", "features", "embedding") if name in found).tolist()


if __name__ == "__main__":
    missing, timm, jobs = sys.argv[1].split(","), sys.argv[2], Path(sys.argv[3])
    sys.meta_path.insert(0, Missing(missing))
    if timm:
        from timm_process import import_timm

        import_timm(timm)
    for job in sorted(jobs.iterdir()):
        os.chdir(job)
        Path("answer.json").write_text(json.dumps(answer(Path("README.md").read_text())))
    assert not [name for name in sys.modules if name.split(".")[0] in missing]
