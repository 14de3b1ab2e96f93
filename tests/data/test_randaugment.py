"""RandAugment and random erasing against their definitions: Pillow's operations and timm's ranges."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats

from amd_jax.config import IMAGENET_MEAN, IMAGENET_STD
from amd_jax.data import randaugment
from amd_jax.data.policy import GREY, Policy, mean_fill, parse
from amd_jax.data.randaugment import Operation, draw, rand_augment, random_erasing
from amd_jax.errors import ConfigError

FILL = (124, 116, 104)

# Magnitudes 7 and 9 are those of the video and image recipes, 10 is the end of the range. By hand, from the
# ranges: 30 degrees, slope 0.3, 0.45 of the size, 110 added, 1 ± 0.9; bits and thresholds are cut to int.
ARGUMENTS = {
    "Rotate": {7: 21.0, 9: 27.0, 10: 30.0},
    "ShearX": {7: 0.21, 9: 0.27, 10: 0.3},
    "ShearY": {7: 0.21, 9: 0.27, 10: 0.3},
    "TranslateXRel": {7: 0.315, 9: 0.405, 10: 0.45},
    "TranslateYRel": {7: 0.315, 9: 0.405, 10: 0.45},
    "SolarizeAdd": {7: 77, 9: 99, 10: 110},
}
INCREASING = {
    "Posterize": {7: 2, 9: 1, 10: 0},
    "Solarize": {7: 77, 9: 26, 10: 0},
    "Color": {7: 0.63, 9: 0.81, 10: 0.9},  # from 1
}
PLAIN = {
    "Posterize": {7: 2, 9: 3, 10: 4},
    "Solarize": {7: 179, 9: 230, 10: 256},
    "Color": {7: 1.36, 9: 1.72, 10: 1.9},
}
ENHANCEMENTS = {
    "Color": ImageEnhance.Color,
    "Contrast": ImageEnhance.Contrast,
    "Brightness": ImageEnhance.Brightness,
    "Sharpness": ImageEnhance.Sharpness,
}
SIGNED = {"Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"}
ALL = {"AutoContrast", "Equalize", "Invert", "Posterize", "Solarize", "SolarizeAdd", *ENHANCEMENTS, *SIGNED}


def picture(*shape: int, seed: int = 0) -> np.ndarray:
    """Waves and a little noise, of low contrast: every operation changes it."""
    grids = np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing="ij")
    wave = sum(np.sin((3 + i + seed) * g + i) for i, g in enumerate(grids)) / len(shape)
    return (120 + 60 * wave + np.random.default_rng(seed).normal(0, 5, shape)).astype(np.uint8)


def always(magnitude: float, increasing: bool = True) -> Policy:
    """Every operation many times, at one magnitude."""
    return Policy(magnitude=magnitude, layers=600, probability=1.0, increasing=increasing)


def arguments(policy: Policy) -> dict[str, list[float]]:
    """The different arguments of each operation, ascending."""
    found: dict[str, set[float]] = {}
    for operation in draw(policy, np.random.default_rng(0)):
        found.setdefault(operation.name, set()).add(operation.argument)
    return {name: sorted(values) for name, values in found.items()}


def test_parse_reads_the_recipes():
    image = parse("rand-m9-mstd0.5-inc1", fill=FILL)
    assert image == Policy(magnitude=9, layers=2, magnitude_std=0.5, increasing=True, fill=FILL)
    video = parse("rand-m7-n4-mstd0.5-inc1")
    assert video == Policy(magnitude=7, layers=4, magnitude_std=0.5, increasing=True, fill=GREY)
    assert parse("rand") == Policy()
    other = parse("rand-inc0-p0.3-mmax12-mstd101")
    assert (other.increasing, other.probability, other.magnitude_max) == (False, 0.3, 12)
    assert math.isinf(other.magnitude_std)


@pytest.mark.parametrize("text", ["", "m9", "auto-m9", "rand-", "rand-x3", "rand-m", "rand-m9-m8", "rand-w0"])
def test_parse_refuses_what_it_does_not_know(text: str):
    with pytest.raises(ConfigError, match="RandAugment"):
        parse(text)


def test_mean_fill_is_the_mean_in_bytes():
    assert mean_fill(IMAGENET_MEAN) == FILL
    assert mean_fill((0.0, 1.0)) == (0, 255)


@pytest.mark.parametrize("magnitude", [7, 9, 10])
@pytest.mark.parametrize("increasing", [True, False])
def test_magnitudes_mean_what_they_mean_in_timm(magnitude: int, increasing: bool):
    found = arguments(always(magnitude, increasing))
    assert found.keys() == ALL
    table = {**ARGUMENTS, **(INCREASING if increasing else PLAIN)}
    for name in ENHANCEMENTS:
        table[name] = table["Color"]
    for name, values in table.items():
        value = values[magnitude]
        expected = [value]
        if name in SIGNED:
            expected = [-value, value]
        elif name in ENHANCEMENTS and increasing:
            expected = [1 - value, 1 + value]
        assert found[name] == pytest.approx(expected), name


def test_noise_on_the_magnitude_is_normal_and_clipped():
    policy = Policy(magnitude=9, layers=20_000, probability=1.0, magnitude_std=0.5, increasing=True)
    rotations = [op.argument for op in draw(policy, np.random.default_rng(0)) if op.name == "Rotate"]
    magnitudes = np.abs(rotations) / 3
    assert np.mean(np.sign(rotations)) == pytest.approx(0, abs=0.1)
    assert magnitudes.max() == 10
    assert np.mean(magnitudes == 10) == pytest.approx(stats.norm.sf(2), abs=0.015)
    assert np.median(magnitudes) == pytest.approx(9, abs=0.05)
    assert np.std(magnitudes) == pytest.approx(0.5, abs=0.05)


def test_other_bounds_and_uniform_magnitudes():
    def rotations(policy: Policy) -> np.ndarray:
        drawn = draw(policy, np.random.default_rng(0))
        return np.abs([op.argument for op in drawn if op.name == "Rotate"])

    beyond = Policy(magnitude=20, layers=500, probability=1.0, magnitude_max=15)
    assert set(rotations(beyond)) == {45.0}
    uniform = Policy(magnitude=8, layers=20_000, probability=1.0, magnitude_std=math.inf)
    assert stats.kstest(rotations(uniform), stats.uniform(0, 24).cdf).pvalue > 0.01


def test_operations_are_uniform_with_replacement_and_kept_by_chance():
    policy = parse("rand-m7-n4-mstd0.5-inc1")
    rng = np.random.default_rng(0)
    draws = [draw(policy, rng) for _ in range(3000)]
    kept = np.bincount([len(ops) for ops in draws], minlength=5)
    expected = stats.binom(4, 0.5).pmf(range(5)) * len(draws)
    assert stats.chisquare(kept, expected).pvalue > 0.01
    names = Counter(op.name for ops in draws for op in ops)
    assert names.keys() == ALL
    assert stats.chisquare(list(names.values())).pvalue > 0.01
    assert any(len({op.name for op in ops}) < len(ops) for ops in draws)


def expected_image(image: Image.Image, name: str, argument: float) -> Image.Image:
    """The operation by Pillow, or by its definition on each value."""
    width, height = image.size
    if name in ENHANCEMENTS:
        return ENHANCEMENTS[name](image).enhance(argument)
    simple = {"AutoContrast": ImageOps.autocontrast, "Equalize": ImageOps.equalize, "Invert": ImageOps.invert}
    if name in simple:
        return simple[name](image)
    if name == "Posterize":
        return ImageOps.posterize(image, int(argument)) if argument else Image.new("RGB", image.size)
    if name == "Solarize":
        return ImageOps.solarize(image, int(argument))
    if name == "SolarizeAdd":
        return Image.eval(image, lambda v: min(255, v + int(argument)) if v < 128 else v)
    if name == "Rotate":
        return image.rotate(argument, Image.Resampling.BICUBIC, fillcolor=FILL)
    matrix = {
        "ShearX": (1, argument, 0, 0, 1, 0),
        "ShearY": (1, 0, 0, argument, 1, 0),
        "TranslateXRel": (1, 0, argument * width, 0, 1, 0),
        "TranslateYRel": (1, 0, 0, 0, 1, argument * height),
    }[name]
    bicubic = Image.Resampling.BICUBIC
    return image.transform(image.size, Image.Transform.AFFINE, matrix, bicubic, fillcolor=FILL)


@pytest.mark.parametrize("name", sorted(ALL))
def test_operations_are_those_of_pillow(name: str):
    image = picture(20, 31, 3)
    values = {**ARGUMENTS, **INCREASING}.get(name, {9: 0.19, 10: 1.81})
    for value in values.values():
        for argument in (value, -value) if name in SIGNED else (value,):
            changed = randaugment.apply(image, [Operation(name, argument)], FILL)
            expected = np.asarray(expected_image(Image.fromarray(image), name, argument))
            np.testing.assert_array_equal(changed, expected)
            assert not np.array_equal(changed, image)


def test_translation_is_by_a_share_of_the_size_and_fills_with_the_colour():
    image = picture(10, 20, 3)
    moved = randaugment.apply(image, [Operation("TranslateXRel", 0.2)], FILL)
    np.testing.assert_array_equal(moved[:, :16], image[:, 4:])
    np.testing.assert_array_equal(moved[:, 16:], np.broadcast_to(np.array(FILL, np.uint8), (10, 4, 3)))


def test_operations_follow_one_another():
    image = picture(12, 12, 3)
    first, second = Operation("Solarize", 120), Operation("Rotate", 20.0)
    both = randaugment.apply(image, [first, second], FILL)
    in_turn = randaugment.apply(randaugment.apply(image, [first], FILL), [second], FILL)
    np.testing.assert_array_equal(both, in_turn)
    assert not np.array_equal(both, randaugment.apply(image, [second, first], FILL))


@given(
    seed=st.integers(0, 2**31),
    shape=st.sampled_from([(9, 12, 3), (9, 12, 1), (3, 9, 12, 3), (2, 1, 1, 3)]),
    text=st.sampled_from(["rand-m9-n3-mstd0.5-inc1", "rand-m10-n4-p1", "rand-m0-n2-p1-mstd200-inc1"]),
)
def test_shape_and_type_stay_and_the_generator_decides(seed: int, shape: tuple[int, ...], text: str):
    image = picture(*shape)
    before = image.copy()
    policy = parse(text)
    augmented = rand_augment(image, policy, np.random.default_rng(seed))
    assert augmented.shape == image.shape
    assert augmented.dtype == np.uint8
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(augmented, rand_augment(image, policy, np.random.default_rng(seed)))


@given(seed=st.integers(0, 2**31))
def test_all_frames_get_the_same_operations(seed: int):
    policy = parse("rand-m9-n4-p1-mstd0.5-inc1")
    clip = np.stack([picture(9, 12, 3, seed=i) for i in range(3)])
    together = rand_augment(clip, policy, np.random.default_rng(seed))
    alone = [rand_augment(frame, policy, np.random.default_rng(seed)) for frame in clip]
    np.testing.assert_array_equal(together, alone)


def test_without_operations_the_image_is_the_same():
    image = picture(9, 12, 3)
    for policy in (parse("rand-m9-p0"), parse("rand-m9-n0")):
        assert rand_augment(image, policy, np.random.default_rng(0)) is image


def erased_box(image: np.ndarray, seed: int, probability: float = 1.0) -> tuple[slice, slice] | None:
    """Where erasing wrote (bounds of what changed; noise changes nearly everything)."""
    out = random_erasing(image, probability, np.random.default_rng(seed), IMAGENET_MEAN, IMAGENET_STD)
    changed = (out != image).any(axis=-1)
    changed = changed.reshape(-1, *changed.shape[-2:]).any(axis=0)
    if not changed.any():
        return None
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean() > 0.95
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def test_erased_boxes_have_timms_sizes_and_places():
    image = picture(64, 64, 3)
    boxes = [erased_box(image, seed) for seed in range(400)]
    assert None not in boxes
    heights = np.array([b[0].stop - b[0].start for b in boxes if b])
    widths = np.array([b[1].stop - b[1].start for b in boxes if b])
    shares = heights * widths / 64**2
    assert 0.015 < shares.min() < 0.04
    assert 0.3 < shares.max() < 0.345
    assert shares.mean() == pytest.approx((0.02 + 1 / 3) / 2, abs=0.02)
    ratios = np.log(heights / widths)
    assert ratios.mean() == pytest.approx(0, abs=0.1)
    assert np.abs(ratios).max() == pytest.approx(math.log(1 / 0.3), abs=0.15)
    assert max(heights.max(), widths.max()) < 64
    tops = np.array([b[0].start for b in boxes if b]) / (64 - heights)
    assert (tops.min(), tops.max()) == (0, 1)
    assert tops.mean() == pytest.approx(0.5, abs=0.06)


def test_erasing_happens_with_its_probability_and_copies():
    image = picture(16, 16, 3)
    before = image.copy()
    boxes = [erased_box(image, seed, 0.25) for seed in range(800)]
    assert np.mean([box is not None for box in boxes]) == pytest.approx(0.25, abs=0.04)
    np.testing.assert_array_equal(image, before)
    rng = np.random.default_rng(0)
    assert random_erasing(image, 0.0, rng, IMAGENET_MEAN, IMAGENET_STD) is image


def test_frames_share_the_box_and_not_the_noise():
    clip = np.zeros((4, 32, 32, 3), np.uint8) + 7
    erased = random_erasing(clip, 1.0, np.random.default_rng(1), IMAGENET_MEAN, IMAGENET_STD)
    rows, columns = erased_box(clip, 1) or pytest.fail("nothing erased")
    noise = erased[:, rows, columns]
    assert (noise[0] != noise[1]).mean() > 0.9
    erased[:, rows, columns] = 7
    np.testing.assert_array_equal(erased, clip)


def test_erased_pixels_are_standard_normal_after_normalisation_but_for_clipping():
    image = np.zeros((400, 400, 3), np.uint8)
    out = random_erasing(image, 1.0, np.random.default_rng(0), IMAGENET_MEAN, IMAGENET_STD)
    rows = np.flatnonzero(out.any(axis=(1, 2)))
    columns = np.flatnonzero(out.any(axis=(0, 2)))
    noise = out[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    mean, std = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
    beyond = stats.norm.cdf(-mean / std) + stats.norm.sf((1 - mean) / std)
    np.testing.assert_allclose(beyond, [0.029, 0.028, 0.040], atol=5e-4)
    for c in range(3):
        inside = noise[..., c][(noise[..., c] > 0) & (noise[..., c] < 255)]
        assert 1 - inside.size / noise[..., c].size == pytest.approx(beyond[c], abs=6e-3)
        # A bound that rounds to 0 or 255 is not counted as inside: the normal cut half a step further in.
        low, high = (np.array([0.5, 254.5]) / 255 - mean[c]) / std[c]
        normal = stats.truncnorm(low, high)
        z = (inside / 255 - mean[c]) / std[c]
        assert z.mean() == pytest.approx(normal.mean(), abs=0.02)
        assert z.std() == pytest.approx(normal.std(), abs=0.02)


def test_erasing_gives_up_when_no_box_fits():
    image = picture(1, 300, 3)  # the smallest and flattest box still wants two rows
    rng = np.random.default_rng(0)
    assert random_erasing(image, 1.0, rng, IMAGENET_MEAN, IMAGENET_STD) is image
