"""Builds data sets as array_record files, by TensorFlow Datasets without TensorFlow.

A file system copes better with a few large files than with millions of small ones. Each builder is
in a package of its own, as TensorFlow Datasets wants it. A command builds the data set:

    python -m jaxprop.data.builders videos KINETICS OUTPUT

Its last line is a folder: the `root` of a `DatasetConfig` of kind 'tfds'.
"""
