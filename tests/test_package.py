"""The modules that importing the package loads, and the files and packages it installs."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

import jaxprop

ROOT = pathlib.Path(__file__).resolve().parents[1]


def test_import_loads_no_edge():
    heavy = (
        'cv2',
        'PIL',
        'av',
        'matplotlib',
        'safetensors',
        'scipy.io',
        'grain',
        'torch',
        'tensorflow',
        'tensorflow_datasets',
        'orbax.checkpoint',
        'jaxprop.data',
    )
    code = f'import sys, jaxprop; print([m for m in {heavy} if m in sys.modules])'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    loaded = eval(done.stdout)
    # Flax itself may load orbax; nothing of ours may.
    assert [m for m in loaded if m != 'orbax.checkpoint'] == []


def test_public_functions_compose():
    import jax

    import jaxprop

    features = jax.random.normal(jax.random.key(0), (3, 5, 6, 4))
    ids = jax.random.randint(jax.random.key(1), (40, 48), 0, 3) * 7
    values = jaxprop.label_values(ids)
    method = jaxprop.Propagation(
        memory=jaxprop.Memory(num_frames=2), rule=jaxprop.TopK(k=3, region=jaxprop.Disk(3))
    )
    soft = jaxprop.propagate_video(features, jaxprop.encode(ids, values, (5, 6)), method)
    decoded = jaxprop.decode(soft[-1], values, (40, 48))
    assert decoded.shape == (40, 48)
    assert set(decoded.reshape(-1).tolist()) <= {0, 7, 14}


def extras():
    """Reads the dependencies in pyproject.toml by extra; '' has the package's own."""
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    return {'': project['dependencies'], **project['optional-dependencies']}


def test_requirements_list_every_dependency_once():
    lines = (ROOT / 'requirements.txt').read_text().splitlines()
    listed = [line for line in lines if line and not line.startswith('#')]
    needed = {
        requirement
        for extra, requirements in extras().items()
        for requirement in requirements
        if extra not in ('dev', 'docs') and not requirement.startswith('jaxprop[')
    }
    assert sorted(listed) == sorted(needed)


def test_all_is_every_extra_but_the_tools():
    [everything] = extras()['all']
    named = re.fullmatch(r'jaxprop\[(.*)\]', everything)[1].split(',')
    assert set(named) == extras().keys() - {'', 'all', 'test', 'dev', 'docs'}


def test_one_version():
    assert re.search(r'^version: (.*)$', (ROOT / 'CITATION.cff').read_text(), re.M)[1] == (
        jaxprop.__version__
    )
    assert f'\n## {jaxprop.__version__}\n' in (ROOT / 'CHANGELOG.md').read_text()


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """Builds a wheel, and unpacks it."""
    pytest.importorskip('setuptools', minversion='77')
    folder = tmp_path_factory.mktemp('wheel')
    ignored = shutil.ignore_patterns('.*', 'build', '*.egg-info', '__pycache__', 'output', 'tests')
    shutil.copytree(ROOT, folder / 'source', ignore=ignored)
    command = ['wheel', '--quiet', '--no-deps', '--no-build-isolation', '--wheel-dir', folder]
    subprocess.run([sys.executable, '-m', 'pip', *command, folder / 'source'], check=True)
    [path] = folder.glob('*.whl')
    zipfile.ZipFile(path).extractall(folder / 'installed')
    shutil.rmtree(folder / 'source')
    return folder / 'installed'


@pytest.mark.slow
def test_the_wheel_holds_all(wheel):
    def files(root, *patterns):
        return {str(path.relative_to(root)) for p in patterns for path in root.rglob(p)}

    code = files(ROOT / 'jaxprop', '*.py', '*.safetensors', '*.json', '*.html', '*.css', '*.js')
    assert {
        f'report/templates/{name}' for name in ('report.html', 'style.css', 'script.js')
    } <= code
    configs = {f'configs/{path}' for path in files(ROOT / 'configs', '*.py')}
    assert code | configs == files(
        wheel / 'jaxprop', '*.py', '*.safetensors', '*.json', '*.html', '*.css', '*.js'
    )


@pytest.mark.slow
def test_installed_it_writes_a_report(wheel, tmp_path):
    code = (
        'from jaxprop.report import page\n'
        "page.write_report('report.html', {'title': '<script>'}, [])"
    )
    environment = {**os.environ, 'PYTHONPATH': str(wheel)}
    subprocess.run([sys.executable, '-c', code], cwd=tmp_path, env=environment, check=True)
    assert '<h1>&lt;script&gt;</h1>' in (tmp_path / 'report.html').read_text()


@pytest.mark.slow
@pytest.mark.parametrize('name', ['davis_crw', 'mine.py'])
def test_installed_it_works_in_an_empty_folder(wheel, name, tmp_path):
    (tmp_path / 'mine.py').write_text(
        'from jaxprop.configs.eval import davis_crw\nget_config = davis_crw.get_config\n'
    )
    done = subprocess.run(
        [sys.executable, '-m', 'jaxprop', 'evaluate', f'--config={name}', '--help'],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(wheel)},
    )
    assert done.returncode == 0, done.stderr
    assert 'propagation.radius = 12.0' in done.stdout
