"""The command line: one module per command; the only place that echoes and sets exit codes.

Commands are imported when they are called, so that ``cryolithe --help`` does not wait for torch.
"""

from __future__ import annotations

import errno
import importlib
import logging

import click
from click.shell_completion import CompletionItem

from cryolithe import __version__
from cryolithe.errors import CryoLitheError, in_one_line, nearest_name

# name -> (module, one line for the overview)
COMMANDS = {
    "reconstruct": ("cryolithe.cli.reconstruct", "Turn aligned tilt series into tomograms."),
    "denoise": ("cryolithe.cli.denoise", "Denoise a tomogram with a network that learns from it alone."),
    "info": ("cryolithe.cli.info", "Say what a file holds: stack, volume, angles, model."),
    "fsc": ("cryolithe.cli.fsc", "Fourier shell correlation of two volumes."),
    "compare": ("cryolithe.cli.compare", "Compare methods on your own data, without a truth; HTML page."),
    "evaluate": ("cryolithe.cli.evaluate", "Score a tomogram by every test its data allow; HTML report."),
    "simulate": ("cryolithe.cli.simulate", "Make a simulated tilt series with known truth."),
    "noise": ("cryolithe.cli.noise", "Measure your microscope's noise, for simulations that look like your data."),
    "recipes": ("cryolithe.cli.recipes", "List, show and copy what to simulate and train by."),
    "pairs": ("cryolithe.cli.pairs", "Check curated real pairs and make training files of them."),
    "portal": ("cryolithe.cli.portal", "Fetch tilt series with alignment and particles from the CryoET Data Portal."),
    "copick": ("cryolithe.cli.copick", "Read from a copick project, and put a tomogram into it."),
    "halves": ("cryolithe.cli.stack_halves", "Write even and odd images that RELION-5's tables name as two stacks."),
    "models": ("cryolithe.cli.models", "List, describe, import and verify models."),
    "train": ("cryolithe.cli.train", "Train a network on simulated specimens."),
    "adapt": ("cryolithe.cli.adapt", "Let a model go on learning on your own unlabelled tilt series."),
    "score": ("cryolithe.cli.score", "Score a model against FBP on simulated specimens it never saw."),
    "doctor": ("cryolithe.cli.doctor", "Look at this installation and machine; run a self-test."),
}

# What Ctrl-C tells the user of commands that keep their work.
RESUMING = {
    "reconstruct": " Repeat the command to go on where it stopped.",
    "denoise": " What is done is kept: go on with --resume.",
    "adapt": " A state that was saved is gone on from with --resume.",
    "simulate": " Finished series of a recipe are kept: go on with --resume.",
    "compare": " Methods that are done are kept: repeat the command to go on.",
    "pairs": " Finished pairs are kept: repeat the command to go on.",
}


START = """\
CryoLithe {version}: aligned cryo-ET tilt series in, tomograms out.

To start with, in this order:
  cryolithe simulate -o example                                            a tilt series whose truth is known
  cryolithe reconstruct example/tilts.mrc example/tilts.tlt                -> example/tilts_rec.mrc
  cryolithe evaluate example/tilts_rec.mrc --reference example/truth.mrc   -> a page of numbers and pictures

Your own series go in place of the simulated one; without a truth, --reference is left out.
All commands: cryolithe --help    One of them: cryolithe reconstruct --help
"""


class LazyGroup(click.Group):
    """A click group that imports a command's module only when that command runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the command names in the order of the user's work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command, or None if there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a name that is misspelt gets a suggestion."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise UserError(f"no command '{args[0]}'{nearest_name(args[0], COMMANDS)}; see: cryolithe --help")
        if "" in args and not ctx.resilient_parsing:  # a path of no letters is the current folder
            before = " ".join(args[: args.index("")])
            raise UserError(f"empty text after 'cryolithe {before}': expected a value; is a variable unset?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the overview from the table, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands from the table, without importing them; then the options of the group itself."""
        found = [CompletionItem(name, help=told) for name, (_, told) in COMMANDS.items() if name.startswith(incomplete)]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; an error that a user can mend becomes one line and exit code 2."""
        try:
            return super().invoke(ctx)
        except CryoLitheError as error:
            raise UserError(in_one_line(str(error))) from error
        except click.exceptions.NoArgsIsHelpError:
            raise
        except click.UsageError as error:
            raise UserError(in_one_line(" ".join(error.format_message().split()))) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # who reads our output has had enough: click ends quietly
                raise
            place = f"{error.filename}: " if error.filename else ""
            raise UserError(in_one_line(f"{place}{error.strerror or error}")) from error
        except KeyboardInterrupt:
            click.echo("Interrupted." + RESUMING.get(str(ctx.invoked_subcommand), ""), err=True)
            ctx.exit(130)


class UserError(click.ClickException):
    """One line on standard error, exit code 2."""

    exit_code = 2


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="cryolithe")
@click.pass_context
def main(context: click.Context) -> None:
    """Reconstruct cryo-electron tomograms with local networks.

    An aligned tilt series goes in; a denoised tomogram with its missing wedge compensated comes out.
    No training on your data, no GPU needed.

    \b
    First steps
      cryolithe info tilts.mrc                        what is in this file?
      cryolithe reconstruct tilts.mrc angles.tlt      -> tilts_rec.mrc, tilts_rec.json
      cryolithe reconstruct tilts.mrc angles.tlt --method fbp -o fbp.mrc
      cryolithe fsc tilts_rec.mrc fbp.mrc --wedge 60

    \b
    Conventions
      Stacks are (tilt, y, x) with the tilt axis along y; volumes are (z, y, x).
      Settings: a flag wins over the file given by --config, which wins over the default.
      Exit codes: 0 done, 1 some series of a list failed or doctor found a problem, 2 bad input (one line says
      what), 130 interrupted.

    Completion by the tab key: docs/completion.md.
    """
    # Of fonts that an environment has lost, each figure would tell a dozen times.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    if context.invoked_subcommand is None:
        click.echo(START.format(version=__version__), nl=False)
