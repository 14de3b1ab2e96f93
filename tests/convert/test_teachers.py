"""Modern teachers saved by transformers give its hidden states here, by the route that training takes."""

import ast
import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from amd_jax.convert.facts import of_config
from amd_jax.convert.files.opening import open_source
from amd_jax.convert.kinds import recognise
from amd_jax.errors import WeightsError
from amd_jax.models.masking import Masks, masks_from_levels
from amd_jax.steps.pretrain import Pretraining
from amd_jax.train.validate import validate
from amd_jax.train.weights import load_start, load_teacher, with_teacher_pixels
from tests.convert.conftest import run
from tests.runs import tiny

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

BLOCKS = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
EIGHT = {**BLOCKS, "image_size": 32, "patch_size": 8, "intermediate_size": 128}
SEVEN = {**BLOCKS, "image_size": 28, "patch_size": 7}  # beside a student whose patches are of 8 pixels
TEXT = {**BLOCKS, "intermediate_size": 16, "vocab_size": 50, "projection_size": 32}
MEAN, STD = (0.1, 0.5, 0.6), (0.5, 0.2, 0.3)
TOLERANCE = 1e-5  # of the largest value


def clip() -> Any:
    return transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**EIGHT))


def clip_with_text() -> Any:
    """As published: the image tower is a part, and config.json leaves out what is usual."""
    text = {key: value for key, value in TEXT.items() if key != "projection_size"}
    return transformers.CLIPModel(transformers.CLIPConfig(vision_config=EIGHT, text_config=text))


def openclip() -> Any:
    return transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(**EIGHT, hidden_act="gelu")
    )


def siglip() -> Any:
    return transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**EIGHT))


def siglip_with_text() -> Any:
    return transformers.SiglipModel(transformers.SiglipConfig(vision_config=EIGHT, text_config=TEXT))


def dinov2() -> Any:
    return transformers.Dinov2Model(transformers.Dinov2Config(**SEVEN))


def dinov2_registers() -> Any:
    config = transformers.Dinov2WithRegistersConfig(**SEVEN, num_labels=3)
    return transformers.Dinov2WithRegistersForImageClassification(config)


def dinov2_giant() -> Any:
    """Its SwiGLU is 2/3 of the usual MLP wide."""
    return transformers.Dinov2Model(transformers.Dinov2Config(**SEVEN, use_swiglu_ffn=True, mlp_ratio=6))


def dinov3() -> Any:
    return transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**EIGHT, num_register_tokens=4))


def dinov3_plus() -> Any:
    config = transformers.DINOv3ViTConfig(
        **EIGHT, num_register_tokens=4, use_gated_mlp=True, hidden_act="silu", rope_theta=30.0
    )
    return transformers.DINOv3ViTModel(config)


FAMILIES = {
    f.__name__: f
    for f in (
        *(clip, clip_with_text, openclip, siglip, siglip_with_text),
        *(dinov2, dinov2_registers, dinov2_giant, dinov3, dinov3_plus),
    )
}


@functools.cache
def saved(make: Callable[[], Any], root: Path) -> tuple[str, Any]:
    """The folder that transformers writes of a random model, and the model."""
    model, generator = make().eval(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    folder = root / make.__name__
    model.save_pretrained(folder)
    transformers.BitImageProcessor(image_mean=MEAN, image_std=STD, resample=2).save_pretrained(folder)
    return str(folder), _tower(model)


def _tower(model: Any) -> Any:
    """The encoder of images in a model."""
    for name in ("vision_model", "dinov2_with_registers"):
        model = getattr(model, name, model)
    return model


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("teachers")


def configured(folder: str, **changes: Any) -> ConfigDict:
    """The smoke run with this teacher, and with what the refusal of the unchanged config says to set."""
    config = tiny(teacher__weights=folder, teacher__random=False, teacher__norm_eps=1e-3, **changes)
    config.teacher.width, config.teacher.depth, config.teacher.heads = 32, 3, 4
    with pytest.raises(WeightsError) as refused:
        load_teacher(config, Pretraining.from_config(config))
    keys = re.findall(r"config\.(teacher\.\w+)=('\w+'|[\w.-]+)", str(refused.value).split("; set ")[1])
    config.update_from_flattened_dict({name: ast.literal_eval(value) for name, value in keys})
    validate(config)
    return with_teacher_pixels(config)


def features(config: ConfigDict, pixels: np.ndarray, masks: Masks) -> dict[int, np.ndarray]:
    """What the step makes of uint8 pixels `[batch, 1, height, width, 3]`, layer by layer."""
    task = Pretraining.from_config(config)
    quick = {"xla_backend_optimization_level": 0}
    taps = jax.jit(task.teacher_features, compiler_options=quick)
    return jax.device_get(taps(load_teacher(config, task), jnp.asarray(pixels), masks))


def inputs(side: int, seen: int) -> tuple[np.ndarray, Masks, np.ndarray]:
    """Pixels of two images, masks whose teacher sees so many of the places, and these."""
    rng = np.random.default_rng(3)
    levels = np.repeat([0, 1, 2], [2, seen - 2, side * side - seen])
    masks = masks_from_levels(np.stack([rng.permutation(levels) for _ in range(2)]))
    pixels = rng.integers(0, 256, (2, 1, 8 * side, 8 * side, 3), np.uint8)
    return pixels, masks, np.asarray(masks.teacher)


def normalised(pixels: np.ndarray, size: int, how: str = "bilinear") -> Any:
    """As a teacher's processor does: resized (antialiased) and by its mean and std."""
    x = torch.from_numpy(pixels[:, 0]).permute(0, 3, 1, 2) / 255
    if x.shape[-1] != size:
        x = torch.nn.functional.interpolate(x, (size, size), mode=how, antialias=True).clamp(0, 1)
    mean, std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in (MEAN, STD))
    return (x - mean) / std


def hidden_states(model: Any, x: Any, at: np.ndarray) -> list[np.ndarray]:
    """transformers' layers over the prefix and the tokens `at` alone, embedded with the whole image."""
    interpolate = {"interpolate_pos_encoding": True} if hasattr(model, "post_layernorm") else {}
    with torch.no_grad():
        embedded, keywords, chosen = model.embeddings(x, **interpolate), {}, torch.tensor(at)
        if hasattr(model, "pre_layrnorm"):
            embedded = model.pre_layrnorm(embedded)
        side = x.shape[-1] // model.config.patch_size
        prefix = embedded.shape[1] - side * side
        places = torch.cat([torch.arange(prefix).expand(len(at), -1), chosen + prefix], dim=1)
        x, out = torch.take_along_dim(embedded, places[..., None], dim=1), []
        if hasattr(model, "rope_embeddings"):
            tables = model.rope_embeddings(torch.empty(1, 3, *(side * model.config.patch_size,) * 2))
            keywords["position_embeddings"] = tuple(table[chosen][:, None] for table in tables)
        for layer in _layers(model):
            x = layer(x, attention_mask=None, **keywords)
            out.append(x.numpy())
    return out


def _layers(model: Any) -> Iterator[Any]:
    encoder = getattr(model, "encoder", None) or model.model
    return getattr(encoder, "layers", None) or encoder.layer


def check(ours: dict[int, np.ndarray], theirs: list[np.ndarray], cls: bool) -> None:
    """CLS and patches agree at every tap; registers are not among ours."""
    for layer, have in ours.items():
        want, n = theirs[layer - 1], have.shape[1] - cls
        want = np.concatenate([want[:, :cls], want[:, -n:]], axis=1)
        assert have.shape == want.shape
        assert np.abs(have - want).max() < TOLERANCE * np.abs(want).max()


@pytest.mark.parametrize("family", ["clip", "siglip", "dinov2", "dinov2_registers", "dinov3"])
def test_every_layer_over_the_whole_image_is_transformers(family: str, root: Path) -> None:
    folder, model = saved(FAMILIES[family], root)
    layers = (1, 2, 3)
    config = configured(folder, student__depth=3, align__student_layers=layers, align__teacher_layers=layers)
    pixels, masks, at = inputs(side=4, seen=16)
    x = normalised(pixels, model.config.image_size)
    with torch.no_grad():
        whole = [y.numpy() for y in model(x, output_hidden_states=True).hidden_states[1:]]
    prefix = whole[0].shape[1] - 16
    order = np.concatenate([np.tile(np.arange(prefix), (2, 1)), at + prefix], axis=1)
    theirs = [np.take_along_axis(y, order[..., None], axis=1) for y in whole]
    check(features(config, pixels, masks), theirs, config.teacher.cls_token)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_subset_of_tokens_at_another_resolution_is_transformers(family: str, root: Path) -> None:
    """5 x 5 tokens of a model of 4 x 4: positions interpolated as its library does; two layers of three."""
    folder, model = saved(FAMILIES[family], root)
    config = configured(folder, data__image_size=40, align__teacher_layers=(1, 2))
    pixels, masks, at = inputs(side=5, seen=7)
    theirs = hidden_states(model, normalised(pixels, 5 * model.config.patch_size), at)
    assert len(theirs) == 3
    assert config.teacher.norm_eps == model.config.layer_norm_eps
    check(features(config, pixels, masks), theirs, config.teacher.cls_token)


@pytest.mark.parametrize("family", ["clip_with_text", "dinov2_giant", "dinov3"])
def test_an_imported_folder_is_the_same_teacher(
    family: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = saved(FAMILIES[family], root)
    assert run("import", folder, "--out", tmp_path / "ours") == 0
    assert capsys.readouterr().out.count("dropped") < 8  # the text tower is one line
    config, pixels = configured(folder), inputs(4, 8)[0]
    again = config.copy_and_resolve_references()
    again.teacher.weights = str(tmp_path / "ours")
    masks = inputs(4, 8)[1]
    ours, same = features(config, pixels, masks), features(again, pixels, masks)
    assert all(np.array_equal(ours[layer], same[layer]) for layer in ours)
    assert run("export", tmp_path / "ours", "--format=hf", "--out", tmp_path / "no") == 2
    assert "read as a teacher's" in capsys.readouterr().err


def test_published_configs_leave_out_what_is_usual(root: Path, tmp_path: Path) -> None:
    """SigLIP 2 of one size says `siglip` and nothing of its tower but what is not SigLIP's own."""
    folder, _ = saved(siglip_with_text, root)
    tower = '{"model_type": "siglip_vision_model", "image_size": 32}'
    usual = f'{{"model_type": "siglip", "vision_config": {tower}}}'
    (tmp_path / "config.json").write_text(usual)
    (tmp_path / "model.safetensors").symlink_to(f"{folder}/model.safetensors")
    with pytest.raises(WeightsError, match="12 heads do not divide the width 32"):
        recognise(open_source(str(tmp_path)))
    found = recognise(open_source(str(tmp_path)), given={"heads": 4, "grid": (1, 4, 4)})
    assert (found.kind, found.network.encoder.block.mlp) == ("hf_siglip", "gelu_tanh")


HEADS = {
    "vit_7b_patch16_dinov3": (32, "rotary", "gelu"),
    "vit_huge_plus_patch16_dinov3_qkvb": (20, "rotary", "gelu"),
    "vit_giantopt_patch16_siglip_256": (16, None, "gelu_tanh"),
    "vit_large_patch16_siglip_256": (None, None, "gelu"),
    "vit_large_patch16_siglip_gap_512": (None, None, "gelu_tanh"),
    "vit_base_patch16_224.augreg_in21k": (None, None, None),
}


@pytest.mark.parametrize("architecture", HEADS)
def test_timms_architecture_says_what_its_weights_do_not_show(architecture: str) -> None:
    """As timm 1.0.31 builds them; the others' heads are 64 wide, or a known exception."""
    facts = of_config({"architecture": architecture})
    assert tuple(facts.get(name) for name in ("heads", "positions", "mlp")) == HEADS[architecture]
    assert facts["antialias"]


REFUSED = {
    "NaFlex": ("siglip", '{"model_type": "siglip2_vision_model"}', "NaFlex takes images of every shape"),
    "no config.json": ("dinov2", "{}", "give the whole folder"),
    "ReLU": ("dinov2", '{"model_type": "dinov2", "hidden_act": "relu"}', "hidden_act is 'relu'"),
    "a gate that is not SiLU": (
        "dinov3_plus",
        '{"model_type": "dinov3_vit", "use_gated_mlp": true, "hidden_act": "gelu"}',
        "the gate of its MLP has hidden_act 'gelu'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_known_exactly_is_refused_in_one_line(case: str, root: Path, tmp_path: Path) -> None:
    family, config, message = REFUSED[case]
    (tmp_path / "config.json").write_text(config)
    (tmp_path / "model.safetensors").symlink_to(f"{saved(FAMILIES[family], root)[0]}/model.safetensors")
    with pytest.raises(WeightsError, match=message) as error:
        recognise(open_source(str(tmp_path)))
    assert "\n" not in str(error.value)


def test_a_student_cannot_start_from_such_a_teacher(root: Path) -> None:
    config = tiny(student__weights=saved(clip, root)[0], student__width=32, student__heads=4)
    config.student.depth, config.student.positions = 3, "learned"
    with pytest.raises(WeightsError, match="pre_norm True, patch_bias False, which only a teacher"):
        load_start(config, Pretraining.from_config(config))
