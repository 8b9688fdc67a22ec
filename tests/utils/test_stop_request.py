"""Which signal is noted, which is the same request again, and which acts."""

import multiprocessing
import signal

import pytest

from wpl_d2.utils import signals
from wpl_d2.utils.signals import STOP_SIGNALS, StopRequest, signal_handlers


@pytest.fixture
def clock(monkeypatch):
    """Seconds, to be set; and what came to the handlers that were there before."""
    now, came = [100.0], []
    monkeypatch.setattr(signals.time, "monotonic", lambda: now[0])
    with signal_handlers(lambda signum, frame: came.append(signum)):
        yield now, came


@pytest.mark.parametrize("signum", STOP_SIGNALS)
def test_the_first_is_noted_and_a_later_one_acts(clock, signum):
    now, came = clock
    with StopRequest() as stop:
        assert stop.signum == 0
        signal.raise_signal(signum)
        assert (stop.signum, came) == (signum, [])
        for other in STOP_SIGNALS:  # a launcher's, a moment later
            now[0] += 2
            signal.raise_signal(other)
        assert (stop.signum, came) == (signum, [])
        now[0] += 2
        signal.raise_signal(signum)
        assert came == [signum]
    signal.raise_signal(signum)
    assert came == [signum, signum]


@pytest.mark.parametrize("launcher", ["torchrun", "own"])
def test_a_late_one_does_not_act_where_a_launcher_forwards_it(clock, monkeypatch, launcher):
    if launcher == "own":
        monkeypatch.setattr(multiprocessing, "parent_process", lambda: object())
    else:
        monkeypatch.setenv(signals.IN_TORCHRUN, "1")
    now, came = clock
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        now[0] += 60
        signal.raise_signal(signal.SIGTERM)
    assert (stop.signum, came) == (signal.SIGINT, [])


def test_what_was_noted_acts_before_work_that_can_be_lost(clock):
    _, came = clock
    with StopRequest() as stop:
        with stop.suspended():
            signal.raise_signal(signal.SIGTERM)
        assert (stop.signum, came) == (0, [signal.SIGTERM])
        signal.raise_signal(signal.SIGINT)
        with stop.suspended():
            assert came == [signal.SIGTERM, signal.SIGINT]


def test_signals_wait_while_they_are_blocked(clock):
    _, came = clock
    with signals.blocked_signals():
        signal.raise_signal(signal.SIGTERM)
        assert came == []
    assert came == [signal.SIGTERM]
