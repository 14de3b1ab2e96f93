"""Opens exports in timm, as a process of its own: `timm_process.py TIMM_FOLDER JOBS_FOLDER`.

Every folder in JOBS_FOLDER is an export with `pixels.npy` (uint8 `[batch, height, width, channels]`) and
`photo.npy` (one larger image); beside them it writes `theirs.npz`: what timm's model makes of the pixels
normalised as its config says (`logits`, `features`), and of the photo its evaluation transform
(`transformed`); and as JSON in `names` the class names.
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
    with torch.no_grad():
        x = (pixels - mean) / std
        np.savez(
            folder / "theirs.npz",
            logits=model(x).numpy(),
            features=model.forward_features(x).numpy(),
            transformed=transform(Image.fromarray(photo.squeeze())).numpy(),
            names=json.dumps(model.pretrained_cfg.get("label_names")),
        )


if __name__ == "__main__":
    library = import_timm(sys.argv[1])
    for job in sorted(Path(sys.argv[2]).iterdir()):
        answer(library, job)
