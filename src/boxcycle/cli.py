"""The command line: one verb a job, each with ``key=value`` settings.

Only typer is imported here; a verb imports what it runs when it runs, so that ``boxcycle --help`` answers at once.
What a user can cause ends in one sentence on stderr and exit code 2; BOXCYCLE_DEBUG=1 shows the traceback instead.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from boxcycle import __version__

if TYPE_CHECKING:
    from pydantic import BaseModel

    Config = TypeVar("Config", bound=BaseModel)

app = typer.Typer(
    help="Train object detectors with too few labels.",
    epilog="Every verb takes key=value or --key value, and config=FILE for a YAML file of them; `boxcycle VERB --help` "
    "lists its keys. BOXCYCLE_DEBUG=1 shows the traceback behind an error.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # rich would double the time of --help
    pretty_exceptions_enable=False,
)


def main() -> None:
    """The entry point of ``boxcycle``."""
    app()


def _verb(function: Callable[[typer.Context], None]) -> Callable[[typer.Context], None]:
    """Register a verb that reads its own words (typer knows neither keys nor ``--key``) and fails in one sentence."""

    @functools.wraps(function)
    def run(context: typer.Context) -> None:
        with _one_sentence():
            function(context)

    words_as_they_are = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command(context_settings=words_as_they_are, options_metavar="[key=value]...")(run)
    return function


@_verb
def demo(context: typer.Context) -> None:
    """Run it all on generated scenes; ends with a report."""
    from boxcycle.methods.demo import DemoConfig, demo

    _call(context, DemoConfig, demo)


@_verb
def doctor(context: typer.Context) -> None:
    """Say what is wrong with a data set; exit code 1 on errors."""
    from boxcycle.data.doctor import DoctorConfig, run_doctor

    _call(context, DoctorConfig, run_doctor)


@_verb
def convert(context: typer.Context) -> None:
    """Write a data set in another format."""
    from boxcycle.data.convert import ConvertConfig, run_convert

    _call(context, ConvertConfig, run_convert)


@_verb
def split(context: typer.Context) -> None:
    """Draw a label budget and write it to a file."""
    from boxcycle.data.splits import SplitConfig, run_split

    _call(context, SplitConfig, run_split)


@_verb
def pretrain(context: typer.Context) -> None:
    """Pretrain a detector on images alone; without a METHOD, list the methods."""
    from boxcycle.methods import METHODS, PRETRAINING

    _call_method(context, "pretrain", {name: method for name, method in METHODS.items() if name in PRETRAINING})


@_verb
def train(context: typer.Context) -> None:
    """Train a detector; without a METHOD, list the methods."""
    from boxcycle.config import ConfigError
    from boxcycle.methods import METHODS, PRETRAINING

    if context.args and context.args[0] in PRETRAINING:
        raise ConfigError(f"{context.args[0]} learns from images alone: boxcycle pretrain {context.args[0]}")
    _call_method(context, "train", {name: method for name, method in METHODS.items() if name not in PRETRAINING})


@_verb
def eval(context: typer.Context) -> None:
    """Evaluate a run on a split: COCO's figures, by class too."""
    from boxcycle.methods.evaluate import EvalConfig, evaluate

    _call(context, EvalConfig, evaluate)


@_verb
def compare(context: typer.Context) -> None:
    """Put runs beside each other: AP against labels spent."""
    from boxcycle.methods.compare import CompareConfig, compare

    folders = list(itertools.takewhile(lambda word: "=" not in word and not word.startswith("-"), context.args))
    if folders:  # `boxcycle compare runs/a runs/b out=FOLDER`; names with a comma are as welcome as others
        context.args = [f"runs={json.dumps(folders)}", *context.args[len(folders) :]]
    _call(context, CompareConfig, compare)


@_verb
def predict(context: typer.Context) -> None:
    """Detect objects in images: pictures and COCO JSON."""
    from boxcycle.methods.predict import PredictConfig, predict

    _call(context, PredictConfig, predict)


@_verb
def export(context: typer.Context) -> None:
    """Write a detector as an ONNX file that agrees with it."""
    from boxcycle.export import ExportConfig, export
    from boxcycle.methods.loading import load

    _call(context, ExportConfig, lambda config: export(config, load))


@_verb
def mine(context: typer.Context) -> None:
    """Mine pseudo boxes and questions in unlabelled images."""
    from boxcycle.methods.ssm.mine import MineConfig, run_mine

    _call(context, MineConfig, run_mine)


@_verb
def annotate(context: typer.Context) -> None:
    """Open the page on which people answer a run's questions."""
    from boxcycle.annotate.run import AnnotateConfig, run_annotate

    _call(context, AnnotateConfig, run_annotate)


@_verb
def label(context: typer.Context) -> None:
    """Write a run's best boxes as a COCO data set to learn from."""
    from boxcycle.methods.label import LabelConfig, label

    _call(context, LabelConfig, label)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"boxcycle {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


_HELP = ("--help", "-h")


def _call_method(context: typer.Context, verb: str, methods: dict[str, Any]) -> None:
    """Run the method that the first word names, or list those of a verb."""
    from boxcycle.config import ConfigError, unknown

    words = context.args
    if not words or words[0] in _HELP:
        return _list_methods(verb, methods)
    method, context.args = words[0], words[1:]
    if "=" in method or method.startswith("-"):
        raise ConfigError(f"expected a method before '{method}': boxcycle {verb} {' | '.join(methods)}")
    if method not in methods:
        raise ConfigError(unknown(method, methods, "method "))
    return _call(context, methods[method].Config, methods[method].train, f"{verb} {method}")


def _call(context: typer.Context, model: type[Config], job: Callable[[Config], Any], verb: str = "") -> None:
    """Run ``job`` on its configuration, or list the keys if help is wanted; an exit code that it returns is ours."""
    from boxcycle.config import load_config

    if any(word in _HELP for word in context.args):
        return _list_keys(verb or str(context.info_name), model)
    result = job(load_config(model, overrides=context.args))
    if isinstance(result, int) and result:
        raise typer.Exit(result)
    return None


@contextmanager
def _one_sentence() -> Iterator[None]:
    """Turn what a user can cause into a sentence on stderr and an exit code."""
    try:
        yield
    except KeyboardInterrupt as error:  # Ctrl-C, and the engine's Interrupted, which knows its exit code
        _say(str(error) or "interrupted")
        raise typer.Exit(getattr(error, "exit_code", 130)) from None
    except BrokenPipeError:  # `boxcycle ... | head`: typer ends quietly
        raise
    except (ValueError, OSError, RuntimeError) as error:
        sentence = _sentence(error)
        if sentence is None or os.environ.get("BOXCYCLE_DEBUG"):
            raise
        _say(sentence)
        raise typer.Exit(2) from None


def _sentence(error: Exception) -> str | None:
    """What to tell the user; None for a RuntimeError that is ours and deserves its traceback."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported here
        return "out of GPU memory: lower fit.batch_size, raise fit.accumulate or choose smaller images in data.resize"
    return None if isinstance(error, RuntimeError) else " ".join(str(error).split()) or type(error).__name__


def _say(sentence: str) -> None:
    typer.secho(sentence, fg=typer.colors.RED, err=True)


def _list_methods(verb: str, methods: dict[str, Any]) -> None:
    typer.echo(f"boxcycle {verb} METHOD data=PATH [key=value]...\n")
    for name, method in methods.items():
        typer.echo(f"  {name:<12} {(method.__doc__ or '').partition(chr(10))[0]}")
    typer.echo(f"\n`boxcycle {verb} METHOD --help` lists the keys of a method.")


def _list_keys(verb: str, model: type[BaseModel]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from boxcycle.config import config_keys

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    table.add_column(overflow="fold", max_width=44)
    for key in config_keys(model):
        if key.section is None:
            short = f"; {key.name.removesuffix('.path')}=... for short" if key.name.endswith(".path") else ""
            table.add_row(Text(f"{key.name}={key.default}"), Text(f"{key.description} ({key.kind}{short})".strip()))
    typer.echo(f"boxcycle {verb} [config=FILE] [key=value]...\n\nkeys and their defaults:")
    Console().print(table)


if __name__ == "__main__":
    main()
