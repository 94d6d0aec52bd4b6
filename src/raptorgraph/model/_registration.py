"""Registration of a screen: the way from the user's AnnData to a manager."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raptorgraph.model._setup import plain_names, register

if TYPE_CHECKING:
    from anndata import AnnData

    from raptorgraph.model import RaptorGraphModel


def setup_anndata(
    cls: type[RaptorGraphModel],
    adata: AnnData,
    perturbation_key: str = "perturbation",
    *,
    control: str | list[str] = "control",
    delimiter: str = "+",
    layer: str | None = None,
    library_size_key: str | None = None,
    batch_key: str | None = None,
    categorical_covariate_keys: list[str] | None = None,
    continuous_covariate_keys: list[str] | None = None,
    **kwargs: Any,
) -> None:
    """Register a screen; puts the perturbed genes first in ``adata.var``, in place.

    Every aligned slot (X, layers, varm, varp) moves along; ``raw`` stays as it is. A second call changes
    nothing. All checks come first: on an error ``adata`` is as it was.

    Parameters
    ----------
    adata
        Cells x genes, counts or log-normalized values, of any type of number, dense or sparse.
    perturbation_key
        Column of ``obs`` with the labels.
    control
        Label or labels of control cells.
    delimiter
        Between the genes of a combination. ``A+B`` and ``B+A`` are the same.
    layer
        Layer with the values; by default ``X``.
    library_size_key
        Column of ``obs`` with the total counts of each cell over all genes, at least the sum of its row, for data
        that hold a part of the genes; by default row sums. Not used for log-normalized values.
    batch_key
        Column of ``obs`` with batches, within which effects are measured; it enters the decoder.
    categorical_covariate_keys
        Columns of ``obs`` with further categories; they enter the decoder.
    continuous_covariate_keys
        Columns of ``obs`` with finite numbers, in any unit; they enter the decoder less their mean over these
        cells and over their standard deviation, and within 10 of these. A query's values are brought to the same
        units, and to the border of the range of these cells where they lie outside.

    Raises
    ------
    ValueError
        For missing labels (text such as ``nan``, ``NA`` or ``None`` is one, unless it is in `control`), an unknown
        control label, fewer than two control cells, views, backed data, names that are not unique, negative,
        non-finite or masked values, values that are neither counts (without rounding errors) nor log values,
        sparse matrices with more room than entries; for library sizes below the row sums in more than half of the
        cells, or below a hundredth of it in one; for covariates that are named twice, or are no finite numbers.
    KeyError
        For columns or layers that are not there.
    TypeError
        For labels that are no strings, for data that are no AnnData, for a matrix of no numbers, and for arguments
        of a wrong type.

    Warns
    -----
    UserWarning
        If a perturbed gene is named like a control, a cell of unknown perturbation, a guide or a dose; if nearly
        no perturbed gene is in ``var_names`` while a column of ``var`` has them, or other letters; if `delimiter`
        cuts the name of a gene; if batches have no control cells, or a batch or covariate is the perturbation;
        if library sizes are below the row sums in a tenth of the cells, or ten thousand times larger; if a
        continuous covariate is constant or has far outliers.

    Notes
    -----
    Blanks around ``var_names`` are taken away, in place; those around labels do not matter.

    Writes ``obsm["_scvi_perturbation"]`` (sparse cells x perturbed genes), ``obs["_scvi_batch"]``, for counts
    ``obs["_scvi_library_size"]``, and scvi-tools' keys in ``uns``.

    Errors about labels name the call that would work, as :func:`raptorgraph.pp.suggest_setup` finds it.

    Examples
    --------
    >>> rg.RaptorGraphModel.setup_anndata(adata, "perturbation", library_size_key="total_counts")
    >>> list(adata.var_names[:3])
    ['P01', 'P02', 'P03']
    """
    control, categorical_covariate_keys, continuous_covariate_keys = plain_names(
        control, categorical_covariate_keys, continuous_covariate_keys
    )
    cls.register_manager(register(cls, adata, cls._get_setup_method_args(**locals()), **kwargs))
