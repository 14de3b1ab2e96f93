"""Students that learn until they gain no more, on the whole of Fashion-MNIST: docs/RESULTS.md.

    pip install -r requirements-compare.txt
    python -m amd_jax.compare --config=configs/compare_saturation.py --workdir=DIR \\
        --config.base.data.path=TFDS_DIR --jobs=2

Where configs/compare_fashion.py gives every student 800 steps, these see 1 to 100 passes over the images, and
the teacher is to them what ViT-L is to ViT-B: 3.6 times the parameters, twice as deep.

`:parts` asks what AMD's parts are worth, `:teachers` how good a teacher has to be, `:kd` what labels add; in
the same workdir they take over what is finished. `:wide` has teacher and students twice as wide. `:tune` is
what rates and the length of fine-tuning were chosen by, on training images alone. None takes more than eight
hours on two cores.
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
TEACHERS_EPOCHS = 30
REFERENCE = 10  # epochs of the first table, and of what is asked beside the curves
# Of the points of a curve. MAE's longest takes nearly the compute of AMD's ten and of their teacher.
EPOCHS: dict[str, tuple[int, ...]] = {
    "mae": (1, 3, 10, 30, 100),
    "dmae75": (1, 3, 10, 30),
    "amd": (1, 3, 10, 30),
}
WIDE_EPOCHS: dict[str, tuple[int, ...]] = {"mae": (3, 10, 30), "amd": (3, 10)}
# Steps of fine-tuning; see `_tune`.
FINETUNING = {"labels1": 1050, "labels10": 1050, "labels100": 6000}
# What KD may take for AMD's ten epochs: a step is 5.36 GFLOP, AMD's 3.26.
KD_STEPS = 5700


def get_config(argument: str = "") -> ConfigDict:
    """The plan; others by their name, and `:smoke` shrinks it until it runs in minutes on a CPU."""
    plans = {
        **{"": _curves, "parts": _parts, "teachers": _teachers, "kd": _kd, "wide": _wide},
        **{"tune": _tune, "smoke": _smoke},
    }
    if argument not in plans:
        raise ValueError(f"config argument {argument!r}: choose {', '.join(filter(None, plans))} or nothing")
    plan = ConfigDict()
    plan.seeds, plan.labels = (0, 1, 2), (0.01, 0.1, 1.0)
    plan.base = small_base()
    three_and_a_half_times(plan.base, 2 if argument == "wide" else 1)
    teacher = common.teacher_as_student(plan.base)
    plan.teacher = run("mae", TEACHERS_EPOCHS * EPOCH, student=teacher)
    plan.finetune = finetune(0)
    plan.finetune_on = {share: length(steps) for share, steps in FINETUNING.items()}
    plan.methods = ordered(
        {
            "scratch": SCRATCH,
            "mae": run("mae", REFERENCE * EPOCH),
            "dmae75": dmae(REFERENCE * EPOCH, 6),
            "amd": amd(REFERENCE * EPOCH),
        }
    )
    plan.ablation_labels = {}
    plans[argument](plan)
    return plan


def _ask(plan: ConfigDict, questions: dict[str, dict[str, Any]], *labels: float) -> None:
    """Has the variants of these questions trained, and fine-tuned on shares of labels."""
    plan.ablations = ordered({name: ordered(variants) for name, variants in questions.items()})
    plan.ablation_labels = dict.fromkeys(questions, labels)


def _by_epochs(plan: ConfigDict, epochs: dict[str, tuple[int, ...]]) -> dict[str, dict[str, Any]]:
    """The curve of each method, which are also drawn."""
    plan.curves = {"curves": ordered({name: f"{name}_by_epochs" for name in epochs})}
    return {
        f"{name}_by_epochs": curve(
            name, REFERENCE * EPOCH, {f"{n}_epoch{'s' * (n > 1)}": n * EPOCH for n in points}
        )
        for name, points in epochs.items()
    }


def _curves(plan: ConfigDict) -> None:
    """Scores by length."""
    _ask(plan, _by_epochs(plan, EPOCHS), *plan.labels)


def _parts(plan: ConfigDict) -> None:
    """AMD's ten epochs with other masks, losses, layers and features: frozen encoders."""
    plan.labels = (0.01,)
    plan.methods = ordered({"amd": plan.methods.amd})
    last = {"student_layers": (4,), "teacher_layers": (8,)}
    parts: dict[str, dict[str, Any]] = {
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
    _ask(plan, parts)
    plan.scatters = {"asymmetry": tuple(parts)}


def _teachers(plan: ConfigDict) -> None:
    """AMD's ten epochs with teachers of other lengths, another seed and fewer bits."""
    plan.labels = (0.01,)
    plan.methods = ordered({"amd": plan.methods.amd})
    plan.teachers = {
        "of_another_seed": {"seed": 100},
        "after_3_epochs": length(3 * EPOCH),
        "after_10_epochs": length(10 * EPOCH),
    }
    variants: dict[str, Any] = {
        "3_epochs": {"taught_by": "after_3_epochs"},
        "10_epochs": {"taught_by": "after_10_epochs"},
        "30_epochs": {},
        "30_epochs_other_seed": {"taught_by": "of_another_seed"},
        "30_epochs_in_eight_bits": {"teacher": {"dtype": "int8"}},
    }
    _ask(plan, {"teachers": variants}, 0.01)
    plan.scatters = {"teachers": ("teachers",)}


def _kd(plan: ConfigDict) -> None:
    """What else the compute of AMD's ten epochs buys: KD, or half of each, one after the other."""
    plan.labels = (0.01, 1.0)
    plan.methods = ordered({"amd": plan.methods.amd, "kd": kd(KD_STEPS)})
    half = length(KD_STEPS // 2)
    questions: dict[str, dict[str, Any]] = {
        "half_of_amd": {"5_epochs": length(REFERENCE * EPOCH // 2)},
        "compute_of_amd": {
            "amd_10_epochs": {},
            "kd": {"of": "kd"},
            "amd_5_epochs_then_kd": {"of": "kd", "after": "half_of_amd.5_epochs", **half},
        },
    }
    _ask(plan, questions, 0.01, 1.0)
    plan.ablation_labels.half_of_amd = ()
    plan.scatters = {"with_labels": ("compute_of_amd",)}


def _wide(plan: ConfigDict) -> None:
    """Frozen encoders alone, but for the first table."""
    plan.seeds, plan.labels = (0, 1), (0.1,)
    plan.teacher.update(length(REFERENCE * EPOCH))
    plan.teachers = {"after_30_epochs": length(TEACHERS_EPOCHS * EPOCH)}
    longer = {"taught_by": "after_30_epochs"}
    teachers: dict[str, Any] = {
        "10_epochs": {},
        "30_epochs": longer,
        "30_epochs_for_3_epochs": {**longer, **length(3 * EPOCH)},
    }
    _ask(plan, {**_by_epochs(plan, WIDE_EPOCHS), "teachers": teachers})


def _tune(plan: ConfigDict) -> None:
    """Learning rates, and how long fine-tuning goes on gaining; a seed of its own, no test image read."""
    plan.seeds, plan.labels = (100,), (0.1, 1.0)
    plan.base.data.train_split, plan.base.data.eval_split = "train[:50000]", "train[50000:]"
    plan.teacher.update(length(3 * EPOCH))
    plan.methods = ordered({name: {**plan.methods[name], **length(3 * EPOCH)} for name in ("mae", "amd")})
    plan.finetune_on = dict.fromkeys(FINETUNING, length(1050))
    questions: dict[str, Any] = {
        f"rate_of_{name}": {
            "half": {"of": name, "optim": {"base_lr": 4e-3}},
            "as_before": {"of": name},
            "twice": {"of": name, "optim": {"base_lr": 1.6e-2}},
        }
        for name in ("mae", "amd")
    }
    for share, lengths in ((0.1, (3000, 6000)), (1.0, (3000, 6000, 12_000))):
        name = f"fine_tuned_on_{100 * share:g}"
        questions[name] = {f"{steps}_steps": {"of": "mae", "finetuning": length(steps)} for steps in lengths}
        plan.ablation_labels[name] = (share,)
    plan.ablations = ordered({name: ordered(variants) for name, variants in questions.items()})


def _smoke(plan: ConfigDict) -> None:
    """One seed, one share of the labels, a few steps each, on the embedded images."""
    plan.seeds, plan.labels = (0,), (0.1,)
    plan.base.data.source = "embedded"
    plan.base.probe.examples = 500
    plan.methods.kd = kd(KD_STEPS)
    shorten((plan.teacher, *plan.methods.values(), *plan.finetune_on.values()))
    plan.teachers = {"of_another_seed": {"seed": 100}}
    twice = length(20)
    then_kd = {"of": "kd", "after": "amd", **twice}
    plan.ablations = ordered(
        {
            "mae_by_epochs": ordered({"1_epochs": {"of": "mae"}, "3_epochs": {"of": "mae", **twice}}),
            "amd_by_epochs": ordered({"1_epochs": {}, "3_epochs": twice}),
            "teachers": ordered({"other_seed": {"taught_by": "of_another_seed"}, "then_kd": then_kd}),
        }
    )
    plan.ablation_labels = {"mae_by_epochs": (0.1,), "teachers": (0.1,)}
    plan.curves = {"curves": ordered({"mae": "mae_by_epochs", "amd": "amd_by_epochs"})}
    plan.scatters = {"asymmetry": ("teachers",)}
