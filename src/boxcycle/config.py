"""Configuration: a YAML file and ``key=value`` overrides into one pydantic model.

Every part keeps its own model beside its code (``engine``, ``models``, each method); this file only knows how to fill
one. The rules:

* Keys are dotted (``fit.steps``). Later values win: the models' defaults, the file, the overrides from left to right.
* A section that has a key ``path`` takes a bare value as its path: ``data=photos`` is ``data.path=photos``.
  A section may know texts of its own: ``data.resize=small``.
* Values are YAML with the scalars of version 1.2: ``5e-4`` is a number, ``no`` is the text "no". What is no YAML
  (``*.jpg``) is text, ``~/`` is the home folder, and a list may be written without brackets: ``100,200``.
* An unknown key, a key given twice in a file and a value of the wrong kind are a :class:`ConfigError` of one sentence.
"""

from __future__ import annotations

import os
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from boxcycle import yaml12

T = TypeVar("T", bound=BaseModel)


class ConfigError(ValueError):
    """A user's configuration is wrong: one sentence that names the key, what was expected and what was found."""


@dataclass(frozen=True)
class Key:
    """One key of a configuration as a user sees it. ``section`` is the model behind a key that has keys of its own."""

    name: str  # dotted
    kind: str  # "integer", "'sgd' or 'adamw'", ...
    default: str  # as it is typed; "required" where there is none
    description: str
    section: type[BaseModel] | None = None


@dataclass(frozen=True)
class _Given:
    """A value that somebody gave: for which key, where, and as which text (None where it was not typed as one)."""

    name: str
    value: Any
    origin: str = ""  # "settings.yaml: " for a file, which its messages begin with
    text: str | None = None

    @property
    def is_number(self) -> bool:
        return self.text is not None and isinstance(self.value, int | float) and not isinstance(self.value, bool)

    def as_text(self) -> _Given:
        return replace(self, value=self.text)


def load_config(model: type[T], *, file: Path | None = None, overrides: Sequence[str] = ()) -> T:
    """Fill ``model`` from a YAML file and from overrides: ``key=value``, ``--key value``, ``--key=value``, ``--flag``.

    ``config=FILE`` among the overrides names the file too, unless the model has a key of that name. Paths are relative
    to the working directory, wherever they stand. Errors: :class:`ConfigError`.
    """
    typed = parse_overrides(overrides)
    if "config" not in model.model_fields:
        file = next((Path(text) for name, text in reversed(typed) if name == "config"), file)
        typed = [(name, text) for name, text in typed if name != "config"]
    keys = {key.name: key for key in config_keys(model)}
    given: dict[str, _Given] = {}
    for item in _from_file(keys, file) if file else ():
        _put(given, item)
    for name, text in typed:
        for item in _leaves(keys, _Given(name, yaml12.load_or_text(text), text=text)):
            _put(given, item)
    return _validate(model, keys, given)


def dump_config(config: BaseModel) -> str:
    """The whole configuration, defaults included, as YAML that :func:`load_config` reads back to an equal one."""
    return yaml12.dump(config.model_dump(mode="json"))


def parse_overrides(arguments: Sequence[str]) -> list[tuple[str, str]]:
    """Split command-line words into (key, text) pairs; ``--flag`` without a value is ``true``.

    Errors: :class:`ConfigError`.
    """
    pairs, words = [], list(arguments)
    while words:
        word = words.pop(0)
        name, equals, text = word.removeprefix("--").partition("=")
        if not word.startswith("--"):
            if not (name and equals):
                raise ConfigError(f"expected key=value, found '{word}'")
        elif not equals:
            has_value = words and not words[0].startswith("--") and not re.match(r"[A-Za-z_][\w.]*=", words[0])
            text = words.pop(0) if has_value else "true"
        pairs.append((name.replace("-", "_") if word.startswith("--") else name, text))
    return pairs


def config_keys(model: type[BaseModel], defaults: BaseModel | None = None, prefix: str = "") -> Iterator[Key]:
    """Every key of ``model``, sections before their own keys, in the order of declaration."""
    for name, field in model.model_fields.items():
        default = getattr(defaults, name) if defaults else _default(field)
        section = _section(field.annotation)
        shown = "required" if field.is_required() and not defaults else _read_back(default)
        yield Key(prefix + name, _kind(field.annotation), shown, field.description or "", section)
        if section:
            yield from config_keys(section, default if isinstance(default, section) else None, f"{prefix}{name}.")


def unknown(name: str, known: Iterable[str], what: str = "") -> str:
    """The sentence about a name that does not exist: the nearest that does, or else those of the first level."""

    def likeness(candidate: str) -> float:
        last_parts = SequenceMatcher(None, name.rpartition(".")[2], candidate.rpartition(".")[2]).ratio()
        return max(SequenceMatcher(None, name, candidate).ratio(), 0.95 * last_parts)  # 'steps' finds 'fit.steps'

    known = list(known)
    nearest = max(known, key=likeness, default="")
    if nearest and likeness(nearest) >= 0.6:
        return f"no {what}'{name}'; did you mean '{nearest}'?"
    return f"no {what}'{name}'; there is {', '.join(key for key in known if '.' not in key)}"


# --- from what was given to a model


def _from_file(keys: Mapping[str, Key], file: Path) -> Iterator[_Given]:
    try:
        values = yaml12.load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the config file {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the config file {file} is not UTF-8 text") from error
    except yaml12.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        raise ConfigError(
            f"{file}{f', line {mark.line + 1}' if mark else ''}: {' '.join(str(problem or error).split())}"
        ) from error
    if not isinstance(values, Mapping | None):
        raise ConfigError(f"{file}: expected keys and values, found {reprlib.repr(values)}")
    for name, value in (values or {}).items():
        yield from _leaves(keys, _Given(str(name), value, f"{file}: "))


def _leaves(keys: Mapping[str, Key], given: _Given) -> Iterator[_Given]:
    """Take a value for a section apart into values for its keys; refuse keys that do not exist."""
    name, value = given.name, given.value
    if name not in keys:
        raise ConfigError(given.origin + unknown(name, keys))
    if keys[name].section and isinstance(value, Mapping) and value:
        for key, part in value.items():
            yield from _leaves(keys, _Given(f"{name}.{key}", part, given.origin))
    elif keys[name].section and f"{name}.path" in keys and not isinstance(value, Mapping | None):
        yield from _leaves(keys, replace(given, name=f"{name}.path"))
    elif isinstance(value, str) and (preset := _preset(keys[name].section, value)):
        yield from _leaves(keys, replace(given, value=preset))
    elif keys[name].kind.startswith("list of") and not isinstance(value, list | None):
        yield replace(given, value=(given.text or str(value)).split(","))
    elif isinstance(value, str) and value.startswith("~/"):
        yield replace(given, value=os.path.expanduser(value))
    else:
        yield given


def _preset(section: type[BaseModel] | None, text: str) -> dict[str, Any]:
    """All values of a section that takes a text for the whole of itself, so that its keys may still be changed."""
    try:
        return section.model_validate(text).model_dump() if section else {}
    except ValidationError:
        return {}  # the whole configuration will say why


def _put(given: dict[str, _Given], item: _Given) -> None:
    """The later wins, between ``extra=null`` and ``extra.amount=2`` too."""
    for name in [name for name in given if f"{name}.".startswith(f"{item.name}.") or item.name.startswith(f"{name}.")]:
        del given[name]
    given[item.name] = item


def _validate(model: type[T], keys: Mapping[str, Key], given: Mapping[str, _Given]) -> T:
    try:
        return model.model_validate(_filled(model, {item.name: item.value for item in given.values()}))
    except ValidationError as error:
        problems = error.errors(include_url=False)
    # A folder called 2007 was read as a number; where the model wants a text, it is given what was typed.
    textual = [problem["loc"] for problem in problems if problem["type"] in ("string_type", "path_type")]
    mistaken = {".".join(map(str, place)) for place in textual} & {
        item.name for item in given.values() if item.is_number
    }
    if mistaken:
        return _validate(model, keys, {n: item.as_text() if n in mistaken else item for n, item in given.items()})
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    raise ConfigError(_sentence(problems[0], keys, given) + more)


def _filled(model: type[BaseModel], given: Mapping[str, Any], default: BaseModel | None = None) -> dict[str, Any]:
    """Nested values for pydantic: the defaults of every section that was touched, and over them what was given.

    Without the former, pydantic would forget that ``fit: FitConfig = FitConfig(steps=500)`` once ``fit.lr`` is given.
    """
    tree = default.model_dump() if default else {}
    for name, field in model.model_fields.items():
        inner = {key.partition(".")[2]: value for key, value in given.items() if key.startswith(f"{name}.")}
        section = _section(field.annotation)
        if section and inner:
            base = getattr(default, name) if default else _default(field)
            tree[name] = _filled(section, inner, base if isinstance(base, section) else None)
        elif name in given:
            tree[name] = given[name]
    return tree


def _sentence(problem: Any, keys: Mapping[str, Key], given: Mapping[str, _Given]) -> str:
    location = [str(part) for part in problem["loc"]]
    names = [".".join(location[:length]) for length in range(len(location), 0, -1)]
    name = next((name for name in names if name in keys), names[0] if names else "the configuration")
    origin = next((given[name].origin for name in names if name in given), "")
    if problem["type"] == "missing":
        return f"'{name}' is required: give {name}=..."
    if problem["type"] == "value_error":
        return f"{origin}'{name}': {problem['ctx']['error']}" if location else f"{origin}{problem['ctx']['error']}"
    if problem["type"] == "model_type" and name in keys:
        parts = [key.removeprefix(f"{name}.") for key in keys if key.startswith(f"{name}.")]
        return f"{origin}'{name}' must have the keys {', '.join(parts)}; found {reprlib.repr(problem['input'])}"
    rule = problem["msg"].replace("Input should ", "must ").partition(", unable")[0].partition(", got")[0]
    rule = {"path_type": "must be a path", "tuple_type": "must be a list such as [a, b]"}.get(problem["type"], rule)
    return f"{origin}'{name}' {rule}; found {reprlib.repr(problem['input'])}"


# --- what a model says about its keys


def _default(field: FieldInfo) -> Any:
    return None if field.is_required() else field.get_default(call_default_factory=True)


def _section(annotation: Any) -> type[BaseModel] | None:
    """The model behind ``Model`` or ``Model | None``; None for anything else."""
    options = [option for option in get_args(annotation) or (annotation,) if option is not NoneType]
    if len(options) == 1 and isinstance(options[0], type) and issubclass(options[0], BaseModel):
        return options[0]
    return None


def _kind(annotation: Any) -> str:
    names = {int: "integer", float: "number", bool: "true or false", str: "text", Path: "path", NoneType: "null"}
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if isinstance(annotation, type) and not arguments:
        return names.get(annotation, "section" if issubclass(annotation, BaseModel) else annotation.__name__)
    if origin in (list, tuple, set, Sequence):
        return f"list of {_kind(arguments[0])}"
    return " or ".join(_kind(argument) for argument in arguments if argument is not Ellipsis) or str(annotation)


def _read_back(value: Any) -> str:
    """A default as a user would type it."""
    if isinstance(value, BaseModel):
        return ""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_read_back, value))}]"
    return str(value)
