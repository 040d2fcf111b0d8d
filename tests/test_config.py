"""The configuration loader: precedence, spelling help, sentences of errors, and a round trip."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from boxcycle.config import ConfigError, config_keys, dump_config, load_config, parse_overrides


class Fit(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    steps: int = Field(1000, gt=0, description="optimiser steps")
    lr: float = 5e-4
    milestones: tuple[int, ...] = ()
    optimizer: Literal["adamw", "sgd"] = "adamw"
    precision: Literal["no", "bf16"] = "no"


class Data(BaseModel):
    path: Path
    split: str = "train"
    root: Path | None = None


class Extra(BaseModel):
    amount: float = 1.0


class Run(BaseModel):
    data: Data
    fit: Fit = Fit(steps=500)
    extra: Extra | None = None
    name: str = "run"
    resume: bool = False

    @field_validator("name")
    @classmethod
    def _no_slash(cls, value: str) -> str:
        if "/" in value:
            raise ValueError(f"a name without '/', found '{value}'")
        return value


def load(*overrides: str, file: Path | None = None) -> Run:
    return load_config(Run, file=file, overrides=overrides)


def write(folder: Path, text: str) -> Path:
    file = folder / "settings.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_defaults_then_file_then_overrides(tmp_path: Path) -> None:
    file = write(tmp_path, "data: photos\nfit:\n  lr: 0.1\n  milestones: [1, 2]\n")
    config = load("fit.lr=0.2", "fit.lr=0.3", file=file)
    assert config.data == Data(path=Path("photos"))
    assert config.fit == Fit(steps=500, lr=0.3, milestones=(1, 2))


def test_a_default_of_a_section_survives_another_key_of_it() -> None:
    assert load("data=d", "fit.lr=1").fit.steps == 500
    assert load("data=d", "fit={lr: 1}").fit.steps == 500


@pytest.mark.parametrize(
    "words",
    [
        ["data=d", "fit.steps=7", "resume=true"],
        ["--data", "d", "--fit.steps", "7", "--resume"],
        ["--data=d", "--resume", "--fit.steps=7"],
        ["--resume", "data=d", "--fit.steps", "7"],
        ["--data.path", "d", "fit.steps=7.0", "--resume", "true"],
    ],
)
def test_every_way_to_write_an_override_means_the_same(words: list[str]) -> None:
    assert load(*words) == Run(data=Data(path=Path("d")), fit=Fit(steps=7), resume=True)


def test_a_dash_in_an_option_is_an_underscore() -> None:
    assert parse_overrides(["--batch-size", "3", "a-b=1"]) == [("batch_size", "3"), ("a-b", "1")]


def test_a_bare_value_for_a_section_with_a_path_is_its_path(tmp_path: Path) -> None:
    file = write(tmp_path, "data:\n  path: old\n  split: val\n")
    assert load("data=new", file=file).data == Data(path=Path("new"), split="val")
    assert load("data={path: d, split: s}").data == Data(path=Path("d"), split="s")
    assert load("data=2007", "data.root=12", "data.split=1.50").data == Data(
        path=Path("2007"), root=Path("12"), split="1.50"
    )


def test_a_list_may_be_written_without_brackets(tmp_path: Path) -> None:
    assert load("data=d", "fit.milestones=100,200").fit.milestones == (100, 200)
    assert load("data=d", "fit.milestones=100").fit.milestones == (100,)
    assert load(file=write(tmp_path, "data: d\nfit: {milestones: 5}")).fit.milestones == (5,)


def test_the_later_wins_between_a_section_and_its_keys() -> None:
    assert load("data=d", "extra.amount=3", "extra=null").extra is None
    assert load("data=d", "extra=null", "extra.amount=3").extra == Extra(amount=3)
    assert load("data=d", "data.split=val", "data={path: e}").data == Data(path=Path("e"), split="val")


class Size(BaseModel):
    side: int = 600
    flip: float = 0.5

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, value: Any) -> Any:
        if value == "large":
            raise ValueError("no preset 'large'")
        return {"side": 320} if value == "small" else value


class Picture(BaseModel):
    size: Size = Size(flip=0.1)


def test_a_text_of_a_section_can_be_refined(tmp_path: Path) -> None:
    file = write(tmp_path, "size: small")
    assert load_config(Picture, overrides=["size=small"]).size == Size(side=320, flip=0.5)
    assert load_config(Picture, overrides=["size=small", "size.flip=0"]).size == Size(side=320, flip=0)
    assert load_config(Picture, file=file, overrides=["size.flip=0"]).size == Size(side=320, flip=0)
    assert load_config(Picture, overrides=["size.flip=0", "size=small"]).size == Size(side=320, flip=0.5)
    with pytest.raises(ConfigError, match=r"^'size': no preset 'large'$"):
        load_config(Picture, overrides=["size=large"])


class Inner(BaseModel):
    a: int = 1
    b: int = 1


class Outer(BaseModel):
    inner: Inner = Inner(a=2)
    c: int = 1


class Whole(BaseModel):
    outer: Outer = Outer(c=2)
    other: Outer | None = None
    needed: Outer


def test_defaults_of_sections_in_sections_survive() -> None:
    whole = load_config(Whole, overrides=["outer.inner.b=3", "other.inner.b=3", "needed.inner.b=3"])
    assert whole.outer == Outer(inner=Inner(a=2, b=3), c=2)
    assert whole.other == whole.needed == Outer(inner=Inner(a=2, b=3), c=1)


def test_config_names_the_file_unless_the_model_has_that_key(tmp_path: Path) -> None:
    file = write(tmp_path, "data: photos\nname: from-file\n")
    assert load(f"config={file}").name == "from-file"

    class WithConfig(BaseModel):
        config: str

    assert load_config(WithConfig, overrides=["config=x"]).config == "x"


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("5e-4", "lr", 5e-4),
        ("no", "precision", "no"),  # YAML 1.1 would say False
        ("[3, 4]", "milestones", (3, 4)),
        ("1e3", "steps", 1000),
    ],
)
def test_values_are_yaml_1_2(text: str, key: str, value: object) -> None:
    assert getattr(load("data=d", f"fit.{key}={text}").fit, key) == value


def test_a_glob_and_other_text_that_is_no_yaml_stand_for_themselves() -> None:
    assert load("data=*.jpg").data.path == Path("*.jpg")
    assert load("data=d", "name=@a: [").name == "@a: ["
    assert load("data=~/photos").data.path == Path.home() / "photos"


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["data=d", "fit.step=100"], "no 'fit.step'; did you mean 'fit.steps'?"),
        (["data=d", "steps=100"], "no 'steps'; did you mean 'fit.steps'?"),
        (["data=d", "fits.steps=100"], "no 'fits.steps'; did you mean 'fit.steps'?"),
        (["date=d"], "no 'date'; did you mean 'data'?"),
        (["qqq=1"], "no 'qqq'; there is data, fit, extra, name, resume"),
        (["data=d", "fit.steps.x=1"], "no 'fit.steps.x'; did you mean 'fit.steps'?"),
        ([], "'data' is required: give data=..."),
        (["data.split=val"], "'data.path' is required: give data.path=..."),
        (["data=d", "fit.steps=many"], "'fit.steps' must be a valid integer; found 'many'"),
        (["data=d", "fit.steps=0"], "'fit.steps' must be greater than 0; found 0"),
        (["data=d", "fit.steps=1.5"], "'fit.steps' must be a valid integer; found 1.5"),
        (["data=d", "fit.optimizer=adam"], "'fit.optimizer' must be 'adamw' or 'sgd'; found 'adam'"),
        (["data=d", "fit.milestones=[1, x]"], "'fit.milestones' must be a valid integer; found 'x'"),
        (["data=d", "fit.lr=a", "fit.steps=b"], "'fit.steps' must be a valid integer; found 'b' (and 1 more)"),
        (["data=d", "name=a/b"], "'name': a name without '/', found 'a/b'"),
        (
            ["data=d", "fit=5"],
            "'fit' must have the keys steps, lr, milestones, optimizer, precision; found 5",
        ),
        (["data="], "'data' must have the keys path, split, root; found None"),
        (["data=d", "resume=perhaps"], "'resume' must be a valid boolean; found 'perhaps'"),
        (["--data"], "'data.path' must be a path; found True"),
        (["photos"], "expected key=value, found 'photos'"),
        (["=5"], "expected key=value, found '=5'"),
        (["config=missing.yaml"], "cannot read the config file missing.yaml: No such file or directory"),
    ],
)
def test_a_wrong_override_gets_its_sentence(overrides: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(*overrides)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("data: d\nfit:\n  step: 1\n", ": no 'fit.step'; did you mean 'fit.steps'?"),
        ("data: d\nfit:\n  steps: x\n", ": 'fit.steps' must be a valid integer; found 'x'"),
        ("data: d\nfit:\n  lr: 1\n  steps: 2\n  lr: 3\n", ", line 5: 'lr' is given twice"),
        ("data: [\n", ", line 2: expected the node content, but found '<stream end>'"),
        (
            "data: \x07\n",
            ': unacceptable character #x0007: special characters are not allowed in "<unicode string>", position 6',
        ),
        ("- data\n", ": expected keys and values, found ['data']"),
    ],
)
def test_a_wrong_file_gets_a_sentence_with_its_name(tmp_path: Path, text: str, sentence: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(file=file)
    assert str(caught.value) == f"{file}{sentence}"


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    file = tmp_path / "picture.yaml"
    file.write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load(file=file)


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    assert load("data=d", file=write(tmp_path, "# nothing\n")) == load("data=d")


def test_an_optional_section_can_be_left_out_set_and_unset(tmp_path: Path) -> None:
    file = write(tmp_path, "data: d\nextra:\n  amount: 2\n")
    assert load("data=d").extra is None
    assert load("data=d", "extra.amount=3").extra == Extra(amount=3)
    assert load("data=d", "extra={}").extra == Extra()
    assert load(file=file).extra == Extra(amount=2)
    assert load("extra=null", file=file).extra is None


texts = st.text(st.characters(exclude_categories=["C"], exclude_characters="/"), max_size=12)
awkward = st.sampled_from(
    ["1e5", "no", "yes", "~", "null", "0x1f", "1:30", "2024-01-01", "010", ".5", "", "- a", "*", "#", "a: b", "<<", "="]
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure
@given(name=texts | awkward, lr=st.floats(allow_nan=False), milestones=st.lists(st.integers(), max_size=3))
def test_a_dumped_configuration_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory, name: str, lr: float, milestones: list[int]
) -> None:
    config = Run(data=Data(path=Path("d")), fit=Fit(lr=lr, milestones=tuple(milestones)), name=name)
    file = write(tmp_path_factory.mktemp("dump"), dump_config(config))
    assert load(file=file) == config


def test_keys_are_listed_with_kind_default_and_description() -> None:
    keys = {key.name: key for key in config_keys(Run)}
    assert list(keys)[:5] == ["data", "data.path", "data.split", "data.root", "fit"]
    assert (keys["fit.steps"].kind, keys["fit.steps"].default) == (
        "integer",
        "500",
    )
    assert keys["fit.steps"].description == "optimiser steps"
    assert (keys["data.path"].kind, keys["data.path"].default) == ("path", "required")
    assert (keys["data.root"].kind, keys["data.root"].default) == ("path or null", "null")
    assert (keys["fit.optimizer"].kind, keys["fit.milestones"].kind) == ("adamw or sgd", "list of integer")
    assert keys["fit.milestones"].default == "[]"
    assert keys["fit"].section is Fit
    assert keys["extra"].section is Extra
    assert keys["extra.amount"].default == "1.0"


def test_the_loader_does_not_need_torch() -> None:
    code = "import sys, boxcycle.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
