"""Texts of parameters that many docstrings have, written once.

A function that is decorated with ``@docs.dedent`` has ``%(control)s`` in its docstring replaced by the name and text
of the parameter, as scvi-tools does.
"""

from __future__ import annotations

import re
from typing import TypeVar

from docrep import DocstringProcessor

Documented = TypeVar("Documented")


class _Docs:
    """Parameters by name."""

    def __init__(self, **parameters: str) -> None:
        self._processor = DocstringProcessor(**parameters)

    def dedent(self, documented: Documented) -> Documented:
        """Fill in the docstring of a function or a class, in which a lone ``%`` is a percent sign."""
        documented.__doc__ = self._processor.dedent(re.sub(r"(?<!%)%(?![%(])", "%%", documented.__doc__ or ""))
        return documented


docs = _Docs(
    perturbation_key="""perturbation_key
    Column of ``adata.obs`` with the labels.""",
    control="""control
    Label, or several labels, of the control.""",
    delimiter="""delimiter
    Separator of the genes of a combination.""",
    layer="""layer
    Layer with counts or log-normalized values; default ``adata.X``.""",
    library_size_key="""library_size_key
    Column of ``adata.obs`` with each cell's total counts, where the matrix is a part of the genes; default row sums.
    Not used for log-normalized values.""",
    batch_key="""batch_key
    Column of ``adata.obs`` with batches.""",
    guide_key="""guide_key
    Column of ``adata.obs`` with the guide of each cell. A cell with several guides has their names in one value, such
    as ``"A_1|B_2"``, which counts as a guide of its own.""",
    model="""model
    A trained model.""",
    transform_batch="""transform_batch
    Batch that the cells are decoded in: None for their own, the name of a batch, a list of names, or ``"all"`` for all
    that the model knows (unless a batch has that name). Cells of a batch that the model was not trained on need it.""",
    out="""out
    File to write to in parts, instead of keeping all in memory: a path that ends in ``.h5ad`` or ``.zarr``. It is
    written under another name and renamed once it is complete; a file that is there is replaced.""",
    seed_draws="""seed
    Seed of the draws.""",
    progress="""progress
    Whether to show progress bars; by default in a terminal or a notebook.""",
    ax="""ax
    Axes to draw on; default those of a new figure.""",
    figure="""show
    Whether to show the figure; not by default.
save
    File to save the figure to.
return_fig
    Return the figure and not the axes.""",
    baseline_setup="""**setup
    Further arguments of :class:`Baseline`.""",
    graph_setup="""adata, perturbation_key, **setup
    The screen, as for :func:`graph_methods`.""",
    predicted_effects="""predicted
    Predicted effects, shape (n_perturbations, n_genes), or (n_genes,) for one perturbation.
measured
    Measured effects, of the same shape.""",
    per_row="""per_row
    Whether to return the score of every perturbation, shape (n_perturbations,), and not their mean.""",
    pair_effects="""a, b
    Effects of the two perturbations, shape (..., n_genes).
ab
    Effects of the pairs, of the same shape.""",
    shapes_differ="""Raises
------
ValueError
    If the shapes differ.""",
    cells_pair="""x, y
    Cells x genes, sparse or dense, with the same genes.""",
    wrong_cells="""Raises
------
ValueError
    If the genes differ, values are not finite, a sample has too few cells (two, or one if `biased`), or an option is
    out of its range.""",
    graphs="""a, b
    Weights, shape (n_nodes, n_nodes); every weight other than 0 is an edge.""",
    wrong_graphs="""Raises
------
ValueError
    If an array is not square, the shapes differ, or there are fewer than two nodes.""",
    graph_truth="""weights
    Estimated weights, shape (n_nodes, n_nodes).
truth
    True weights, of the same shape; every weight other than 0 is an edge.""",
)
"""Parameters by name: ``%(control)s`` and its like."""
