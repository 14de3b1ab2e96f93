"""How a run of one or of several processes ends."""

import time
import traceback

from amd_jax import exits
from amd_jax.hosts import star

GRACE = 5.0  # seconds that an error of the network waits for the news which process is gone


def ended(error: BaseException | None) -> int:
    """The exit code of a run, after its line.

    Of several processes, one that alone has an error ends all at once; otherwise they end when all have come
    to their end. Raises `error` again where nobody expected it and this is the only process.
    """
    several = star.current
    end = None if error is None else exits.ending(error)
    if several is None:
        if error is not None and end is None:
            raise error
        return exits.say(*end) if end else exits.DONE
    if error is None:
        several.end_together()
        return exits.DONE
    if end is None and exits.is_of_the_network(error):
        time.sleep(GRACE)  # if a process is gone, this one ends here
        end = exits.LOST, f"the processes lost touch ({_short(error)}); {exits.GOES_ON}"
    if end is None:
        traceback.print_exception(error)
        end = exits.FAILED, f"{type(error).__name__}: {_short(error)}"
    code, line = end
    if getattr(error, "alone", code in (exits.FAILED, exits.USAGE, exits.LOST)):
        several.end_alone(code, line)
    else:
        exits.say(code, line)
        several.end_together()
        several.go(code)  # jax's own way out would wait for a process that has been killed meanwhile
    return code


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
