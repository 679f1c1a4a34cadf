"""Lists published networks: where their files are, their licences, configs and scores.

An entry leaves a field empty where the authors' pages do not say it, or nobody has looked.
"""

from typing import NamedTuple

_TORCH = 'https://download.pytorch.org/models'
_META = 'https://dl.fbaipublicfiles.com'
_VFS = 'https://github.com/xvjiarui/VFS/releases/download/v0.1-rc1'
_DRIVE = 'https://drive.google.com/file/d'
_STUDY = 'McKee et al.'  # BMVC 2022.
_DINOV3_CARD = 'its model card'


class Entry(NamedTuple):
    """A published network.

    Attributes:
      name: its name in this list.
      layout: the name of its layout in `published.LAYOUTS`; '' for a network of ours.
      source: where the file is: an address of the authors, 'hf://OWNER/NAME', or 'shipped'.
      size: of the file, in MB; None where it is unknown.
      licence: of the file.
      config: the config in configs/eval with its settings for DAVIS.
      score: published J&F on DAVIS-2017 val, in percent; None where there is none.
      score_source: who published it.
    """

    name: str
    layout: str
    source: str = ''
    size: float | None = None
    licence: str = ''
    config: str = ''
    score: float | None = None
    score_source: str = ''


CATALOGUE = (
    Entry('uvc_plus_davis', '', 'shipped', 6, 'CC BY-NC 4.0', 'davis_uvc'),
    Entry('uvc_plus_davis_long', '', 'shipped', 6, 'CC BY-NC 4.0', 'davis_uvc'),
    Entry(
        'CRW ResNet18',
        'crw_resnet18',
        'https://github.com/ajabri/videowalk (pretrained.pth)',
        45,
        'MIT',
        'davis_crw',
        67.6,
        'its README',
    ),
    Entry(
        'VFS ResNet18',
        'torchvision_resnet18',
        f'{_VFS}/r18_nc_sgd_cos_100e_r2_1xNx8_k400-db1a4c0d.pth',
        45,
        'Apache-2.0',
        'davis_vfs',
        66.7,
        'its README',
    ),
    Entry(
        'VFS ResNet50',
        'torchvision_resnet50',
        f'{_VFS}/r50_nc_sgd_cos_100e_r5_1xNx2_k400-d7ce3ad0.pth',
        94,
        'Apache-2.0',
        'davis_vfs',
        69.5,
        'its README',
    ),
    Entry(
        'UVC ResNet18',
        'uvc_resnet18',
        'https://github.com/Liusifei/UVC (weights/checkpoint_latest.pth.tar)',
        50,
        'MIT',
        'davis_uvc_track',
        59.5,
        _STUDY,
    ),
    Entry(
        'TimeCycle ResNet50',
        'timecycle_resnet50',
        f'{_DRIVE}/1jKwP6qOoEFhhr9WFL_mfXvk0IHtElsmB',
        100,
        'none given',
        'davis_timecycle',
        48.2,
        _STUDY,
    ),
    Entry(
        'CorrFlow (OxUvA)',
        'corrflow_resnet18',
        f'{_DRIVE}/1hBufOBoKmHWWKy2-BJObMbYrqDAUJrs7',
        64,
        'none given',
        'davis_corrflow',
        50.3,
        _STUDY,
    ),
    Entry(
        'CorrFlow (Kinetics)',
        'corrflow_resnet18',
        f'{_DRIVE}/1lONshAVbqm8JWYCeWW7hdim1H2e-9tnI',
        64,
        'none given',
        'davis_corrflow',
    ),
    Entry(
        'MAST',
        'mast_resnet18',
        f'{_DRIVE}/1vjiBdom75QzwCF5jnMRsxz897XyotVO8',
        None,
        'none given',
        'davis_mast',
        65.5,
        _STUDY,
    ),
    *(
        Entry(
            f'Spa-then-Temp {network}',
            '',
            f'{_DRIVE}/{file}',
            licence='MIT',
            config='davis_spa_then_temp',
            score=score,
            score_source='its README',
        )
        for network, file, score in (
            ('R18/8', '1kksNGOklpPmlai6ljAIu1-dAcxSgMgml', 70.7),
            ('R18/4', '1ZJHyWMOpWhfmX6vMX5Qkm_2qkqS0grNM', 73.5),
            ('R50/8', '190ND_w4yJC7njdWtmw5bJ-tl5VL8PSJ7', 71.2),
            ('R50/4', '1HZYXhfaCDG9IeKX8ESBGHBn-kUrHC8Q8', 74.1),
        )
    ),
    Entry(
        'ImageNet ResNet18',
        'torchvision_resnet18',
        f'{_TORCH}/resnet18-f37072fd.pth',
        46.8,
        'BSD-3; ImageNet terms',
        'davis_imagenet',
    ),
    Entry(
        'ImageNet ResNet18, old',
        'torchvision_resnet18',
        f'{_TORCH}/resnet18-5c106cde.pth',
        licence='BSD-3; ImageNet terms',
        config='davis_imagenet',
    ),
    Entry(
        'ImageNet ResNet50, old',
        'torchvision_resnet50',
        f'{_TORCH}/resnet50-19c8e357.pth',
        licence='BSD-3; ImageNet terms',
        config='davis_imagenet',
    ),
    Entry(
        'timm ResNet18 (a1_in1k)',
        'torchvision_resnet18',
        'hf://timm/resnet18.a1_in1k',
        46.8,
        'Apache-2.0',
        'davis_imagenet',
    ),
    Entry(
        'Microsoft ResNet18',
        'transformers_resnet18',
        'hf://microsoft/resnet-18',
        licence='Apache-2.0',
        config='davis_imagenet',
    ),
    Entry(
        'Microsoft ResNet50',
        'transformers_resnet50',
        'hf://microsoft/resnet-50',
        licence='Apache-2.0',
        config='davis_imagenet',
    ),
    Entry(
        'MoCo v1 ResNet50',
        'moco_resnet50',
        f'{_META}/moco/moco_checkpoints/moco_v1_200ep/moco_v1_200ep_pretrain.pth.tar',
        licence='CC BY-NC 4.0',
        config='davis_moco',
    ),
    Entry(
        'DeepCluster VGG16',
        'deepcluster_vgg16',
        'https://s3.amazonaws.com/deepcluster/vgg16/checkpoint.pth.tar',
    ),
    Entry(
        'DINO ResNet50',
        'torchvision_resnet50',
        f'{_META}/dino/dino_resnet50_pretrain/dino_resnet50_pretrain.pth',
        94,
        'Apache-2.0',
    ),
    Entry(
        'DINO ViT-S/16',
        'dino',
        f'{_META}/dino/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain.pth',
        87,
        'Apache-2.0',
        'davis_dino',
        61.8,
        'its PR 46',
    ),
    Entry(
        'DINO ViT-S/8',
        'dino',
        f'{_META}/dino/dino_deitsmall8_pretrain/dino_deitsmall8_pretrain.pth',
        87,
        'Apache-2.0',
        'davis_dino',
    ),
    Entry(
        'DINO ViT-B/16',
        'dino',
        f'{_META}/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth',
        343,
        'Apache-2.0',
        'davis_dino',
    ),
    Entry(
        'DINO ViT-B/8',
        'dino',
        f'{_META}/dino/dino_vitbase8_pretrain/dino_vitbase8_pretrain.pth',
        343,
        'Apache-2.0',
        'davis_dino',
    ),
    Entry(
        'DINOv2 ViT-S/14',
        'dinov2',
        f'{_META}/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth',
        licence='Apache-2.0',
        config='davis_dinov2',
    ),
    Entry(
        'DINOv2 ViT-S/14 reg4',
        'dinov2_registers',
        f'{_META}/dinov2/dinov2_vits14/dinov2_vits14_reg4_pretrain.pth',
        licence='Apache-2.0',
        config='davis_dinov2',
    ),
    *(
        Entry(
            f'DINOv3 ViT-{size}/16',
            'dinov3',
            'https://github.com/facebookresearch/dinov3',
            licence='DINOv3 licence',
            config='davis_dinov3',
            score=score,
            score_source=_DINOV3_CARD,
        )
        for size, score in {
            'S': 72.7, 'S+': 75.5, 'B': 77.2, 'L': 79.9, 'H+': 79.3, '7B': 79.7,
        }.items()
    ),
    Entry(
        'MAE ViT-B/16',
        'mae',
        f'{_META}/mae/pretrain/mae_pretrain_vit_base.pth',
        licence='CC BY-NC 4.0',
        config='davis_mae',
    ),
    Entry('SiamMAE', '', config='davis_siammae'),
)  # fmt: skip
