"""Which module may import which, from the mathematics at the bottom to the command at the top."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[1] / 'jaxprop'
MATHEMATICS = {'affinity', 'geometry', 'color', 'keypoints'}
RULES = {'affinity', 'geometry', 'labels', 'memory'}
METHODS = {'labels', 'memory', 'propagation', 'rules', 'methods'}
# Of each part (a module or a folder of the package) the parts that it may import.
MAY_IMPORT = {
    'names': set(),
    'files': set(),
    'pickles': set(),
    'parallel': set(),
    'metrics': set(),
    **dict.fromkeys(MATHEMATICS, MATHEMATICS),
    'labels': {'affinity'},
    'confidence': {'affinity'},
    'blending': set(),
    'memory': {'affinity'},
    'augment': MATHEMATICS,
    'rules': RULES,
    'propagation': {'affinity', 'labels', 'memory', 'rules'},
    'methods': {'memory', 'names', 'propagation', 'rules'},
    'models': {'names'},
    'checkpoints': {'files', 'models', 'names', 'pickles'},
    'objectives': {*MATHEMATICS, 'augment', 'checkpoints', 'models', 'names', 'rules'},
    'data': {'color', 'files', 'pickles'},
    'tasks': {*MATHEMATICS, 'data', 'files', 'labels', 'metrics', 'names'},
    'evaluation': {
        *MATHEMATICS, *METHODS, 'blending', 'checkpoints', 'confidence', 'data', 'files', 'models',
        'parallel', 'report', 'tasks', 'names',
    },
    'report': {'files', 'tasks'},
    'training': {
        'checkpoints', 'color', 'data', 'files', 'models', 'names', 'objectives', 'parallel',
    },
    'study': {'data', 'evaluation', 'files', 'methods', 'parallel', 'report', 'tasks'},
    'config_files': {'names'},
    'commands': {
        'checkpoints', 'config_files', 'data', 'evaluation', 'files', 'models', 'parallel',
        'report', 'study', 'tasks', 'training',
    },
    'cli': {'commands', 'config_files', 'data', 'tasks'},
}  # fmt: skip


def modules():
    """Lists the package's modules by name, with the modules of the package that each imports."""
    paths = {
        '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__'): path
        for path in ROOT.rglob('*.py')
    }
    return {
        name: sorted(_imported(path, paths))
        for name, path in paths.items()
        if name not in ('__init__', '__main__')
    }


def _imported(path, known):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(ROOT.parent).parts[: -node.level] if node.level else ()
            module = '.'.join((*package, *filter(None, [node.module])))
            found = [f'{module}.{alias.name}' for alias in node.names]
            found = [name if name.removeprefix('jaxprop.') in known else module for name in found]
        else:
            continue
        yield from (name.removeprefix('jaxprop.') for name in found if name.startswith('jaxprop.'))


def test_imports_follow_the_order():
    wrong = []
    for name, imported in modules().items():
        part = name.split('.')[0]
        for other in imported:
            is_own = other.split('.')[0] == part
            if not is_own and not {other, other.split('.')[0]} & MAY_IMPORT[part]:
                wrong.append(f'{name} imports {other}')
    assert not wrong


def test_no_import_circle():
    graph, done = modules(), set()

    def visit(name, path):
        assert name not in path, ' -> '.join((*path, name))
        if name not in done:
            for other in graph.get(name, ()):
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_files_are_of_one_screenful_of_ideas():
    lengths = {path: len(path.read_text().splitlines()) for path in ROOT.rglob('*.py')}
    long = {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > 500}
    assert not long
