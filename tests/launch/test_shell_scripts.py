"""The scripts in launch/ pass shellcheck, and old shells read them."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import ROOT

SCRIPTS = sorted((ROOT / "launch").glob("*.sh"))
LINTER = Path(sys.executable).parent / "shellcheck"
COMMAND = [str(LINTER), "--external-sources", "--source-path=SCRIPTDIR"]


@pytest.mark.skipif(not LINTER.exists(), reason="no wheel of shellcheck for this machine")
def test_the_linter_has_nothing_to_say(tmp_path: Path) -> None:
    done = subprocess.run([*COMMAND, *SCRIPTS], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    worse = tmp_path / "worse.sh"
    worse.write_text("#!/usr/bin/env bash\ncd $1\n")
    assert subprocess.run([*COMMAND, worse], capture_output=True).returncode == 1


def test_scripts_use_nothing_that_bash_3_does_not_know() -> None:
    """A Mac has bash 3.2, and TPUs are started from Macs. What runs on Linux alone may know more."""
    new = (
        "declare -A",
        "local -A",
        "mapfile",
        "readarray",
        "${!",
        "@Q}",
        ",,}",
        "^^}",
        "|&",
        "&>>",
        "wait -n",
    )
    linux = {"gpu_node.sh"}
    found = [
        (path.name, word)
        for path in SCRIPTS
        if path.name not in linux
        for word in new
        if word in path.read_text()
    ]
    assert not found
