"""The parts that subcommands of `jaxprop` are made of, and what several of them share."""

import contextlib
import pathlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from absl import flags
from ml_collections import config_flags


class Interrupted(Exception):
    """Raised when the user stops a command; the message says what is kept, and how to go on."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


@contextlib.contextmanager
def interruptible(kept: Callable[[], str]) -> Iterator[None]:
    """Raises `Interrupted` when Ctrl-C or SIGTERM stops the block.

    Args:
      kept: returns a text that says what is kept, and how to go on; called after the block has
        been left.
    """
    codes = [130]  # The exit code of shells: 128 and the number of the signal.

    def stop(number, _):
        codes[0] = 128 + number
        raise KeyboardInterrupt

    is_main = threading.current_thread() is threading.main_thread()
    previous = signal.signal(signal.SIGTERM, stop) if is_main else None
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f'interrupted; {kept()}', codes[0]) from None
    finally:
        if is_main:
            signal.signal(signal.SIGTERM, previous)


class Option(NamedTuple):
    """A flag of a subcommand.

    Attributes:
      name: without dashes.
      example: a value that the help shows.
      help: its purpose, for the help.
      define: the function of `absl.flags` that defines it.
      default: its value where the command line gives none.
    """

    name: str
    example: str
    help: str
    define: Callable[..., Any] = flags.DEFINE_string
    default: Any = None


def one_of(*values: str) -> Callable[..., Any]:
    """Makes the `define` of an `Option` that has one of some values."""

    def define(name, default, help, flag_values):
        flags.DEFINE_enum(name, default, values, help, flag_values=flag_values)

    return define


class Field(NamedTuple):
    """A field of a config that the help shows: its name, a value as an example, its purpose."""

    name: str
    example: str
    help: str


class Command(NamedTuple):
    """A subcommand.

    Attributes:
      run: called with the flags' values, the arguments that are no flags, and the folder in which
        output/ is made.
      usage: the help's first line, after the command's name.
      summary: a line about the command, for the list of commands.
      about: the text of its help, with examples.
      extra: the package's extra that installs the modules that the command needs.
      options: its flags.
      config: the name of its default config; '' if it takes none.
      folders: the folders of `jaxprop.configs` that have its configs.
      section: a field that all of its configs have.
      fields: the fields of its configs that matter most.
    """

    run: Callable[[Any, Sequence[str], pathlib.Path], None]
    usage: str
    summary: str
    about: str
    extra: str
    options: tuple[Option, ...]
    config: str = ''
    folders: tuple[str, ...] = ()
    section: str = ''
    fields: tuple[Field, ...] = ()


def check_source(options: flags.FlagValues) -> None:
    """Raises ValueError where a flag has no effect on the source of features that is named."""
    from jaxprop.evaluation import sources

    given = config_flags.get_override_values(options['config'])
    sources.check_flags(options.config.network.name, given)


def print_notes(warnings: Iterable[str], trained: bool) -> None:
    """Prints the warnings about a source of features, and a note if it is untrained."""
    for warning in warnings:
        print(f'note: {warning}')
    if not trained:
        print('note: the network is untrained: its weights are random')


PROCESSES = (
    Option(
        'coordinator', 'HOST:PORT', 'of process 0, or JAX_COORDINATOR_ADDRESS; auto under Slurm'
    ),
    Option('num_processes', 'N', 'how many there are, or JAX_NUM_PROCESSES', flags.DEFINE_integer),
    Option('process_id', 'I', 'which of them this is, or JAX_PROCESS_ID', flags.DEFINE_integer),
)
CACHE = Option(
    'cache', 'false', 'keep no compiled programs in the cache folder', flags.DEFINE_boolean, True
)
FACTORS = (
    Field(
        'network.name',
        'NET',
        'a saved backbone, untrained, MODULE:FUNCTION, features:DIR',
    ),
    Field('input.resize', 'short_side', 'native, square, ...: the size that the network sees'),
    Field('input.size', '480', 'in pixels, with input.resize'),
    Field('propagation.restriction', 'none', 'which cells of a frame are compared; radius: near'),
    Field('propagation.radius', '8.0', 'in cells, with restriction=radius'),
    Field('propagation.num_neighbors', '5', 'k: cells that a label is copied from'),
    Field('propagation.num_context', '7', 'n: latest frames that are compared, beside frame 0'),
    Field('propagation.temperature', '0.07', 'of the softmax over affinities'),
    Field(
        'propagation.aggregation', 'per_frame', 'neighbours are chosen in each frame, or overall'
    ),
    Field(
        'propagation.implementation',
        'dense',
        'dense, windowed, batched, screened, auto: all the same',
    ),
)
