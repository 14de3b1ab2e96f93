"""Which example stands at which position, and whose it is."""

import pytest

from amd_jax.data.order import Share, shuffled_index


def test_order_is_pinned():
    """A change here changes what a resumed run sees: say so in the release notes."""
    order = [shuffled_index(0, position, 10) for position in range(20)]
    assert [epoch for epoch, _ in order] == [0] * 10 + [1] * 10
    assert [index for _, index in order[:10]] == [5, 8, 9, 7, 4, 2, 1, 0, 3, 6]


@pytest.mark.parametrize("length", [1, 2, 7, 100])
def test_every_epoch_is_a_permutation(length: int):
    for epoch in (0, 1, 9):
        order = [shuffled_index(3, epoch * length + offset, length) for offset in range(length)]
        assert {e for e, _ in order} == {epoch}
        assert sorted(index for _, index in order) == list(range(length))


@pytest.mark.parametrize("processes", [1, 2, 3, 6])
def test_the_shares_of_all_processes_are_the_batch_in_order(processes: int):
    shares = [Share(6, p, processes) for p in range(processes)]
    for step in (0, 1, 10**9):
        positions = [position for share in shares for position in share.positions(step)]
        assert positions == list(range(6 * step, 6 * step + 6))
    assert {share.size for share in shares} == {6 // processes}
