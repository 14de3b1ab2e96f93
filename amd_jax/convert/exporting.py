"""`export`: weights of ours as other tools read them."""

from pathlib import Path

from amd_jax.buckets import place
from amd_jax.config import IMAGENET_MEAN, IMAGENET_STD
from amd_jax.convert import card
from amd_jax.convert.account import summary
from amd_jax.convert.files.opening import open_source, read_stated
from amd_jax.convert.files.stated import Stated, resizing
from amd_jax.convert.files.tensors import folder
from amd_jax.convert.formats import hf_folder, official_file, onnx_file, stablehlo_program, timm_folder
from amd_jax.convert.formats.subject import Format, Subject, text
from amd_jax.convert.kinds import OF_ANY_PIXELS, Found, never_saved, original_kind, recognise
from amd_jax.convert.network import Network
from amd_jax.errors import WeightsError

CARD = "README.md"
FORMATS = {
    "timm": Format(timm_folder.cut, timm_folder.contents),
    "hf": Format(hf_folder.cut, hf_folder.contents),
    "onnx": Format(onnx_file.cut, onnx_file.contents, program=True),
    "stablehlo": Format(stablehlo_program.cut, stablehlo_program.contents, program=True),
    "official": Format(official_file.cut, official_file.contents),
}


def run_export(src: str, form: str, out: str, output: str = "") -> Path | None:
    """Prints what becomes of every weight of a run, a checkpoint or an imported folder.

    Writes the files of the format and a card that tells of them, unless `out` is empty.

    Args:
      src: see `opening.open_source`.
      form: a name of `FORMATS`.
      out: a folder; a card that is there already is somebody's work and stays.
      output: of a program: "logits", "embedding" or "tokens".

    Raises:
      WeightsError: not weights of ours, nothing that the format can hold, or `out` cannot be written.
    """
    chosen = FORMATS[form]
    if output and not chosen.program:
        raise WeightsError(f"--output={output}: --format={form} holds weights, which have no one output")
    found = recognise(open_source(src))
    if not found.ours:
        raise WeightsError(f"{src}: {found.kind}, not a checkpoint of ours; import it first, then export")
    if more := found.network.of_teachers():
        raise WeightsError(f"weights with {', '.join(more)} are read as a teacher's and not written")
    network = chosen.cut(found.network)
    _check_complete(found, network)
    subject = Subject(found, network, Stated(), output)
    subject = subject.saying(_said(src, subject))
    contents = chosen.contents(subject)
    files = contents.files | {CARD: text(card.text(subject, contents))}
    if out and (place(out) / CARD).exists():
        del files[CARD]
        subject.note(f"{out} has a {CARD}, which stays as it is; without it one is written")
    print("\n".join([*map(str, subject.rows), summary(subject.rows)]), flush=True)
    if not out:
        return None
    with folder(out) as path:
        for name, write in files.items():
            write(path / name)
    return place(out) / next(iter(contents.files))


def _check_complete(found: Found, network: Network) -> None:
    """Raises WeightsError where a weight of the network is missing, or of another shape."""
    for name, shape in network.shapes().items():
        have = found.arrays[name].shape if name in found.arrays else None
        if have != shape and not (have is None and never_saved(name)):
            what = f"{name} is {list(have)}" if have else f"there is no {name}"
            raise WeightsError(f"{found.source.path}: {what}, expected {list(shape)}")


def _said(src: str, subject: Subject) -> Stated:
    """What is known of pixels and classes, made to fit the model; what is left out becomes a row."""
    network, kind = subject.network, original_kind(subject.found)
    said, channels = read_stated(src), network.channels
    mean, std, classes = said.mean, said.std, said.classes
    if classes and network.classes and len(classes) != network.classes:
        subject.note(f"{len(classes)} names for {network.classes} classes: they are left out")
        classes = ()
    if len(mean) not in (0, 1, channels):
        subject.note(f"mean and std are known for {len(mean)} channels, the weights have {channels}")
        mean, std = (), ()
    if len(mean) == 1:
        mean, std = mean * channels, std * channels
    if not mean and channels == 3 and kind not in OF_ANY_PIXELS:
        mean, std = IMAGENET_MEAN, IMAGENET_STD
        subject.note(f"mean and std are ImageNet's, as published weights of {kind} have them")
    how = said.interpolation or resizing(network.video)
    resize = said.before_crop(network.size) if said.resize else ()
    return Stated(mean, std, network.size, how, classes if network.classes else (), said.origin, resize)
