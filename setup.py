"""The packages of the wheel; all else is in pyproject.toml."""

from setuptools import find_namespace_packages, find_packages, setup

setup(
    packages=[
        *find_packages(include=['jaxprop', 'jaxprop.*']),
        'jaxprop.configs',
        *(f'jaxprop.configs.{name}' for name in find_namespace_packages('configs')),
    ],
    package_dir={'jaxprop.configs': 'configs'},
)
