"""Our training steps beside the released PyTorch code's on this CPU: seconds, share of the peak, memory.

    git clone https://github.com/MCG-NJU/AMD REFS/AMD
    git clone https://github.com/UCSC-VLAA/DMAE REFS/DMAE
    python benchmarks/released_step.py --refs=REFS

In float32 on random input: AMD on two videos of 16 × 224 × 224 and DMAE on eight images, both ViT-L to ViT-B,
and fine-tuning of ViT-B on as many. The two sides take turns, each in processes of its own, which also
measure what products of large matrices reach.
Prints rows of a table; wants PyTorch and some 10 GB of memory.
"""

import argparse
import functools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

# Config, batch, and the name of the released step.
STEPS = {
    "AMD, videos": ("vitb_k400", 2, "amd"),
    "DMAE, images": ("dmae_vitb_in1k", 8, "dmae"),
    "fine-tuning, videos": ("finetune_vitb_k400", 2, "finetune_videos"),
    "fine-tuning, images": ("finetune_vitb_in1k", 8, "finetune_images"),
}
MATRIX = 2048


def released_amd(refs: str, batch: int) -> tuple[Any, Callable[[], Any]]:
    """The student and its loss: teacher sees 25 %, student 10 %; layers 12 and 24 taught to 6 and 12."""
    import torch
    from torch import nn

    sys.path.insert(0, f"{refs}/AMD")
    from models import modeling_finetune_amd, modeling_pretrain

    norm = functools.partial(nn.LayerNorm, eps=1e-6)
    teacher = modeling_finetune_amd.VisionTransformer(
        **{"patch_size": 16, "embed_dim": 1024, "depth": 24, "num_heads": 16, "mlp_ratio": 4},
        **{"qkv_bias": True, "norm_layer": norm, "num_frames": 16, "tubelet_size": 2, "num_classes": 400},
        **{"init_scale": 1.0, "layer_to_get": {"dir": [11, 23], "gen": [11, 23]}},
    ).eval()
    student = modeling_pretrain.PretrainAMD(
        **{"img_size": 224, "patch_size": 16, "encoder_embed_dim": 768, "encoder_depth": 12},
        **{"encoder_num_heads": 12, "decoder_num_classes": 1536, "decoder_embed_dim": 384},
        **{"decoder_depth": 4, "decoder_num_heads": 6, "generator_depth": 2, "qkv_bias": True},
        **{"norm_layer": norm, "teacher_dim": 1024, "layer_to_get": {"dir": [5, 11], "gen": [5, 11]}},
    )
    places = 196
    levels = np.repeat([0, 1, 2], [places - int(0.9 * places), int(0.9 * places) - 147, 147])
    rng = np.random.default_rng(0)
    level = torch.tensor(np.stack([np.tile(rng.permutation(levels), 8) for _ in range(batch)]))
    of_student, of_teacher, between = level > 0, level > 1, level == 1
    videos = torch.rand(batch, 3, 16, 224, 224)
    target = torch.randn(batch, int(of_student[0].sum()), 1536)

    def loss() -> Any:
        with torch.no_grad():
            direct, generated = teacher(videos, (of_student, between))
        rebuilt, student_direct, student_generated = student(videos, (of_student, between, of_teacher))
        mse = nn.functional.mse_loss
        pairs = [*zip(student_direct, direct, strict=True), *zip(student_generated, generated, strict=True)]
        return mse(rebuilt, target) + sum(mse(ours, theirs) for ours, theirs in pairs) / 2

    return student, loss


def released_dmae(refs: str, batch: int) -> tuple[Any, Callable[[], Any]]:
    """The student and its loss: both see 25 %, layer 18 is taught to 9."""
    import torch
    from torch import nn

    sys.path.insert(0, f"{refs}/DMAE")
    import models_mae_distill

    def make(width: int, depth: int, heads: int, layer: int, projected: tuple[int, int] | None) -> Any:
        return models_mae_distill.MaskedAutoencoderViT(
            **{"img_size": 224, "patch_size": 16, "embed_dim": width, "depth": depth, "num_heads": heads},
            **{"decoder_embed_dim": 512, "decoder_depth": 8, "decoder_num_heads": 16},
            **{"norm_layer": functools.partial(nn.LayerNorm, eps=1e-6), "norm_pix_loss": False},
            **{"embedding_distillation_func": "L1", "aligned_blks_indices": [layer]},
            student_reconstruction_target="original_img",
            aligned_feature_projection_mode="fc-1layer" if projected else None,
            aligned_feature_projection_dim=projected,
        )

    teacher = make(1024, 24, 16, 17, None).eval()
    student = make(768, 12, 12, 8, (768, 1024))
    images = torch.rand(batch, 3, 224, 224)

    def loss() -> Any:
        with torch.no_grad():
            features, mask, restore, keep = teacher.forward_encoder_customized(images, 0.75)
        rebuilt, aligned, _, _ = student(images, keep, restore, mask, None, None, features)
        return rebuilt + sum(aligned.values())

    return student, loss


def released_finetune(videos: bool, refs: str, batch: int) -> tuple[Any, Callable[[], Any]]:
    """A ViT-B and its loss on examples that are mixed with each other."""
    import torch
    from torch import nn

    sys.path.insert(0, f"{refs}/{'AMD' if videos else 'DMAE'}")
    norm = functools.partial(nn.LayerNorm, eps=1e-6)
    base = {"patch_size": 16, "embed_dim": 768, "depth": 12, "num_heads": 12, "mlp_ratio": 4}
    base |= {"qkv_bias": True, "norm_layer": norm, "drop_path_rate": 0.1}
    if videos:
        from models import modeling_finetune

        shape: tuple[int, ...] = (3, 16, 224, 224)
        model = modeling_finetune.VisionTransformer(**base, num_classes=400, all_frames=16, init_scale=0.001)
    else:
        import models_vit

        shape = (3, 224, 224)
        model = models_vit.VisionTransformer(**base, num_classes=1000, global_pool=True)
    inputs, labels = torch.rand(batch, *shape), torch.eye(model.head.out_features)[:batch]

    def loss() -> Any:
        mixed, target = (0.7 * x + 0.3 * x.flip(0) for x in (inputs, labels))
        return nn.functional.cross_entropy(model.train()(mixed), target)

    return model, loss


RELEASED: dict[str, Callable[[str, int], tuple[Any, Callable[[], Any]]]] = {
    "amd": released_amd,
    "dmae": released_dmae,
    "finetune_videos": functools.partial(released_finetune, True),
    "finetune_images": functools.partial(released_finetune, False),
}


def released(name: str, refs: str, batch: int) -> tuple[Callable[[], Any], Callable[[], Any], float]:
    """A step, a product of large matrices, and 0.0: nobody there counts FLOPs."""
    import torch
    from timm_of_old import install

    vars(np)["float"] = float  # as NumPy of their time had it
    install()
    torch.manual_seed(0)
    student, loss = RELEASED[name](refs, batch)
    trained = [p for p in student.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, betas=(0.9, 0.95), weight_decay=0.05)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 0.02)  # AMD's; others only take the norm
        optimizer.step()

    matrix = torch.rand(MATRIX, MATRIX)
    return step, lambda: matrix @ matrix, 0.0


def ours(config_name: str, batch: int) -> tuple[Callable[[], Any], Callable[[], Any], float]:
    """A step, a product of large matrices, and the model's FLOPs of a step."""
    import importlib

    import jax

    from amd_jax import hardware, sharding
    from amd_jax.measuring.running import Running
    from amd_jax.train import program

    config = importlib.import_module(f"configs.{config_name}").get_config()
    config.batch_size, config.data.repeats, config.teacher.random = batch, 1, True
    config.finetune.mix_groups = 1
    mesh = sharding.make_mesh(data=1, fsdp=1, tensor=1)
    built = program.build(hardware.resolved(config, "cpu"), mesh, examples=1000, classes=10)
    running = Running(built, 10)
    matrix = jax.random.normal(jax.random.key(0), (MATRIX, MATRIX))
    product = jax.jit(lambda x: x @ x)
    return lambda: running.window(1), lambda: product(matrix).block_until_ready(), built.flops_per_step


def seconds(call: Callable[[], Any]) -> float:
    """Of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def measure(side: str, what: str, refs: str, steps: int) -> dict[str, Any]:
    """What one process finds."""
    config, batch, name = STEPS[what]
    step, product, flops = ours(config, batch) if side == "ours" else released(name, refs, batch)
    step()
    times = [seconds(step) for _ in range(steps)]
    peak = 2 * MATRIX**3 / min(seconds(product) for _ in range(20))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": times, "peak": peak, "memory": memory, "flops": flops}


def row(what: str, side: str, found: list[dict[str, Any]], flops: float, against: float) -> tuple[str, float]:
    """A line of the table, and the median of a step."""
    times = [s for part in found for s in part["seconds"]]
    median, peak = statistics.median(times), statistics.median(part["peak"] for part in found)
    batch = STEPS[what][1]
    cells = (
        what,
        side,
        f"{median / batch:.3f} s ({min(times) / batch:.3f} to {max(times) / batch:.3f})",
        f"{flops / median / 1e9:.0f} of {peak / 1e9:.0f} GFLOP/s",
        f"{max(part['memory'] for part in found) / 2**30:.1f} GiB",
        f"{against / median:.2f}" if against else "",
    )
    return "| " + " | ".join(cells) + " |", median


def machine() -> str:
    """Cores, architecture and commit."""
    describe = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True)
    return f"{os.cpu_count()} cores, {platform.machine()}, commit {commit.stdout.strip()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--refs", required=True, help="folder with checkouts of AMD and DMAE")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each side")
    parser.add_argument("--steps", type=int, default=4, help="timed steps of a process, after one more")
    parser.add_argument("--only", nargs=2, metavar=("SIDE", "STEP"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        print(json.dumps(measure(*args.only, args.refs, args.steps)))
        return
    print(machine())
    print("| step | code | seconds an example, median (all) | of matrix products | memory | times as fast |")
    print("|---|---|---|---|---|---|")
    for what in STEPS:
        found: dict[str, list[dict[str, Any]]] = {"released": [], "ours": []}
        for turn in range(args.rounds):
            for side in sorted(found, reverse=turn % 2 == 0):
                command = [sys.executable, __file__, f"--refs={args.refs}", f"--steps={args.steps}"]
                done = subprocess.run([*command, "--only", side, what], stdout=subprocess.PIPE, check=True)
                found[side].append(json.loads(done.stdout.splitlines()[-1]))
        flops = found["ours"][0]["flops"]  # the model's, which both compute
        line, theirs = row(what, "released", found["released"], flops, 0.0)
        print(line)
        print(row(what, "ours", found["ours"], flops, theirs)[0], flush=True)


if __name__ == "__main__":
    main()
