"""The cells of a model's screen: how their labels are written, and their expression."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import numpy as np

from raptorgraph.screen._expression import to_expression
from raptorgraph.screen._inputs import expression_source
from raptorgraph.screen._labels import format_perturbation, parse_obs, parse_perturbation

if TYPE_CHECKING:
    from collections.abc import Collection

    import numpy.typing as npt
    from anndata import AnnData
    from scipy import sparse

    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.pl._figure import Floats


class Spelling(TypedDict):
    """How labels are written."""

    control: str | list[str]
    delimiter: str


def spelling(model: RaptorGraphModel) -> Spelling:
    """How the labels of the model's screen are written."""
    return {"control": model.setup_args["control"], "delimiter": model.setup_args["delimiter"]}


def canonical(model: RaptorGraphModel, perturbation: str | Collection[str]) -> str:
    """Label of one perturbation, given by a label or its genes, as the model writes it."""
    names = spelling(model)
    return format_perturbation(parse_perturbation(perturbation, **names), **names)


def data_of(model: RaptorGraphModel, hint: str = "") -> AnnData:
    """The model's data; ValueError, with the hint, where it was loaded without."""
    if model.adata is None:
        raise ValueError(f"The model was loaded without data: load it with adata=...{hint}")
    return model.adata


def labels_of(
    model: RaptorGraphModel, adata: AnnData, *, require_control: bool = False
) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.int64]]:
    """Canonical labels of the conditions, the control first, and the condition of each cell."""
    names = spelling(model)
    parsed = parse_obs(adata, model.setup_args["perturbation_key"], **names, require_control=require_control)
    labels = np.empty(len(parsed.conditions), dtype=object)
    labels[:] = [format_perturbation(genes, **names) for genes in parsed.conditions]
    return labels, parsed.codes


def expression_of(
    model: RaptorGraphModel, adata: AnnData, genes: list[int] | slice = slice(None)
) -> Floats | sparse.csr_matrix:
    """Values of the chosen genes on the expression scale, read as the model reads them."""
    X, library = expression_source(adata, model.setup_args.get("layer"), model.setup_args.get("library_size_key"))
    return to_expression(X[:, genes], library)
