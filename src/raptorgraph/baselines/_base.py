"""Base class of the baselines: their setup, labels and checks, and the form of their predictions."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any, Self

import anndata as ad
import numpy as np
import pandas as pd
from sklearn.exceptions import NotFittedError

from raptorgraph._arguments import check_integer
from raptorgraph._docs import docs
from raptorgraph.screen._screen import Screen
from raptorgraph.screen._setup import Setup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData


@docs.dedent
class Baseline(abc.ABC):
    """A predictor of perturbation effects that is fitted to cells and asked by label.

    All baselines answer the same questions: about any set of genes each of which was perturbed in the training data,
    alone or in a combination. A gene that was not is an error for all of them, even for those whose answer does not
    depend on the genes, so that their scores rest on the same perturbations. A baseline has the attributes that
    :func:`raptorgraph.tl.interactions` reads from a model.

    Parameters
    ----------
    %(perturbation_key)s
    %(control)s
    %(delimiter)s
    %(layer)s
    %(library_size_key)s
    %(batch_key)s

    Attributes
    ----------
    needs_doubles
        Whether the training data must hold combinations of perturbations.
    setup_args
        The parameters above, a mapping.

    Raises
    ------
    TypeError
        If a key or label is no string.
    ValueError
        If `control` or `delimiter` is empty, or `batch_key` is the `perturbation_key`.

    Examples
    --------
    Every baseline is used alike; see :func:`ladder` for all of them.

    >>> baseline = rg.baselines.Additive(library_size_key="total_counts").fit(adata)
    >>> baseline.perturbed_genes
    ['P01', 'P02', 'P03', 'P04', 'P05', 'P06']
    >>> effects = baseline.predict_effects(["P01", "P01+P02"])
    >>> effects.shape
    (2, 100)
    >>> cells = baseline.predict("P01+P02", n_cells=50)
    >>> cells.shape, cells.obs["perturbation"].unique().tolist()
    ((50, 100), ['P01+P02'])
    """

    needs_doubles: bool = False

    def __init__(
        self,
        perturbation_key: str = "perturbation",
        *,
        control: str | Sequence[str] = "control",
        delimiter: str = "+",
        layer: str | None = None,
        library_size_key: str | None = None,
        batch_key: str | None = None,
    ):
        setup = Setup(perturbation_key, control, delimiter, layer, library_size_key, batch_key)
        self.setup_args: dict[str, Any] = dict(setup)
        self._conditions: tuple[tuple[str, ...], ...] | None = None

    # -- what a baseline does --------------------------------------------------------------------------------------
    @abc.abstractmethod
    def fit(self, adata: AnnData) -> Self:
        """Learn from the training cells, control cells among them; `adata` is unchanged.

        Parameters
        ----------
        adata
            Training cells x genes.

        Returns
        -------
        The baseline itself.

        Raises
        ------
        KeyError
            If a column or the layer is not there.
        ValueError
            If labels are missing, there are fewer than two control cells, no perturbation that the baseline needs, or
            the values are neither counts nor logarithms.
        """

    @abc.abstractmethod
    def predict_effects(self, perturbations: str | Sequence[str]) -> pd.DataFrame:
        """Mean effects on the expression scale, predicted perturbed minus predicted control.

        Parameters
        ----------
        perturbations
            A label such as ``"A"``, ``"A+B"`` or ``"control"`` (whose effect is 0); the genes of one perturbation as a
            tuple or set, ``("A", "B")``; or a list of these.

        Returns
        -------
        Perturbations (canonical labels, one row for each that was asked) x genes, float64.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the baseline is not fitted.
        ValueError
            If no label is given, or the training data lack what the prediction needs.
        """

    @abc.abstractmethod
    @docs.dedent
    def predict(self, perturbations: str | Sequence[str], n_cells: int | None = None, seed: int = 0) -> AnnData:
        """Draw cells of each perturbation.

        Parameters
        ----------
        perturbations
            One or more, as in :meth:`predict_effects`.
        n_cells
            Cells of each perturbation; default the number of control cells in the training data.
        %(seed_draws)s

        Returns
        -------
        Cells x genes with the expression scale in ``X``, ``obs["perturbation"]`` (canonical labels) and
        ``obs["control_cell"]`` (the training cell that each one started from).

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the baseline is not fitted.
        ValueError
            If no label is given, `n_cells` is not positive, or the training data lack what the prediction needs.
        """

    @abc.abstractmethod
    def predict_control(self) -> np.ndarray:
        """Mean predicted control profile on the expression scale, shape (n_genes,), float64."""

    def predict_profiles(self, perturbations: str | Sequence[str]) -> pd.DataFrame:
        """Profiles that the mean training control cell has under each perturbation (RAPTORGraph paper, Eq. S17).

        A baseline that adds an effect gives the mean control plus the effect; a network is given the mean profile as
        if it were a cell, which is not the mean over the cells that it predicts.

        Parameters
        ----------
        perturbations
            One or more, as in :meth:`predict_effects`.

        Returns
        -------
        Perturbations (canonical labels) x genes, float64, on the expression scale.

        Raises
        ------
        sklearn.exceptions.NotFittedError, ValueError
            As :meth:`predict_effects`.
        """
        return self.predict_effects(perturbations) + self.predict_control()

    @property
    def _setup(self) -> Setup:
        return Setup.of(self.setup_args)

    # -- labels ----------------------------------------------------------------------------------------------------
    @property
    def perturbed_genes(self) -> list[str]:
        """Genes perturbed in the training data, alone or in a combination, sorted."""
        return sorted({gene for genes in self._fitted_conditions() for gene in genes})

    @property
    def conditions(self) -> list[str]:
        """Canonical labels of the perturbations in the training data, without the control."""
        return [self._label(genes) for genes in self._fitted_conditions()]

    def _screen(self, adata: AnnData) -> Screen:
        """The training screen; ValueError without control cells or without perturbations."""
        screen = Screen(adata, self.setup_args)
        if not screen.conditions:
            raise ValueError("All training cells are control cells: there is no perturbation to learn from.")
        return screen

    def _register(self, screen: Screen) -> None:
        """Remember the conditions of the training screen, which makes the baseline a fitted one."""
        self._conditions = screen.parsed.conditions[1:]

    def _asked(self, perturbations: str | Sequence[str]) -> tuple[list[str], list[tuple[str, ...]]]:
        """Canonical labels and gene sets of the perturbations; ValueError for genes that the training data lack."""
        sets = self._setup.asked(perturbations, self.perturbed_genes, where="training data")
        return [self._label(genes) for genes in sets], sets

    def _label(self, genes: Sequence[str]) -> str:
        return self._setup.label(genes)

    def _fitted_conditions(self) -> tuple[tuple[str, ...], ...]:
        if self._conditions is None:
            raise NotFittedError(f"This {type(self).__name__} is not fitted yet: call fit(adata) first.")
        return self._conditions


def draw_controls(n_controls: int, n_cells: int | None, seed: int) -> np.ndarray:
    """Sorted rows of the control cells that `n_cells` predicted cells start from, by default all of them.

    They are drawn without replacement, and with it only where there are too few.
    """
    if n_cells is None:
        return np.arange(n_controls)
    check_integer("n_cells", n_cells, 1)
    return np.sort(np.random.default_rng(seed).choice(n_controls, n_cells, replace=n_cells > n_controls))


def stack_cells(X: np.ndarray, labels: Sequence[str], control_cells: Sequence[str], var: pd.DataFrame) -> AnnData:
    """Annotate the predicted cells of several perturbations, with the labels as categories in this order.

    `X` has, for each label in turn, one cell for each of the `control_cells` (whose names go to
    ``obs["control_cell"]``), on the expression scale. `var` is copied.
    """
    names = np.asarray(control_cells, dtype=str)
    obs = pd.DataFrame(
        {
            "perturbation": pd.Categorical(np.repeat(labels, len(names)), categories=list(dict.fromkeys(labels))),
            "control_cell": np.tile(names, len(labels)),
        },
        index=np.arange(len(labels) * len(names)).astype(str),
    )
    return ad.AnnData(X, obs=obs, var=var.copy())
