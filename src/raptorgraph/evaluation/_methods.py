"""Everything that is compared, under one interface: this package's model, the baselines, predictions from files."""

from __future__ import annotations

import warnings
import zlib
from lzma import LZMAError
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scvi
from scipy import sparse

from raptorgraph.baselines import SENA, Baseline, DiscrepancyVAE, ladder
from raptorgraph.benchmark._settings import Settings, chosen
from raptorgraph.model import RaptorGraphModel
from raptorgraph.pp import format_perturbation, parse_perturbation
from raptorgraph.screen._files import read_cells
from raptorgraph.screen._label_hints import SetupWarning
from raptorgraph.screen._names import gene_names, strip_gene_names, stripped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

QUICK_EPOCHS = 2
OURS = ("raptorgraph", "raptorgraph network", "raptorgraph paper")
MODELS = (*OURS, "dVAE", "SENA")
_UNREADABLE = (EOFError, LZMAError, BadZipFile, zlib.error)  # of compressed files
_NO_NUMBER = ("", "nan", "NaN", "NA")  # in a column of numbers; a perturbation may be called so


class RaptorGraphMethod(Baseline):
    """:class:`~raptorgraph.model.RaptorGraphModel` as one of the methods that are compared.

    Parameters
    ----------
    preset
        ``"default"`` or ``"paper"``.
    seed
        Seed of the training.
    max_epochs
        Number of epochs; default that of the preset.
    model_kwargs, plan_kwargs
        Arguments of the model and of its training plan that take precedence over the preset.
    noise
        Of predicted cells: see :meth:`raptorgraph.RaptorGraphModel.predict`.
    **setup
        Arguments of ``setup_anndata``.
    """

    def __init__(
        self,
        preset: str = "default",
        *,
        seed: int = 0,
        max_epochs: int | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        plan_kwargs: Mapping[str, Any] | None = None,
        noise: str = "own",
        **setup: Any,
    ):
        super().__init__(**setup)
        self.preset, self.seed, self.max_epochs, self.noise = preset, seed, max_epochs, noise
        self.model_kwargs, self.plan_kwargs = dict(model_kwargs or {}), dict(plan_kwargs or {})

    def fit(self, adata: ad.AnnData) -> RaptorGraphMethod:
        """Train the model on a copy of the cells."""
        self._register(self._screen(adata))
        self.var_names = gene_names(adata)
        adata = adata.copy()
        scvi.settings.seed = self.seed
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SetupWarning)  # the screen was warned of as a whole
            RaptorGraphModel.setup_anndata(adata, **self.setup_args)
        if self.preset == "default":
            self.model = RaptorGraphModel(adata, **self.model_kwargs)
        else:
            self.model = RaptorGraphModel.from_preset(adata, self.preset, **self.model_kwargs)
        self.prepare(self.model)
        self.model.train(
            max_epochs=self.max_epochs,
            plan_kwargs=self.plan_kwargs,
            enable_progress_bar=False,
            enable_checkpointing=False,
        )
        history = self.model.history
        terms = {
            name.removesuffix("_train"): frame.iloc[:, 0] for name, frame in history.items() if name.endswith("_train")
        }
        self.history_ = pd.DataFrame(terms).astype(float)
        return self

    def prepare(self, model: RaptorGraphModel) -> None:
        """Called between construction and training, for subclasses that change the model there."""

    def predict_effects(self, perturbations: str | Sequence[str]) -> pd.DataFrame:
        """See :meth:`raptorgraph.RaptorGraphModel.predict_effects`."""
        labels, _ = self._asked(perturbations)
        return self.model.predict_effects(labels)[self.var_names].astype(np.float64)

    def predict(self, perturbations: str | Sequence[str], n_cells: int | None = None, seed: int = 0) -> ad.AnnData:
        """See :meth:`raptorgraph.RaptorGraphModel.predict`."""
        labels, _ = self._asked(perturbations)
        return self.model.predict(labels, n_cells=n_cells, seed=seed, noise=self.noise)[:, self.var_names].copy()

    def predict_control(self) -> np.ndarray:
        """Mean of one cell for each control cell, drawn from the likelihood: what the model has learned of controls."""
        cells = self.model.predict(self._label(()), noise="new")[:, self.var_names]
        return np.asarray(cells.X.mean(axis=0), dtype=np.float64).ravel()

    def reconstruct(self, adata: ad.AnnData) -> np.ndarray:
        """Expected expression of the given cells as they are, cells x genes."""
        values = pd.DataFrame(self.model.get_counterfactual(self._label(()), adata), columns=self.model.var_names_)
        return values[self.var_names].to_numpy()


class Predictions:
    """Predictions of another tool.

    Parameters
    ----------
    given
        Predicted cells (AnnData or h5ad file; on the expression scale, labels in ``obs["perturbation"]``, control cells
        among them if the tool predicts its own), or effects, perturbations x genes (DataFrame, CSV or Parquet file).
    spelling
        Of the labels: ``control`` and ``delimiter``.
    var_names
        Genes of the screen; the file must hold all of them.
    control_mean
        Mean of the screen's control cells, shape (n_genes,): what cells are compared with where the file has none.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is of another kind, empty or damaged, genes are missing, a label is there twice, or a value is no
        finite number.
    """

    def __init__(
        self,
        given: str | Path | pd.DataFrame | ad.AnnData,
        spelling: Mapping[str, Any],
        var_names: pd.Index,
        control_mean: np.ndarray,
    ):
        self._spelling = spelling
        name = repr(str(given)) if isinstance(given, str | Path) else f"The {type(given).__name__} of predictions"
        given = _read(Path(given)) if isinstance(given, str | Path) else given
        self.cells: ad.AnnData | None = None
        self.control = control_mean
        if isinstance(given, ad.AnnData):
            found = gene_names(given)
            _check_genes(name, found, var_names)
            if "perturbation" not in given.obs:
                raise ValueError(f"{name} has no obs['perturbation'] with the label of each predicted cell.")
            if given.X is None or not given.n_obs:
                raise ValueError(f"{name} has no cells with values in X.")
            self.cells = given[:, found.get_indexer(var_names)].copy()
            strip_gene_names(self.cells)
            _check_values(name, self.cells.X)
            labels = [self._canonical(label) for label in self.cells.obs["perturbation"]]
            self.cells.obs["perturbation"] = labels
            means = self.cells.to_df().groupby(np.array(labels)).mean().astype(float)
            control = self._label(())
            self.control = means.loc[control].to_numpy() if control in means.index else control_mean
            self.effects = pd.DataFrame(means.to_numpy() - self.control, index=means.index, columns=var_names)
        else:
            given = given.set_axis(stripped(given.columns, f"Genes of {name}"), axis=1)
            _check_genes(name, given.columns, var_names)
            if given.empty:
                raise ValueError(f"{name} has no row: one for each perturbation, with its effect on every gene.")
            text = [gene for gene in var_names if not pd.api.types.is_numeric_dtype(given[gene])]
            if text:
                raise ValueError(
                    f"{name} holds text, not numbers, for {len(text)} genes: {given[text[0]].iloc[0]!r} for {text[0]}."
                )
            self.effects = given[var_names].astype(float)
            _check_values(name, self.effects.to_numpy())
            self.effects.index = [self._canonical(label) for label in given.index]
            if not self.effects.index.is_unique:
                twice = self.effects.index[self.effects.index.duplicated()][0]
                raise ValueError(f"{name} has the perturbation {twice!r} twice.")

    def missing(self, conditions: Sequence[str]) -> list[str]:
        """Conditions that the file does not predict."""
        return [label for label in conditions if label not in self.effects.index]

    def _canonical(self, label: Any) -> str:
        return self._label(parse_perturbation(str(label), **self._spelling))

    def _label(self, genes: Sequence[str]) -> str:
        return format_perturbation(genes, **self._spelling)


def _read(path: Path) -> pd.DataFrame | ad.AnnData:
    if not path.exists():
        raise FileNotFoundError(f"There is no file of predictions {str(path)!r}.")
    if path.is_dir() or h5py.is_hdf5(path) or path.suffix in (".h5ad", ".zarr"):
        return read_cells(path)
    try:
        if path.suffix in (".parquet", ".pq"):
            return pd.read_parquet(path)
        table = pd.read_csv(path, index_col=0, keep_default_na=False, na_values=_NO_NUMBER)
        # as they are in the file, since pandas gives a name that is there twice a number
        names = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False).iloc[0]
        return table.set_axis(pd.Index(names[1:]), axis=1)
    except ImportError as error:
        raise ImportError(f"{str(path)!r} is a Parquet file: reading it needs pyarrow: pip install pyarrow") from error
    except (*_UNREADABLE, OSError, ValueError) as error:  # pandas' and pyarrow's own are ValueErrors
        raise ValueError(
            f"{str(path)!r} cannot be read as predictions: CSV or Parquet with a row for each perturbation and a "
            f"column for each gene, or an h5ad file of cells. {' '.join(str(error).split())}"
        ) from error


def _check_values(name: str, values) -> None:
    """ValueError where one is missing or infinite."""
    values = values.data if sparse.issparse(values) else np.asarray(values)
    wrong = int(values.size - np.isfinite(values).sum())
    if wrong:
        raise ValueError(f"{name} has {wrong} missing or infinite values among the {values.size} it holds.")


def _check_genes(name: str, found: pd.Index, wanted: pd.Index) -> None:
    if not found.is_unique:
        raise ValueError(f"{name} has gene {found[found.duplicated()][0]!r} twice.")
    missing = wanted.difference(found)
    if len(missing):
        raise ValueError(
            f"{name} lacks {len(missing)} of the screen's {len(wanted)} genes, for example "
            f"{', '.join(map(str, missing[:5]))}: predict all of them (an effect of 0 where the tool has none)."
        )


def method_names(settings: Settings, *, doubles: bool) -> list[str]:
    """Methods that can be fitted: those without measured doubles where there are none, SENA where there are gene sets.

    With ``options["methods"]`` these alone, in that order; ValueError for an unknown one.
    """
    baselines = ladder()
    asked = chosen_methods(settings, [*baselines, *MODELS])
    return [name for name in asked if doubles or name not in baselines or not baselines[name].needs_doubles]


def chosen_methods(settings: Settings, known: Sequence[str], wrong: str = "is unknown") -> list[str]:
    """Methods that the option ``methods`` gives, or all that are known; none of them SENA without gene sets.

    ValueError for SENA without gene sets, and for one that is not known, of which `wrong` is said.
    """
    asked = chosen(settings, "methods", known, wrong)
    if "SENA" not in asked or settings.options.get("gene_sets"):
        return asked
    if settings.options.get("methods"):
        raise ValueError("methods: 'SENA' needs gene sets: give a GMT file as gene_sets.")
    return [name for name in asked if name != "SENA"]


def check_methods(names: Iterable[str], settings: Settings, setup: Mapping[str, Any], var_names: pd.Index) -> None:
    """ValueError, before any work, where a method cannot be fitted to data with these genes."""
    if "SENA" in names:
        make_method("SENA", settings, setup, 0).match(var_names)


def ordered(methods: Iterable[str]) -> list[str]:
    """The names, each once: baselines from the simplest up, models, then all others as they come."""
    found = list(dict.fromkeys(methods))
    own = [name for name in [*ladder(), *MODELS] if name in found]
    return own + [name for name in found if name not in own]


def epochs_of(settings: Settings) -> int | None:
    """Number of epochs that is asked for; None for a method's own."""
    return settings.options.get("max_epochs") or (QUICK_EPOCHS if settings.quick else None)


def make_method(name: str, settings: Settings, setup: Mapping[str, Any], seed: int) -> Baseline:
    """Unfitted method of that name."""
    epochs = epochs_of(settings)
    epochs = {} if epochs is None else {"max_epochs": epochs}
    makers: dict[str, Callable[[], Baseline]] = {
        "raptorgraph": lambda: RaptorGraphMethod(seed=seed, **epochs, **setup),
        "raptorgraph network": lambda: RaptorGraphMethod(
            seed=seed, model_kwargs={"effect_posterior": False}, **epochs, **setup
        ),
        "raptorgraph paper": lambda: RaptorGraphMethod("paper", seed=seed, **epochs, **setup),
        "dVAE": lambda: DiscrepancyVAE(seed=seed, **epochs, **setup),
        "SENA": lambda: SENA(settings.options["gene_sets"], seed=seed, **epochs, **setup),
    }
    return makers[name]() if name in makers else ladder()[name](**setup)


def gene_graph(method: Baseline, *, every: bool = False) -> pd.DataFrame:
    """Weights among the perturbed genes, row = cause, 0 on the diagonal; `every` one, also of edges not called."""
    genes = method.perturbed_genes
    if isinstance(method, RaptorGraphMethod):
        inferred = method.model.module.graph_kind == "interventional"
        graph = (
            method.model.get_dag(min_probability=0.0 if every and inferred else None)
            .loc[genes, genes]
            .to_numpy(copy=True)
        )
    else:
        targets = method.targets_.loc[genes].to_numpy()
        graph = targets @ method.adjacency_.to_numpy() @ targets.T
    np.fill_diagonal(graph, 0.0)
    return pd.DataFrame(graph, index=genes, columns=genes)
