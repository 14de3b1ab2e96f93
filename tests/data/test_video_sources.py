"""Sources of videos: what they hand out, what they open, and what they say when something is missing."""

import builtins
import io
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_tfds import FOLDER as TFDS_FOLDER
from make_tfds import VIDEOS, shape_video
from make_videos import CODECS, pixels, write_frames, write_video
from ml_collections import ConfigDict
from PIL import Image

from amd_jax import config
from amd_jax.data import clip_records
from amd_jax.data.example import EncodedFrames, EncodedVideo, FrameFiles, Source, VideoFile
from amd_jax.data.folders import Names, frame_files
from amd_jax.data.prepare_video import prepare_video
from amd_jax.data.sources import make_source
from amd_jax.data.video import open_video
from amd_jax.errors import DataError


def data(**keys: object) -> ConfigDict:
    section = config.default().data
    section.update({"frames": 16, **keys})
    return section


def decoded(source: Source, index: int) -> np.ndarray:
    """All frames of an example."""
    content = source[index].content
    assert not isinstance(content, bytes)
    with open_video(content) as video:
        return video.read(np.arange(video.count), 3)


def is_pixels(found: np.ndarray, seed: int) -> bool:
    """Whether a decoded video is `pixels` of this seed, as far as its compression lets it be."""
    expected = pixels(len(found), seed).astype(int)
    return found.shape == expected.shape and np.abs(found - expected).mean() < 12


def refused(*parts: str, split: Any = "train", **keys: object) -> None:
    with pytest.raises(DataError) as error:
        make_source(data(**keys), split)
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of video files, one of each container, and lists of them."""
    root = tmp_path_factory.mktemp("files")
    rows = []
    for seed, suffix in enumerate(CODECS):
        name = f"train/{'ab'[seed % 2]} class/{seed}{suffix}"
        write_video(root / name, frames=4 + seed, seed=seed)
        rows.append(f"{name} {seed % 2}\n")
    write_video(root / "val" / "b class" / "7.mp4", seed=7)
    (root / "val" / "b class" / "notes.txt").write_text("no video")
    (root / "train.txt").write_text("".join(rows))
    (root / "val.csv").write_text("path,label\nval/b class/7.mp4,1\n")
    return root


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of videos as folders of frames, and a list of them."""
    root = tmp_path_factory.mktemp("frames")
    for seed in range(4):
        write_frames(root / "train" / "ab"[seed % 2] / f"v{seed}", 4 + seed, seed)
    (root / "train.txt").write_text("".join(f"train/{'ab'[s % 2]}/v{s} {4 + s} {s % 2}\n" for s in range(4)))
    return root


@pytest.fixture(scope="module")
def clips(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training videos as clips, two in a file."""
    root = tmp_path_factory.mktemp("clips")
    prepare_video(
        make_source(data(source="folder", path=str(files)), "train"), str(root / "train"), shard_size=2
    )
    return root


@pytest.fixture
def every(files: Path, frames: Path, clips: Path) -> list[Source]:
    """The training source of each kind whose labels are known without reading."""
    sections = [
        data(source="folder", path=str(files)),
        data(source="manifest", path=str(files)),
        data(source="folder", path=str(frames)),
        data(source="manifest", path=str(frames)),
        data(source="clips", path=str(clips)),
    ]
    return [make_source(section, "train") for section in sections]


def test_every_source_gives_the_videos_with_their_labels(every: list[Source]) -> None:
    kinds = [VideoFile, VideoFile, FrameFiles, FrameFiles, EncodedVideo]
    for source, kind, names in zip(every, kinds, ["a class", "", "a", "", "a class"], strict=True):
        assert (source.num_classes, "".join(source.class_names[:1])) == (2, names)
        seeds = []
        for index in range(len(source)):
            example = source[index]
            assert isinstance(example.content, kind)
            assert example.label == source.label(index)
            found = decoded(source, index)
            seeds.append(len(found) - 4)  # the number of frames tells which it is
            assert example.label == seeds[-1] % 2
            assert is_pixels(found, seeds[-1])
        assert sorted(seeds) == [*range(len(source))]


def test_every_source_pickles_cheaply(every: list[Source]) -> None:
    for source in every:
        source[0]  # an open file is not sent along
        packed = pickle.dumps(source)
        assert len(packed) < 2500
        copy = pickle.loads(packed)
        assert [copy.describe(i) for i in range(len(copy))] == [
            source.describe(i) for i in range(len(source))
        ]
        assert np.array_equal(decoded(copy, 1), decoded(source, 1))


def test_a_balanced_share_opens_no_video(
    files: Path, frames: Path, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    real = builtins.open

    def noted(path: Any, *args: Any, **kwargs: Any) -> Any:
        opened.append(Path(str(path)).suffix)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", noted)
    for source, path, share in [
        ("folder", files, 0.8),
        ("manifest", files, 0.8),
        ("folder", frames, 0.5),
        ("manifest", frames, 0.5),
        ("clips", clips, 0.8),
    ]:
        part = make_source(data(source=source, path=str(path), share=share), "train")
        counts = Counter(part.label(i) for i in range(len(part)))
        assert counts == ({0: 2, 1: 2} if share == 0.8 else {0: 1, 1: 1})
    assert set(opened) <= {".txt", ".csv", ".json"}


def test_the_classes_of_an_evaluation_are_those_of_training(files: Path) -> None:
    for source in ("folder", "manifest"):
        found = make_source(data(source=source, path=str(files)), "eval")
        assert (len(found), found.num_classes, found[0].label) == (1, 2, 1)
    named = make_source(data(source="manifest", path=str(files), eval_split="train.txt"), "eval")
    assert len(named) == 5


def test_a_set_of_images_stays_one(files: Path, tmp_path: Path) -> None:
    refused("no .jpg", source="folder", path=str(files), frames=1)
    (tmp_path / "train" / "a").mkdir(parents=True)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "train" / "a" / "1.png")
    assert isinstance(
        make_source(data(source="folder", path=str(tmp_path), frames=1), "train")[0].content, bytes
    )
    refused("no videos", "data.frames=1", source="folder", path=str(tmp_path))


def test_names_of_classes_may_stand_in_the_list_or_beside_it(files: Path, tmp_path: Path) -> None:
    list_file = tmp_path / "list.csv"
    keys = {"source": "manifest", "path": str(files), "train_split": str(list_file)}
    list_file.write_text('train/a class/0.mp4,"zoo, in"\ntrain/b class/1.mov,ant\n')
    source = make_source(data(**keys), "train")
    assert source.class_names == ("ant", "zoo, in")
    assert [source.label(i) for i in range(2)] == [1, 0]
    (tmp_path / "classes.txt").write_text("zoo, in\nbee\nant\n")
    source = make_source(data(**keys), "train")
    assert [source.label(i) for i in range(2)] == [0, 2]
    list_file.write_text("train/a class/0.mp4,2\ntrain/b class/1.mov,0\n")
    source = make_source(data(**keys), "train")
    assert (source.num_classes, [source.label(i) for i in range(2)]) == (3, [2, 0])
    list_file.write_text("train/a class/0.mp4,3\n")
    refused("list.csv line 1: label '3'", "none of 3 classes", **keys)
    list_file.write_text("train/a class/0.mp4,wasp\n")
    refused("label 'wasp'", **keys)


def test_what_a_manifest_lacks_is_said(files: Path, frames: Path, tmp_path: Path) -> None:
    refused("data.path=''", "no such folder", source="manifest")
    refused("no train.txt", "manifest build", source="manifest", path=str(tmp_path))
    refused("val.txt or validation.txt or test.txt", split="eval", source="manifest", path=str(frames))
    refused("data.train_split='x.txt'", source="manifest", path=str(files), train_split="x.txt")


def test_a_video_that_is_gone_is_an_unreadable_example(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4")
    write_frames(tmp_path / "f", 3)
    (tmp_path / "train.txt").write_text("a.mp4 0\nb.mp4 0\n")
    source = make_source(data(source="manifest", path=str(tmp_path)), "train")
    with pytest.raises(OSError, match=r"b\.mp4: no such file"):
        source[1]
    (tmp_path / "train.txt").write_text("f 3 0\ng 3 0\n")
    source = make_source(data(source="manifest", path=str(tmp_path)), "train")
    with pytest.raises(OSError, match="g"):
        decoded(source, 1)
    (tmp_path / "train.txt").write_text("f 0\ng 0\n")  # without counts, folders are listed when they are read
    source = make_source(data(source="manifest", path=str(tmp_path)), "train")
    assert source[0].content == FrameFiles(str(tmp_path / "f"), 3)
    with pytest.raises(OSError, match="g"):
        source[1]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["img_00001.jpg", "img_00002.jpg", "notes.txt"], (2, "img_{:05d}.jpg", 1)),
        (["0000.png", "0001.png", "._0000.png"], (2, "{:04d}.png", 0)),
        ([f"frame{i}.jpg" for i in range(5, 17)], (12, "frame{:d}.jpg", 5)),
        (["v{x}_01_7.webp"], (1, "v{{x}}_01_{:01d}.webp", 7)),
    ],
)
def test_the_numbering_of_frames_is_found(
    names: list[str], found: tuple[int, str, int], tmp_path: Path
) -> None:
    for name in names:
        (tmp_path / name).touch()
    frames = frame_files(str(tmp_path))
    assert (frames.count, frames.template, frames.first) == found
    for i in range(frames.count):
        assert (tmp_path / frames.template.format(frames.first + i)).exists()


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ([], "no .jpg"),
        (["1.jpg", "3.jpg"], "2.jpg is missing"),
        (["a.jpg", "b.jpg"], "not numbered"),
        (["01.jpg", "02.png"], "02.jpg is missing"),
    ],
)
def test_frames_that_are_no_row_are_unreadable(names: list[str], reason: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(OSError, match=reason):
        frame_files(str(tmp_path))


def test_folders_of_different_numbering_are_each_listed(tmp_path: Path) -> None:
    write_frames(tmp_path / "a", 3)
    write_frames(tmp_path / "b", 3, template="{:03d}.png")
    (tmp_path / "train.txt").write_text("a 3 0\nb 3 1\n")
    source = make_source(data(source="manifest", path=str(tmp_path)), "train")
    assert [len(decoded(source, i)) for i in range(2)] == [3, 3]


def test_names_are_kept_as_they_are() -> None:
    names = ["", "a b", "é/ü", "\udcff", "x" * 300]
    kept = pickle.loads(pickle.dumps(Names(names)))
    assert [kept[i] for i in range(len(kept))] == names


def test_tfds_videos_are_read_without_tensorflow() -> None:
    for split, tfds_split in (("train", "train"), ("eval", "test")):
        keys = {"source": "tfds", "name": "tiny_clips", "path": str(TFDS_FOLDER)}
        source = make_source(data(**keys), split)  # type: ignore[arg-type]
        assert len(source) == VIDEOS[tfds_split]
        assert source.class_names == ("bar", "block", "ramp")
        copy = pickle.loads(pickle.dumps(source))
        for index in (0, len(source) - 1):
            example = source[index]
            assert isinstance(example.content, EncodedFrames)
            assert example.label == source.label(index) == copy.label(index) == index % 3
            frames = [np.asarray(Image.open(io.BytesIO(image))) for image in example.content.images]
            assert np.array_equal(frames, shape_video(tfds_split, index))
            assert np.array_equal(decoded(copy, index), frames)
    assert source.describe(2) == "tiny_clips/1.0.0 test record 2"
    assert "tensorflow" not in sys.modules


def test_tfds_splits_and_refusals_are_those_of_images() -> None:
    keys = {"source": "tfds", "name": "tiny_clips", "path": str(TFDS_FOLDER)}
    assert len(make_source(data(**keys, train_split="train[:50%]"), "train")) == 6
    assert len(make_source(data(**keys, share=0.5), "train")) == 6
    refused("data.train_split='dev'", "train, test", **keys, train_split="dev")
    refused("data.train_split='train[:x]'", **keys, train_split="train[:x]")
    refused("tiny_shapes", "8-bit 'video'", **{**keys, "name": "tiny_shapes"})
    refused("data.name='absent'", "amd_jax.data.prepare", **{**keys, "name": "absent"})


def test_making_a_source_loads_neither_jax_nor_pyav(files: Path) -> None:
    program = f"""
import sys
from amd_jax import config
from amd_jax.data import sources
data = config.default().data
data.update(source='manifest', path={str(files)!r}, frames=16)
assert len(sources.make_source(data, 'train')) == 5
assert not {{'jax', 'av', 'tensorflow', 'tensorflow_datasets'}} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_clips_say_what_is_missing(clips: Path, tmp_path: Path) -> None:
    source = make_source(data(source="clips", path=str(clips)), "train")
    assert source.describe(3).endswith("train/clips-00001-of-00003.array_record record 1")
    copied = tmp_path / "train"
    copied.mkdir()
    refused("no clips.json", source="clips", path=str(tmp_path))
    (copied / "clips.json").write_text("{")
    refused("clips.json cannot be read", source="clips", path=str(tmp_path))
    (copied / "clips.json").write_text('{"format": 99}')
    refused("not of format 1", source="clips", path=str(tmp_path))
    (copied / "clips.json").write_bytes((clips / "train" / "clips.json").read_bytes())
    refused("3 of 3 files are missing", source="clips", path=str(tmp_path))
    for file in (clips / "train").glob("*.array_record"):
        (copied / file.name).write_bytes(b"damaged" * 100)
    damaged = make_source(data(source="clips", path=str(tmp_path)), "train")
    with pytest.raises(OSError, match="unreadable record"):
        damaged[0]


def test_a_record_is_its_header_and_the_file() -> None:
    header = {"name": "é", "label": 3, "frames": 2}
    assert clip_records.unpack(clip_records.pack(header, b"mp4")) == (header, b"mp4")
    for broken in (
        b"",
        b"\x05\x00\x00\x00{",
        b"\xff\xff\xff\xffxx",
        clip_records.pack(header, b""),
        b"\2\0\0\0[]x",
    ):
        with pytest.raises(OSError, match="unreadable record"):
            clip_records.unpack(broken)


def test_a_folder_of_neither_videos_nor_frames_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train" / "a").mkdir(parents=True)
    refused("no videos", source="folder", path=str(tmp_path))
