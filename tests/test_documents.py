"""Documents: code that readers copy runs as it stands, and links lead somewhere.

Code is the examples in docstrings and the Python blocks in documents. A document's blocks run one
after the other, with the names of those before, in an empty folder. A comment on the line before a
block, which no reader sees, says where that is otherwise: `<!-- file: NAME -->`, the block is saved
as that file; `<!-- not run: REASON -->`, it is compiled alone.
"""

import doctest
import inspect
import pathlib
import re
import sys

import pytest

import jaxprop

ROOT = pathlib.Path(__file__).resolve().parents[1]
BLOCK = re.compile(r'(?:<!-- ([a-z ]+): (.*?) -->\n)?^```python\n(.*?)^```$', re.M | re.S)


def blocks(path):
    return BLOCK.findall(path.read_text())


DOCUMENTS = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]


def test_every_block_is_found():
    for path in DOCUMENTS:
        assert path.read_text().count('```python') == len(blocks(path)), path


@pytest.mark.slow
@pytest.mark.parametrize('path', [p for p in DOCUMENTS if blocks(p)], ids=lambda path: path.stem)
def test_blocks_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    names, before = {}, set(sys.modules)
    for number, (marker, text, source) in enumerate(blocks(path), 1):
        assert marker in ('', 'file', 'not run'), f'{path.name}: what is {marker!r}?'
        if marker == 'file':
            (tmp_path / text).write_text(source)
        code = compile(source, f'{path.name}, block {number}', 'exec')
        if not marker:
            exec(code, names)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], '__file__', '')).startswith(str(tmp_path)):
            del sys.modules[name]


def anchors(path):
    """Makes the names of a page's headings in links, as GitHub and MkDocs do."""
    titles = re.findall(r'^#+ (.*)$', path.read_text(), re.M)
    return {re.sub(r'[^\w\- ]', '', title.lower()).strip().replace(' ', '-') for title in titles}


@pytest.mark.parametrize('path', DOCUMENTS, ids=lambda path: path.stem)
def test_links_lead_somewhere(path):
    for link in re.findall(r'\]\(([^)\s]+)\)', path.read_text()):
        name, _, anchor = link.partition('#')
        if name.startswith(('http://', 'https://')):
            continue
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), f'{path.name}: {link}'
        # The site is made of docs/ alone.
        assert path.parent == ROOT or path.parent in target.parents, f'{path.name}: {link}'
        if anchor:
            assert anchor in anchors(target), f'{path.name}: {link}'


@pytest.mark.parametrize('path', DOCUMENTS, ids=lambda path: path.stem)
def test_tests_that_are_named_exist(path):
    # `tests/FILE` and, in parentheses after it, functions of that file.
    for name, functions in re.findall(
        r'`(tests/[\w/.]+)`(?: \(((?:`test_\w+`(?:, )?)+)\))?', path.read_text()
    ):
        target = ROOT / name
        assert target.exists(), f'{path.name}: {name}'
        for function in re.findall(r'`(test_\w+)`', functions):
            assert f'def {function}(' in target.read_text(), f'{path.name}: {name}: {function}'


def examples(name):
    """Finds the examples in the docstring of a public name, without those of its methods."""
    public = getattr(jaxprop, name)
    finder = doctest.DocTestFinder(recurse=False)
    return [test for test in finder.find(public, name, globs={}) if test.examples]


@pytest.mark.parametrize('name', jaxprop.__all__)
def test_examples_of_docstrings_run(name, capsys):
    public = getattr(jaxprop, name)
    found = examples(name)
    assert found or not inspect.isfunction(public), f'jaxprop.{name} has no example'
    for test in found:
        result = doctest.DocTestRunner().run(test)
        assert not result.failed, capsys.readouterr().out
