"""Windows: how many, who takes turns with whom, and what their times say."""

import pytest

from amd_jax.measuring.windows import FEWEST, SECONDS, WINDOWS, Schedule, Spread, in_turn, timed


@pytest.mark.parametrize(
    ("steps", "one", "expected"),
    [
        (6, 0.0, (6, 1)),
        (100, 0.0, (WINDOWS, 5)),
        (0, 0.01, (WINDOWS, round(SECONDS / 0.01) // WINDOWS)),
        (0, 60.0, (FEWEST, 1)),
    ],
)
def test_a_schedule_fills_the_time_with_a_few_windows(
    steps: int, one: float, expected: tuple[int, int]
) -> None:
    assert Schedule.of(steps, one) == Schedule(*expected)


def test_a_spread_is_of_all_windows() -> None:
    times = iter([4.0, 2.0, 6.0, 8.0, 10.0])
    assert timed(lambda steps: next(times), Schedule(5, 2)) == Spread(3.0, 2.0, 4.0, 1.0, 5.0, 5)


def test_two_programs_change_places_so_that_a_machine_that_slows_down_favours_neither() -> None:
    order = []
    clock = iter(range(1, 100))

    def window(name: str, seconds: float) -> float:
        order.append(name)
        return seconds * next(clock)

    one, other, ratio = in_turn(lambda _: window("a", 1.0), lambda _: window("b", 3.0), Schedule(2, 1))
    assert "".join(order) == "abba"
    assert (one.most, other.most) == (4.0, 9.0)
    assert (ratio.least, ratio.most) == (9 / 4, 6.0)
