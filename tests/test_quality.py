"""`jaxprop propagate --quality`: settings that it changes, and those of the user, which stay."""

import json

import pytest

from jaxprop import cli, config_files
from jaxprop.commands import quality
from jaxprop.config_files import load_config
from tests.test_propagate_command import clips, propagate  # noqa: F401

SHORT_SIDE = '--config.input.resize=short_side'


def settings(monkeypatch, *flags):
    """Returns the config with which `jaxprop propagate` would run."""
    found = []

    def keep(options, arguments, root):
        quality.set_quality(options)
        found.append(options.config)

    command = cli.COMMANDS['propagate']._replace(run=keep)
    monkeypatch.setitem(cli.COMMANDS, 'propagate', command)
    assert cli.main(['propagate', '--cache=false', *flags]) == 0
    return found[0]


def test_normal_is_the_config(monkeypatch):
    config = settings(monkeypatch)
    assert config.to_dict() == load_config('own_video').to_dict()
    assert config.labels.refine == 'guided'
    assert settings(monkeypatch, '--quality=normal').to_dict() == config.to_dict()


@pytest.mark.parametrize(
    ('flags', 'expected'),
    [
        ('', ('native', None, 12.0)),
        ('--quality=fast', ('short_side', 240, 6.0)),
        ('--quality=fast --config.propagation.radius=9.0', ('short_side', 240, 9.0)),
        (f'--quality=fast {SHORT_SIDE} --config.input.size=360', ('short_side', 360, 12.0)),
        (f'{SHORT_SIDE} --config.input.size=360 --quality=best', ('short_side', 360, 12.0)),
        ('--quality=fast --config.input.upsample=2.0', ('native', None, 12.0)),
    ],
)
def test_flags_of_the_user_win(flags, expected, monkeypatch):
    config = settings(monkeypatch, *flags.split())
    assert (config.input.resize, config.input.size, config.propagation.radius) == expected


def test_every_quality_is_of_settings_that_there_are(monkeypatch):
    for name, changed in quality.QUALITIES.items():
        config = load_config('own_video')
        assert set(changed) <= set(config_files.describe(config))
        config.update_from_flattened_dict(changed)
        assert settings(monkeypatch, f'--quality={name}').to_dict() == config.to_dict()


def test_results_record_the_settings(clips, tmp_path, capsys):  # noqa: F811
    assert propagate(clips[0], tmp_path, '--quality=fast') == 0
    made = json.loads((tmp_path / 'settings.json').read_text())
    # The test's own flags give another input.
    assert made['input']['size'] == 64 and made['labels']['refine'] == 'guided'
    assert cli.main(['propagate', '--quality=great']) == 2
    assert 'fast|normal|best' in capsys.readouterr().err
