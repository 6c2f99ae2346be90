"""The documentation as a site: ``python -m sphinx -W docs site``."""

from __future__ import annotations

from importlib.metadata import version as installed

project = "lightning_inf"
author = "The lightning_inf authors"
version = release = installed("lightning_inf")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
root_doc = "index"

# Pages include sections of README.md, so that nothing is said twice.
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_class_signature = "mixed"
autodoc_inherit_docstrings = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
# Docstrings name classes of Lightning and torch that are not looked up elsewhere: the site builds without a network.
nitpicky = False

html_theme = "furo"
html_title = "lightning_inf"
html_extra_path = ["sample"]  # the sample report, as it is
html_show_sourcelink = False
html_copy_source = False
