"""Video configs train from real files: from a list, from class folders, from folders of frames.

Every kind of config from one of these, one kind from all of them; tests/test_config.py looks at all configs.
"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from amd_jax.data import manifest
from amd_jax.data.encode import encode
from amd_jax.train import loop, setup
from tests.runs import metrics
from tests.test_config import load

pytestmark = pytest.mark.slow

SOURCES = ("manifest", "folder", "frames")
RUNS = [
    *(("finetune_vitb_ssv2", source) for source in SOURCES),
    ("finetune_vitb_ucf101", "manifest"),
    ("kd_vitb_k400", "folder"),
    ("videomae_vitl_ssv2", "frames"),
    ("vitb_k400", "manifest"),
    ("vits_ssv2", "folder"),
]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`files` (H.264, with lists) and `frames` (JPEG): 2 classes, each with 6 videos to train on, 3 to test.

    Of each 6, one cannot be read.
    """
    root = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        for label in "ab":
            for number in range(count):
                frames = rng.integers(0, 256, (20 + number, 48, 64, 3), np.uint8)
                file = root / "files" / split / label / f"{number}.mp4"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(encode(frames, 12, gop=6))
                folder = root / "frames" / split / label / str(number)
                folder.mkdir(parents=True)
                for at, frame in enumerate(frames, 1):
                    Image.fromarray(frame).save(folder / f"img_{at:05}.jpg")
        for name in ("train", "eval"):
            if (split == "train") == (name == "train"):
                options = [f"--root={root / 'files'}", f"--split={name}", "--jobs=1"]
                assert manifest.main(["build", *options, f"--output={root / 'files' / split}.csv"]) == 0
    for label in "ab":
        file = root / "files" / "train" / label / "2.mp4"
        file.write_bytes(file.read_bytes()[:200])
        for frame in (root / "frames" / "train" / label / "2").iterdir():
            frame.write_bytes(b"no image")
    return root


@pytest.mark.parametrize(("name", "source"), RUNS)
def test_a_video_config_trains_from_files(name: str, source: str, videos: Path, tmp_path: Path) -> None:
    config = load(name, "smoke")
    config.steps, config.optim.warmup_steps = 3, 1
    config.batch_size = config.eval.batch_size = 8  # more than the videos of evaluation, and all devices
    config.log.every, config.log.pictures_every, config.checkpoint.every = 1, 3, 3
    config.eval.every_epochs = 0.0
    config.data.source = "manifest" if source == "manifest" else "folder"
    config.data.path = str(videos / ("frames" if source == "frames" else "files"))
    run = setup.prepare(config, str(tmp_path))
    assert (len(run.source), len(run.eval_source)) == (12, 6)
    assert run.source.num_classes == 2
    loop.train(run)
    lines = metrics(tmp_path)
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3]
    assert all(np.isfinite(line["loss"]) for line in steps)
    assert steps[-1]["data_skipped"] == 2  # two epochs have shown all
    if "finetune" in name or name.startswith("kd"):
        scores = {key: value for line in lines[-2:] for key, value in line.items()}
        assert scores["eval_examples"] == scores["test_examples"] == 6
    else:
        pictures = sorted(path.name for path in (tmp_path / "pictures").iterdir())
        assert pictures == ["step_00000003.png", "step_00000003.webp"]
