"""Published networks by their files and by their addresses on the Hugging Face Hub."""

import pathlib
import sys

import huggingface_hub
import jax
import numpy as np
import pytest
from huggingface_hub import errors
from safetensors.numpy import save_file

from jaxprop import cli, config_files, files
from jaxprop.checkpoints import hub, load_published, save_pretrained
from jaxprop.evaluation import networks
from jaxprop.evaluation.sources import open_source
from jaxprop.models import ResNet
from tests.checkpoints.test_published import cut, prefixed
from tests.checkpoints.test_vit_layouts import first_blocks
from tests.evaluation.test_features import parse


@pytest.fixture
def file(tmp_path):
    """Writes a ResNet18 up to res3 under CRW's names."""
    path = tmp_path / 'pretrained.safetensors'
    save_file(prefixed('encoder.model.', cut()[0]), path)
    return path


@pytest.fixture
def bare(tmp_path):
    """Writes a ResNet18 up to res3 under torchvision's names."""
    path = tmp_path / 'bare.safetensors'
    save_file(cut()[0], path)
    return path


def test_a_published_file_is_what_its_layout_says(file):
    network = networks.load_network(str(file))
    expected, variables = load_published(file)
    assert network.model == expected == ResNet(padding='reflect') and network.trained
    jax.tree.map(np.testing.assert_array_equal, network.variables, variables)
    assert network.warnings == [] and network.color == 'rgb'
    digest = files.sha256(file)
    assert networks.weights_digest(str(file)) == digest
    described = {key: network.description[key] for key in ('name', 'sha256', 'layout', 'padding')}
    assert described == {
        'name': str(file), 'sha256': digest, 'layout': 'crw_resnet18', 'padding': 'reflect',
    }  # fmt: skip
    assert network.description['architecture'] == 'ResNet' and 'dtype' not in network.description


def test_the_command_line_replaces_attributes(file):
    flags = ('output=res2', 'padding=zero', 'dtype=bfloat16', 'architecture=resnet')
    config = parse(
        'davis_crw', f'--config.network.name={file}', *(f'--config.network.{f}' for f in flags)
    )
    network = networks.load_network(**config.network)
    assert network.model == ResNet(output='res2', padding='zero', dtype='bfloat16')
    assert network.description['dtype'] == 'bfloat16'
    assert 'res3_0' not in network.variables['params']
    assert network.warnings == [
        "network.padding is 'zero', the layout crw_resnet18 says 'reflect'."
    ]
    images = np.zeros((1, 64, 64, 3), np.float32)
    assert network.model.apply(network.variables, images).dtype == 'bfloat16'
    same = networks.load_network(str(file), dtype='float32')
    assert 'dtype' not in same.description and same.warnings == []


def test_a_dtype_of_a_saved_network_is_described(tmp_path):
    _, model, variables = cut()
    save_pretrained(tmp_path / 'net', model, variables)
    network = networks.load_network(str(tmp_path / 'net'), dtype='bfloat16')
    assert network.description['dtype'] == 'bfloat16' and network.warnings == []
    with pytest.raises(ValueError, match="dtype is 'bfloat17'; known: float32, bfloat16"):
        networks.load_network(str(tmp_path / 'net'), dtype='bfloat17')


def test_says_which_networks_it_could_be(bare, tmp_path):
    [warning] = networks.load_network(str(bare)).warnings
    assert warning == (
        f'{bare} is read as torchvision_resnet18; by its names it could be crw_resnet18 too: '
        'network.layout says which it is.'
    )
    for settings in ({'padding': 'zero'}, {'padding': 'reflect'}, {'layout': 'crw_resnet18'}):
        network = networks.load_network(str(bare), **settings)
        assert network.warnings == [] and 'card' not in network.description


def test_the_place_in_a_file_tells_dinos_networks_from_maes(tmp_path):
    # They differ in how embeddings are interpolated.
    arrays = first_blocks('dino_vits8')
    for place, layout in (('', 'dino'), ('teacher.backbone.', 'dino'), ('model.', 'mae')):
        save_file(prefixed(place, arrays), tmp_path / 'vit')
        network = networks.load_network(str(tmp_path / 'vit'))
        assert network.description['layout'] == layout and network.warnings == []
    save_file(prefixed('net.', arrays), tmp_path / 'vit')
    [warning] = networks.load_network(str(tmp_path / 'vit')).warnings
    assert 'is read as dino; by its names it could be mae too' in warning
    assert networks.load_network(str(tmp_path / 'vit'), offset=0.0).warnings == []


def test_a_file_may_not_say_which_colours_its_network_saw(tmp_path):
    head = {'head.weight': np.zeros((3, 192), np.float32)}
    save_file({**first_blocks('dino_vits8'), **head}, tmp_path / 'timm')
    for color, seen in ((None, 'rgb'), ('rgb_half', 'rgb_half')):
        config = config_files.load_config('synthetic')
        config.network.name, config.input.color = str(tmp_path / 'timm'), color
        source = open_source(config)
        assert source.color == seen
        [warning] = source.warnings
        assert f'does not say what it was trained to see; it is shown {seen!r}' in warning


def test_a_folder_and_a_prefix(bare, tmp_path):
    folder = tmp_path / 'snapshot'
    folder.mkdir()
    with pytest.raises(ValueError, match='neither model.safetensors nor pytorch_model.bin'):
        networks.load_network(str(folder))
    arrays = cut()[0]
    both = {**prefixed('m.encoder_q.', arrays), **prefixed('m.encoder_k.', arrays)}
    save_file(both, folder / 'pytorch_model.bin')
    (folder / 'config.json').write_text('{}')
    network = networks.load_network(str(folder), prefix='encoder_k.')
    assert network.description['prefix'] == 'm.encoder_k.'
    assert networks.load_network(str(folder)).description['layout'] == 'moco_resnet18'
    save_file(arrays, folder / 'model.safetensors')
    network = networks.load_network(str(folder))
    assert network.description['layout'] == 'torchvision_resnet18'


@pytest.fixture(scope='module')
def damaged(tmp_path_factory):
    """Writes files without a network that can be used."""
    folder, arrays = tmp_path_factory.mktemp('damaged'), cut()[0]
    nan = np.full_like(arrays['bn1.bias'], np.nan)
    save_file({**arrays, 'bn1.bias': nan}, folder / 'nan')
    save_file({key: arrays[key] for key in arrays if key != 'bn1.bias'}, folder / 'lacking')
    save_file({'stem.weight': nan}, folder / 'unknown')
    save_file({'params/stem_conv/kernel': nan}, folder / 'ours.safetensors')
    whole = (folder / 'nan').read_bytes()
    (folder / 'cut').write_bytes(whole[:-100])
    (folder / 'text').write_text('weights')
    (folder / 'empty').write_bytes(b'')
    save_file(first_blocks('dino_vits8'), folder / 'vit')
    return folder


@pytest.mark.parametrize(
    ('name', 'flags', 'expected'),
    [
        ('nan', '', 'stem_norm/bias holds values that are infinite or not numbers'),
        ('lacking', '', 'nearest: torchvision_resnet18 lacks 1 of 75 names: bn1.bias'),
        ('unknown', '', 'none of its 1 arrays is of a known network; known: torchvision_'),
        ('ours.safetensors', '', "jaxprop's own networks: the file with the same name and the end"),
        ('cut', '', 'cannot be read as safetensors'),
        ('text', '', 'is not a file of PyTorch weights'),
        ('empty', '', 'is not a file of PyTorch weights'),
        ('missing.pth', '', "there is neither such a file nor one with the ending .safetensors"),
        ('vit', 'output=cls', "output is 'cls', which of {} is no grid of features: an image gi"),
        ('vit', 'patch=16', 'network.patch is 16, {} holds a ViT of depth 2 with patch 8'),
        ('vit', 'depth=1', 'network.depth is 1, {} holds a ViT of depth 2'),
        ('vit', 'strides=(1,1,1,1)', "ViT has no ['strides']"),
        ('vit', 'output=res3', "output is 'res3'; known: None, 'last'"),
        ('vit', 'layout=dinov4', "there is no layout 'dinov4'; the nearest name is 'dinov"),
        ('vit', 'layout=dinov2', 'dinov2 lacks'),
        ('vit', 'prefix=teacher.', "behind 'teacher.' is of a known network"),
        ('vit', 'architecture=vgg16', "architecture is 'vgg16', {} holds a ViT of depth 2 (dino)"),
        ('vit', 'dtype=float16', "network.dtype is 'float16'; known: float32, bfloat16"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_one_line(name, flags, expected, damaged, tmp_path, capsys):
    path = damaged / name
    given = [f'--config.network.name={path}', f'--output={tmp_path}/run']
    given += [f'--config.network.{flags}'] if flags else []
    assert cli.main(['evaluate', *given]) == 1
    printed = capsys.readouterr()
    assert printed.out == '' and printed.err.count('\n') == 1
    assert expected.format(path) in printed.err and len(printed.err) < 1800
    assert str(path) in printed.err or flags
    assert not (tmp_path / 'run').exists()


# The Hub, without a network: the library's function that downloads a file is replaced.


@pytest.fixture
def repository(monkeypatch, bare, tmp_path):
    """Replaces the Hub by a dict of files by name; a value that is an error is raised."""
    found, asked = {}, []

    def download(repository, file, *, revision=None, local_files_only=False):
        asked.append((repository, file, revision, local_files_only))
        answer = found.get(file, errors.EntryNotFoundError(f'no {file}'))
        if isinstance(answer, Exception):
            raise answer
        kept = tmp_path / 'hub/models--a--b/snapshots/0123abcd' / file
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(pathlib.Path(answer).read_bytes())
        return str(kept)

    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', download)
    hub._download.cache_clear()
    yield found, asked
    hub._download.cache_clear()


def test_a_file_of_the_hub(repository, bare):
    found, asked = repository
    found['pytorch_model.bin'] = bare
    network = networks.load_network('hf://a/b', padding='zero')
    assert asked == [('a/b', name, None, False) for name in hub.DEFAULT_FILES]
    described = {key: network.description[key] for key in ('name', 'repository', 'commit', 'file')}
    assert described == {
        'name': 'hf://a/b', 'repository': 'a/b', 'commit': '0123abcd', 'file': 'pytorch_model.bin',
    }  # fmt: skip
    assert networks.weights_digest('hf://a/b') == files.sha256(bare)
    assert len(asked) == 2  # Once and for all.
    found['more/net.safetensors'] = bare
    located = hub.locate('hf://a/b@v1.0/more/net.safetensors')
    assert asked[-1] == ('a/b', 'more/net.safetensors', 'v1.0', False)
    assert located.origin['file'] == 'more/net.safetensors'
    found['snapshots/net.bin'] = bare
    located = hub.locate('hf://a/b/snapshots/net.bin')
    assert located.origin['commit'] == '0123abcd'
    assert located.origin['file'] == 'snapshots/net.bin'
    found['../net.bin'] = ValueError("cannot contain a '..'")
    with pytest.raises(ValueError, match=r"'hf://a/b/../net.bin' is no address: cannot"):
        hub.locate('hf://a/b/../net.bin')


def raised(kind):
    """Makes an error of the library without the answer of a server, which its class asks for."""
    error = kind.__new__(kind)
    Exception.__init__(error, 'said by the library')
    return error


@pytest.mark.parametrize(
    ('address', 'kind', 'expected'),
    [
        ('hf://a/b', errors.GatedRepoError, 'accept them at https://huggingface.co/a/b'),
        ('hf://a/b', errors.RepositoryNotFoundError, "no repository 'a/b' on the Hugging Face Hub"),
        ('hf://a/b@v2', errors.RevisionNotFoundError, "no branch, tag or commit 'v2'"),
        ('hf://a/b', errors.LocalEntryNotFoundError, 'connect, or give the path of the file'),
        ('hf://a/b', errors.OfflineModeIsEnabled, 'connect, or give the path of the file'),
        ('hf://a/b', errors.EntryNotFoundError, 'name a file, hf://a/b/FILE'),
        ('hf://a/b@v2/x', errors.EntryNotFoundError, "'a/b' at 'v2' has no file 'x'"),
        ('hf://a/b', errors.HFValidationError, 'is no address: said by the library'),
        ('hf://a/b', errors.HfHubHTTPError, 'cannot be downloaded: said by the library'),
        ('', None, 'the network has no name'),
        ('hf://a', None, 'needed: hf://OWNER/NAME[@REVISION][/FILE]'),
        ('hf://a/b/', None, 'needed: hf://OWNER/NAME[@REVISION][/FILE]'),
    ],
)  # fmt: skip
def test_what_the_hub_refuses_is_one_line(address, kind, expected, repository, capsys):
    found, asked = repository
    if kind:
        found.update(dict.fromkeys((*hub.DEFAULT_FILES, 'x'), raised(kind)))
    assert cli.main(['evaluate', f'--config.network.name={address}']) == 1
    printed = capsys.readouterr()
    assert expected in printed.err and printed.err.count('\n') == 1
    if kind is errors.LocalEntryNotFoundError:  # The second file is looked for here alone.
        assert [here for *_, here in asked] == [False, True]


def test_the_library_of_the_hub_is_an_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    hub._download.cache_clear()
    assert cli.main(['evaluate', '--config.network.name=hf://a/b']) == 1
    assert "pip install 'jaxprop[hub]'" in capsys.readouterr().err
