"""Registration of a screen: the way from the user's AnnData or MuData to a manager."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from anndata import AnnData
from mudata import MuData

from raptorgraph._docs import docs
from raptorgraph.model._gene_embedding import GeneEmbedding, GeneEmbeddingLike
from raptorgraph.model._inherited import InheritedModel
from raptorgraph.model._mudata import EXPRESSION_KEY, REGISTRY_KEY, label_cells, plain_targets
from raptorgraph.model._setup import plain_names, register
from raptorgraph.screen import Setup
from raptorgraph.screen._modalities import refresh, strip_modality_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd


class RegisteredModel(InheritedModel):
    """Model whose data are registered by one of two calls."""

    @classmethod
    @docs.dedent
    def setup_anndata(
        cls,
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
        gene_embedding: GeneEmbeddingLike | None = None,
        guide_key: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Register a screen; puts the perturbed genes first in ``adata.var``, in place.

        Every aligned slot (X, layers, varm, varp) moves along; ``raw`` stays as it is. A second call changes
        nothing. All checks come first: on an error ``adata`` is as it was.

        Parameters
        ----------
        adata
            Cells x genes, counts or log-normalized values, of any type of number, dense or sparse; in memory, or read
            from an h5ad file, a zarr store or a dask array in parts (see the notes).
        %(perturbation_key)s
        %(control)s
        %(delimiter)s
        %(layer)s
        %(library_size_key)s
        batch_key
            Column of ``obs`` with batches, within which effects are measured; it enters the decoder.
        categorical_covariate_keys
            Columns of ``obs`` with further categories; they enter the decoder.
        continuous_covariate_keys
            Columns of ``obs`` with finite numbers, in any unit; they enter the decoder less their mean over these
            cells and over their standard deviation, and within 10 of these. A query's values are brought to the same
            units, and to the border of the range of these cells where they lie outside.
        gene_embedding
            What is known of genes before the screen, so that effects of genes that nobody perturbed can be predicted:
            a DataFrame genes x features, a key of ``adata.varm``, the path of a ``.csv`` file (names first) or of an
            ``.npz`` file with the arrays ``genes`` and ``embedding``; or gene sets, as a dict from name to genes or
            the path of a ``.gmt`` file, of which TF-IDF and 64 singular directions are taken. It is kept with the
            model. What is said of perturbed genes does not depend on it.
        guide_key
            Column of ``obs`` with the guide of each cell; control cells need none. A cell with several guides has their
            names in one value, such as ``"A_1|B_2"``, which counts as a guide of its own. The model is trained on the
            perturbations, whatever their guides; what it answers by guide (:func:`raptorgraph.tl.guides`, the shares in
            :meth:`get_response_probability`) reads this column by default.

        Raises
        ------
        ValueError
            For missing labels (text such as ``nan``, ``NA`` or ``None`` is one, unless it is in `control`), an unknown
            control label, fewer than two control cells, views, large files by genes (CSC), names that are not unique,
            negative, non-finite or masked values, values that are neither counts (without rounding errors) nor log
            values, sparse matrices with more room than entries; for library sizes below the row sums in more than half
            of the cells, or below a hundredth of it in one; for covariates that are named twice, or are no finite
            numbers; for a `gene_embedding` that has a gene twice, values that are not finite, or fewer than three of
            the genes that were perturbed alone; for perturbed cells without a guide, and a guide in cells of
            perturbations that have no gene in common.
        KeyError
            For columns or layers that are not there.
        TypeError
            For labels that are no strings, for data that are no AnnData, for a matrix of no numbers, and for arguments
            of a wrong type.
        FileNotFoundError
            If the file of `gene_embedding` is not there.

        Warns
        -----
        UserWarning
            If a perturbed gene is named like a control, a cell of unknown perturbation, a guide or a dose; if nearly
            no perturbed gene is in ``var_names`` while a column of ``var`` has them, or other letters; if `delimiter`
            cuts the name of a gene; if batches have no control cells, or a batch or covariate is the perturbation;
            if library sizes are below the row sums in a tenth of the cells, or ten thousand times larger; if a
            continuous covariate is constant or has far outliers; if a file by genes (CSC) is loaded.

        Notes
        -----
        Blanks around ``var_names`` are taken away, in place; those around labels do not matter.

        Values that are not in memory stay where they are: those of backed data (``anndata.read_h5ad(path,
        backed="r")``), of h5py and zarr arrays and of dask arrays (``anndata.experimental.read_lazy``). They are read
        once here, in chunks, for all checks. Their genes keep their order, and the model reads them in its own, which
        ``model.predict_effects(...).columns`` shows; lazy tables of cells and genes are loaded.

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
        given = locals()
        given.pop("gene_embedding")  # kept apart, since it is no name
        if guide_key is None:
            given.pop("guide_key")  # as in setups of earlier releases, which knew none
        embedding = None
        if gene_embedding is not None:
            embedding = GeneEmbedding.of(gene_embedding, adata if isinstance(adata, AnnData) else None)
        cls.register_manager(register(cls, adata, cls._get_setup_method_args(**given), embedding, **kwargs))

    @classmethod
    def setup_mudata(
        cls,
        mdata: MuData,
        perturbation_key: str = "perturbation",
        *,
        modalities: Mapping[str, str],
        guide_targets: str | Mapping[str, str] | pd.Series = "target",
        no_guide: str | None = None,
        too_many: str | None = None,
        guide_kwargs: dict[str, Any] | None = None,
        control: str | list[str] = "control",
        delimiter: str = "+",
        layer: str | None = None,
        library_size_key: str | None = None,
        batch_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        continuous_covariate_keys: list[str] | None = None,
        gene_embedding: GeneEmbeddingLike | None = None,
        guide_key: str | None = None,
    ) -> None:
        """Register a screen with expression in one modality and guides in another.

        Calls the guides (:func:`raptorgraph.pp.assign_guides`), writes the labels to the cells of the expression's
        modality, and registers that modality as :meth:`setup_anndata` does. The model is then built from the MuData
        and works on that modality, ``model.adata``. All checks come first: on an error ``mdata`` is as it was.

        Parameters
        ----------
        mdata
            MuData. Cells of the modalities are matched by name; those that the guides lack have no guide.
        perturbation_key
            Column of the expression's ``obs`` that gets the labels; without guides, the column that has them.
        modalities
            ``{"expression": name}``, and ``"guides"`` where labels come from guides. Leave them out to keep labels
            that :func:`raptorgraph.pp.assign_guides` wrote before, with other thresholds than those given here.
        guide_targets
            Gene of each guide: column of the guides' ``var``, or a mapping or Series from guide to gene. Guides whose
            target is `control` or ``"non-targeting"`` perturb nothing.
        no_guide
            What cells without a guide are: ``"drop"`` takes them out of ``mdata``, ``"control"`` counts them as
            controls. By default such cells are an error, which says how many there are.
        too_many
            What cells with guides of more than two genes are: ``"drop"``, or ``"top"`` for the guides with the most
            counts. By default such cells are an error.
        guide_kwargs
            Further arguments of :func:`raptorgraph.pp.assign_guides`: ``min_counts``, ``min_fraction``, ``method``,
            ``max_genes``, ``non_targeting``, ``layer``, ``calls``, ``calls_delimiter``.
        control
            Label or labels of control cells; cells with non-targeting guides get the first.
        delimiter, layer
            As in :meth:`setup_anndata`; the layer is that of the expression.
        library_size_key, batch_key, categorical_covariate_keys, continuous_covariate_keys
            As in :meth:`setup_anndata`. Columns that the expression's ``obs`` lacks are copied from ``mdata.obs``, that
            of `guide_key` too.
        gene_embedding
            As in :meth:`setup_anndata`; a key is one of the expression's ``varm``.
        guide_key
            As in :meth:`setup_anndata`; ``f"{perturbation_key}_guides"`` for the guides that are called here.

        Raises
        ------
        KeyError
            For modalities, columns and layers that are not there.
        TypeError
            For data that are no MuData, and unknown `guide_kwargs`.
        ValueError
            As in :meth:`setup_anndata` and :func:`raptorgraph.pp.assign_guides`; for cells without a label that
            `no_guide` and `too_many` do not decide on; for a view.

        Notes
        -----
        Writes to the expression's modality what :meth:`setup_anndata` and :func:`raptorgraph.pp.assign_guides` write,
        and ``mdata.uns["_raptorgraph_expression"]``; updates ``mdata``, whose genes are reordered.

        :meth:`load` takes a MuData too, and calls its guides in the same way where its cells have no labels yet. Other
        methods take a MuData for its modality with the expression. ``scvi.autotune`` takes ``mdata[name]``.

        Examples
        --------
        Guides of the single and double perturbations of a screen.

        >>> import anndata as ad, mudata as md
        >>> genes = [f"P0{i}" for i in range(1, 7)]
        >>> labels = adata.obs.pop("perturbation")
        >>> targets = [*genes, "control"]
        >>> counts = np.array([[20.0 * (target in label) for target in targets] for label in labels])
        >>> var = pd.DataFrame({"target": targets}, index=[f"{target}_guide" for target in targets])
        >>> guides = ad.AnnData(counts, obs=adata.obs[[]], var=var)
        >>> mdata = md.MuData({"rna": adata, "guides": guides})
        >>> rg.RaptorGraphModel.setup_mudata(mdata, modalities={"expression": "rna", "guides": "guides"})
        >>> model = rg.RaptorGraphModel(mdata)
        >>> model.perturbed_genes == genes
        True
        """
        given = locals()
        if not isinstance(mdata, MuData):
            hint = "; use setup_anndata" if isinstance(mdata, AnnData) else ""
            raise TypeError(f"mdata must be a MuData, not {type(mdata).__name__}{hint}.")
        setup = Setup.of({field.name: given[field.name] for field in fields(Setup)})
        mudata_args = {
            "modalities": modalities,
            "guide_targets": plain_targets(guide_targets),
            "no_guide": no_guide,
            "too_many": too_many,
            "guide_kwargs": guide_kwargs,
        }
        embedding = None
        if gene_embedding is not None:
            embedding = GeneEmbedding.of(gene_embedding, mdata.mod.get(dict(modalities).get("expression")))
        cells = label_cells(mdata, mudata_args, setup, embedding)
        strip_modality_names(mdata, modalities["expression"])
        cls.setup_anndata(cells, **setup, gene_embedding=None if embedding is None else embedding.table())
        manager = cls._get_most_recent_anndata_manager(cells, required=True)
        manager.registry[REGISTRY_KEY] = deepcopy({**mudata_args, "modalities": dict(modalities)})
        mdata.uns[EXPRESSION_KEY] = modalities["expression"]
        refresh(mdata)
