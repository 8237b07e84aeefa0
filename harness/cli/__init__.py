"""The command line: one module per command. Environment variables are read here and nowhere else."""

from __future__ import annotations

import os
import signal
import sys

import typer
from rich.console import Console
from rich.text import Text

from harness.cli import (
    analyze,
    cache,
    compare,
    data,
    doctor,
    export,
    fetch,
    imports,
    merge,
    new,
    plan,
    plugins,
    power,
    publish,
    report,
    runs,
    sandbox,
    serve,
    sign,
    status,
    tune,
    verify,
    view,
)
from harness.errors import HarnessError
from harness.extras import missing_extra
from harness.interrupts import end_at_once, ended_by, keep_exit_code, leave
from harness.models.fetched import cache_folder, use_cache
from harness.version import __version__

app = typer.Typer(
    name="harness",
    help="Compare alignment methods at one budget from one starting model: which is better, by how much, how certain?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: harness compare --methods sft,null,dpo --seeds 0,1",
)
compare.register(app)
plan.register(app)
tune.register(app)
data.register(app)
analyze.register(app)
report.register(app)
verify.register(app)
sign.register(app)
status.register(app)
runs.register(app)
view.register(app)
imports.register(app)
merge.register(app)
power.register(app)
publish.register(app)
app.add_typer(plugins.app, name="plugins")
app.add_typer(cache.app, name="cache")
new.register(app)
app.add_typer(sandbox.app, name="sandbox")
fetch.register(app)
serve.register(app)
export.register(app)
doctor.register(app)


def _version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version and exit."),
) -> None:
    use_cache(cache_folder(os.environ))


def main() -> None:
    """Run the command line. A user's mistake prints one error without a traceback."""
    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    keep_exit_code()
    try:
        app(prog_name="harness", standalone_mode=True)
    except BaseException as error:
        # Whatever a signal became on its way (a library may turn it into an error of its own), it ended the command.
        if (number := ended_by()) is not None:
            raise SystemExit(128 + number) from None
        shown = missing_extra(error) or error
        if not isinstance(shown, HarnessError):
            raise
        from harness.board.views.text import visible

        # The message may quote untrusted files, so invisible characters are written out.
        message = Text.assemble(("error: ", "bold red"), visible(str(shown)))
        Console(stderr=True, highlight=False, soft_wrap=True).print(message)
        sys.exit(shown.exit_code)
    finally:
        # Nothing is left to clean up, while Python and its libraries end.
        signal.signal(signal.SIGINT, end_at_once)
        signal.signal(signal.SIGTERM, end_at_once)
