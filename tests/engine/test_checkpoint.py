import os
import pickle
import signal
import warnings
from pathlib import Path

import pytest
import torch
from trainee import save_and_be_killed

from boxcycle.engine.checkpoint import load_resume, load_weights, save_resume, save_weights, write_atomically


class Trap:
    """Unpickling this leaves a file behind: the proof that code ran."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_weights_and_metadata_come_back(tmp_path):
    state = {"a": torch.randn(3, 4).t(), "n": torch.tensor(7), "half": torch.ones(2, dtype=torch.bfloat16)}
    save_weights(tmp_path / "w.safetensors", state, {"classes": '["cat", "Hündin"]'})
    loaded = load_weights(tmp_path / "w.safetensors")
    assert loaded.metadata == {"classes": '["cat", "Hündin"]'}
    assert loaded.tensors.keys() == state.keys()
    assert all(
        torch.equal(loaded.tensors[name], value) and loaded.tensors[name].dtype == value.dtype
        for name, value in state.items()
    )


def test_weights_that_share_memory_are_each_written(tmp_path):
    shared = torch.randn(3)
    save_weights(tmp_path / "w.safetensors", {"a": shared, "b": shared}, {})
    assert torch.equal(load_weights(tmp_path / "w.safetensors").tensors["b"], shared)


@pytest.mark.parametrize("write", [torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing))])
def test_a_pickle_where_weights_are_expected_is_refused_and_not_executed(tmp_path, write):
    trap, path = tmp_path / "sprung", tmp_path / "w.safetensors"
    write({"weight": Trap(trap)}, path)
    with pytest.raises(ValueError, match=r"is not a safetensors file: it is a file of torch\.save"):
        load_weights(path)
    assert not trap.exists()


@pytest.mark.parametrize("content", [b"", b"12345678901234567890", b"\x00" * 100])
def test_a_damaged_weights_file_is_named(tmp_path, content):
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"w\.safetensors is not a safetensors file: it is damaged or of another kind"):
        load_weights(tmp_path / "w.safetensors")


def test_a_missing_weights_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no weights at .*w\.safetensors"):
        load_weights(tmp_path / "w.safetensors")


def test_resume_round_trip_and_none_without_a_file(tmp_path):
    assert load_resume(tmp_path) is None
    save_resume(tmp_path, {"step": 3, "best": None, "weights": torch.arange(5.0)})
    loaded = load_resume(tmp_path)
    assert (loaded["step"], loaded["best"], loaded["weights"].tolist()) == (3, None, [0, 1, 2, 3, 4])


def flip(path: Path) -> None:
    """Change one byte of a tensor: torch.load itself does not notice."""
    content = bytearray(path.read_bytes())
    content[content.find(torch.arange(5.0).numpy().tobytes()) + 6] ^= 0x10
    path.write_bytes(content)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


@pytest.mark.parametrize("damage", [flip, cut, empty])
def test_a_damaged_resume_file_falls_back_to_the_one_before(tmp_path, damage):
    save_resume(tmp_path, {"step": 3, "weights": torch.arange(5.0)})
    save_resume(tmp_path, {"step": 6, "weights": torch.arange(5.0)})
    damage(tmp_path / "resume.pt")
    with pytest.warns(UserWarning, match=r"resume\.pt is damaged .*going on from the checkpoint before it"):
        assert load_resume(tmp_path)["step"] == 3
    save_resume(tmp_path, {"step": 4})  # the damaged file may not become the one before
    damage(tmp_path / "resume.pt") if damage is not flip else empty(tmp_path / "resume.pt")
    with pytest.warns(UserWarning, match="is damaged"):
        assert load_resume(tmp_path)["step"] == 3


@pytest.mark.parametrize("damage", [flip, cut, empty])
def test_a_damaged_resume_file_without_another_is_one_sentence(tmp_path, damage):
    save_resume(tmp_path, {"step": 3, "weights": torch.arange(5.0)})
    damage(tmp_path / "resume.pt")
    with pytest.raises(ValueError, match=r"resume\.pt is damaged .*, and no earlier checkpoint is left"):
        load_resume(tmp_path)


def test_a_resume_file_with_code_is_refused_and_not_executed(tmp_path):
    trap = tmp_path / "sprung"
    torch.save({"step": Trap(trap)}, tmp_path / "resume.pt")
    with pytest.raises(ValueError, match="holds more than tensors, numbers and texts"):
        load_resume(tmp_path)
    assert not trap.exists()


def test_a_failing_write_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, lambda beside: beside.write_text("old"))

    def fail(beside: Path) -> None:
        beside.write_text("half of the n")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        write_atomically(path, fail)
    assert path.read_text() == "old"


@pytest.fixture
def full_disk():
    """No file can grow beyond 50 kB, as far as this process is concerned."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("w.safetensors", lambda folder, tensor: save_weights(folder / "w.safetensors", {"a": tensor}, {})),
        ("resume.pt", lambda folder, tensor: save_resume(folder, {"a": tensor})),
    ],
)
def test_a_full_disk_is_said_and_spares_the_file_before(tmp_path, name, save, full_disk):
    save(tmp_path, torch.zeros(10))
    before = (tmp_path / name).read_bytes()
    with pytest.raises(OSError, match=f"{name} cannot be written; is the disk full"):
        save(tmp_path, torch.zeros(100_000))
    assert (tmp_path / name).read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_kill_between_the_two_renames_of_a_save_leaves_the_one_before(tmp_path):
    save_resume(tmp_path, {"step": 3})
    os.replace(tmp_path / "resume.pt", tmp_path / "resume.previous.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_resume(tmp_path)["step"] == 3


@pytest.mark.parametrize(("moment", "step"), [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2)])
def test_killed_at_any_moment_of_a_save(processes, tmp_path, moment, step):
    """Before the new file is on the disk, before each of the two renames, before the folder is; and not at all."""
    save_resume(tmp_path, {"step": 0})
    save_resume(tmp_path, {"step": 1})
    process = processes.Process(target=save_and_be_killed, args=(tmp_path, moment))
    process.start()
    process.join(60)
    assert process.exitcode == (-signal.SIGKILL if moment < 4 else 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_resume(tmp_path)["step"] == step
    save_resume(tmp_path, {"step": 3})
    assert load_resume(tmp_path)["step"] == 3
    assert {file.name for file in tmp_path.iterdir()} == {"resume.pt", "resume.previous.pt"}
