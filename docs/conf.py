"""How Sphinx builds these pages: `make docs`, then open out/docs/index.html.

This executes the notebooks, which takes about two minutes; their outputs are kept in
out/jupyter_cache and used again until a cell changes. A change of the package does not
show in that cache: `make clean` empties it.
"""

import importlib.util
import os
import shutil
from pathlib import Path

import adamax_optax

HERE = Path(__file__).parent
ROOT = HERE.parent

project = "adamax_optax"
author = "The adamax_optax authors"
copyright = author
version = release = adamax_optax.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["notebooks/data"]
# Warn of missing links, names and pictures.
nitpicky = True

# Sphinx reads only what lies beside this file.
shutil.rmtree(HERE / "notebooks", ignore_errors=True)
shutil.copytree(ROOT / "notebooks", HERE / "notebooks")

# Notebooks, and Markdown.
nb_execution_mode = "cache"
nb_execution_cache_path = str(ROOT / "out" / "jupyter_cache")
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True
# Shared with the tests that run the notebooks: most of the time is compilation.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(ROOT / "out" / "jax_cache")
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3

# The reference, from the docstrings.
# The prose has the types; a signature shows names and defaults.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_use_rtype = False
napoleon_attr_annotations = False
# `name` in a docstring becomes a link if this package or one of the libraries below has
# it, and code if not.
default_role = "py:obj"
nitpick_ignore_regex = [("py:obj", r"(?!adamax_optax\.).*")]

# Links into other libraries' pages. Without a network the inventory beside this file
# stands in for theirs: it is empty, so their names become code, without a warning.
intersphinx_mapping = {
    name: (f"https://{address}/", (None, "offline.inv"))
    for name, address in {
        "python": "docs.python.org/3",
        "numpy": "numpy.org/doc/stable",
        "jax": "docs.jax.dev/en/latest",
        "optax": "optax.readthedocs.io/en/latest",
        "flax": "flax.readthedocs.io/en/latest",
    }.items()
}
intersphinx_timeout = 5  # seconds
intersphinx_cache_limit = 0  # an empty inventory must not outlive the build

# In prose "|g|" means a modulus, and not one of reStructuredText's substitutions.
rst_prolog = r"""
.. |g| replace:: \|g\|
.. |m| replace:: \|m\|
"""

# Mathematics without the network: the one file of MathJax that needs no other.
mathjax = importlib.util.find_spec("sphinx-mathjax-offline")
mathjax_path = "tex-svg-full.js"
# So that \text{total\_iters} shows no backslash.
mathjax3_config = {"tex": {"packages": {"[+]": ["textmacros"]}}}

# Literal blocks are equations, not Python.
highlight_language = "none"

html_theme = "furo"
html_title = f"adamax_optax {release}"
html_static_path = [
    str(Path(mathjax.origin).parent / "static" / "mathjax" / mathjax_path)
]
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#0072B2",
        "color-brand-content": "#0072B2",
    },
    "dark_css_variables": {
        "color-brand-primary": "#56B4E9",
        "color-brand-content": "#56B4E9",
    },
}
html_show_copyright = False
html_show_sphinx = False


def skip_fields(app, what, name, obj, skip, options):
    """Skip the fields of a named tuple: its docstring has them, under Attributes."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def setup(app):
    """Register the hook; Sphinx calls this."""
    app.connect("autodoc-skip-member", skip_fields)
