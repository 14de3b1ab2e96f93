"""The model card of an export: a README.md that says what is known of the weights, and nothing else."""

import json
import math
from collections.abc import Iterable

from amd_jax.convert.formats.subject import Contents, Subject
from amd_jax.convert.kinds import KINDS, original_kind
from amd_jax.convert.network import times
from amd_jax.convert.run_facts import recipe, scores
from amd_jax.models.sizes import SIZES

Rows = Iterable[tuple[str, str]]
_PIPELINES = {
    (False, True): "image-classification",
    (True, True): "video-classification",
    (False, False): "image-feature-extraction",
}
_NAMED = {"Ti": "tiny", "S": "small", "B": "base", "L": "large", "H": "huge", "g": "giant"}
_SHORT = {short: SIZES[name] for short, name in _NAMED.items()}
_SHOWN = 10  # names of classes


def text(subject: Subject, contents: Contents) -> str:
    """The card in Markdown; it begins with what the Hugging Face hub reads of it."""
    parts = [_front(subject, contents), f"# {title(subject)}", _table(_model(subject))]
    parts += _training(subject)
    if contents.code:
        parts += ["## Use", "In this folder:", f"```python\n{contents.code}```"]
    return "\n\n".join(parts) + "\n"


def title(subject: Subject) -> str:
    """As "ViT-S/16, a classifier of images"."""
    network, b = subject.network, subject.network.encoder.block
    size = (b.width, network.encoder.depth, b.mlp_width)
    short = next((n for n, s in _SHORT.items() if (s.width, s.depth, s.mlp_width) == size), "")
    name = f"ViT-{short}/{network.patch[1]}" if short else f"ViT of width {b.width}"
    does = "a classifier" if network.classes else "an encoder"
    return f"{name}, {does} of {'videos' if network.video else 'images'}"


def _front(subject: Subject, contents: Contents) -> str:
    network, run = subject.network, subject.found.source.run
    pipeline = _PIPELINES.get((network.video, bool(network.classes)))
    tags = ["amd_jax", "vision-transformer", *([str(run.method)] if run else [])]
    lines = [f"library_name: {contents.library}"] * bool(contents.library)
    lines += [f"pipeline_tag: {pipeline}"] * bool(pipeline)
    return "\n".join(["---", *lines, "tags:", *(f"- {tag}" for tag in tags), "---"])


def _model(subject: Subject) -> Rows:
    network, said = subject.network, subject.said
    e, b, d = network.encoder, network.encoder.block, network.decoder
    numbers = sum(math.prod(shape) for shape in network.shapes().values())
    frames = e.grid[0] * network.patch[0]
    pixels = f"{times(said.size)} pixels, {'grey' if network.channels == 1 else 'RGB'}"
    yield "parameters", f"{numbers / 1e6:.1f} M" if numbers >= 1e6 else f"{numbers:,}"
    yield "encoder", f"{e.depth} blocks of width {b.width} with {b.heads} heads, MLPs of {b.mlp_width}"
    cls = "a" if e.cls_token else "no"
    yield "tokens", f"{e.tokens} patches of {times(network.patch[not network.video :])}, {cls} CLS token"
    yield "input", f"{frames} frames of {pixels}" if network.video else pixels
    if said.mean:
        mean, std = (", ".join(f"{x:g}" for x in values) for values in (said.mean, said.std))
        yield "normalisation", f"of pixels in [0, 1]: mean {mean}, standard deviation {std}"
    if d:
        yield "decoder", f"{d.depth} blocks of width {d.block.width}, for the pixels of masked patches"
    if network.classes:
        yield "classes", _classes(network.classes, said.classes)
        yield "head", f"reads the {'mean of the patch tokens' if network.fc_norm else 'CLS token'}"
    if (kind := original_kind(subject.found)) != "amd_jax":
        yield "imported from", KINDS[kind][2]


def _classes(number: int, names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return f"{number}: {shown}{', …' if number > _SHOWN else ''}" if names else str(number)


def _training(subject: Subject) -> list[str]:
    """Of a run: how it was trained, and what it scored."""
    source = subject.found.source
    if source.run is None:
        return []
    facts, others = recipe(source.run, source.step)
    parts = ["## Training", _table(facts)]
    if others:
        listed = ", ".join(f"`{name}={json.dumps(value)}`" for name, value in others.items())
        parts.append(f"Other keys of the config that are not amd_jax's defaults: {listed}.")
    if found := scores(source.path, source.step):
        rows = [f"| {name} | {value:.4g} | {step} |" for name, value, step in found]
        parts += ["## Scores", "As the run recorded them, on its own evaluation split."]
        parts.append("\n".join(["| score | value | at step |", "|---|---|---|", *rows]))
    return parts


def _table(rows: Rows) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {_plain(value)} |" for name, value in rows)])


def _plain(value: str) -> str:
    """Somebody's names do not end a row, or a line."""
    return " ".join(value.replace("|", "\\|").split())
