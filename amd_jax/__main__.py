"""`amd-jax COMMAND …`, or `python -m amd_jax COMMAND …`: the commands of this package under one name."""

import runpy
import sys

from amd_jax import exits

# Each is a module that can also be started by itself, `python -m MODULE …`.
COMMANDS = {
    "train": ("amd_jax.main", "train a model, go on with a run, or evaluate it"),
    "probe": ("amd_jax.probe", "linear probe and kNN of the encoders of finished runs"),
    "embed": ("amd_jax.use.embed", "features of images or videos as a table"),
    "predict": ("amd_jax.use.predict", "the likeliest classes of images or videos"),
    "convert": ("amd_jax.convert", "weights in and out of the PyTorch world"),
    "compare": ("amd_jax.compare", "train and score every method from the same start"),
    "plan": ("amd_jax.plan", "memory, time and traffic of a run on devices that need not be there"),
    "bench": ("amd_jax.bench", "time, memory and input of a run on the devices that are here"),
    "gpu-check": ("amd_jax.gpu_check", "everything that only a GPU can show"),
    "prepare": ("amd_jax.data.prepare", "prepare a data set of TensorFlow Datasets"),
    "manifest": ("amd_jax.data.manifest", "list videos, of a folder or of annotation files; check them"),
    "prepare-video": ("amd_jax.data.prepare_video", "videos as small clips in a few large files"),
    "config": ("amd_jax.config", "list every key of a config with default and meaning"),
}


def main() -> None:
    """Runs the module of the command as if it had been started by itself; exits with 2 if there is none."""
    name, *arguments = sys.argv[1:] or [""]
    if name in COMMANDS:
        sys.argv = [sys.argv[0], *arguments]
        runpy.run_module(COMMANDS[name][0], run_name="__main__", alter_sys=True)
    elif name in ("-h", "--help"):
        print("usage: amd-jax COMMAND …, and amd-jax COMMAND --help\n")
        print("\n".join(f"  {name:<15}{meaning}" for name, (_, meaning) in COMMANDS.items()))
    else:
        wrong = f"{name!r} is no command" if name else "a command is missing"
        sys.exit(exits.say(exits.USAGE, f"{wrong}; choose one of {', '.join(COMMANDS)}"))


if __name__ == "__main__":
    main()
