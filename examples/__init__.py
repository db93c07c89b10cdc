"""Scripts that use the package, and what they share.

Run them by path, from any folder: `python examples/quickstart.py`. An editable install, which `make install` and
`pip install -e .` make, gives the folders of a clone the names `bga_mner.examples` and `bga_mner.benchmarks`; the
scripts import each other by these names alone. A wheel has neither folder. Benchmarks import examples, never the other
way round.
"""
