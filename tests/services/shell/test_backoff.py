"""Pauses between looks."""

from procd.services.shell.backoff import FIRST_S, LAST_S, SHARE, Pauses


def test_each_is_twice_as_long_as_the_one_before() -> None:
    """Up to the last."""
    pauses = Pauses(1.0)
    told = [pauses.after(0) for _ in range(20)]
    assert told[:3] == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S]
    assert told == sorted(told)
    assert told[-2:] == [LAST_S, LAST_S]


def test_a_long_look_has_a_long_pause() -> None:
    """After it alone."""
    pauses = Pauses(1.0)
    assert pauses.after(LAST_S) == SHARE * LAST_S
    assert pauses.after(0) == LAST_S
