"""`import`: any source to a folder of ours, tensor by tensor."""

import json
from pathlib import Path

from amd_jax.convert import store
from amd_jax.convert.arch import Arch
from amd_jax.convert.describe import Facts
from amd_jax.convert.kinds import KINDS, Found, recognise
from amd_jax.convert.plan import Plan, make_plan
from amd_jax.convert.readers import METADATA_KEY
from amd_jax.convert.report import condense
from amd_jax.convert.sources import WEIGHTS, open_source
from amd_jax.convert.stated import Stated

FORMAT = 1  # of the description in the metadata


def plan_import(src: str, kind: str = "", given: Facts | None = None) -> Plan:
    """What importing `src` would do.

    Raises:
      ConfigError: it cannot be read, or does not fit its kind.
    """
    found = recognise(open_source(src), kind, given)
    return make_plan(found, found.arch)


def run_import(plan: Plan, out: str, said: Stated) -> Path:
    """Writes `out`/weights.safetensors and returns its path. The stored types are those of the source.

    Args:
      plan: of `plan_import`.
      out: the folder.
      said: what the source's files say of pixels and classes (`sources.read_stated`); it is kept.
    """
    infos = {name: plan.info(name) for name in plan.want.shapes() if name not in plan.new}
    with store.folder(out) as folder:
        metadata = describe(plan.found, plan.want, said)
        with store.writing(folder / WEIGHTS, infos, metadata) as writer:
            plan.run(writer.put)
    return Path(out) / WEIGHTS


def describe(found: Found, arch: Arch, said: Stated) -> dict[str, str]:
    """The metadata of our files: where the weights are from, every size, and what was said of the pixels."""
    about = {"format": FORMAT, "kind": found.kind, "source": found.file.path, "arch": arch.to_json()}
    if said.mean or said.classes:
        about["stated"] = said.to_json()
    return {METADATA_KEY: json.dumps(about, sort_keys=True)}


def headline(found: Found) -> list[str]:
    """What a source was recognised as, and what had to be guessed."""
    a, e = found.arch, found.arch.encoder
    lines = [
        f"{found.file.path}: {found.kind}, {KINDS[found.kind][2]} ({found.why}; {found.file.what})",
        f"encoder: width {e.width}, depth {e.depth}, heads {e.heads}, mlp {e.mlp_width}, "
        f"qkv_bias {e.qkv_bias}, cls_token {a.cls_token}, positions {a.positions}, "
        f"patch {'x'.join(map(str, a.patch))}, grid {'x'.join(map(str, a.grid))}, norm_eps {e.norm_eps:g}",
    ]
    if a.decoder:
        d = a.decoder.stack
        lines.append(
            f"decoder: width {d.width}, depth {d.depth}, heads {d.heads}, positions {a.decoder.positions}"
        )
    if a.align:
        lines.append(
            f"alignment: {a.align.projections} projections to width {a.align.teacher_width}, "
            f"{a.align.generators} generators"
        )
    if a.classes:
        lines.append(f"head: {a.classes} classes, pooling {'mean' if a.fc_norm else 'cls'}")
    if a.assumed:
        flags = ", ".join(f"--{name}" for name in a.assumed)
        lines.append(f"assumed, because weights do not show it: {condense(a.assumed)}; {flags} sets it")
    return lines
