"""How Sphinx builds these pages: `make docs`. All warnings are errors."""

import re
from typing import Any

import bga_mner


project = "bga-mner"
author = "The bga-mner authors"
release = version = bga_mner.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "bga-mner"
html_copy_source = False
REPOSITORY = "https://github.com/bga-mner/bga-mner"
# Links to headings, as GitHub makes them.
myst_heading_anchors = 3
# Single backticks are code in the docstrings, as in Markdown.
default_role = "code"
napoleon_google_docstring = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
# [`Name`] in a docstring has to name something of these pages; types in signatures and tables may be from elsewhere.
nitpicky = True
nitpick_ignore_regex = [("py:(class|exc|attr|meth|data)", ".*")]


def _link_names(app: Any, what: str, name: str, of: Any, options: Any, lines: list[str]) -> None:
    """Turn [`Name`], transformers' way to write a link, into Sphinx's."""
    lines[:] = [re.sub(r"\[`([\w.]+)`\]", r":py:obj:`~bga_mner.\1`", line) for line in lines]


def _link_files(app: Any, page: str, text: list[str]) -> None:
    """Lead links to benchmarks/README.md to the page that includes it, and links to the root's files to GitHub."""
    above = "../" * page.count("/")
    text[0] = text[0].replace(f"]({above}../benchmarks/README.md", f"]({above}explanation/measurements.md")
    text[0] = re.sub(rf"\]\({above}\.\./([A-Z]+\.md)", rf"]({REPOSITORY}/blob/main/\1", text[0])


def setup(app: Any) -> None:
    """Connect the functions above to Sphinx."""
    app.connect("autodoc-process-docstring", _link_names)
    app.connect("source-read", _link_files)
