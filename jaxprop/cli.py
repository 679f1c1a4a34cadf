"""The console command `jaxprop`: labels a video, evaluates, trains, compares, exports.

    jaxprop propagate VIDEO_OR_FOLDER FIRST_MASK --output=DIR
    jaxprop annotate VIDEO_OR_FOLDER --output=DIR
    jaxprop evaluate --config=davis_crw --config.dataset.root=DAVIS
    jaxprop train --config=small_rotation --config.data.root=VIDEOS
    jaxprop compare RUN_A RUN_B --output=DIR
    jaxprop score PREDICTIONS TRUTH
    jaxprop convert FILE --output=NAME
    jaxprop networks
    jaxprop export-features VIDEO... --output=DIR

Wrong input ends in one line that says what is wrong. The exit code is 2 for a wrong command line,
and 1 for wrong input that a run finds. Modules that read, draw or train are imported when a
subcommand runs.
"""

import errno
import os
import pathlib
import sys
import textwrap
import traceback
from collections.abc import Sequence

import jax
from absl import app, flags

import jaxprop
from jaxprop import compilation_cache, config_files
from jaxprop.commands import (
    annotate,
    compare,
    convert,
    evaluate,
    export_features,
    networks,
    propagate,
    score,
    train,
)
from jaxprop.commands.command import Interrupted

COMMANDS = {
    'propagate': propagate.COMMAND,
    'annotate': annotate.COMMAND,
    'evaluate': evaluate.COMMAND,
    'train': train.COMMAND,
    'compare': compare.COMMAND,
    'score': score.COMMAND,
    'convert': convert.COMMAND,
    'networks': networks.COMMAND,
    'export-features': export_features.COMMAND,
}
# Modules that an extra installs, and the bare package does not.
_EXTRA_MODULES = (
    'PIL array_record av cv2 grain importlib_resources jinja2 matplotlib optax orbax scipy '
    'tensorboardX tensorflow_datasets tqdm'
).split()
# Errors of a full or read-only disk. Libraries often raise them without the name of the file.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def main(arguments: Sequence[str] | None = None, root: str | os.PathLike = '') -> int:
    """Runs a subcommand.

    Args:
      arguments: those after the command's name; None: those of the command line.
      root: the folder of output/ where no flag says otherwise; '': the current one.

    Returns:
      The exit code: 0 if all went well, 1 for wrong input that the run found, 2 for a wrong command
      line.
    """
    try:
        code = _run(arguments, root)
    except BaseException:
        if not jax.distributed.is_initialized():
            raise
        traceback.print_exc()
        code = 1
    if code and jax.distributed.is_initialized():
        # An ordinary exit would wait for the other processes, which wait for this one.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _run(arguments, root):
    name, *arguments = (sys.argv[1:] if arguments is None else list(arguments)) or ['']
    command, shown = COMMANDS.get(name), f'jaxprop {name}'
    try:
        # Requests that need no subcommand, and names that are none.
        if name in ('', 'help', '-h', '-help', '--help', '--version'):
            print(f'jaxprop {jaxprop.__version__}' if name == '--version' else _overview())
            sys.stdout.flush()
            return 0 if name else 2
        if command is None:
            near = config_files.closest(name, COMMANDS)
            return _fail('jaxprop', f'there is no command {name!r}; {near}', 2)
        # Run the subcommand, and say in one line what goes wrong.
        if any(argument in ('-h', '-help', '--help') for argument in arguments):
            print(_help(name, command, arguments))
        else:
            options, rest = _parse(name, command, arguments)
            if 'cache' in options and options.cache:
                compilation_cache.enable()
            command.run(options, rest, pathlib.Path(root))
        sys.stdout.flush()
    except BrokenPipeError:
        # The program that reads the output has ended, as `head` does. Write nothing more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13
    except (app.UsageError, config_files.ConfigError) as error:
        return _fail(shown, f'{error} (see {shown} --help)', 2)
    except Interrupted as stopped:
        return _fail(shown, stopped, stopped.code)
    except KeyboardInterrupt:
        return _fail(shown, 'interrupted', 130)
    except ModuleNotFoundError as error:
        if (error.name or '').split('.')[0] not in _EXTRA_MODULES:
            raise
        wanted = f"pip install 'jaxprop[{command.extra}]' (in a checkout '.[{command.extra}]')"
        return _fail(shown, f'the module {error.name} is not installed: {wanted}', 1)
    except Exception as error:
        if not _is_about_input(error):
            raise
        return _fail(shown, error, 2 if _is_about_the_config(error) else 1)
    return 0


def _parse(name, command, arguments):
    """Parses arguments into the values of the flags, and the arguments that are no flags."""
    options, arguments = _flags(name, command, arguments)
    try:
        _, *rest = options(arguments)
    except flags.UnrecognizedFlagError as error:
        near = config_files.closest(f'--{error.flagname}', [f'--{known}' for known in options])
        raise app.UsageError(f'there is no flag --{error.flagname}; {near}') from error
    except (flags.Error, KeyError, TypeError, ValueError) as error:
        raise app.UsageError(str(error)) from error
    flags.FLAGS.mark_as_parsed()  # Libraries read flags of their own, which must count as parsed.
    return options, rest


def _flags(name, command, arguments):
    """Defines the flags of a command and of its config; returns them and the arguments to parse."""
    options, arguments = flags.FlagValues(), [name, *arguments]
    for option in command.options:
        option.define(option.name, option.default, option.help, flag_values=options)
    if not command.config:
        return options, arguments
    arguments = config_files.define_flags(arguments, command.config, command.folders, options)
    config = options['config'].value
    if command.section not in config:
        raise app.UsageError(f'the config {config.get("name")!r} is that of another command')
    return options, arguments


def _is_about_input(error):
    """Whether an error is about the user's files or settings. Any other error is a bug."""
    from jaxprop.data.sequences import DataError

    if isinstance(error, (DataError, FileNotFoundError, PermissionError, FloatingPointError)):
        return True
    if isinstance(error, OSError) and (error.filename or error.errno in _NO_ROOM):
        return True
    raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
    is_ours = pathlib.Path(raised_in).is_relative_to(pathlib.Path(__file__).parent)
    return isinstance(error, (ValueError, OSError)) and is_ours


def _is_about_the_config(error):
    from jaxprop.tasks import SettingsError

    return isinstance(error, SettingsError)


def _fail(shown, message, code):
    print(f'{shown}: {" ".join(str(message).split())}', file=sys.stderr)
    return code


def _overview():
    lines = [f'  {name:16} {command.summary}' for name, command in COMMANDS.items()]
    return '\n'.join(
        (
            'usage: jaxprop COMMAND ...\n',
            'Video label propagation in JAX.\n',
            *lines,
            '\njaxprop COMMAND --help says more; jaxprop --version',
        )
    )


def _help(name, command, arguments):
    rows = [(f'--{option.name}={option.example}', option.help) for option in command.options]
    lines = [f'usage: jaxprop {name} {command.usage}', '', command.about.rstrip(), '', 'Flags:']
    if not command.config:
        return '\n'.join((*lines, *_table(rows)))
    said = f'name (below), name:argument or file.py; default {command.config}'
    lines += _table([('--config=CONFIG', said), *rows])
    config = _flags(name, command, arguments)[0]['config'].value
    fields = config_files.describe(config)
    is_named = any(argument.lstrip('-').startswith('config') for argument in arguments)
    if is_named:
        known, of = fields, f'the config {config.name}'
    else:
        names = config_files.config_names(command.folders[:1])
        configs = map(config_files.load_config, names, [command.folders] * len(names))
        known, of = {name for found in configs for name in config_files.describe(found)}, 'configs'
    lines += ['', f'The fields of {of} that matter most, each with an example:']
    lines += _table(
        [
            (f'--config.{field.name}={field.example}', field.help)
            for field in command.fields
            if field.name in known
        ]
    )
    for folder in command.folders:
        names = ', '.join(config_files.config_names((folder,)))
        lines.append(textwrap.fill(f'Configs in {folder}/: {names}', 104, subsequent_indent='  '))
    if is_named:
        lines += ['', f'All fields of the config {config.name}:']
        lines += [f'  {field} = {value}' for field, value in fields.items()]
    else:
        lines += ['', f'All fields of a config: jaxprop {name} --config=CONFIG --help']
    return '\n'.join(lines)


def _table(rows):
    width = max(len(left) for left, _ in rows)
    return [f'  {left:{width}}  {right}' for left, right in rows]
