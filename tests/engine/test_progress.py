import io

import torch
from rich.console import Console

from boxcycle.engine.progress import TrainingProgress, memory_gb


def progress(terminal: bool, shown: bool = True) -> tuple[TrainingProgress, io.StringIO]:
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=150, quiet=not shown)
    return TrainingProgress(100, 0, shown=shown, console=console), output


def test_plain_lines_where_there_is_no_terminal():
    shown, output = progress(terminal=False)
    shown.start()
    for step in range(1, 51):
        shown.advance(step)
    shown.show(50, {"loss": 0.123456, "loss_box": 0.1})
    shown.close()
    assert output.getvalue().startswith("step 50/100, 0:00 left: loss 0.1235  loss_box 0.1\n")
    assert len(output.getvalue().splitlines()) == 1


def test_a_bar_in_a_terminal_with_loss_speed_and_memory():
    shown, output = progress(terminal=True)
    shown.start()
    shown.show(50, {"loss": 0.5, "loss_box": 0.1, "images_per_second": 12.0, "memory_gb": 1.5})
    shown.advance(50)
    with shown.paused():
        shown.say("evaluating [1/2]")
    shown.close()
    text = output.getvalue()
    assert "50/100" in text
    assert "loss 0.5" in text
    assert "loss_box 0.1" in text
    assert "images_per_second 12" in text
    assert "memory_gb 1.5" in text
    assert "evaluating [1/2]" in text


def test_the_bar_is_not_redrawn_at_every_step():
    shown, output = progress(terminal=True)
    shown.start()
    before = len(output.getvalue())
    for step in range(1, 100):
        shown.advance(step)
    assert len(output.getvalue()) < before + 1000
    shown.close()


def test_other_processes_show_nothing():
    for terminal in (False, True):
        shown, output = progress(terminal, shown=False)
        shown.start()
        shown.show(1, {"loss": 1.0})
        shown.say("hello")
        shown.close()
        assert output.getvalue() == ""


def test_memory_of_this_process():
    assert 0.05 < memory_gb(torch.device("cpu")) < 100
