import doctest
from importlib import import_module

import pytest


MODULES = [
    "label_alignment",
    "mner_metric",
    "padding",
    "pictures",
    "prediction",
    "tag_scheme",
    "word_splitting",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    results = doctest.testmod(import_module(f"bga_mner.processing.{name}"))
    assert results.attempted > 0
    assert results.failed == 0
