"""Manifests: which column is what, what is refused, how they are made and checked."""

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_videos import write_frames, write_video

from amd_jax import exits
from amd_jax.data import annotations, class_lists, manifest, manifest_format
from amd_jax.data.manifest_format import FILE, Rows, find_layout, read_rows
from amd_jax.errors import DataError


def rows_of(text: str, there: dict[str, int], folder: Path) -> Rows:
    """What `text` says where `there` are the files (FILE) and folders (number of images)."""
    file = folder / "train.txt"
    file.write_bytes(text.encode(errors="surrogateescape"))
    return read_rows(str(file), "", there.get)


def refused(text: str, there: dict[str, int], folder: Path) -> str:
    with pytest.raises(DataError) as error:
        rows_of(text, there, folder)
    assert "\n" not in str(error.value)
    return str(error.value)


# What may stand in a path; a space neither at its ends nor, as it is the separator, beside another.
WORDS = st.text(st.sampled_from("abcXYZ019_-.(),'é"), min_size=1, max_size=6)
PATHS = st.lists(WORDS, min_size=1, max_size=4).map(lambda words: "d/" + " ".join(words))
VIDEOS = st.dictionaries(PATHS, st.tuples(st.integers(1, 400), st.integers(0, 173)), min_size=4, max_size=12)


@given(VIDEOS, st.sampled_from([" ", ",", "\t"]), st.permutations(["frames", "label"]), st.booleans())
def test_folders_of_frames_are_read_in_either_order(
    tmp_path_factory: pytest.TempPathFactory,
    videos: dict[str, tuple[int, int]],
    separator: str,
    order: list[str],
    header: bool,
) -> None:
    rows = [{"path": path, "frames": count, "label": label} for path, (count, label) in videos.items()]
    columns = ["path", *order]
    out = io.StringIO()
    if separator == ",":
        writer = csv.DictWriter(out, columns, lineterminator="\n")
        writer.writerows(([{c: c for c in columns}] if header else []) + rows)
    else:
        lines = ([columns] if header else []) + [[str(row[c]) for c in columns] for row in rows]
        out.write("".join(separator.join(line) + "\n" for line in lines))
    there = {path: count for path, (count, _) in videos.items()}
    near = all(abs(count - label) <= 1 for count, label in videos.values())
    folder = tmp_path_factory.mktemp("lists")
    if near and not header:  # then both columns are the number of frames
        return
    read = rows_of(out.getvalue(), there, folder)
    assert read.paths == list(there)
    assert read.folders
    assert read.frames.tolist() == list(there.values())
    assert [int(label) for label in read.labels] == [label for _, label in videos.values()]
    assert read.layout.header == header


@given(st.dictionaries(PATHS, st.integers(0, 400), min_size=1, max_size=9), st.sampled_from([" ", ",", "\t"]))
def test_files_with_a_label_are_read(
    tmp_path_factory: pytest.TempPathFactory, videos: dict[str, int], separator: str
) -> None:
    quote = (lambda path: f'"{path}"') if separator == "," else str
    text = "".join(f"{quote(path)}{separator}{label}\r\n" for path, label in videos.items())
    read = rows_of(text, dict.fromkeys(videos, FILE), tmp_path_factory.mktemp("lists"))
    assert (read.paths, read.folders) == (list(videos), False)
    assert [int(label) for label in read.labels] == list(videos.values())
    assert not read.frames.any()


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=12), max_size=6))
def test_any_text_is_read_or_refused_by_one_line(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    folder, message = tmp_path_factory.mktemp("lists"), ""
    try:
        rows = rows_of("\n".join(lines), {"a": FILE, "b": 3}, folder)
    except DataError as error:
        message = str(error)
    else:
        assert len(rows.paths) == len(rows.labels) == len(rows.frames) > 0
    assert not message or message.startswith(str(folder))


def test_a_line_says_what_was_recognised(tmp_path: Path) -> None:
    there = {"s/74225": 62, "s/116154": 40}
    rows = rows_of("s/74225 62 140\ns/116154 41 127\n", there, tmp_path)
    assert rows.describe() == "3 columns, folder frames label"
    rows = rows_of("s/74225 140 62\ns/116154 127 41\n", there, tmp_path)
    assert rows.describe() == "3 columns, folder label frames"
    rows = rows_of("a b.mp4 3\n", {"a b.mp4": FILE}, tmp_path)
    assert rows.describe() == "2 columns, path label"
    rows = rows_of("a b.mp4,3,x\n", {"a b.mp4": FILE}, tmp_path)
    assert rows.describe() == "3 columns, path frames label"
    rows = rows_of("label,bytes,path\n3,99,a.mp4\n", {"a.mp4": FILE}, tmp_path)
    assert rows.describe() == "3 columns, label - path"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["it is empty"]),
        ("path label\n", ["nothing but a header"]),
        ("gone.mp4 3\n", ["'gone.mp4'", "not there", "data.path"]),
        ("3 a.mp4\n", ["'3'", "has to be the first column"]),
        ("3,a.mp4\n", ["'3'", "has to be the first column"]),
        ("a.mp4\n", ["line 1", "'a.mp4' is not 'path label'"]),
        ("a.mp4 3\nb.mp4\n", ["line 2", "'b.mp4' is not 'path label'"]),
        ("a.mp4 3\n" * 40 + "b.mp4\n", ["line 41", "2 columns between spaces"]),
        ("a.mp4 12 3\n", ["cannot be told", "header"]),
        ("f 30 9\ng 30 8\n", ["'f' has 62 images", "30 frames (or 9)"]),
        ("path label frames\nf 62 140\ng 40 127\n", ["column 3 the frames", "column 2", "swap"]),
        ("f 62\ng 40\nh 50\n", ["column 2 is the number of frames", "labels is missing"]),
        ("video_id action\na.mp4 3\nb.mp4 4\n", ["line 1", "'action' is no number"]),
        ("f x y\n", ["neither column 2 nor column 3"]),
        ("a.mp4 3\nf 4\n", ["both video files and folders"]),
        ("f 62 3\n" * 40 + "g -40 3\n", ["line 41", "'-40' is not a number of frames"]),
        ("empty 3\n", ["'empty' is a folder without images"]),
        ("label,youtube_id,time_start,time_end,split\nx,y,1,2,train\n", ["Kinetics", "manifest build"]),
        ("label path\n3 a.mp4\n", ["the path has to come first"]),
    ],
)
def test_what_does_not_fit_is_refused(text: str, parts: list[str], tmp_path: Path) -> None:
    there = {"a.mp4": FILE, "b.mp4": FILE, "f": 62, "g": 40, "h": 50, "empty": 0}
    message = refused(text, there, tmp_path)
    for part in ["train.txt", *parts]:
        assert part in message


def test_columns_that_are_not_used_may_be_empty(tmp_path: Path) -> None:
    rows = rows_of("path,split,label\na.mp4,,3\n", {"a.mp4": FILE}, tmp_path)
    assert (rows.paths, rows.labels) == (["a.mp4"], ["3"])
    assert "is not 'path label'" in refused('"' + "a" * 200_000 + '",3\n', {"a.mp4": FILE}, tmp_path)


def test_a_few_missing_files_are_no_obstacle() -> None:
    lines = list(enumerate(["gone 9 1", "f 62 140", "g 40 127"], 1))
    layout, folders = find_layout("list", lines, {"f": 62, "g": 40}.get)
    assert layout.columns == ("path", "frames", "label")
    assert folders


def test_images_in_a_folder_are_counted(tmp_path: Path) -> None:
    write_frames(tmp_path / "v", 4)
    (tmp_path / "v" / "notes.txt").write_text("x")
    assert manifest_format.look(str(tmp_path / "v")) == 4
    assert manifest_format.look(str(tmp_path / "v" / "notes.txt")) == FILE
    assert manifest_format.look(str(tmp_path / "gone")) is None


def test_a_list_of_classes_may_be_numbered(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    for text in ("1 Apply Eye\n2 Archery\n", "0,Apply Eye\n1,Archery\n", "Apply Eye\nArchery\n"):
        file.write_text(text)
        assert class_lists.read_classes(str(file)) == ("Apply Eye", "Archery")
    for text, part in (("a\na\n", "'a' is there twice"), ("", "no class names")):
        file.write_text(text)
        with pytest.raises(DataError, match=part):
            class_lists.read_classes(str(file))


def built(output: Path) -> list[list[str]]:
    return list(csv.reader(output.read_text().splitlines()))


def build(*arguments: object) -> int:
    return manifest.main(["build", "--jobs=1", *map(str, arguments)])


def test_building_from_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_video(tmp_path / "train" / "b b" / "1, 2.mp4", frames=6)
    write_video(tmp_path / "train" / "a" / "x.avi", frames=3)
    (tmp_path / "train" / "a" / "broken.mp4").write_bytes(b"not a video" * 9)
    write_video(tmp_path / "val" / "b b" / "3.mp4", frames=4)
    assert build(f"--root={tmp_path}", f"--output={tmp_path / 'train.csv'}") == exits.DONE
    assert "2 videos, 2 classes; 1 left out" in capsys.readouterr().out
    assert (tmp_path / "classes.txt").read_text() == "a\nb b\n"
    sizes = [str((tmp_path / path).stat().st_size) for path in ("train/a/x.avi", "train/b b/1, 2.mp4")]
    assert built(tmp_path / "train.csv") == [
        ["path", "label", "frames", "bytes"],
        ["train/a/x.avi", "0", "3", sizes[0]],
        ["train/b b/1, 2.mp4", "1", "6", sizes[1]],
    ]
    path, reason = (tmp_path / "train.left_out.txt").read_text().strip().split("\t")
    assert path == "train/a/broken.mp4"
    assert reason.startswith("unreadable: ")
    assert build(f"--root={tmp_path}", "--split=eval", f"--output={tmp_path / 'val.csv'}") == exits.DONE
    assert [row[1] for row in built(tmp_path / "val.csv")[1:]] == ["1"]


def test_building_from_class_folders_without_splits(tmp_path: Path) -> None:
    write_frames(tmp_path / "videos" / "a" / "v1", 3)
    write_frames(tmp_path / "videos" / "b" / "v2", 4)
    assert build(f"--root={tmp_path / 'videos'}", f"--output={tmp_path / 'lists' / 'all.csv'}") == exits.DONE
    rows = built(tmp_path / "lists" / "all.csv")[1:]
    assert [row[:3] for row in rows] == [["a/v1", "0", "3"], ["b/v2", "1", "4"]]


def test_building_from_kinetics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_video(tmp_path / "v" / "riding_a_bike" / "-a_b_000003_000013.mp4")
    write_video(tmp_path / "v" / "other" / "-a_b_000003_000013.mp4")
    write_video(tmp_path / "v" / "xyz_000120_000130.webm", seed=1)
    annotated = tmp_path / "k.csv"
    annotated.write_text(
        "label,youtube_id,time_start,time_end,split\nriding a bike,-a_b,3,13,train\n"
        '"abseiling",xyz,120,130,train\nabseiling,gone,0,10,train\n'
    )
    output = tmp_path / "train.csv"
    arguments = ["--format=kinetics", f"--annotations={annotated}", f"--root={tmp_path / 'v'}"]
    assert build(*arguments, f"--output={output}") == exits.DONE
    assert "2 videos, 2 classes; 1 left out, such as gone_000000_000010: missing" in capsys.readouterr().out
    assert [row[:2] for row in built(output)[1:]] == [
        ["riding_a_bike/-a_b_000003_000013.mp4", "1"],
        ["xyz_000120_000130.webm", "0"],
    ]


def test_building_from_something_something(tmp_path: Path) -> None:
    write_frames(tmp_path / "v" / "78687", 4)
    write_video(tmp_path / "v" / "100.webm", seed=1)
    (tmp_path / "train.json").write_text(
        json.dumps(
            [
                {"id": "78687", "label": "holding a pen", "template": "Holding [something], [slowly]"},
                {"id": "100", "label": "x", "template": "Closing [something]"},
            ]
        )
    )
    (tmp_path / "labels.json").write_text('{"Closing something": "1", "Holding something, slowly": "0"}')
    arguments = ["--format=something", f"--annotations={tmp_path / 'train.json'}", f"--root={tmp_path / 'v'}"]
    assert build(*arguments, f"--output={tmp_path / 'train.csv'}") == exits.DONE
    assert [row[:3] for row in built(tmp_path / "train.csv")[1:]] == [
        ["78687", "0", "4"],
        ["100.webm", "1", "5"],
    ]
    assert (tmp_path / "classes.txt").read_text() == "Holding something, slowly\nClosing something\n"


def test_building_from_ucf101(tmp_path: Path) -> None:
    write_video(tmp_path / "v" / "Archery" / "v_Archery_g01_c01.avi")
    (tmp_path / "classInd.txt").write_text("1 ApplyEyeMakeup\n2 Archery\n")
    (tmp_path / "trainlist01.txt").write_text("Archery/v_Archery_g01_c01.avi 2\n")
    (tmp_path / "testlist01.txt").write_text("Archery/v_Archery_g01_c01.avi\n")
    for name in ("train", "test"):
        arguments = ["--format=ucf101", f"--annotations={tmp_path / f'{name}list01.txt'}"]
        output = tmp_path / f"{name}.csv"
        assert build(*arguments, f"--root={tmp_path / 'v'}", f"--output={output}") == exits.DONE
        assert built(output)[1][:2] == ["Archery/v_Archery_g01_c01.avi", "1"]


def test_building_from_hmdb51(tmp_path: Path) -> None:
    for seed, name in enumerate(("a b!.avi", "c.avi", "d.avi")):
        write_video(tmp_path / "v" / "brush_hair" / name, seed=seed)
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "brush_hair_test_split1.txt").write_text("a b!.avi 1 \nc.avi 2 \nd.avi 0 \n")
    (lists / "wave_test_split1.txt").write_text("")
    for split, name in (("train", "a b!"), ("eval", "c")):
        arguments = ["--format=hmdb51", f"--annotations={lists}", f"--split={split}"]
        output = tmp_path / f"{split}.csv"
        assert build(*arguments, f"--root={tmp_path / 'v'}", f"--output={output}") == exits.DONE
        assert [row[:2] for row in built(output)[1:]] == [[f"brush_hair/{name}.avi", "0"]]
    assert (tmp_path / "classes.txt").read_text() == "brush_hair\nwave\n"


def test_annotations_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"

    def fails(text: str, part: str, read: object = annotations.kinetics) -> None:
        file.write_text(text)
        with pytest.raises(DataError) as error:
            read(str(file))  # type: ignore[operator]
        assert part in str(error.value)
        assert "\n" not in str(error.value)

    fails("youtube_id,time_start,time_end\na,1,2\n", "no column 'label'")
    fails("", "no column 'label'")
    fails("label,youtube_id,time_start,time_end\nx,a,soon,2\n", "line 2")
    fails("[]", "labels.json", annotations.something)
    (tmp_path / "labels.json").write_text('{"a": "0"}')
    fails("{", "not JSON", annotations.something)
    fails("{}", "must be a list", annotations.something)
    fails('[{"id": "1"}]', "no template", annotations.something)
    fails('[{"id": "1", "template": "b"}]', "class 'b' of '1'", annotations.something)
    fails("", "classInd.txt", annotations.ucf101)
    (tmp_path / "classInd.txt").write_text("1 A\n2 B\n")
    fails("A/v.avi 2\n", "line 1", annotations.ucf101)
    fails("v.avi\n", "is not Class/video.avi", annotations.ucf101)
    with pytest.raises(DataError, match="no <class>_test_split2"):
        annotations.hmdb51(str(tmp_path), True, 2)


def test_building_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(part: str, *arguments: str) -> None:
        assert build(f"--output={tmp_path / 'o.csv'}", *arguments) == exits.USAGE
        (line,) = capsys.readouterr().err.splitlines()
        assert part in line

    fails("no such folder", f"--root={tmp_path / 'gone'}")
    fails("--annotations is missing", f"--root={tmp_path}", "--format=ucf101")
    (tmp_path / "k.csv").write_text("label,youtube_id,time_start,time_end\nx,a,1,2\n")
    fails("a_000001_000002", f"--root={tmp_path}", "--format=kinetics", f"--annotations={tmp_path / 'k.csv'}")
    (tmp_path / "v" / "train" / "a").mkdir(parents=True)
    fails("no videos", f"--root={tmp_path / 'v'}")
    (tmp_path / "v" / "train" / "a" / "x.mp4").write_bytes(b"")
    fails("empty", f"--root={tmp_path / 'v'}")
    (tmp_path / "classes.txt").write_text("b\n")
    write_video(tmp_path / "v" / "train" / "a" / "y.mp4")
    fails("class 'a'", f"--root={tmp_path / 'v'}")


def test_a_list_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "v" / "a" / "x.mp4")
    (tmp_path / "file").touch()
    assert build(f"--root={tmp_path / 'v'}", f"--output={tmp_path / 'file' / 'o.csv'}") == exits.UNSAVED
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.fixture
def spoilt(tmp_path: Path) -> Path:
    """A list of videos, of which most are bad in some way."""
    write_video(tmp_path / "good.mp4", frames=8)
    write_video(tmp_path / "short.mp4", frames=2, seed=1)
    (tmp_path / "copy.mp4").write_bytes((tmp_path / "good.mp4").read_bytes())
    (tmp_path / "cut.mp4").write_bytes(write_video(tmp_path / "w.mp4", 9, seed=2).read_bytes()[:300])
    (tmp_path / "empty.mp4").write_bytes(b"")
    write_video(tmp_path / "odd.mp4", frames=8, seed=3)
    (tmp_path / "classes.txt").write_text("a\nb\n")
    names = ["good 0", "short 0", "copy 1", "cut 1", "empty 0", "gone 0", "odd 7"]
    (tmp_path / "train.txt").write_text("".join(name.replace(" ", ".mp4 ") + "\n" for name in names))
    return tmp_path


@pytest.mark.parametrize("jobs", [1, 2])
def test_checking_names_every_bad_video(spoilt: Path, jobs: int, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["check", f"--root={spoilt}", "--min_frames=4", f"--jobs={jobs}"]
    assert manifest.main(arguments) == exits.USAGE
    shown = capsys.readouterr()
    assert "train.txt: 2 columns, path label; 2 classes; 7 videos" in shown.out
    (line,) = shown.err.splitlines()
    assert "6 of 7 videos are bad" in line
    bad = dict(line.split("\t") for line in (spoilt / "train.bad.txt").read_text().splitlines())
    assert bad.pop("cut.mp4").startswith("unreadable: ")
    assert bad == {
        "short.mp4": "too short: 2 frames",
        "copy.mp4": "duplicate of good.mp4",
        "empty.mp4": "empty",
        "gone.mp4": "missing",
        "odd.mp4": "unknown label: 7",
    }


def test_checking_a_good_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_frames(tmp_path / "v" / "a", 3)
    write_frames(tmp_path / "v" / "b", 4, seed=1)
    (tmp_path / "train.txt").write_text("a 3 0\nb 4 1\n")
    arguments = ["check", f"--root={tmp_path / 'v'}", "--jobs=1", f"--output={tmp_path / 'bad.txt'}"]
    assert manifest.main([*arguments, f"--manifest={tmp_path / 'train.txt'}"]) == exits.DONE
    assert "all 2 videos are good" in capsys.readouterr().out
    assert (tmp_path / "bad.txt").read_text() == ""
    (tmp_path / "v" / "b" / "img_00002.jpg").unlink()
    assert manifest.main([*arguments, f"--manifest={tmp_path / 'train.txt'}"]) == exits.USAGE
    assert (tmp_path / "bad.txt").read_text().startswith("b\tunreadable: ")
