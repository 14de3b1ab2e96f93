"""The streams: order, randomness and damage, for any number of processes, threads, workers and chunks."""

import hashlib
import itertools
import multiprocessing
import threading
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from ml_collections import ConfigDict

from amd_jax.data import clips, pipeline, transforms
from amd_jax.data.example import Example, Source
from amd_jax.data.order import Share, shuffled_index
from amd_jax.data.sources import make_source
from amd_jax.data.views import TrainViews
from amd_jax.errors import ConfigError, DataError, UserError
from tests.data.conftest import Numbers, make_config

Batch = dict[str, np.ndarray]


def read(
    config: ConfigDict, source: Source, steps: int, start: int = 0, process: int = 0, processes: int = 1
) -> list[Batch]:
    with pipeline.train_stream(
        config, source, start_step=start, process_index=process, process_count=processes
    ) as stream:
        return list(itertools.islice(stream, steps))


def labels(batches: list[Batch]) -> list[int]:
    return np.concatenate([batch["label"] for batch in batches]).tolist()


def assert_equal(left: list[Batch], right: list[Batch]) -> None:
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert set(a) == set(b)
        for key in a:
            assert np.array_equal(a[key], b[key]), key


@pytest.fixture(params=[1, 4, 64])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of one example, of some of a batch, and of all of it."""
    monkeypatch.setattr(pipeline, "_CHUNK_EXAMPLES", request.param)


def digest(batches: Iterator[Batch] | list[Batch]) -> str:
    found = hashlib.sha256()
    for batch in batches:
        for name in ("pixels", "label", "mask"):
            if name in batch:
                found.update(f"{batch[name].dtype} {batch[name].shape}".encode() + batch[name].tobytes())
    return found.hexdigest()[:16]


EVERYTHING = {"data.repeats": 2, "data.randaugment": "rand-m9-mstd0.5-inc1", "data.erasing": 0.5}
GREY = {"data.channels": 1, "data.mean": (0.4,), "data.std": (0.2,)}
RECORDED = {  # a change here changes what a resumed run sees: say so in the release notes
    "train": ({}, "a9707d48883207bc"),
    "everything": (EVERYTHING, "ff83554740b8656c"),
    "grey": (EVERYTHING | GREY, "65c9269f1f92d0cd"),
    "later, second of two": (EVERYTHING, "c350d5f84fb55a3e"),
    "evaluation": (GREY, "8d90ce82ae0d2afd"),
}


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("case", RECORDED)
def test_batches_are_those_recorded(case: str):
    keys, expected = RECORDED[case]
    config, source = make_config(**keys), Numbers(17, bad=(3, 4, 11))
    if case == "evaluation":
        batches = evaluate(config, source, 6, 2)[1]
    elif case.startswith("later"):
        batches = read(config, source, 3, start=1000, process=1, processes=2)
    else:
        batches = read(config, source, 4)
    assert digest(batches) == expected


def test_shapes_and_types():
    for batch in read(make_config(**{"data.repeats": 2}), Numbers(10), 2):
        assert set(batch) == {"pixels", "label"}
        assert batch["pixels"].shape == (12, 1, 8, 8, 3)
        assert batch["pixels"].dtype == np.uint8
        assert batch["label"].shape == (12,)
        assert batch["label"].dtype == np.int32
        assert all(array.flags.c_contiguous for array in batch.values())


@pytest.mark.parametrize("length", [1, 5, 6, 10, 17])
def test_every_epoch_shows_every_example_once_in_a_new_order(length: int):
    shown = labels(read(make_config(), Numbers(length), 12))
    epochs = [shown[i : i + length] for i in range(0, len(shown) - length + 1, length)]
    assert all(sorted(epoch) == list(range(length)) for epoch in epochs)
    if length > 5:
        assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


def test_the_seed_decides():
    first = read(make_config(), Numbers(40), 3)
    assert_equal(first, read(make_config(), Numbers(40), 3))
    assert labels(first) != labels(read(make_config(seed=6), Numbers(40), 3))


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_the_same_global_batch(processes: int):
    whole = read(make_config(), Numbers(10), 4)
    parts = [read(make_config(), Numbers(10), 4, 0, p, processes) for p in range(processes)]
    joined = [
        {key: np.concatenate([part[key] for part in step]) for key in step[0]}
        for step in zip(*parts, strict=True)
    ]
    assert_equal(whole, joined)


def test_threads_change_nothing():
    config = {"data.repeats": 2}
    assert_equal(
        read(make_config(**config, **{"data.threads": 1}), Numbers(10), 6),
        read(make_config(**config, **{"data.threads": 4, "data.prefetch": 7}), Numbers(10), 6),
    )


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("start", [1, 7, 1_000_000])
def test_a_later_start_is_the_tail(start: int):
    from_zero = min(start, 7)
    whole = read(make_config(), Numbers(10), from_zero + 3)
    tail = read(make_config(), Numbers(10), 3, start)
    if start == from_zero:
        assert_equal(whole[start:], tail)
    else:  # a position nobody would replay up to
        index = [shuffled_index(5, start * 6 + row, 10)[1] for row in range(18)]
        assert labels(tail) == index


def test_worker_processes_change_nothing(monkeypatch: pytest.MonkeyPatch):
    whole = read(make_config(), make_source(make_config().data, "train"), 6)
    monkeypatch.setattr(pipeline, "_CHUNK_EXAMPLES", 2)  # three elements a batch, for two workers in turn
    workers = make_config(**{"data.workers": 2})
    tail = read(workers, make_source(workers.data, "train"), 4, start=2)
    assert_equal(whole[2:], tail)
    assert {type(array) for batch in tail for array in batch.values()} == {np.ndarray}
    assert multiprocessing.active_children() == []


def test_a_closed_stream_is_at_its_end():
    stream = pipeline.train_stream(make_config(), Numbers(9), start_step=0, process_index=0, process_count=1)
    stream.close()
    stream.close()
    assert list(stream) == []


def test_threads_end_when_a_stream_is_closed():
    before = set(threading.enumerate())
    read(make_config(), Numbers(9), 3)
    list(evaluate(make_config(), Numbers(9), 3, 1))
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=30)
        assert not thread.is_alive()


def test_several_threads_make_one_batch(monkeypatch: pytest.MonkeyPatch):
    """A thread that reads waits for another one: a batch made by a single thread would never come."""
    monkeypatch.setattr(pipeline, "_CHUNK_EXAMPLES", 1)
    together = threading.Barrier(2, timeout=30)

    class Slow(Numbers):
        def __getitem__(self, index: int) -> Example:
            together.wait()
            return super().__getitem__(index)

    config = make_config(**{"batch_size": 2, "data.prefetch": 1})
    stream = pipeline.train_stream(config, Slow(9), start_step=0, process_index=0, process_count=1)
    try:
        assert len(next(stream)["label"]) == 2
    finally:
        together.abort()  # whatever reads ahead need not wait any more
        stream.close()


def test_no_more_is_read_ahead_than_asked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pipeline, "_CHUNK_EXAMPLES", 2)
    shown: list[int] = []

    class Counted(Numbers):
        def __getitem__(self, index: int) -> Example:
            shown.append(index)
            return super().__getitem__(index)

    read(make_config(**{"data.prefetch": 2}), Counted(9), 5)
    assert 5 * 6 <= len(shown) <= (5 + 2) * 6


def test_memory_does_not_grow_from_batch_to_batch(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pipeline, "_CHUNK_EXAMPLES", 1)
    config = make_config(**{"batch_size": 2, "data.image_size": 64})
    with pipeline.train_stream(config, Numbers(9), start_step=0, process_index=0, process_count=1) as stream:
        for _ in range(20):
            next(stream)
        tracemalloc.start()
        for _ in range(10):
            batch = next(stream)
        early = tracemalloc.get_traced_memory()[0]
        for _ in range(100):
            batch = next(stream)
        late = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
    assert late - early < 5 * batch["pixels"].nbytes  # what lies ready varies, by at most what is read ahead


@pytest.mark.parametrize(
    ("size", "repeats", "batch", "prefetch", "most_bytes"),
    [(28, 1, 64, 4, 2**21), (28, 1, 4096, 4, 2**21), (224, 1, 512, 2, 2**21), (2240, 2, 512, 1, 2**26)],
)
def test_an_element_is_a_few_examples(size: int, repeats: int, batch: int, prefetch: int, most_bytes: int):
    config = make_config(**{"data.image_size": size, "data.repeats": repeats})
    views, share = TrainViews.from_config(config.data), Share(batch, 0, 1)
    examples = pipeline._chunk_size(views, share, prefetch)
    assert 1 <= examples <= 64
    assert examples * np.prod(views.shape) <= most_bytes
    assert prefetch * -(-batch // examples) <= 256  # elements ahead


def test_step_counts_batches():
    with pipeline.train_stream(
        make_config(), Numbers(9), start_step=4, process_index=0, process_count=1
    ) as stream:
        assert stream.step == 4
        next(stream)
        assert stream.step == 5


def test_repeats_are_adjacent_and_differ():
    once = read(make_config(), Numbers(10), 3)
    twice = read(make_config(**{"data.repeats": 2}), Numbers(10), 3)
    for single, double in zip(once, twice, strict=True):
        assert np.array_equal(double["label"][0::2], single["label"])
        assert np.array_equal(double["label"][1::2], single["label"])
        assert np.array_equal(double["pixels"][0::2], single["pixels"])
        different = (double["pixels"][0::2] != double["pixels"][1::2]).any(axis=(1, 2, 3, 4))
        assert different.all()


def test_augmentation_is_new_in_each_epoch_and_as_defined():
    config = make_config(batch_size=2)
    first, second = read(config, Numbers(2), 2)
    order = np.argsort(first["label"]), np.argsort(second["label"])
    assert (first["pixels"][order[0]] != second["pixels"][order[1]]).any()
    rng = np.random.default_rng((5, 1, int(second["label"][0]), 0))
    expected = transforms.random_resized_crop(
        Numbers(2)[int(second["label"][0])].content, 8, (0.2, 1.0), (3 / 4, 4 / 3), rng
    )
    assert np.array_equal(second["pixels"][0, 0], transforms.random_flip(expected, rng))


def test_flip_can_be_off():
    config = make_config(**{"data.flip": False, "data.crop_scale": (1.0, 1.0)})
    rng = np.random.default_rng((5, 0, labels(read(config, Numbers(10), 1))[0], 0))
    batch = read(config, Numbers(10), 1)[0]
    image = Numbers(10)[int(batch["label"][0])].content
    expected = transforms.random_resized_crop(image, 8, (1.0, 1.0), (3 / 4, 4 / 3), rng)
    assert np.array_equal(batch["pixels"][0, 0], expected)


def test_batch_size_must_split():
    with pytest.raises(ConfigError, match="batch_size=6"):
        pipeline.train_stream(make_config(), Numbers(9), start_step=0, process_index=0, process_count=4)
    with pytest.raises(ConfigError, match="seed=-1"):
        pipeline.train_stream(
            make_config(seed=-1), Numbers(9), start_step=0, process_index=0, process_count=1
        )


def test_damaged_files_are_replaced_counted_and_named_once(damaged: ConfigDict, caplog):
    source = make_source(damaged.data, "train")
    with pipeline.train_stream(damaged, source, start_step=0, process_index=0, process_count=1) as stream:
        batches = list(itertools.islice(stream, 4))
        assert stream.skipped == 3
    messages = [record.getMessage() for record in caplog.records]
    for name in ("a/04.jpg", "a/06.jpg", "b/01.jpg"):
        assert sum(name in message for message in messages) == 1
    # Each damaged example is shown as its next readable neighbour: a/04 and a/06 as a/08, b/01 as b/03.
    assert all(np.bincount(batch["label"]).tolist() == [6, 6] for batch in batches)
    assert_equal(batches[2:], read(damaged, source, 2, start=2))


@pytest.mark.parametrize("workers", [0, 2])
def test_too_much_damage_stops_the_run(damaged: ConfigDict, workers: int):
    damaged.data.update({"max_corrupt": 2, "workers": workers})
    source = make_source(damaged.data, "train")
    with pytest.raises(UserError) as error:
        read(damaged, source, 1)
    assert "3 unreadable" in str(error.value)
    assert "data.max_corrupt=2" in str(error.value)
    assert ".jpg" in str(error.value)
    assert "\n" not in str(error.value)


def test_replacement_wraps_around_and_gives_up_after_fifty():
    config = make_config(batch_size=60)
    batch = read(config, Numbers(60, bad=tuple(range(20, 60))), 1)[0]
    assert sorted(batch["label"].tolist()) == sorted([*range(20), *([0] * 40)])
    with pytest.raises(DataError, match="50 unreadable examples in a row, from number"):
        read(config, Numbers(60, bad=tuple(range(55))), 1)


def test_after_an_error_there_are_no_batches(damaged: ConfigDict):
    damaged.data.max_corrupt = 2
    source = make_source(damaged.data, "train")
    with pipeline.train_stream(damaged, source, start_step=0, process_index=0, process_count=1) as stream:
        with pytest.raises(DataError, match="3 unreadable"):
            next(stream)
        assert list(stream) == []  # the next one would begin in the middle of a batch


def test_an_error_in_a_worker_process_keeps_its_type():
    config = make_config(**{"data.workers": 1})
    with pytest.raises(DataError, match="in a row"):
        read(config, Numbers(60, bad=tuple(range(60))), 1)


def evaluate(
    config: ConfigDict, source: Source, batch_size: int, processes: int, crops: int = 1
) -> list[list[Batch]]:
    def part(process: int) -> Iterator[Batch]:
        return pipeline.eval_batches(
            config,
            source,
            batch_size=batch_size,
            process_index=process,
            process_count=processes,
            crops=crops,
        )

    return [list(part(process)) for process in range(processes)]


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize("length", [1, 6, 13, 18])
def test_eval_shows_every_example_once(processes: int, length: int):
    parts = evaluate(make_config(), Numbers(length), 6, processes)
    batches = [batch for part in parts for batch in part]
    assert {len(part) for part in parts} == {-(-length // 6)}
    assert {batch["pixels"].shape for batch in batches} == {(6 // processes, 1, 8, 8, 3)}
    assert all(batch["mask"].dtype == np.float32 for batch in batches)
    shown = [int(x) for batch in batches for x in batch["label"][batch["mask"] == 1]]
    assert sorted(shown) == list(range(length))
    for batch in batches:
        for row in np.flatnonzero(batch["mask"]):
            image = Numbers(length)[int(batch["label"][row])].content
            assert np.array_equal(batch["pixels"][row, 0], transforms.resize_center_crop(image, 8))


def test_eval_masks_damaged_images(damaged: ConfigDict, caplog):
    source = make_source(damaged.data, "eval")
    batches = evaluate(damaged, source, 6, 1)[0]
    assert sum(batch["mask"].sum() for batch in batches) == 9
    assert any("3 examples were left out" in record.getMessage() for record in caplog.records)
    damaged.data.max_corrupt = 1
    with pytest.raises(DataError, match=r"data\.max_corrupt=1"):
        evaluate(damaged, source, 6, 1)


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("processes", [1, 3])
def test_eval_rows_name_their_example(processes: int):
    batches = [
        batch for part in evaluate(make_config(), Numbers(13, bad=(5,)), 6, processes) for batch in part
    ]
    examples = np.concatenate([batch["example"] for batch in batches])
    assert examples.dtype == np.int32
    assert sorted(examples) == [-1] * 5 + list(range(13))  # padding, and each once
    for batch in batches:
        assert np.array_equal(batch["mask"], (batch["example"] >= 0) & (batch["example"] != 5))
        assert np.array_equal(batch["label"], np.where(batch["mask"] > 0, batch["example"], 0))


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("processes", [1, 2])
def test_several_views_of_an_example_are_rows_side_by_side(processes: int):
    """Three crops of images that are 20 × 24: at 8 pixels a side the left, the middle and the right."""
    once = [batch for part in evaluate(make_config(), Numbers(7), 6, processes) for batch in part]
    thrice = [batch for part in evaluate(make_config(), Numbers(7), 6, processes, crops=3) for batch in part]
    for one, three in zip(once, thrice, strict=True):
        for name in ("label", "example", "mask"):
            assert np.array_equal(three[name], np.repeat(one[name], 3))
        for row in np.flatnonzero(one["mask"]):
            image = Numbers(7)[int(one["example"][row])].content
            crops = clips.crops_along(image[None], 8, 3)
            assert np.array_equal(three["pixels"][3 * row : 3 * row + 3], crops)
            assert len({crop.tobytes() for crop in crops}) > 1


def test_eval_batch_size_must_split():
    with pytest.raises(ConfigError, match="evaluation batch size=7"):
        pipeline.eval_batches(make_config(), Numbers(9), batch_size=7, process_index=0, process_count=2)
