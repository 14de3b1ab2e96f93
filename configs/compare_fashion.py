"""Every method from the same start on the whole of Fashion-MNIST: the tables of docs/results_short.md.

    pip install -r requirements-compare.txt
    python -m amd_jax.compare --config=configs/compare_fashion.py --workdir=DIR \\
        --config.base.data.path=TFDS_DIR --jobs=2

TFDS_DIR holds what `python -m amd_jax.data.prepare --name=fashion_mnist --data_dir=TFDS_DIR` wrote. Students
have 0.1 M parameters and see 800 batches of 64; scores are on the 10,000 test images. `:tune` is what the
settings were chosen by: runs on the first 50,000 training images, scored on the other 10,000.
"""

from collections.abc import Iterable
from typing import Any

from ml_collections import ConfigDict

from configs import common
from configs.comparing import SCRATCH, amd, dmae, finetune, kd, length, ordered, run, shorten, small_base

LAST_LAYERS = {"student_layers": (4,), "teacher_layers": (6,)}


def get_config(argument: str = "") -> ConfigDict:
    """The plan; `:tune` is another one, `:smoke` shrinks the first until it runs in minutes on a CPU."""
    plan = ConfigDict()
    plan.seeds = (0, 1, 2)
    plan.labels = (0.01, 0.1, 1.0)
    plan.base = small_base()
    plan.teacher = run("mae", 4000, optim={"base_lr": 4e-3}, student=common.teacher_as_student(plan.base))
    plan.finetune = finetune(1050)
    plan.methods = ordered(_methods(800))
    questions = _ablations() | _reasons(plan.methods)
    plan.ablations = ordered({name: ordered(variants) for name, variants in questions.items()})
    # The other questions by probe and kNN alone: fine-tuning would more than double the time.
    plan.ablation_labels = {"fine_tuned_for_250_steps": plan.labels}
    if argument == "tune":
        _tune(plan)
    elif argument == "smoke":
        _smoke(plan)
    elif argument:
        raise ValueError(f"config argument {argument!r}: choose 'tune', 'smoke' or nothing")
    return plan


def _methods(steps: int) -> dict[str, Any]:
    return {
        "scratch": SCRATCH,
        "mae": run("mae", steps),
        "dmae75": dmae(steps, 5, mask={"student_visible": 12}),
        "dmae95": dmae(steps, 5, mask={"student_visible": 2}),
        "dmae98": dmae(steps, 5, mask={"student_visible": 1}),
        "amd": amd(steps),
        "kd": kd(steps),
    }


def _ablations() -> dict[str, dict[str, Any]]:
    return {
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
        "distance": {
            "l2": {},
            "l1": {"loss": {"align": "l1"}},
            "smooth_l1": {"loss": {"align": "smooth_l1"}},
        },
        "aligned_layers": {"last": {"align": LAST_LAYERS}, "middle_and_last": {}},
    }


def _reasons(methods: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Why the methods stand as they do: how long they learn from labels, and what they spend before."""
    return {
        "fine_tuned_for_250_steps": {name: {"of": name, "finetuning": length(250)} for name in methods},
        "compute_of_amd": {
            "mae_4770_steps": {"of": "mae", **length(4770)},
            "dmae75_2290_steps": {"of": "dmae75", **length(2290)},
            "amd_800_steps": {},
        },
    }


def _tune(plan: ConfigDict) -> None:
    """Learning rates, AMD's feature norm and fine-tuning, with a seed of its own; no test image is read."""
    plan.seeds, plan.labels = (100,), (0.1,)
    plan.base.data.train_split, plan.base.data.eval_split = "train[:50000]", "train[50000:]"
    plan.base.optim.base_lr = 4e-3
    plan.finetune = finetune(600)
    plan.finetune.data = {"crop_scale": (0.8, 1.0)}
    methods = _methods(1000)
    methods["amd_layernorm"] = methods["amd"] | {"loss": {"feature_norm": "layernorm"}}
    twice = {"base_lr": 8e-3}
    tuned = {
        name + suffix: methods[name] | {"optim": methods[name]["optim"] | changes}
        for name in ("mae", "dmae75", "amd", "amd_layernorm")
        for suffix, changes in (("", {}), ("_lr2", twice))
    }
    plan.methods = ordered({"scratch": methods["scratch"], **tuned})
    tried = {name: ordered(variants) for name, variants in _finetunings().items()}
    plan.ablations, plan.ablation_labels = ordered(tried), dict.fromkeys(tried, plan.labels)


def _finetunings() -> dict[str, dict[str, Any]]:
    """Layer decay in percent and learning rate in thousandths per 256, with crops and flips or without."""

    def variant(
        of: str, steps: int, decay: int, rate: int, augmented: bool = False, pool: str = "mean"
    ) -> Any:
        optim = length(steps)["optim"] | {"layer_decay": decay / 100, "base_lr": rate / 1000}
        data = {"crop_scale": (0.8 if augmented else 1.0, 1.0), "flip": augmented}
        changes = {"steps": steps, "optim": optim, "data": data, "finetune": {"pool": pool}}
        return {"of": of, "finetuning": changes}

    return {
        "fine_tuned_for_200_steps": {
            "decay75_rate16": variant("mae_lr2", 200, 75, 16),
            "decay65_rate32": variant("mae_lr2", 200, 65, 32),
            "decay75_rate16_augmented": variant("mae_lr2", 200, 75, 16, augmented=True),
            "decay65_rate32_augmented": variant("mae_lr2", 200, 65, 32, augmented=True),
            "decay50_rate64_augmented": variant("mae_lr2", 200, 50, 64, augmented=True),
            "no_decay_rate8_augmented": variant("mae_lr2", 200, 100, 8, augmented=True),
            "no_decay_rate16_cls_augmented": variant("mae_lr2", 200, 100, 16, augmented=True, pool="cls"),
        },
        "fine_tuned_for_1050_steps": {
            "mae_decay75_rate16": variant("mae_lr2", 1050, 75, 16),
            "mae_decay75_rate16_augmented": variant("mae_lr2", 1050, 75, 16, augmented=True),
            "mae_no_decay_rate8": variant("mae_lr2", 1050, 100, 8),
            "scratch_decay75_rate16": variant("scratch", 1050, 75, 16),
            "scratch_no_decay_rate8": variant("scratch", 1050, 100, 8),
        },
    }


def _smoke(plan: ConfigDict) -> None:
    """Two seeds on the embedded images, a few steps each."""
    plan.seeds, plan.labels = (0, 1), (0.1, 1.0)
    plan.base.data.source = "embedded"
    shorten((plan.teacher, plan.finetune, *plan.methods.values()))
    plan.base.probe.examples = 500
    plan.ablations = {"alignment": plan.ablations.alignment}
