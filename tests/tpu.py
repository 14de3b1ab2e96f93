"""Programs that ask libtpu about TPUs on a machine without one, in processes of their own."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
LIBTPU = Path(sys.prefix) / "tpu"
needs_libtpu = pytest.mark.skipif(
    not LIBTPU.is_dir(), reason="launch/test.sh installs libtpu, which is for Linux x86-64"
)


@functools.cache
def answer(module: str, flags: str = "") -> Any:
    """The JSON that `python -m module` prints, where libtpu has these flags.

    Raises:
      AssertionError: it ended otherwise, with what it said.
    """
    environment = {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    environment |= {"PYTHONPATH": str(LIBTPU), "LIBTPU_INIT_ARGS": flags}
    done = subprocess.run(
        [sys.executable, "-m", module],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
