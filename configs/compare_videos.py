"""Every method from the same start on videos: embedded images that move, whose class is the motion.

    pip install -r requirements-compare.txt
    python -m amd_jax.compare --config=configs/compare_videos.py --workdir=DIR --jobs=2

The set of the video demo with four videos of each image; no single frame tells a class, which a student that
is fine-tuned on one frame shows. `:tune` is what rates were chosen by, on training videos alone.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import common
from configs.comparing import (
    SCRATCH,
    amd,
    curve,
    kd,
    length,
    ordered,
    run,
    scored_at_the_end,
    shorten,
    three_and_a_half_times,
)

REFERENCE = 1500  # 24,000 videos, each seen in four views
TEACHERS_STEPS = 5000
# Of the points of a curve. What AMD's reference takes, a step 4.41 GFLOP, gives MAE 5,340 steps of 1.24 ...
STEPS = {"videomae": (375, 1500, 5340), "amd": (375, 1500)}
KD_STEPS = 900  # ... and KD so many of 7.30
FINETUNING, FINETUNING_ON = 500, {"labels100": 1000}
FEW = 0.0025  # 96 videos, six of a class: with 352, VideoMAE's students have 98 %


def get_config(argument: str = "") -> ConfigDict:
    """The plan; `:tune` is another, `:smoke` shrinks the first until it runs in minutes on a CPU."""
    if argument not in ("", "tune", "smoke"):
        raise ValueError(f"config argument {argument!r}: choose 'tune', 'smoke' or nothing")
    plan = ConfigDict()
    plan.seeds, plan.labels = (0, 1, 2), (FEW, 1.0)
    plan.base = _base()
    plan.teacher = run("mae", TEACHERS_STEPS, student=common.teacher_as_student(plan.base))
    plan.finetune = _finetune()
    plan.finetune_on = {share: length(steps) for share, steps in FINETUNING_ON.items()}
    plan.methods = ordered(_methods())
    questions = _questions()
    plan.ablations = ordered({name: ordered(variants) for name, variants in questions.items()})
    plan.ablation_labels = {**dict.fromkeys(questions, (FEW,)), "one_frame": plan.labels, "half_of_amd": ()}
    plan.teachers = {"of_another_seed": {"seed": 100}}
    plan.curves = {"curves": ordered({name: f"{name}_by_steps" for name in STEPS})}
    plan.scatters = {"with_labels": ("compute_of_amd",)}
    if argument == "tune":
        _tune(plan)
    elif argument == "smoke":
        _smoke(plan)
    return plan


def _base() -> ConfigDict:
    config = common.base()
    common.small_videos(config)
    three_and_a_half_times(config)
    config.data.train_split = "train[:40000]"
    config.probe.examples = 10_000
    scored_at_the_end(config)
    return config


def _finetune() -> dict[str, Any]:
    """Whole frames, once each; the demo's recipe."""
    optim = {"base_lr": 4e-3, "b2": 0.999, "layer_decay": 0.75}
    data = {"crop_scale": (1.0, 1.0), "repeats": 1}
    return run("finetune", FINETUNING, optim=optim, data=data, finetune={"drop_path": 0.1}) | {
        "batch_size": 64
    }


def _methods() -> dict[str, Any]:
    return {
        "scratch": SCRATCH,
        "videomae": run("mae", REFERENCE),
        "amd": amd(REFERENCE),
        "kd": kd(KD_STEPS),
    }


def _questions() -> dict[str, dict[str, Any]]:
    one_frame = {"data": {"frames": 1}, "model": {"tubelet": 1}}
    then_kd = {"of": "kd", "after": "half_of_amd.750_steps", **length(KD_STEPS // 2)}
    return {
        "one_frame": {"scratch": {"of": "scratch", "finetuning": one_frame}},
        **{
            f"{name}_by_steps": curve(name, REFERENCE, {f"{n}_steps": n for n in points})
            for name, points in STEPS.items()
        },
        "teachers": {"seed_0": {}, "seed_100": {"taught_by": "of_another_seed"}},
        "half_of_amd": {"750_steps": length(REFERENCE // 2)},
        "compute_of_amd": {"amd": {}, "kd": {"of": "kd"}, "amd_750_steps_then_kd": then_kd},
    }


def _tune(plan: ConfigDict) -> None:
    """Learning rates, of long runs too, and AMD's feature norm; a seed of its own, no test video is read."""
    plan.seeds, plan.labels, plan.teachers, plan.curves, plan.scatters = (100,), (0.01,), {}, {}, {}
    plan.base.data.train_split, plan.base.data.eval_split = "train[:36000]", "train[36000:40000]"
    plan.teacher.update(length(1250))
    plan.methods = ordered({"videomae": run("mae", 1250), "amd": run("amd", 1250)})
    half = {"optim": {"base_lr": 8e-3}}
    as_they_are = {"loss": {"feature_norm": "none"}}
    longest = STEPS["videomae"][-1]
    rates = {"as_short": {}, "half": half["optim"], "quarter": {"base_lr": 4e-3}}
    long = {name: {"of": "videomae", **run("mae", longest, optim=rate)} for name, rate in rates.items()}
    plan.ablations = ordered(
        {
            "rate": ordered({"videomae_half": {"of": "videomae", **half}, "amd_half": half}),
            "features": ordered({"layernorm": {}, "as_they_are": as_they_are}),
            f"videomae_{longest}_steps": ordered(long),
        }
    )
    plan.ablation_labels = {}


def _smoke(plan: ConfigDict) -> None:
    """One seed, one share of the labels, a few videos and a few steps each."""
    plan.seeds, plan.labels = (0,), (FEW,)
    plan.base.data.train_split, plan.base.data.eval_split = "train[:10000]", "eval[:320]"
    plan.base.probe.examples = 320
    shorten((plan.teacher, *plan.methods.values(), plan.finetune, *plan.finetune_on.values()))
    for variants in plan.ablations.values():
        shorten(variants.values())
