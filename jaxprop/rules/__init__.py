"""Rules, one file each: a rule says how the cells of a frame get their labels from the context.

A rule or a spatial region of your own is one new file here: `narrow_band.py` with a frozen
dataclass `NarrowBand`. `--config.propagation.restriction=narrow_band` finds it, and its fields are
settings of the same names, `--config.propagation.height=2`. Two fields have other names there: a
region's `bind_first` is `restrict_first`, a rule's `k` is `num_neighbors`. `jaxprop.rules.rule`
says what a `Rule` and a `Region` must have.
"""
