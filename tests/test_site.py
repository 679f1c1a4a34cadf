"""The documentation site, and the docstrings of the public names that its pages are made of."""

import contextlib
import importlib
import inspect
import pathlib
import pkgutil
import re
import subprocess
import sys

import flax.linen as nn
import pytest

import jaxprop
import jaxprop.checkpoints
import jaxprop.objectives

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Modules, with all below them, that promise nothing to users. A page may show some names of them.
INTERNAL = (
    'jaxprop.__main__',
    'jaxprop.annotation',
    'jaxprop.checkpoints.',
    'jaxprop.cli',
    'jaxprop.commands',
    'jaxprop.compilation_cache',
    'jaxprop.config_files',
    'jaxprop.configs',
    'jaxprop.data.builders',
    'jaxprop.data.image_formats',
    'jaxprop.data.mat_file',
    'jaxprop.data.scenes',
    'jaxprop.evaluation',
    'jaxprop.files',
    'jaxprop.models.positions',
    'jaxprop.names',
    'jaxprop.parallel',
    'jaxprop.pickles',
    'jaxprop.report',
    'jaxprop.rules.batched',
    'jaxprop.rules.screened',
    'jaxprop.rules.windowed',
    'jaxprop.study',
    'jaxprop.tasks.',
    'jaxprop.training',
)


def names_on_pages():
    """Lists the full name of each function and class on a page of docs/api."""
    names = []
    for page in sorted((ROOT / 'docs/api').glob('*.rst')):
        directives = re.findall(r'^\.\. auto(\w+):: (\S+)((?:\n   :.*)*)', page.read_text(), re.M)
        for kind, name, options in directives:
            if kind != 'module':
                names.append(name)
            elif ':members:' in options:
                excluded = re.findall(r'\w+', options.partition(':exclude-members:')[2])
                names += [f'{name}.{own}' for own in own_names(name) if own not in excluded]
    return names


def own_names(module):
    """Lists the public functions and classes that are written in a module."""
    module = importlib.import_module(module)
    found = (pair for pair in vars(module).items() if not pair[0].startswith('_'))
    return [name for name, thing in found if getattr(thing, '__module__', None) == module.__name__]


def find(name):
    module, _, own = name.rpartition('.')
    return getattr(importlib.import_module(module), own)


def described(thing):
    """Joins a docstring with those to which it refers, as in 'Arguments as in `crw`'."""
    text = inspect.getdoc(thing) or ''
    for name in re.findall(r'(?:as in|those\s+of)\s+`([\w.]+)`', text):
        with contextlib.suppress(ImportError, AttributeError):  # Other things than functions.
            text += described(find(name if '.' in name else f'{thing.__module__}.{name}'))
    return text


def test_every_public_name_is_on_a_page():
    shown = {find(name) for name in names_on_pages()}
    public = {
        f'{package.__name__}.{name}'
        for package in (jaxprop, jaxprop.checkpoints, jaxprop.models, jaxprop.objectives)
        for name in package.__all__
        if name != 'methods'  # A module.
    }
    for module in pkgutil.walk_packages(jaxprop.__path__, 'jaxprop.'):
        if not module.name.startswith(INTERNAL):
            public |= {f'{module.name}.{name}' for name in own_names(module.name)}
    left_out = sorted(name for name in public if find(name) not in shown)
    assert not left_out, 'put these on a page of docs/api, or their module into INTERNAL'


@pytest.mark.parametrize('name', names_on_pages())
def test_docstring_says_what_each_parameter_is(name):
    thing = find(name)
    first = (inspect.getdoc(thing) or '').partition('\n')[0]
    assert re.fullmatch(r'\S.*[.:]', first), 'the first line must be one sentence'
    if inspect.isclass(thing) and issubclass(thing, Exception):
        return
    parameters = [
        parameter.name
        for parameter in inspect.signature(thing).parameters.values()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if inspect.isclass(thing) and issubclass(thing, nn.Module):
        parameters = [name for name in parameters if name not in ('parent', 'name')]
    # The first line says enough of a single array, `[H, W, C]`, or a single path.
    if len(parameters) > 1:
        text = described(thing)
        unnamed = [name for name in parameters if not re.search(rf'\b{name}\b', text)]
        assert not unnamed, 'the docstring must say what these parameters are'


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip('sphinx', reason="the tools of the site are missing: pip install '.[docs]'")
    command = [sys.executable, '-m', 'sphinx', '-W', '--keep-going', '-q', '-c', 'docs', '.']
    done = subprocess.run(
        [*command, tmp_path / 'site', '-d', tmp_path / 'doctrees'],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / 'site/docs/api/jaxprop.html').read_text()
    assert 'id="jaxprop.propagate_video"' in page
    assert (tmp_path / 'site/index.html').read_text() == (tmp_path / 'site/README.html').read_text()
