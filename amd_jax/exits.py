"""How every command ends: the table of exit codes, and the one line on stderr that goes with each.

| code | meaning |
|---|---|
| 0 | done |
| 1 | `convert verify`: out of tolerance. Or an error that nobody expected: a traceback says where |
| 2 | something in the command, config, data, weights or machine has to change; one line says what |
| 3 | a loss is not finite |
| 74 | the last state could not be saved, as on a full disk |
| 75 | stopped by a signal with everything saved: the same command goes on |
| 76 | another process of the run is gone: the same command goes on from the last checkpoint |

74 and 75 are EX_IOERR and EX_TEMPFAIL of sysexits.h. This file imports no jax: `--help` answers at once.
"""

import re
import sys

from amd_jax.errors import UserError

DONE, FAILED, USAGE, NON_FINITE, UNSAVED, STOPPED, LOST = 0, 1, 2, 3, 74, 75, 76

GOES_ON = "the same command goes on from the last checkpoint"

MEMORY = (
    "out of memory on a device ({}); raise accum_steps, set model.remat=True, raise mesh.fsdp, or lower "
    "batch_size (in an evaluation: eval.batch_size or probe.examples)"
)


def ending(error: BaseException) -> tuple[int, str] | None:
    """Exit code and line for an error that a user can do something about; None: it stays a traceback.

    Errors that end a run in their own way, such as a loss that is not finite, have an `exit_code`.
    """
    if isinstance(error, UserError):
        return USAGE, str(error)
    if (code := getattr(error, "exit_code", None)) is not None:
        return code, str(error)
    if type(error).__name__ == "JaxRuntimeError" and "RESOURCE_EXHAUSTED" in str(error):
        what = str(error).strip().split("\n")[0].removeprefix("RESOURCE_EXHAUSTED: ")[:200]
        return USAGE, MEMORY.format(what.rstrip("."))
    return None


def is_of_the_network(error: BaseException) -> bool:
    """Whether what the processes of a run tell each other did not arrive: in a collective or at a barrier."""
    words = "gloo|nccl|barrier|coordination|unavailable|deadline.exceeded|aborted|connection"
    return type(error).__name__ == "JaxRuntimeError" and bool(re.search(words, str(error), re.IGNORECASE))


def say(code: int, message: object) -> int:
    """One line on stderr; returns the exit code that goes with it."""
    print(
        "stopped:" if code == STOPPED else "error:",
        " ".join(str(message).split()),
        file=sys.stderr,
        flush=True,
    )
    return code


def told(error: Exception) -> int:
    """What a command returns for `error`, after its line; raises it again where nobody expected it."""
    if (end := ending(error)) is None:
        raise error
    return say(*end)
