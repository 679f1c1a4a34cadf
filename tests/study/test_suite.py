"""Several benchmarks on one network: the line of scores, sharing, and going on."""

import json

import pytest

from jaxprop import cli, config_files
from jaxprop.data.synthetic import synthetic_sequences
from jaxprop.evaluation import sources
from jaxprop.study import suite
from tests.layouts import write_davis_sequences, write_jhmdb, write_vip

NETWORK = ('name=untrained', 'output=res1', 'strides=(1,1,1,1)')


@pytest.fixture(scope='module')
def roots(tmp_path_factory):
    """Small benchmarks, by their names."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ('davis', 'vip', 'jhmdb')}
    made = synthetic_sequences(num_sequences=1, num_frames=4, size=(64, 80))
    write_davis_sequences(folders['davis'], made, {'val': [made[0].name]})
    write_vip(folders['vip'])
    write_jhmdb(folders['jhmdb'], num_frames=3)
    return folders


def command(roots, output):
    return [
        'evaluate',
        f'--config=suite_crw:{",".join(roots)}',
        f'--output={output}',
        *(f'--config.network.{setting}' for setting in NETWORK),
        *(f'--config.{name}.dataset.root={root}' for name, root in roots.items()),
        *(f'--config.{name}.input.size=64' for name in roots if name != 'davis'),
        *(f'--config.{name}.propagation.num_context=2' for name in roots),
    ]


@pytest.fixture
def loaded(monkeypatch):
    """The names of the networks that are loaded."""
    names, load = [], sources.load_network

    def note(name, **settings):
        names.append(name)
        return load(name, **settings)

    monkeypatch.setattr(sources, 'load_network', note)
    return names


def test_the_line_and_going_on(roots, loaded, tmp_path, capsys):
    assert cli.main(command(roots, tmp_path)) == 0
    names, values, *_ = capsys.readouterr().out.splitlines()
    assert loaded == ['untrained']
    # The scores are those of each benchmark's own results.
    assert names == 'J&F / J / F / mIoU / PCK@.1 / PCK@.2'
    metrics = {name: tmp_path / name / 'metrics.json' for name in roots}
    summaries = {name: json.loads(path.read_text())['summary'] for name, path in metrics.items()}
    expected = [
        *(summaries['davis'][f'{name}-Mean'] for name in ('J&F', 'J', 'F')),
        summaries['vip']['mIoU'],
        *(summaries['jhmdb'][f'PCK@{distance}'] for distance in (0.1, 0.2)),
    ]
    assert values.split(' / ') == [f'{100 * value:.1f}' for value in expected]
    assert json.loads((tmp_path / 'suite.json').read_text()) == summaries
    assert f'| untrained | {values.replace(" / ", " | ")} |' in (tmp_path / 'suite.md').read_text()
    # Finished benchmarks are not done again; another one is.
    times = {name: path.stat().st_mtime_ns for name, path in metrics.items()}
    metrics['jhmdb'].unlink()
    assert cli.main(command(roots, tmp_path)) == 0
    assert capsys.readouterr().out.splitlines()[:2] == [names, values]
    same = [name for name, path in metrics.items() if path.stat().st_mtime_ns == times[name]]
    assert same == ['davis', 'vip']


def test_a_missing_folder_is_named_before_anything_is_done(roots, loaded, tmp_path, capsys):
    arguments = [a for a in command(roots, tmp_path / 'new') if '.jhmdb.dataset.root' not in a]
    assert cli.main(arguments) == 2
    assert '--config.jhmdb.dataset.root=FOLDER' in capsys.readouterr().err
    assert not loaded and not (tmp_path / 'new').exists()


def test_a_wrong_setting_of_the_last_benchmark_is_named_before_anything_is_done(
    roots, tmp_path, capsys
):
    wrong = '--config.jhmdb.input.resize=native'
    assert cli.main([*command(roots, tmp_path / 'new'), wrong]) == 1
    assert "jhmdb: size is 64, but resize 'native' does not take it" in capsys.readouterr().err
    assert not (tmp_path / 'new' / 'davis').exists()


@pytest.mark.parametrize('names', ["('davis','kinetics')", "('davis','network')", '()'])
def test_a_suite_of_other_names(names, roots, tmp_path, capsys):
    assert cli.main([*command(roots, tmp_path), f'--config.suite={names}']) == 1
    assert '--config=suite_crw:A,B takes the benchmarks A and B' in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    'chosen, message',
    [('davis,kinetics', "no benchmark 'kinetics'"), ('davis,DAVIS', 'is there twice')],
)
def test_wrong_names(chosen, message):
    with pytest.raises(config_files.ConfigError, match=message):
        config_files.load_config(f'suite_crw:{chosen}')


def test_every_suite_is_made_of_evaluations():
    for name in config_files.config_names(('suite',)):
        config = config_files.load_config(name)
        assert config.name == name and config.suite == ('davis', 'vip', 'jhmdb')
        system = name.removeprefix('suite_')
        for benchmark in config.suite:
            alone = config_files.load_config(f'{benchmark}_{system}')
            assert {**config[benchmark].to_dict(), 'network': config.network.to_dict()} == (
                alone.to_dict()
            )


def test_a_name_of_several_benchmarks_is_told_apart():
    scores = [suite.Score('jhmdb', 'PCK@.1', 0.5), suite.Score('badja', 'PCK@.1', None)]
    assert suite.line(scores) == ('jhmdb PCK@.1 / badja PCK@.1', '50.0 / -')
