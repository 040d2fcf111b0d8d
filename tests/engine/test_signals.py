import os
import signal
import threading

import pytest

from boxcycle.engine.signals import EvaluationStopped, Interrupted, StopSignals


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_nothing_is_torn(signum, capfd):
    before = signal.getsignal(signum)
    with StopSignals() as signals:
        assert signals.requested == 0
        os.kill(os.getpid(), signum)
        assert signals.requested == signum
    assert signal.getsignal(signum) is before
    assert "stopping after this step" in capfd.readouterr().err


def test_a_second_ctrl_c_stops_at_once():
    with StopSignals():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_an_evaluation_is_cut_short():
    with StopSignals() as signals:
        with pytest.raises(EvaluationStopped), signals.evaluating():
            os.kill(os.getpid(), signal.SIGTERM)
        assert signals.requested == signal.SIGTERM
        with signals.evaluating():  # a second SIGTERM waits as the first did
            pass


def test_exit_codes_are_those_that_a_shell_expects(tmp_path):
    assert Interrupted(signal.SIGINT, 5, tmp_path).exit_code == 130
    assert Interrupted(signal.SIGTERM, 5, tmp_path).exit_code == 143
    assert "resume=true" in str(Interrupted(signal.SIGTERM, 5, tmp_path))


def test_an_interrupt_is_not_an_exception_that_a_series_of_runs_swallows():
    assert not issubclass(Interrupted, Exception)


def test_outside_the_main_thread_handlers_stay_as_they_are():
    def enter() -> None:
        with StopSignals():
            seen.append(signal.getsignal(signal.SIGINT))

    seen: list = []
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]


def test_a_forked_worker_leaves_the_signal_to_its_parent():
    with StopSignals() as signals:
        signals._process += 1  # as if this process were a child of the one that entered
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.requested == 0
