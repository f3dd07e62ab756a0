"""The program: its commands come from the catalogue, and its errors are one line each.

Exit codes: 0; 2 for whatever is found before anything was started (click's usage errors too); 1 for what failed
later; 130 after Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from reorder_core.catalogue import Catalogue, OfferedCommand, import_string
from reorder_core.errors import ReorderError, UsageError, did_you_mean

PROGRAM = "reorder"
INTERRUPTED = 130


@dataclass
class Options:
    """What stands before the command."""

    debug: bool = False


class Commands(click.Group):
    """A group whose commands are the plugins': known by name and help line, imported when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(Catalogue.load().commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        offered = Catalogue.load().commands.get(cmd_name)
        if offered is None:
            return None
        try:
            return _imported(offered)
        except ReorderError as error:
            return _unavailable(offered, error)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[Any, Any, list[str]]:
        name = args[0]
        if name not in Catalogue.load().commands and not name.startswith("-"):
            known = self.list_commands(ctx)
            if not known:
                raise UsageError("reorder is not installed, so it has no commands: run `pip install -e .`")
            near = did_you_mean(name, known) or f": there is {', '.join(known)}"
            raise UsageError(f"there is no command called '{name}'{near}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, offered.command.help) for name, offered in Catalogue.load().commands.items()]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


def _imported(offered: OfferedCommand) -> click.Command:
    what = f"the command '{offered.command.name}' of {offered.plugin} ({offered.distribution})"
    command = import_string(offered.command.target, what)
    if not isinstance(command, click.Command):
        raise UsageError(f"{what} is no click command: {offered.command.target}")
    return command


def _unavailable(offered: OfferedCommand, error: ReorderError) -> click.Command:
    """Stands for a command that cannot be imported: it is listed, and answers with one line."""

    def answer() -> None:
        raise error

    return click.Command(
        offered.command.name,
        callback=answer,
        help=offered.command.help,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )


@click.group(
    cls=Commands,
    help="Find out how much the order of the patches matters to a vision model, choose or learn a better one, "
    "and take it away as a file.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.version_option(package_name="reorder", prog_name=PROGRAM, message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_obj
def program(options: Options, debug: bool) -> None:
    options.debug = debug


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and answer with its exit code. No error but `--debug` shows a traceback."""
    options = Options()
    try:
        code = program.main(
            args=None if arguments is None else list(arguments), prog_name=PROGRAM, standalone_mode=False, obj=options
        )
        sys.stdout.flush()
    except click.exceptions.ClickException as error:
        error.show()
        return error.exit_code
    except (click.exceptions.Abort, KeyboardInterrupt):
        print("stopped", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        _close_pipe()
        return 1
    except Exception as error:
        return _failed(error, options.debug)
    return code if isinstance(code, int) else 0


def _failed(error: Exception, debug: bool) -> int:
    """One line (a recipe's errors: a line each) on stderr, and the exit code."""
    if debug:
        import traceback

        traceback.print_exception(error)
    elif isinstance(error, ReorderError):
        print(str(error), file=sys.stderr)
    else:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"{text} (unexpected; `{PROGRAM} --debug …` shows where)", file=sys.stderr)
    return error.exit_code if isinstance(error, ReorderError) else 1


def _close_pipe() -> None:
    """The reader of our output went away (`reorder list | head`): say nothing, also not when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
