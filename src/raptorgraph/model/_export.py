"""What a model writes for others: into the user's AnnData, and for cell-eval."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from raptorgraph.model._batches import TransformBatch
from raptorgraph.model._query import check_genes
from raptorgraph.pp._expression import to_expression
from raptorgraph.pp._inputs import expression_source
from raptorgraph.pp._labels import parse_obs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from mudata import MuData

logger = logging.getLogger(__name__)


class ExportMixin:
    """Results in the forms of others."""

    def annotate(
        self,
        adata: AnnData | MuData | None = None,
        counterfactuals: Sequence[str] = (),
        *,
        transform_batch: TransformBatch = None,
    ) -> None:
        """Write latents, graph, effects and counterfactuals into an AnnData, in place.

        Parameters
        ----------
        adata
            Where to write; by default the model's data. In a MuData it is the modality with the expression.
        counterfactuals
            Labels for which to write the counterfactual of every cell.
        transform_batch
            Batch of these, as in :meth:`get_counterfactual`.

        Notes
        -----
        Writes ``obsm["X_raptorgraph"]`` (u) and ``obsm["X_raptorgraph_exogenous"]`` (z), cells x d;
        ``obsm["counterfactual_<label>"]``, cells x the model's genes, for each asked label; ``uns["raptorgraph"]``
        with ``dag`` (the table of :meth:`get_edges`), ``perturbed_genes``, ``effects`` (genes x conditions in the
        training data: HDF5 holds no table of many thousand columns) and ``settings``, in which ``effects`` is their
        ``attrs["kind"]`` (:meth:`predict_effects`). Graph and effects are those of the training data, whichever cells
        are written to; effects on other control cells are what ``predict_effects(..., adata)`` gives.

        Raises
        ------
        ValueError
            For an unknown gene, and where a model was loaded without data and none are given.

        Examples
        --------
        >>> model.annotate(counterfactuals=["P01+P02"])
        >>> {"X_raptorgraph", "X_raptorgraph_exogenous", "counterfactual_P01+P02"} <= set(adata.obsm)
        True

        The latents serve scanpy as any embedding does.

        >>> import scanpy as sc
        >>> sc.pp.neighbors(adata, use_rep="X_raptorgraph")
        """
        target = self._data(adata)
        names = [counterfactuals] if isinstance(counterfactuals, str) else list(counterfactuals)
        labels = self._masks(names)[0] if names else []
        written = {
            "X_raptorgraph": self.get_latent_representation(target),
            "X_raptorgraph_exogenous": self.get_latent_representation(target, kind="exogenous"),
        }
        for label in labels:
            written[f"counterfactual_{label}"] = self.get_counterfactual(label, target, transform_batch=transform_batch)
        # Those of the screen, whatever cells are written to: where the model can say them without cells, it does.
        own = self._has_posterior or self.adata is not None
        effects = self.predict_effects(self.conditions, None if own else target).T
        table = self.get_edges()
        table.index = table.index.astype(str)
        for key, value in written.items():
            target.obsm[key] = value
        target.uns["raptorgraph"] = {
            "dag": table,
            "perturbed_genes": np.asarray(self.perturbed_genes, dtype=object),
            "effects": effects,
            "settings": {
                "preset": self.preset_,
                "likelihood": self.module.likelihood,
                "pairing": self.pairing_,
                "n_latent": len(self.latent_names),
                "delimiter": self.setup_args["delimiter"],
                "effects": effects.attrs["kind"],
            },
        }

    def export_to_cell_eval(
        self,
        directory: str | Path | None = None,
        perturbations: Sequence[str] | None = None,
        adata: AnnData | MuData | None = None,
        *,
        n_cells: int | None = None,
        seed: int | None = None,
        overwrite: bool = False,
        transform_batch: TransformBatch = None,
    ) -> tuple[AnnData, AnnData]:
        """Predict cells and put them beside the real ones, as cell-eval takes them.

        Parameters
        ----------
        directory
            Where to write ``pred.h5ad`` and ``real.h5ad``; created if it is not there. None writes nothing.
        perturbations
            Labels to compare; by default all of `adata`.
        adata
            Real cells with labels, best of a screen that was held out; by default the model's data. Predictions start
            from its control cells, or from those of the model's data where it has none.
        n_cells
            Predicted cells of each perturbation; by default as many as there are real ones.
        seed
            Of the draw; by default ``scvi.settings.seed``.
        overwrite
            Whether to replace files that are there.
        transform_batch
            As in :meth:`predict`.

        Returns
        -------
        Predicted and real cells: the model's genes, the expression scale in ``X`` (CSR, float32; predictions below 0
        are set to 0), canonical labels in ``obs`` under the model's `perturbation_key`; both have the same controls.
        ``cell-eval run -ap pred.h5ad -ar real.h5ad --pert-col perturbation --control-pert control`` compares them.

        Raises
        ------
        FileExistsError
            If one of the files is there, unless `overwrite`.
        ValueError
            For a gene that was not perturbed in the training screen, a perturbation without real cells, and where
            there are no control cells.

        Examples
        --------
        >>> predicted, real = model.export_to_cell_eval("comparison", ["P01", "P02"])
        >>> predicted.shape == real.shape
        True
        >>> sorted(real.obs["perturbation"].unique())
        ['P01', 'P02', 'control']
        """
        files = [] if directory is None else [Path(directory) / f"{name}.h5ad" for name in ("pred", "real")]
        there = [str(file) for file in files if file.exists()]
        if there and not overwrite:
            raise FileExistsError(f"{', '.join(there)} is there already: choose another directory, or overwrite=True.")
        args = self.setup_args
        key, spelling = args["perturbation_key"], {name: args[name] for name in ("control", "delimiter")}
        source = self._data(adata, labels=True)
        check_genes(source, self.var_names_)
        parsed = parse_obs(source, key, **spelling)
        names = [self._label(genes) for genes in parsed.conditions]
        rows = {name: np.flatnonzero(parsed.codes == i) for i, name in enumerate(names)}
        control = names[0]
        asked = self._masks(names[1:] if perturbations is None else perturbations)[0]
        asked = [label for label in dict.fromkeys(asked) if label != control]
        absent = [label for label in asked if label not in rows]
        if absent:
            raise ValueError(f"There are no real cells of {', '.join(absent[:10])} to compare predictions with.")
        controls = source[rows[control]]
        if not len(rows[control]):
            if self.adata is None:
                raise ValueError(f"adata has no control cells (obs[{key!r}] == {control!r}) to start from.")
            controls = self.adata[self._control_rows(self.adata)]
        controls = controls.copy()

        real = {control: self._measured(controls)}
        predicted = {control: real[control]}
        for label in asked:
            real[label] = self._measured(source[rows[label]])
            n = len(rows[label]) if n_cells is None else n_cells
            cells = self.predict(label, controls, n_cells=n, seed=seed, transform_batch=transform_batch)
            predicted[label] = sparse.csr_matrix(cells.X).maximum(0)
        pair = tuple(self._stacked(cells, key) for cells in (predicted, real))
        if files:
            files[0].parent.mkdir(parents=True, exist_ok=True)
            for cells, file in zip(pair, files, strict=True):
                cells.write_h5ad(file)
            logger.info("cell-eval run -ap %s -ar %s --pert-col %s --control-pert %s", files[0], files[1], key, control)
        return pair

    def _measured(self, cells: AnnData) -> sparse.csr_matrix:
        """Measured expression of the model's genes."""
        args = self.setup_args
        cells = cells[:, self.var_names_]
        return sparse.csr_matrix(to_expression(*expression_source(cells, args["layer"], args["library_size_key"])))

    def _stacked(self, cells: dict[str, sparse.csr_matrix], key: str) -> AnnData:
        labels = np.repeat(list(cells), [X.shape[0] for X in cells.values()])
        obs = pd.DataFrame({key: pd.Categorical(labels)}, index=np.arange(len(labels)).astype(str))
        X = sparse.csr_matrix(sparse.vstack(list(cells.values())), dtype=np.float32)
        return ad.AnnData(X, obs=obs, var=pd.DataFrame(index=pd.Index(self.var_names_)))
