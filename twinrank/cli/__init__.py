"""The command line: parse, call one public function, show. Results go to standard output, all else to standard error."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

import click

from twinrank import __version__
from twinrank.cli import archive, calibrate, documents, evaluate, learn, models
from twinrank.cli.adapt import adapt
from twinrank.cli.answer import answer
from twinrank.cli.compare import compare
from twinrank.cli.explain import explain
from twinrank.cli.mcp import mcp
from twinrank.cli.mine import mine
from twinrank.cli.sections import Sections
from twinrank.cli.serve import serve
from twinrank.cli.train import distill, train
from twinrank.cli.tune import tune
from twinrank.errors import TwinrankError
from twinrank.show import note


@click.group(cls=Sections, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="twinrank")
def twinrank() -> None:
    """Search your own documents with every encoder architecture, offline, on a CPU, measured.

    \b
    twinrank index notes/                          make a collection of a folder
    twinrank search "how do I renew a passport"    ask it
    twinrank eval scifact/                         measure on judged data
    """


twinrank.add_section("Collect", documents.index, documents.add, documents.delete, documents.get, documents.watch)
twinrank.add_section("Ask", documents.search, answer, documents.similar, explain)
twinrank.add_section("Serve", serve, mcp)
twinrank.add_section("Measure", evaluate.eval_, compare)
twinrank.add_section("Improve", tune, calibrate.calibrate, learn.learn, mine, adapt, train, distill)
twinrank.add_section(
    "Keep",
    documents.status,
    documents.check,
    documents.rebuild,
    documents.migrate,
    archive.export,
    archive.import_,
    archive.copy,
)
twinrank.add_section(
    "Models by themselves",
    models.encode,
    models.duplicates,
    models.score,
    models.rank,
    models.classify,
    models.translate,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; errors are one sentence on standard error and a status other than 0."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        twinrank.main(arguments, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        note("interrupted; what was reported as done stays, and the same command goes on from there")
        sys.exit(130)
    except TwinrankError as error:
        note(f"twinrank: {error}")
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        note(f"twinrank: {error.filename or 'a file'}: {error.strerror or error}")
        sys.exit(1)
