"""Opens exports in timm, and makes teachers with it, as a process of its own: `timm_process.py TIMM JOBS`.

JOBS is a folder of folders. One with `pixels.npy` (uint8 `[batch, height, width, channels]`), `photo.npy`
(one larger image) and `variants.json` (other settings of the preprocessing) is an export; beside them comes
`theirs.npz`: what timm's model makes of the pixels (`logits`, `features`), normalised as its config says, of
the photo its evaluation transform (`transformed`) and those of the variants; and as JSON in `names` the
class names.

One with `teacher.json` (an architecture of timm and its arguments), `pixels.npy` (normalised, channels first)
and `at.npy` (tokens `[batch, n]`) becomes the folder of a small random model as timm saves its own;
`theirs.npz` holds what each layer makes of these tokens, embedded with the whole image, and the epsilon.
"""

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

OPERATORS = {  # name by name: those that torchvision gives a meta function when it is imported
    *("nms", "qnms", "deform_conv2d", "_deform_conv2d_backward"),
    *("ps_roi_align", "_ps_roi_align_backward", "ps_roi_pool", "_ps_roi_pool_backward"),
    *("roi_align", "qroi_align", "_roi_align_backward", "roi_pool", "_roi_pool_backward"),
}


def import_timm(folder: str) -> Any:
    """timm; where torchvision's operators do not fit this torch they are declared, and stay undefined."""
    sys.path.insert(0, folder)
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in OPERATORS:
            with contextlib.suppress(RuntimeError):  # already there
                library.define(f"{name}(Tensor a) -> Tensor")
        import_timm.kept = library  # type: ignore[attr-defined]  # operators go with their library
    import timm

    return timm


def answer(timm: Any, folder: Path) -> None:
    """What timm computes for one export."""
    from PIL import Image

    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    settings = timm.data.resolve_model_data_config(model)
    pixels = torch.from_numpy(np.load(folder / "pixels.npy")).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(settings[name]).reshape(1, -1, 1, 1) for name in ("mean", "std"))
    photo = np.load(folder / "photo.npy")
    transform = timm.data.create_transform(**settings, is_training=False)
    variants = {}
    for number, change in enumerate(json.loads((folder / "variants.json").read_text())):
        other = timm.data.create_transform(**settings | change, is_training=False)
        variants[f"variant{number}"] = other(Image.fromarray(photo.squeeze())).numpy()
    with torch.no_grad():
        x = (pixels - mean) / std
        np.savez(
            folder / "theirs.npz",
            logits=model(x).numpy(),
            features=model.forward_features(x).numpy(),
            transformed=transform(Image.fromarray(photo.squeeze())).numpy(),
            names=json.dumps(model.pretrained_cfg.get("label_names")),
            **variants,
        )


def make_teacher(timm: Any, folder: Path) -> None:
    """Saves a model, and what its layers make of pixels of another resolution than its own."""
    architecture, arguments = json.loads((folder / "teacher.json").read_text())
    model, generator = timm.create_model(architecture, **arguments).eval(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    timm.models.save_for_hf(model, str(folder), model_args=arguments, safe_serialization=True)
    x, at = (torch.from_numpy(np.load(folder / f"{name}.npy")) for name in ("pixels", "at"))
    # As where such weights are loaded into a model of that size: its module says what becomes of positions.
    other = timm.create_model(architecture, **arguments | {"img_size": x.shape[-1]}).eval()
    module: Any = sys.modules[type(model).__module__]
    other.load_state_dict(module.checkpoint_filter_fn(model.state_dict(), other))
    with torch.no_grad():
        embedded, rope = other._pos_embed(other.patch_embed(x)), None
        if isinstance(embedded, tuple):
            embedded, rope = embedded
        embedded = getattr(other, "norm_pre", torch.nn.Identity())(embedded)
        prefix = other.num_prefix_tokens
        places = torch.cat([torch.arange(prefix).expand(len(at), -1), at + prefix], dim=1)
        y, layers = torch.take_along_dim(embedded, places[..., None], dim=1), {}
        chosen = {} if rope is None else {"rope": rope[at][:, None]}
        for i, block in enumerate(other.blocks, 1):
            y = block(y, **chosen)
            layers[str(i)] = y.numpy()
    np.savez(folder / "theirs.npz", eps=other.blocks[0].norm1.eps, **layers)


if __name__ == "__main__":
    library = import_timm(sys.argv[1])
    for job in sorted(Path(sys.argv[2]).iterdir()):
        (make_teacher if (job / "teacher.json").is_file() else answer)(library, job)
