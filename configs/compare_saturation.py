"""Students that learn until they gain no more, on the whole of Fashion-MNIST: curves of docs/RESULTS.md.

    pip install -r requirements-compare.txt
    python -m amd_jax.compare --config=configs/compare_saturation.py --workdir=DIR \\
        --config.base.data.path=TFDS_DIR --jobs=2

Where configs/compare_fashion.py gives every student 800 steps, these see 1 to 30 passes over the images, and
the teacher is to them what ViT-L is to ViT-B: 3.6 times the parameters, twice as deep. `:wide` has both twice
as wide; `:tune` is what rates and the length of fine-tuning were chosen by, on training images alone.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import common
from configs.comparing import (
    SCRATCH,
    amd,
    curve,
    dmae,
    finetune,
    kd,
    length,
    ordered,
    run,
    shorten,
    small_base,
    three_and_a_half_times,
)

EPOCH = 60_000 // 64  # steps
EPOCHS = (1, 3, 10, 30)  # of the points of a curve; the teacher has as many as the last
WIDE_EPOCHS = EPOCHS[:-1]
REFERENCE = 10  # epochs of the first table, and of what is asked beside the curves
# Steps of fine-tuning; see `_tune`.
FINETUNING = {"labels1": 1050, "labels10": 1050, "labels100": 6000}
# What KD may take for AMD's ten epochs: a step is 5.36 GFLOP, AMD's 3.26.
KD_STEPS = 5700


def get_config(argument: str = "") -> ConfigDict:
    """The plan; `:wide` and `:tune` are others, `:smoke` shrinks it until it runs in minutes on a CPU."""
    if argument not in ("", "wide", "tune", "smoke"):
        raise ValueError(f"config argument {argument!r}: choose 'wide', 'tune', 'smoke' or nothing")
    plan = ConfigDict()
    plan.seeds, plan.labels = (0, 1, 2), (0.01, 0.1, 1.0)
    plan.base = small_base()
    wide = argument == "wide"
    epochs = WIDE_EPOCHS if wide else EPOCHS
    three_and_a_half_times(plan.base, 2 if wide else 1)
    teacher = common.teacher_as_student(plan.base)
    plan.teacher = run("mae", max(epochs) * EPOCH, student=teacher)
    plan.teachers = {"of_another_seed": {"seed": 100}, "after_3_epochs": length(3 * EPOCH)}
    plan.finetune = finetune(0)
    plan.finetune_on = {share: length(steps) for share, steps in FINETUNING.items()}
    plan.methods = ordered(_methods(REFERENCE * EPOCH))
    points = {f"{n}_epoch{'s' * (n > 1)}": n * EPOCH for n in epochs}
    questions = {
        f"{name}_by_epochs": curve(name, REFERENCE * EPOCH, points) for name in ("mae", "dmae75", "amd")
    }
    plan.curves = {"curves": ordered({name: f"{name}_by_epochs" for name in ("mae", "dmae75", "amd")})}
    labels: dict[str, tuple[float, ...]] = dict.fromkeys(questions, (0.01,))
    if wide:  # frozen encoders alone, but for the first table
        plan.seeds, plan.labels, plan.teachers, labels = (0, 1), (0.1,), {}, {}
        del plan.methods["kd"]
    else:
        questions |= _asymmetry() | _then_kd()
        plan.scatters = {"asymmetry": tuple(_asymmetry()), "with_labels": ("compute_of_amd",)}
        labels |= dict.fromkeys(_asymmetry(), (0.01,)) | {"compute_of_amd": (0.01, 1.0)}
    plan.ablations = ordered({name: ordered(variants) for name, variants in questions.items()})
    plan.ablation_labels = labels
    if argument == "tune":
        _tune(plan)
    elif argument == "smoke":
        _smoke(plan)
    return plan


def _methods(steps: int) -> dict[str, Any]:
    return {
        "scratch": SCRATCH,
        "mae": run("mae", steps),
        "dmae75": dmae(steps, 6),
        "amd": amd(steps),
        "kd": kd(KD_STEPS),
    }


def _asymmetry() -> dict[str, dict[str, Any]]:
    """What AMD's parts are worth with ten epochs, and how good a teacher has to be."""
    last = {"student_layers": (4,), "teacher_layers": (8,)}
    return {
        "teachers": {
            "30_epochs": {},
            "30_epochs_other_seed": {"taught_by": "of_another_seed"},
            "3_epochs": {"taught_by": "after_3_epochs"},
            "30_epochs_in_eight_bits": {"teacher": {"dtype": "int8"}},
        },
        "patches_the_teacher_sees": {
            "12_as_the_student": {"mask": {"teacher_visible": 12}},
            "24": {},
            "49_all": {"mask": {"teacher_visible": 49}},
        },
        "alignment": {
            "direct": {"loss": {"gen_weight": 0.0}},
            "generative": {"loss": {"direct_weight": 0.0}},
            "both": {},
        },
        "aligned_layers": {"last": {"align": last}, "middle_and_last": {}},
        "features": {"as_they_are": {}, "layernorm": {"loss": {"feature_norm": "layernorm"}}},
    }


def _then_kd() -> dict[str, dict[str, Any]]:
    """What else the compute of AMD's ten epochs buys: KD, or half of each, one after the other."""
    half = length(KD_STEPS // 2)
    return {
        "half_of_amd": {"5_epochs": length(REFERENCE * EPOCH // 2)},
        "compute_of_amd": {
            "amd_10_epochs": {},
            "kd": {"of": "kd"},
            "amd_5_epochs_then_kd": {"of": "kd", "after": "half_of_amd.5_epochs", **half},
        },
    }


def _tune(plan: ConfigDict) -> None:
    """Learning rates, and how long fine-tuning goes on gaining; a seed of its own, no test image read."""
    plan.seeds, plan.teachers, plan.labels = (100,), {}, (0.1, 1.0)
    plan.base.data.train_split, plan.base.data.eval_split = "train[:50000]", "train[50000:]"
    plan.teacher.update(length(3 * EPOCH))
    methods = _methods(3 * EPOCH)
    plan.methods = ordered({name: methods[name] for name in ("mae", "amd")})
    plan.finetune_on = dict.fromkeys(FINETUNING, length(1050))
    questions: dict[str, Any] = {
        f"rate_of_{name}": {
            "half": {"of": name, "optim": {"base_lr": 4e-3}},
            "as_before": {"of": name},
            "twice": {"of": name, "optim": {"base_lr": 1.6e-2}},
        }
        for name in ("mae", "amd")
    }
    plan.ablation_labels = {}
    for share, lengths in ((0.1, (3000, 6000)), (1.0, (3000, 6000, 12_000))):
        name = f"fine_tuned_on_{100 * share:g}"
        questions[name] = {f"{steps}_steps": {"of": "mae", "finetuning": length(steps)} for steps in lengths}
        plan.ablation_labels[name] = (share,)
    plan.curves, plan.scatters = {}, {}
    plan.ablations = ordered({name: ordered(variants) for name, variants in questions.items()})


def _smoke(plan: ConfigDict) -> None:
    """Two seeds on the embedded images, a few steps each."""
    plan.seeds, plan.labels = (0, 1), (0.1, 1.0)
    plan.base.data.source = "embedded"
    plan.base.probe.examples = 500
    shorten((plan.teacher, *plan.methods.values(), *plan.finetune_on.values()))
    plan.teachers = {"of_another_seed": {"seed": 100}}
    twice = length(20)
    kd = {"of": "kd", "after": "amd", **twice}
    plan.ablations = ordered(
        {
            "mae_by_epochs": ordered({"1_epochs": {"of": "mae"}, "3_epochs": {"of": "mae", **twice}}),
            "amd_by_epochs": ordered({"1_epochs": {}, "3_epochs": twice}),
            "teachers": ordered({"other_seed": {"taught_by": "of_another_seed"}, "then_kd": kd}),
        }
    )
    plan.ablation_labels = {"mae_by_epochs": (0.1,), "teachers": (0.1,)}
    plan.curves = {"curves": ordered({"mae": "mae_by_epochs", "amd": "amd_by_epochs"})}
    plan.scatters = {"asymmetry": ("teachers",)}
