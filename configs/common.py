"""What several configs share. This file alone knows where the keys are declared."""

from ml_collections import ConfigDict

from amd_jax.config import default


def base() -> ConfigDict:
    """Every key at its default; see amd_jax/config.py."""
    return default()


def image_recipe(config: ConfigDict) -> None:
    """ImageNet through TFDS with the augmentation of MAE, DMAE and AMD's image models."""
    config.data.source = "tfds"
    config.data.name = "imagenet2012"
    config.data.image_size = 224
    config.data.crop_scale = (0.2, 1.0)
    config.data.flip = True
    config.data.workers = 8


def mae_images(config: ConfigDict) -> None:
    """MAE's released recipe, with the normalised pixel targets it recommends."""
    image_recipe(config)
    config.method = "mae"
    config.decoder.width, config.decoder.depth, config.decoder.heads = 512, 8, 16
    config.mask.student_ratio = 0.75
    config.mask.floor = "visible"
    config.loss.target = "patch"
    config.batch_size, config.epochs = 4096, 800.0
    config.optim.base_lr, config.optim.warmup_epochs = 1.5e-4, 40.0
    config.log.every, config.checkpoint.every = 100, 2000


def amd_images(config: ConfigDict) -> None:
    """AMD for images, with a MAE ViT-L teacher.

    From the paper: the teacher, 800 epochs, a student mask ratio as MAE's with a lower one for the teacher,
    and from its video recipe layers 12 and 24 taught to 6 and 12, weights 1:1:1, L2 and the decoder's shape.
    """
    image_recipe(config)
    config.method = "amd"
    config.teacher.size = "large"
    config.align.student_layers = (6, 12)
    config.align.teacher_layers = (12, 24)
    config.mask.student_ratio = 0.75
    # Our choice: the paper gives no ratio for images. Sweep it with
    #   --config.mask.teacher_ratio=0.75, 0.65, 0.5, 0.4, 0.25 (0.75 sees what the student sees)
    config.mask.teacher_ratio = 0.5
    # Our choice, MAE's: CLS token, 2-D positions, all biases, targets normalised over the patch.
    config.loss.target = "patch"
    config.decoder.embed_bias = False
    # Our choice: batch and learning rate as MAE's, warm-up and betas shared by both recipes.
    config.batch_size, config.epochs = 4096, 800.0
    config.optim.base_lr, config.optim.warmup_epochs = 1.5e-4, 40.0
    config.optim.clip = 0.02  # AMD's
    config.log.every, config.checkpoint.every = 100, 2000


# What Hugging Face's and timm's teachers of other families have (docs/weights.md says of which).
TEACHERS = {
    "clip": {
        **{"positions": "learned", "mlp": "quick_gelu", "norm_eps": 1e-5},
        **{"pre_norm": True, "patch_bias": False},
    },
    "siglip": {"positions": "learned", "mlp": "gelu_tanh", "cls_token": False},
    "dinov2": {"positions": "learned", "layer_scale": True},
    "dinov2_registers": {"positions": "learned", "layer_scale": True, "registers": 4},
    "dinov3": {
        **{"positions": "rotary", "layer_scale": True, "registers": 4},
        **{"norm_eps": 1e-5, "qkv_bias": "qv"},
    },
}


def amd_images_from(config: ConfigDict, teacher: str, patch_size: int = 0) -> None:
    """AMD for images from a ViT-L of `TEACHERS`: `amd_images`, but for the teacher.

    Nobody has published such a run, so all of it is our choice, which layers are taught included.
    """
    amd_images(config)
    config.teacher.update(TEACHERS[teacher])
    config.teacher.patch_size = patch_size
    # A few channels of such teachers are far larger than the others; what was measured is in docs/weights.md.
    config.loss.feature_norm = "layernorm"


def dmae_images(config: ConfigDict) -> None:
    """DMAE's released recipe: same mask for both, features with CLS at about 3/4 of the depth, 100 epochs."""
    image_recipe(config)
    config.method = "dmae"
    config.teacher.size = "large"
    config.align.student_layers = (9,)
    config.align.teacher_layers = (18,)
    config.align.projection = "linear_bias"
    config.mask.student_ratio = 0.75
    config.mask.floor = "visible"
    config.loss.target = "pixels"
    config.loss.align, config.loss.feature_norm, config.loss.layers = "l1", "l2", "sum"
    config.decoder.width, config.decoder.depth, config.decoder.heads = 512, 8, 16
    config.batch_size, config.epochs = 4096, 100.0
    config.optim.base_lr, config.optim.warmup_epochs = 1.5e-4, 20.0
    config.log.every, config.checkpoint.every = 100, 1000


def finetune_images(config: ConfigDict) -> None:
    """MAE's released recipe for ViT-B on ImageNet-1k: 100 epochs at batch 1024."""
    image_recipe(config)
    config.method = "finetune"
    config.data.crop_scale = (0.08, 1.0)
    config.data.randaugment = "rand-m9-mstd0.5-inc1"
    config.data.erasing = 0.25
    config.student.positions = "learned"  # they start as the fixed table of pre-training
    config.finetune.mixup, config.finetune.cutmix = 0.8, 1.0
    config.finetune.mix_groups = 32  # timm draws in each process; MAE ran on 32 GPUs
    config.finetune.smoothing = 0.1
    config.finetune.drop_path = 0.1
    config.batch_size, config.epochs = 1024, 100.0
    config.optim.base_lr, config.optim.warmup_epochs = 5e-4, 5.0
    config.optim.min_lr = 2.5e-7  # 1e-6 at this batch size
    config.optim.b2 = 0.999
    config.optim.layer_decay = 0.65
    config.log.every, config.checkpoint.every = 100, 1000


def dmae_finetune_images(config: ConfigDict) -> None:
    """DMAE's released recipe for ViT-B: MAE's but for what stands here."""
    finetune_images(config)
    config.finetune.mix_groups = 8  # DMAE ran on 8 GPUs
    config.finetune.drop_path = 0.15
    config.optim.warmup_epochs = 20.0
    config.optim.layer_decay = 0.75


def video_model(config: ConfigDict) -> None:
    """VideoMAE's ViT on 16 frames: tubelets of two, no CLS token, 1-D positions, no bias on keys."""
    config.data.frames, config.model.tubelet = 16, 2
    for who in ("student", "teacher"):
        config[who].cls_token, config[who].positions, config[who].qkv_bias = False, "sincos_1d", "qv"


def kinetics(config: ConfigDict) -> None:
    """Clips of 16 frames, every fourth of a part of the video; tests with 5 clips of 3 crops."""
    config.data.sampling, config.data.stride = "dense", 4
    config.eval.clips, config.eval.crops = 5, 3


def something(config: ConfigDict) -> None:
    """Something-Something V2: frames from all over the video, no mirroring; tests with 2 clips of 3 crops."""
    config.data.sampling, config.data.stride = "segments", 2
    config.data.flip = False
    config.eval.clips, config.eval.crops = 2, 3


def _videos(config: ConfigDict) -> None:
    """The model, and a list of videos to read."""
    video_model(config)
    config.data.source = "manifest"
    config.data.workers = 8
    config.eval.batch_size = 64


def _video_pretraining(config: ConfigDict) -> None:
    """What VideoMAE's and AMD's released scripts share."""
    _videos(config)
    config.data.crop, config.data.flip = "multi_scale", False
    config.mask.student_ratio = 0.9
    config.mask.floor = "masked"
    config.loss.target = "channel"
    config.decoder.embed_bias = False


def videomae_videos(config: ConfigDict) -> None:
    """VideoMAE's released scripts: batch 2048 (512 for ViT-L), 40 epochs of warm-up, to a rate of 1e-5."""
    _video_pretraining(config)
    config.method = "mae"
    config.batch_size = 2048
    config.optim.base_lr, config.optim.warmup_epochs, config.optim.min_lr = 1.5e-4, 40.0, 1e-5


def amd_videos(config: ConfigDict) -> None:
    """AMD's released scripts: 512 videos a step, each decoded once and seen four times, for 200 epochs."""
    _video_pretraining(config)
    config.method = "amd"
    config.teacher.size = "large"
    config.align.student_layers, config.align.teacher_layers = (6, 12), (12, 24)
    config.mask.teacher_ratio = 0.75
    config.data.repeats = 4
    config.batch_size, config.epochs = 512, 200.0
    config.optim.base_lr, config.optim.warmup_epochs, config.optim.min_lr = 1.2e-3, 10.0, 1e-5
    config.optim.clip = 0.02


def finetune_videos(config: ConfigDict) -> None:
    """AMD's released scripts for Kinetics-400: 512 videos a step, each decoded once and seen twice."""
    _videos(config)
    config.method = "finetune"
    config.data.repeats = 2
    config.data.crop_scale, config.data.flip = (0.08, 1.0), True
    config.data.randaugment = "rand-m7-n4-mstd0.5-inc1"  # --aa of run_class_finetuning.py
    config.data.erasing = 0.25
    config.finetune.mixup, config.finetune.cutmix, config.finetune.smoothing = 0.8, 1.0, 0.1
    config.finetune.mix_groups = 32  # one for each of the GPUs
    config.finetune.drop_path = 0.1
    config.batch_size = 512
    config.optim.warmup_epochs, config.optim.min_lr = 5.0, 1e-6
    config.optim.b2, config.optim.layer_decay = 0.999, 0.75


def finetune_small_sets(config: ConfigDict) -> None:
    """VideoMAE's released script for UCF101, on 8 GPUs; for it and HMDB51 AMD releases none."""
    finetune_videos(config)
    kinetics(config)
    config.epochs, config.optim.base_lr, config.optim.min_lr = 100.0, 5e-4, 1e-5
    config.batch_size, config.finetune.mix_groups = 128, 8
    config.finetune.drop_path, config.finetune.head_drop = 0.2, 0.5
    config.optim.layer_decay = 0.7


def small_images(config: ConfigDict) -> None:
    """Fashion-MNIST's 28×28 grey images, a student of 0.1 M parameters and a teacher of six times as many."""
    config.data.image_size, config.data.channels = 28, 1
    config.data.mean, config.data.std = (0.286,), (0.353,)
    config.data.crop_scale = (0.5, 1.0)
    config.data.threads = 1  # on images this small threads only fight over the interpreter
    config.model.patch_size = 4

    # Encoders have no name of their own at this size; decoders are as small as MAE's are beside its encoder.
    config.teacher.width, config.teacher.depth, config.teacher.heads = 96, 6, 3
    config.student.width, config.student.depth, config.student.heads = 48, 4, 3
    config.decoder.width, config.decoder.depth, config.decoder.heads = 32, 1, 2
    config.mask.student_visible, config.mask.teacher_visible = 12, 24
    config.align.student_layers, config.align.teacher_layers = (2, 4), (3, 6)
    config.align.generator_depth = 1
    # Published AMD does not normalise; at this size a MAE teacher's features are of very uneven scale.
    config.loss.feature_norm = "layernorm"
    config.batch_size = 64
    config.optim.base_lr = 4e-3  # 1e-3 at this batch size


def small_videos(config: ConfigDict) -> None:
    """Embedded images that move, 8 frames of 32×32, and models of the same size."""
    video_model(config)
    small_images(config)
    config.data.source, config.data.frames, config.data.stride = "moving", 8, 1
    config.data.image_size, config.model.patch_size = 32, 8
    config.data.mean, config.data.std = (0.22,), (0.33,)
    config.data.flip = False  # which would turn left into right
    config.data.repeats = 4
    config.loss.target = "channel"
    config.batch_size = 16
    config.optim.base_lr = 1.6e-2  # 1e-3 at this batch size
    config.mask.student_visible, config.mask.teacher_visible = 4, 8


def teacher_as_student(config: ConfigDict) -> dict[str, int]:
    """The `student` keys of a run that trains the teacher."""
    return {name: config.teacher[name] for name in ("width", "depth", "heads")}


def fewer_patches(config: ConfigDict, argument: str) -> str:
    """`mask95` and `mask98`: 10 and 4 visible patches, as the paper says (its code floors to 9 and 3)."""
    visible = {"mask95": 10, "mask98": 4}
    if argument in visible:
        config.mask.student_visible = visible[argument]
        return ""
    return argument


def smoke(config: ConfigDict) -> None:
    """Shrink model, data and steps until the same code path takes under a minute on a CPU."""
    if config.data.frames > 1:
        config.data.source = "moving"
        config.data.frames, config.data.stride = 4, 2
        config.data.repeats = min(config.data.repeats, 2)
        config.eval.clips = min(config.eval.clips, 2)
    else:
        config.data.source = "embedded"
    config.data.image_size = 32
    config.data.workers = 0
    config.model.patch_size = 8
    for who in ("student", "teacher"):
        config[who].size = "debug"
        config[who].width = config[who].depth = config[who].heads = 0
    config.teacher.random = True
    if config.teacher.patch_size:
        config.teacher.patch_size = 7  # beside the student's 8: images are resized for it
    config.mask.student_visible = config.mask.teacher_visible = 0
    config.mask.student_ratio, config.mask.teacher_ratio = 0.75, 0.5
    layers = (1, 2) if len(config.align.student_layers) == 2 else (2,)
    config.align.student_layers = config.align.teacher_layers = layers
    config.decoder.width, config.decoder.depth, config.decoder.heads = 16, 1, 2
    config.batch_size, config.steps = 32 // config.data.repeats, 20
    config.finetune.mix_groups = 1
    config.optim.base_lr, config.optim.warmup_steps, config.optim.warmup_epochs = 0.02, 5, 0.0
    config.eval.every_epochs = 1.0
    config.log.every, config.log.pictures_every, config.checkpoint.every = 5, 20, 10


def finish(config: ConfigDict, argument: str) -> ConfigDict:
    """Apply the part of `--config=FILE.py:ARGUMENT` that every config understands."""
    if argument == "smoke":
        smoke(config)
    elif argument:
        raise ValueError(f"config argument {argument!r} is not known here; every config has 'smoke'")
    return config
