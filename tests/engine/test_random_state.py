# ruff: noqa: NPY002 - the global generators are what is tested
import io
import random

import numpy as np
import torch

from boxcycle.engine.random_state import kept_random_state, random_state, set_random_state


def draws() -> tuple:
    return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(2).tolist()


def test_states_survive_a_file_that_holds_no_code():
    random.gauss(0, 1)  # leaves a second number waiting, as np.random.randn does
    np.random.randn()
    file = io.BytesIO()
    torch.save(random_state(), file)
    wanted = draws()
    draws()
    file.seek(0)
    set_random_state(torch.load(file, weights_only=True))
    assert draws() == wanted


def test_a_block_that_draws_shifts_nothing():
    state = random_state()
    wanted = draws()
    set_random_state(state)
    with kept_random_state():
        draws()
    assert draws() == wanted
