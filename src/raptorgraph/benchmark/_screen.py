"""A screen as the experiments see it: cells, conditions, and effects with their sampling variance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from raptorgraph import datasets, pp
from raptorgraph.benchmark._settings import Settings, screen_file
from raptorgraph.pp._expression import to_expression
from raptorgraph.pp._files import read_cells
from raptorgraph.pp._inputs import batch_codes, expression_source
from raptorgraph.pp._labels import parse_obs
from raptorgraph.pp._names import gene_names, strip_gene_names
from raptorgraph.pp._setup_hints import warn_of_setup
from raptorgraph.pp._statistics import ConditionMoments, EffectMoments, condition_moments, effect_moments

_PUBLIC = ("norman2019", "replogle2020")
# Screens of three kinds: effects add up, saturate, or interact strongly.
_SIMULATED: dict[str, dict[str, Any]] = {
    "simulated": {},
    "simulated-additive": {"mechanism": "linear", "interaction_strength": 0.0},
    "simulated-saturating": {"mechanism": "saturating", "interaction_strength": 0.0},
    "simulated-interacting": {"mechanism": "saturating", "interaction_strength": 1.0},
}
_SIZE = {"n_genes": 500, "n_perturbed": 20, "n_doubles": 40}
_QUICK = {
    "n_genes": 60,
    "n_perturbed": 5,
    "n_doubles": 8,
    "n_control_cells": 120,
    "n_cells_per_perturbation": 40,
    "n_truth_cells": 20,
}


@dataclass
class Screen:
    """A screen and its setup.

    Attributes
    ----------
    adata
        Cells x genes.
    setup
        Arguments of ``setup_anndata``.

    Examples
    --------
    >>> screen = rg.benchmark.Screen(
    ...     adata, {"perturbation_key": "perturbation", "control": "control", "delimiter": "+"}
    ... )
    >>> screen.singles
    ['P01', 'P02', 'P03', 'P04', 'P05', 'P06']
    >>> screen.combinations
    ['P01+P03', 'P02+P03', 'P02+P06', 'P03+P06']
    >>> len(screen.rows("control"))
    300
    """

    adata: ad.AnnData
    setup: Mapping[str, Any]

    def __post_init__(self) -> None:
        parsed = parse_obs(self.adata, self.setup["perturbation_key"], require_control=True, **self.spelling)
        if list(gene_names(self.adata)) != list(self.adata.var_names):
            self.adata = self.adata.copy()
            strip_gene_names(self.adata)
        self.codes = parsed.codes
        self.labels = [self.label(genes) for genes in parsed.conditions]
        self.genes_of = dict(zip(self.labels, parsed.conditions, strict=True))
        self.control = self.labels[0]

    @property
    def spelling(self) -> dict[str, Any]:
        """How labels are spelled, as arguments of :func:`raptorgraph.pp.format_perturbation`."""
        return {"control": self.setup["control"], "delimiter": self.setup["delimiter"]}

    def label(self, genes: Sequence[str]) -> str:
        """Canonical label of the perturbation of these genes; of control without any."""
        return pp.format_perturbation(genes, **self.spelling)

    def single(self, gene: str) -> str:
        """Canonical label of the perturbation of one gene."""
        return self.label([gene])

    @property
    def conditions(self) -> list[str]:
        """Canonical labels of the perturbations, without control."""
        return self.labels[1:]

    @property
    def singles(self) -> list[str]:
        """Conditions of one gene."""
        return [label for label in self.conditions if len(self.genes_of[label]) == 1]

    @property
    def combinations(self) -> list[str]:
        """Conditions of two genes or more."""
        return [label for label in self.conditions if len(self.genes_of[label]) > 1]

    def rows(self, label: str) -> np.ndarray:
        """Rows of the cells of a condition, or of ``"control"``."""
        return np.flatnonzero(self.codes == self.labels.index(label))

    def cells(self, conditions: Sequence[str]) -> ad.AnnData:
        """Copy of the control cells and those of the given conditions."""
        wanted = [0, *(self.labels.index(label) for label in conditions)]
        return self.adata[np.isin(self.codes, wanted)].copy()

    @cached_property
    def expression(self) -> sparse.csr_matrix:
        """Cells x genes on the expression scale."""
        X, library = expression_source(self.adata, self.setup.get("layer"), self.setup.get("library_size_key"))
        return sparse.csr_matrix(to_expression(X, library))

    @cached_property
    def moments(self) -> EffectMoments:
        """Measured effects of control and all conditions, in the order of ``labels``."""
        return self.moments_of(None)

    @cached_property
    def condition_moments(self) -> ConditionMoments:
        """Number of cells, mean and variance of control and all conditions, in the order of ``labels``."""
        return condition_moments(self.expression, self.codes, len(self.labels))

    def expression_of(self, label: str) -> np.ndarray:
        """Cells of a condition x genes on the expression scale, dense."""
        return self.expression[self.rows(label)].toarray()

    def moments_of(self, rows: np.ndarray | None) -> EffectMoments:
        """Effects measured on some of the cells."""
        batch = batch_codes(self.adata, self.setup.get("batch_key"))
        return effect_moments(self.expression, self.codes, len(self.labels), batch=batch, rows=rows)

    @cached_property
    def effects(self) -> pd.DataFrame:
        """Measured effects, conditions x genes."""
        return self._table(self.moments)

    def effects_of(self, rows: np.ndarray) -> pd.DataFrame:
        """Effects measured on some of the cells, conditions x genes."""
        return self._table(self.moments_of(rows))

    def _table(self, moments: EffectMoments) -> pd.DataFrame:
        return pd.DataFrame(moments.effect[1:], index=self.conditions, columns=self.adata.var_names)

    @cached_property
    def control_mean(self) -> np.ndarray:
        """Mean of the control cells, shape (n_genes,)."""
        return np.asarray(self.expression[self.codes == 0].mean(axis=0), dtype=np.float64).ravel()

    def halves(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of two random halves of every condition, control included."""
        rng = np.random.default_rng([seed, 1])
        first, second = [], []
        for code in range(len(self.labels)):
            rows = rng.permutation(np.flatnonzero(self.codes == code))
            first.append(rows[: len(rows) // 2])
            second.append(rows[len(rows) // 2 :])
        return np.sort(np.concatenate(first)), np.sort(np.concatenate(second))


def load_screen(settings: Settings, seed: int = 0) -> Screen:
    """Read, download or simulate the screen of the settings.

    Parameters
    ----------
    settings
        ``settings.screen`` is the path of an h5ad file or a zarr store; or ``"norman2019"`` or ``"replogle2020"``
        (downloaded); or ``"simulated"``, ``"simulated-additive"``, ``"simulated-saturating"`` or
        ``"simulated-interacting"``; or the name of an h5ad file or zarr store in the folder ``$RAPTORGRAPH_DATA``.
    seed
        Seed of a simulated screen, which is another one for each repetition.

    Returns
    -------
    Screen
        With the setup completed by its defaults.

    Raises
    ------
    FileNotFoundError
        If there is no such file or name.
    KeyError
        If a column or the layer is not there.
    ValueError
        If the file holds no AnnData or is damaged, or labels or values do not suit.

    Examples
    --------
    >>> settings = rg.benchmark.Settings(screen="simulated", quick=True)
    >>> screen = rg.benchmark.load_screen(settings, seed=0)
    >>> screen.adata.shape
    (640, 60)
    >>> screen.setup["library_size_key"]
    'total_counts'
    """
    name = settings.screen
    setup = {"perturbation_key": "perturbation", "control": "control", "delimiter": "+", **settings.setup}
    if name is None:
        raise ValueError("Name a screen: screen='FILE.h5ad' (or .zarr), 'norman2019', 'replogle2020' or 'simulated'.")
    if name in _SIMULATED:
        size = _QUICK if settings.quick else _SIZE
        adata = datasets.simulate(**{**size, **_SIMULATED[name]}, seed=seed)
        setup["library_size_key"] = setup.get("library_size_key") or "total_counts"
    elif name in _PUBLIC:
        adata = getattr(datasets, name)()
        if setup.get("layer") is None and "counts" in adata.layers:  # counts tell more than their logarithms
            setup["layer"] = "counts"
            setup["library_size_key"] = setup.get("library_size_key") or "total_counts"
    else:
        adata = read_cells(_find(name))
        spelling = {key: setup[key] for key in ("perturbation_key", "control", "delimiter")}
        keys = {"batch_key": setup.get("batch_key"), "categorical": ()}
        batch_codes(adata, keys["batch_key"])
        warn_of_setup(adata, parse_obs(adata, **spelling, require_control=True), **spelling, **keys)
    if settings.n_top_genes is not None:
        library_key = setup.get("library_size_key") or "raptorgraph_library_size"
        pp.select_genes(adata, settings.n_top_genes, **setup)
        # the row sums of the genes that are left are not library sizes
        setup["library_size_key"] = library_key if library_key in adata.obs else None
    screen = Screen(adata, setup)
    # their errors now, not in every unit of work
    expression_source(adata, setup.get("layer"), setup.get("library_size_key"))
    batch_codes(adata, setup.get("batch_key"))
    return screen


def _find(name: str) -> Path:
    path = screen_file(name)
    if path is None and not Path(name).exists():
        known = ", ".join([*_SIMULATED, *_PUBLIC])
        raise FileNotFoundError(f"There is no file {name!r}; screens with a name are {known}.")
    return path or Path(name)
