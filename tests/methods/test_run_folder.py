"""The folder of a run: who gets it, what is refused, and what is thrown away."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from boxcycle.cli import _sentence
from boxcycle.config import dump_config
from boxcycle.methods.experiment import TrainConfig
from boxcycle.methods.run_folder import check_folder, is_main_process, open_folder, weights_file

MakeConfig = Callable[..., TrainConfig]


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def old_run(config: MakeConfig, folder: str = "old") -> Path:
    """What a run leaves, as far as this file is concerned."""
    (Path(folder) / "checkpoints").mkdir(parents=True)
    (Path(folder) / "config.yaml").write_text(dump_config(config(run=folder)))
    return Path(folder)


def test_runs_without_a_name_are_numbered(configure: MakeConfig) -> None:
    names = [open_folder("supervised", configure()).as_posix() for _ in range(3)]
    assert names == ["runs/supervised/scenes-1", "runs/supervised/scenes-2", "runs/supervised/scenes-3"]


def test_runs_that_start_at_the_same_moment_get_folders_of_their_own(configure: MakeConfig) -> None:
    config = configure()
    with ThreadPoolExecutor(16) as pool:
        folders = list(pool.map(lambda _: open_folder("supervised", config), range(64)))
    assert len(set(folders)) == 64
    assert all(folder.is_dir() for folder in folders)


def test_a_new_or_empty_folder_is_taken(configure: MakeConfig) -> None:
    Path("empty").mkdir()
    for name in ("empty", "deep/new"):
        for wish in ({}, {"resume": True}, {"overwrite": True}):
            assert open_folder("supervised", configure(run=name, **wish)) == Path(name)


def test_a_folder_that_holds_something_is_refused(configure: MakeConfig) -> None:
    old_run(configure)
    with pytest.raises(ValueError, match="old is not empty; resume=true goes on with its run, overwrite=true throws"):
        open_folder("supervised", configure(run="old"))


def test_overwrite_throws_a_run_away(configure: MakeConfig) -> None:
    old_run(configure)
    assert open_folder("supervised", configure(run="old", overwrite=True)) == Path("old")
    assert list(Path("old").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named_in_one_sentence(configure: MakeConfig) -> None:
    Path("file").touch()
    places = [Path("file/run"), Path("/sys/boxcycle")]  # the second may be written by nobody, not even root
    for place in places if Path("/sys").is_dir() else places[:1]:
        with pytest.raises(OSError, match=str(place)) as raised:
            open_folder("supervised", configure(run=place))
        assert (_sentence(raised.value) or "").startswith(f"{place}: ")


@pytest.mark.parametrize("wish", ["overwrite", "resume"])
def test_a_folder_without_a_run_is_left_alone(configure: MakeConfig, wish: str) -> None:
    Path("photos").mkdir()
    Path("photos/holiday.jpg").touch()
    with pytest.raises(ValueError, match=r"photos has neither config.yaml nor checkpoints, so it holds no run"):
        open_folder("supervised", configure(run="photos", **{wish: True}))
    assert Path("photos/holiday.jpg").exists()


@pytest.mark.parametrize(
    ("needed", "settings"),
    [
        ("data", {"data": {"path": "old/data"}}),
        ("data.budget", {"data": {"budget": "old/budget.json"}}),
        ("init", {"init": "old/first/checkpoints/best.safetensors"}),
    ],
)
def test_overwrite_spares_what_the_run_is_to_start_from(
    configure: MakeConfig, needed: str, settings: dict[str, dict[str, str]]
) -> None:
    old_run(configure)
    with pytest.raises(ValueError, match=f"overwrite=true would throw away .*old, and {needed} with it"):
        open_folder("supervised", configure(run="old", overwrite=True, **settings))
    assert Path("old/config.yaml").exists()


def test_overwrite_spares_the_working_directory(configure: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    old_run(configure)
    Path("old/notes").mkdir()
    monkeypatch.chdir("old/notes")
    with pytest.raises(ValueError, match="and the working directory with it"):
        open_folder("supervised", configure(run="..", overwrite=True))


def test_resuming_needs_a_name_and_does_not_go_with_overwriting(configure: MakeConfig) -> None:
    with pytest.raises(ValueError, match="resume=true needs run=FOLDER"):
        check_folder(configure(resume=True))
    with pytest.raises(ValueError, match="give one of them"):
        configure(run="old", resume=True, overwrite=True)


def test_resuming_keeps_what_is_there_and_names_other_settings(configure: MakeConfig) -> None:
    old_run(configure)
    open_folder("supervised", configure(run="old", resume=True, fit={"log_every": 7}, data={"cache": True}))
    assert Path("old/config.yaml").exists()
    with pytest.raises(ValueError, match=r"old was started with other settings: data.resize.flip was 0.5 and is 0.0"):
        check_folder(configure(run="old", resume=True, data={"resize": {"short": 64, "long": 64, "flip": 0}}))


def test_a_run_that_chose_no_best_weights_has_its_last(tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    best, last = checkpoints / "best.safetensors", checkpoints / "last.safetensors"
    assert weights_file(tmp_path) == best  # for the error that names it
    last.touch()
    assert weights_file(tmp_path) == last
    best.touch()
    assert weights_file(tmp_path) == best
    assert weights_file(last) == last


@pytest.mark.parametrize(("rank", "main"), [(None, True), ("0", True), ("1", False), ("10", False)])
def test_the_main_process_is_rank_0(rank: str | None, main: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setitem(os.environ, "RANK", rank)
    assert is_main_process() == main
