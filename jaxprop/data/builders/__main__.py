"""Builds a data set: python -m jaxprop.data.builders {videos,images} ROOT OUTPUT."""

import argparse
import importlib

parser = argparse.ArgumentParser(
    prog='python -m jaxprop.data.builders', description='Builds array_record files from a folder.'
)
parser.add_argument('name', choices=('videos', 'images'), help='what the folder holds')
parser.add_argument('root', help='the folder, in a layout that training accepts as it is')
parser.add_argument('output', help='folder in which the data set gets a folder of its own')
arguments = parser.parse_args()
module = importlib.import_module(
    f'jaxprop.data.builders.{arguments.name}.{arguments.name}_dataset_builder'
)
builder = module.Builder(arguments.root, data_dir=arguments.output)
builder.download_and_prepare()
for name, reason in builder.unreadable.items():
    print(f'left out {name}: {reason}')
print(builder.data_path)
