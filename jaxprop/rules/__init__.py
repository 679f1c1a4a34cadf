"""How a target cell is labelled from the context: one file a rule.

A rule or a spatial region of your own is one new file here: `narrow_band.py` with a frozen
dataclass `NarrowBand`. It is found by `--config.propagation.restriction=narrow_band`, and its
fields are set by their names, `--config.propagation.height=2`; a region's `bind_first` goes by
`restrict_first`, a rule's `k` by `num_neighbors`. `jaxprop.rules.rule` says what a `Rule` and a
`Region` must have.
"""
