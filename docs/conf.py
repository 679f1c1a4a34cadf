"""Settings of the documentation site: `python -m sphinx -W -c docs . output/site`.

Sphinx reads the repository itself, so the site has the Markdown files that are read in a checkout,
with the same links between them. README.md is its first page. docs/api has a page for each group
of public functions, which Sphinx fills from their docstrings.
"""

import pathlib
import re
import shutil
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# The pages in the order in which they are read, by the heading over them in the navigation. The
# strict build stops at a page that is missing here, and at one that is here only.
NAVIGATION = {
    'Manual': [
        '/docs/INSTALL',
        '/docs/PROPAGATE',
        '/docs/ANNOTATE',
        '/docs/EVALUATE',
        '/docs/FEATURES',
        '/docs/DATA',
        'Training </docs/TRAINING>',
        '/docs/STUDY',
        '/docs/LIBRARY',
        '/docs/GLOSSARY',
        '/docs/AGREEMENT',
        'Reliability </docs/RELIABILITY>',
        '/docs/SPEED',
    ],
    'Functions': [
        '/docs/api/jaxprop',
        '/docs/api/methods',
        '/docs/api/mathematics',
        '/docs/api/images',
        '/docs/api/models',
        '/docs/api/checkpoints',
        '/docs/api/objectives',
        '/docs/api/training',
        '/docs/api/data',
        '/docs/api/metrics',
        '/docs/api/evaluation',
    ],
    'Project': [
        '/CONTRIBUTING',
        '/CHANGELOG',
        'The shipped network </jaxprop/weights/uvc_plus_davis_long>',
        'The one of version 0.1.0 </jaxprop/weights/uvc_plus_davis>',
    ],
}

project = 'jaxprop'
root_doc = 'README'
include_patterns = [
    'README.md',
    'CONTRIBUTING.md',
    'CHANGELOG.md',
    'docs/**',
    'jaxprop/weights/*.md',
]
exclude_patterns = ['.*', 'build', 'output', 'tests', 'benchmarks', 'configs']
extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
    'sphinx_copybutton',
]
myst_heading_anchors = 4  # Links to a heading, `FILE.md#a-heading`, as GitHub names them.

default_role = 'py:obj'  # `propagate_step` in a docstring is a link to it.
add_module_names = False
autodoc_preserve_defaults = True
autodoc_member_order = 'bysource'
autodoc_typehints_format = 'short'
toc_object_entries_show_parents = 'hide'
# The attributes of a dataclass or a Flax module are the arguments that make one.
napoleon_custom_sections = [('Attributes', 'params_style')]
python_maximum_signature_line_length = 80

html_theme = 'furo'
html_title = 'jaxprop'
html_copy_source = False
html_static_path = ['site.css']
html_css_files = ['site.css']


def add_navigation(app, name, source):
    """Ends the first page with the tables of contents that the navigation is made of."""
    if name == root_doc:
        for caption, pages in NAVIGATION.items():
            lines = '\n'.join(pages)
            source[0] += f'\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{lines}\n```\n'


def docstring_markup(app, kind, name, thing, options, lines):
    """Makes reStructuredText of a docstring, which ours are not: they are read as they stand.

    A block that is indented after an empty line is code or a formula, and stays as it is. Elsewhere
    |x| and a * b are formulas, no markup, and `[H, W, C]` in backticks is code. `propagate_step` is
    a link to that name in the same module, `TopK` to the class wherever it is.
    """
    done, before, code = [], '', None
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if code is not None and (not line or indent > code):
            done.append(line)
            continue
        code = None
        if line and before and not done[-1] and indent > len(before) - len(before.lstrip()):
            # The block is literal where the last line before it ends in two colons.
            code = len(before) - len(before.lstrip())
            if before.endswith(':'):
                done[-2] += ':'
            else:
                done += [' ' * code + '::', '']
            done.append(line)
            continue
        parts = re.split(r'(`[^`]*`)', line)
        for at, part in enumerate(parts):
            if not part.startswith('`'):
                parts[at] = re.sub(r'([\\|*]|_\b)', r'\\\1', part)
            elif re.fullmatch(r'`[A-Z]\w*`', part):
                parts[at] = f'`.{part[1:]}'
            elif not re.fullmatch(r'`[\w.]+`', part):
                parts[at] = f'`{part}`'
        done.append(''.join(parts))
        before = line or before
    lines[:] = done


def skip_member(app, kind, name, thing, skip, options):
    """Leaves out fields of named tuples and dataclasses: their Attributes section says all."""
    is_field = (getattr(thing, '__doc__', None) or '').startswith('Alias for field number')
    is_default = kind == 'class' and '.' not in getattr(thing, '__qualname__', '.')
    return skip or is_field or is_default


def copy_first_page(app, error):
    """Gives the first page the name that a browser opens in a folder."""
    if not error:
        shutil.copy(f'{app.outdir}/{root_doc}.html', f'{app.outdir}/index.html')


def setup(app):
    app.connect('source-read', add_navigation)
    app.connect('autodoc-process-docstring', docstring_markup, priority=400)
    app.connect('autodoc-skip-member', skip_member)
    app.connect('build-finished', copy_first_page)
