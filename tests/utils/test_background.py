import threading

import pytest

from wpl_d2.utils.background import in_background


def test_items_are_made_in_their_order_no_farther_ahead_than_asked():
    made = []

    def items():
        for number in range(20):
            made.append(threading.current_thread().name)
            yield number

    taken = []
    for number in in_background(items(), ahead=3):
        taken.append(number)
        # The one in use, three that wait for it.
        assert len(made) <= len(taken) + 3
    assert taken == list(range(20))
    assert threading.current_thread().name not in made


def test_an_error_is_raised_in_the_place_of_its_item():
    def items():
        yield 1
        yield 2
        raise OSError("broken")

    running = in_background(items(), ahead=2)
    assert [next(running), next(running)] == [1, 2]
    with pytest.raises(OSError, match="broken"):
        next(running)


def test_leaving_early_ends_the_thread():
    before = threading.active_count()
    running = in_background(iter(int, 1), ahead=2)
    assert next(running) == 0
    running.close()
    assert threading.active_count() == before
