"""The commands that convert and list published networks."""

import json
import re

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxprop import cli, config_files, files
from jaxprop.checkpoints import describe_pretrained, list_pretrained, load_published
from jaxprop.checkpoints.catalogue import CATALOGUE
from jaxprop.checkpoints.published import LAYOUTS
from jaxprop.evaluation import networks
from jaxprop.models import ResNet
from tests.checkpoints.test_published import cut, prefixed, release, state
from tests.checkpoints.test_vit_layouts import first_blocks

SMALL = (
    '--config.dataset.num_sequences=1', '--config.dataset.num_frames=3',
    '--config.input.resize=short_side', '--config.input.size=64',
)  # fmt: skip


def convert(capsys, *arguments, code=0):
    """Runs the command; returns its output, or its one line of error."""
    assert cli.main(['convert', *map(str, arguments)]) == code
    printed = capsys.readouterr()
    assert printed.err.count('\n') == (code != 0)
    return printed.err if code else printed.out


def test_a_converted_file_labels_as_the_file_itself(tmp_path, capsys):
    file = release('crw_resnet18', tmp_path / 'pretrained.pth')
    facts = ('--source=the authors', '--licence=MIT')
    said = convert(capsys, file, f'--output={tmp_path}/crw', *facts)
    assert said.splitlines() == [
        "recognised: crw_resnet18, a ResNet18, behind 'model.encoder.model.'",
        'left out: model.selfsim_fc.0.weight, model.selfsim_fc.0.bias, args (argparse.Namespace)',
        'layers that network.output may name: res1, res2, res3, res4',
        'by default res3: 256 channels, stride 8',
        f'written: {tmp_path}/crw.safetensors, {tmp_path}/crw.json',
    ]
    assert describe_pretrained(tmp_path / 'crw')['description'] == {
        'source': 'the authors',
        'licence': 'MIT',
        'layout': 'crw_resnet18',
        'color': 'rgb',
        'original': {'file': 'pretrained.pth', 'sha256': files.sha256(file)},
    }
    masks = {}
    for name in ('pretrained.pth', 'crw'):
        output = tmp_path / f'run of {name}'
        given = [f'--config.network.name={tmp_path}/{name}', f'--output={output}']
        assert cli.main(['evaluate', *SMALL, *given]) == 0
        assert 'note:' not in capsys.readouterr().out
        masks[name] = [path.read_bytes() for path in sorted(output.glob('masks/**/*.png'))]
    assert masks['crw'] == masks['pretrained.pth'] and len(masks['crw']) == 3
    # Its last stage is kept.
    network = networks.load_network(str(tmp_path / 'crw'), output='res4')
    assert network.model == ResNet(output='res4', padding='reflect')
    expected = load_published(file, 'res4')[1]
    jax.tree.map(np.testing.assert_array_equal, network.variables, expected)
    said = convert(capsys, tmp_path / 'crw', f'--output={tmp_path}/again', code=1)
    assert 'is a network of jaxprop already' in said


@pytest.mark.parametrize(
    ('system', 'layout', 'layers', 'color', 'note'),
    [
        ('mast_resnet18', 'mast_resnet18', 'res4 (with its projection)', 'lab', ''),
        ('mast_resnet18', None, 'res4 (with its projection)', 'rgb_unit', 'mast_resnet18 too'),
        ('uvc_resnet18', None, 'res1, res2, res3, res4', 'lightness', ''),
    ],
)
def test_what_a_network_sees_is_kept(system, layout, layers, color, note, tmp_path, capsys):
    arrays = prefixed('gray_encoder.' if 'uvc' in system else '', state(system))
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, tmp_path / 'f')
    given = [f'--layout={layout}'] if layout else []
    said = convert(capsys, tmp_path / 'f', f'--output={tmp_path}/net', '--dtype=float16', *given)
    assert f'may name: {layers}\n' in said and f'it sees {color}\n' in said
    assert (f'{note}: --layout says which it is.' in said) if note else ('note' not in said)
    network = networks.load_network(str(tmp_path / 'net'))
    assert network.color == color and network.warnings == []
    released = {'rgb_unit': 'corrflow_resnet18', 'lab': 'mast_resnet18'}.get(color)
    assert network.model == load_published(tmp_path / 'f', layout=released)[0]
    assert load_file(tmp_path / 'net.safetensors')['params/stem_conv/kernel'].dtype == np.float16


def test_a_file_without_its_last_stage_and_a_vit(tmp_path, capsys):
    save_file({**cut()[0], 'fc.weight': np.zeros((3, 256), np.float32)}, tmp_path / 'cut')
    said = convert(capsys, tmp_path / 'cut', f'--output={tmp_path}/net', '--layout=crw_resnet18')
    assert 'left out: fc\n' in said and 'may name: res1, res2, res3\n' in said
    assert re.search(r'note: layers after res3 are left out: .*lacks .*layer4', said)
    # Of a ViT all is kept.
    save_file(first_blocks('mae_vit'), tmp_path / 'mae')
    said = convert(capsys, tmp_path / 'mae', f'--output={tmp_path}/vit')
    assert 'left out: decoder_blocks, decoder_embed, decoder_norm and ' in said
    assert 'may name: last, block0 to block1, blockN.queries, .keys, .values\n' in said
    assert 'by default last: 192 channels, stride 16\n' in said
    network = networks.load_network(str(tmp_path / 'vit'), output='block0')
    assert set(network.variables['params']) >= {'block0'} and network.model.offset == 0
    # A classifier's head tells whose file it is, and is left out all the same.
    head = {'head.weight': np.zeros((3, 384), np.float32)}
    save_file({**first_blocks('dino_vits16'), **head}, tmp_path / 'timm')
    said = convert(capsys, tmp_path / 'timm', f'--output={tmp_path}/timm_vit')
    assert 'recognised: timm_vit, a ' in said and 'left out: head\n' in said
    assert "nothing says what it was trained to see: 'rgb' (ImageNet's mean) or 'rgb_half'" in said


def test_wrong_conversions_are_one_line(tmp_path, capsys):
    (tmp_path / 'text').write_text('weights')
    arrays = cut()[0]
    nan = np.full_like(arrays['bn1.bias'], np.nan)
    save_file({**arrays, 'bn1.bias': nan}, tmp_path / 'nan')
    output = f'--output={tmp_path}/out/net'
    for code, arguments, expected in (
        (2, [output], 'one argument is needed'),
        (2, [tmp_path / 'nan'], '--output=NAME is needed'),
        (2, [tmp_path / 'nan', output, '--dtype=int8'], 'known: float16, float32'),
        (1, [tmp_path / 'none.pth', output], 'there is neither such a file'),
        (1, [tmp_path / 'text', output], 'not a file of PyTorch weights'),
        (1, [tmp_path / 'nan', output], 'infinite or not numbers'),
        (1, [tmp_path / 'nan', output, '--layout=crw'], "there is no layout 'crw'"),
        (1, ['hf://a', output], 'needed: hf://OWNER/NAME'),
    ):
        assert expected in convert(capsys, *arguments, code=code)
    assert not (tmp_path / 'out').exists()


def test_no_file_of_somebody_else_is_overwritten(tmp_path, capsys):
    published, notes = tmp_path / 'model.safetensors', tmp_path / 'notes.json'
    save_file(cut()[0], published)
    notes.write_text('{}')
    content = published.read_bytes()
    for output in ('model', 'notes'):
        said = convert(capsys, published, f'--output={tmp_path}/{output}', code=1)
        assert 'give another --output' in said
    assert published.read_bytes() == content and notes.read_text() == '{}'
    assert len(list(tmp_path.iterdir())) == 2
    # A network of ours is written anew.
    for _ in range(2):
        convert(capsys, published, f'--output={tmp_path}/net.pth')
    # The file of another name beside it is itself.
    (tmp_path / 'net.pth').write_bytes(b'text')
    assert 'not a file of PyTorch' in convert(capsys, tmp_path / 'net.pth', '--output=x', code=1)


def test_networks_are_listed(capsys):
    assert cli.main(['networks']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 120
    assert cli.main(['networks', '--json']) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed == [entry._asdict() for entry in CATALOGUE]
    for entry in CATALOGUE:
        [row] = [place for place, line in enumerate(lines) if line.startswith(f'{entry.name}  ')]
        assert all(text in lines[row] for text in (entry.layout, entry.licence, entry.config))
        assert entry.source in lines[row + 1]
    assert cli.main(['networks', 'more']) == 2


def test_the_catalogue_names_what_there_is():
    layouts = {one.name for one in LAYOUTS}
    assert len({entry.name for entry in CATALOGUE}) == len(CATALOGUE)
    for entry in CATALOGUE:
        assert entry.layout in {'', *layouts}
        assert re.match(r'(https|hf)://\S+|shipped$|$', entry.source)
        assert bool(entry.score) == bool(entry.score_source) and (entry.score or 50) < 100
    assert {entry.name for entry in CATALOGUE if entry.source == 'shipped'} == {*list_pretrained()}
    # Each layout that a release has of its own is listed.
    own = {name for name in layouts if not name.startswith(('torchvision', 'tim', 'transf', 'vfs'))}
    assert own - {entry.layout for entry in CATALOGUE} <= {
        'moco_resnet18', 'vgg16_bn', 'mae_with_decoder',
    }  # fmt: skip


def test_the_catalogue_names_configs_that_there_are():
    configs = config_files.config_names(('eval',))
    assert {entry.config for entry in CATALOGUE} <= {'', *configs}
