"""`--format=hf`: what `transformers` opens with `from_pretrained(DIR)` and `pipeline(…, model=DIR)`.

Its ViT classifies by the CLS token. Image encoders of any other kind are written as timm's, which it opens
with another model of its own, a wrapper of timm's; so does timm.
"""

import dataclasses

from amd_jax.convert.account import Row
from amd_jax.convert.files.opening import PROCESSOR
from amd_jax.convert.formats import renamed, timm_folder
from amd_jax.convert.formats.subject import Contents, Subject, as_json
from amd_jax.convert.names import entries, hf
from amd_jax.convert.network import Network

CONFIG = "config.json"
_CLASSIFY = """\
from transformers import pipeline

classify = pipeline("image-classification", model=".")
answer = classify("image.jpg", top_k=5)
"""
_CLASSIFY_VIDEO = """\
from transformers import pipeline

classify = pipeline("video-classification", model=".")
classify.video_processor = None  # needed only where torchvision is installed
answer = classify("video.mp4", top_k=5, frame_sampling_rate={stride})
"""
_ENCODE = """\
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

prepare = AutoImageProcessor.from_pretrained(".")
model = AutoModel.from_pretrained("."{options}).eval()
inputs = {inputs}
with torch.no_grad():
    features = model(**prepare(inputs, return_tensors="pt")).{answer}
"""


def cut(network: Network) -> Network:
    """Everything but the heads of the distillation, which nothing there has.

    Raises:
      WeightsError: neither transformers' models nor timm's can be like that.
    """
    network = dataclasses.replace(network, align=None)
    return timm_folder.cut(network) if _wrapped(network) else network


def contents(subject: Subject) -> Contents:
    """config.json, preprocessor_config.json and the weights; or timm's, for transformers' wrapper of it."""
    network, said, rows = subject.network, subject.said, subject.rows
    if said.mean and network.channels == 1:
        what = "videos" if network.video else "images"
        subject.note(f"transformers' pipeline opens {what} in colour; hand its processor grey arrays")
    if _wrapped(network):
        return _of_timm(subject)
    subject.note_described()
    for note in hf.other_epsilons(network):
        subject.note(note)
    config = hf.config(network, said.classes)
    table = hf.table(entries.Parts.of(network))
    arrays = renamed.tensors(subject, table, "transformers has no place for it")
    zeros = hf.zeros(network)
    rows += [Row("new", "", name, array.shape, "zero: ours has none") for name, array in zeros.items()]
    full = {hf.full_name(name, network): array for name, array in (arrays | zeros).items()}
    files = {renamed.WEIGHTS: renamed.writing(subject, full), CONFIG: as_json(config)}
    if said.mean:
        files[PROCESSOR] = as_json(hf.processor(network, said))
        if network.size[0] != network.size[1]:
            what = "it sees less of images of other shapes than our evaluation does"
            subject.note(f"transformers' processor scales by the short side: {what}")
    return Contents(files, "transformers", _code(subject) if said.mean else "")


def _wrapped(network: Network) -> bool:
    """Whether transformers' own ViT cannot be like it."""
    cls = network.norm and network.encoder.cls_token
    square = network.size[0] == network.size[1]  # its processor sees less of others than ours
    return not network.video and network.decoder is None and not (cls and square)


def _of_timm(subject: Subject) -> Contents:
    """timm's folder. Its config says whose it is, as the wrapper itself saves it; timm does not mind."""
    made = timm_folder.contents(subject)
    model = "ForImageClassification" if subject.network.classes else "Model"
    own = {"model_type": "timm_wrapper", "architectures": [f"TimmWrapper{model}"]}
    config = own | timm_folder.config(subject.network, subject.said)
    subject.note(
        "transformers' ViT reads only the CLS token, of square images: this one is written for its wrapper "
        "of timm's ViT, so whoever opens it needs timm"
    )
    return dataclasses.replace(
        made, files=made.files | {CONFIG: as_json(config)}, library="transformers", code=_code(subject)
    )


def _code(subject: Subject) -> str:
    network, run = subject.network, subject.found.source.run
    if network.classes and network.video:
        return _CLASSIFY_VIDEO.format(stride=run.data.stride if run else 4)
    if network.classes:
        return _CLASSIFY
    inputs = 'Image.open("image.jpg").convert("RGB")'
    if network.video:
        frames = network.encoder.grid[0] * network.patch[0]
        inputs = f'[Image.open(f"frame{{i}}.jpg").convert("RGB") for i in range({frames})]'
    # ViTMAE leaves patches out, and shuffles them, unless it is told not to leave out any.
    options = ", mask_ratio=0.0" if network.decoder and not network.video else ""
    patches = f"last_hidden_state[:, {int(network.encoder.cls_token)}:].mean(dim=1)"
    answer = "pooler_output" if network.fc_norm else patches
    return _ENCODE.format(options=options, inputs=inputs, answer=answer)
