"""Read, download or simulate the screen of an experiment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from raptorgraph import datasets, pp
from raptorgraph.benchmark._settings import Settings, screen_file
from raptorgraph.screen import Screen, Setup
from raptorgraph.screen._files import read_cells
from raptorgraph.screen._guide_features import examples
from raptorgraph.screen._inputs import batch_codes
from raptorgraph.screen._setup_hints import warn, warn_of_setup

if TYPE_CHECKING:
    from anndata import AnnData

_PUBLIC: dict[str, tuple[str, dict[str, Any]]] = {  # function of `datasets`, and its arguments
    "norman2019": ("norman2019", {}),
    # on the scale of the published numbers, whose source normalizes to the median
    "norman2019-median": ("norman2019", {"normalization": "median"}),
    "papalexi2021": ("papalexi2021", {}),
    "replogle2020": ("replogle2020", {}),
}
# Effects add up, saturate, or interact strongly.
_SIMULATED: dict[str, dict[str, Any]] = {
    "simulated": {},
    "simulated-additive": {"mechanism": "linear", "interaction_strength": 0.0},
    "simulated-saturating": {"mechanism": "saturating", "interaction_strength": 0.0},
    "simulated-interacting": {"mechanism": "saturating", "interaction_strength": 1.0},
    # Few genes, few conditions, and means of few cells, as of a panel of proteins.
    "simulated-small": {"n_genes": 87, "n_perturbed": 23, "n_doubles": 44, "n_cells_per_perturbation": 20},
    # Half of the perturbations act in one of two states of the cells alone.
    "simulated-states": {"states": 2, "effect_size": 4.0},
    # As large as the screen of Norman et al. (2019).
    "simulated-large": {
        "n_genes": 5000,
        "n_perturbed": 105,
        "n_doubles": 131,
        "n_control_cells": 7353,
        "n_cells_per_perturbation": 217,
    },
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


def load_screen(settings: Settings, seed: int = 0) -> Screen:
    """Read, download or simulate the screen of the settings.

    Parameters
    ----------
    settings
        ``settings.screen`` is the path of an h5ad file or a zarr store; or ``"norman2019"``, ``"norman2019-median"``
        (the same on the scale of the published numbers), ``"papalexi2021"`` or ``"replogle2020"`` (downloaded); or
        ``"simulated"``, ``"simulated-additive"``, ``"simulated-saturating"``, ``"simulated-interacting"``,
        ``"simulated-small"``, which has few genes and cells, ``"simulated-large"``, of the size of ``"norman2019"``, or
        ``"simulated-states"``, where effects depend on the state of the cell; or the name of an h5ad file or zarr store
        in the folder ``$RAPTORGRAPH_DATA``.
    seed
        Seed of a simulated screen, which is another one for each repetition.

    Returns
    -------
    Screen
        The screen, its setup completed by defaults. Variables of a file that read guides
        (:func:`raptorgraph.pp.guide_features`) are left out, with a warning: scores would be of who carries a guide.

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
        raise ValueError(
            "Name a screen: screen='FILE.h5ad' (or .zarr), 'norman2019', 'papalexi2021', 'replogle2020' or 'simulated'."
        )
    if name in _SIMULATED:
        arguments = {**_SIZE, **_SIMULATED[name], **(_QUICK if settings.quick else {})}
        adata = datasets.simulate(**arguments, seed=seed)
        setup["library_size_key"] = setup.get("library_size_key") or "total_counts"
    elif name in _PUBLIC:
        function, arguments = _PUBLIC[name]
        adata = getattr(datasets, function)(**arguments)
        if setup.get("layer") is None and "counts" in adata.layers:  # counts tell more than their logarithms
            setup["layer"] = "counts"
            setup["library_size_key"] = setup.get("library_size_key") or "total_counts"
    else:
        adata = _genes_of(read_cells(_find(name)), Setup.of(setup))
        batch_codes(adata, setup.get("batch_key"))
        warn_of_setup(adata, Screen(adata, setup).parsed, Setup.of(setup))
    if settings.n_top_genes is not None:
        library_key = setup.get("library_size_key") or "raptorgraph_library_size"
        pp.select_genes(adata, settings.n_top_genes, **setup)
        # the row sums of the genes that are left are not library sizes
        setup["library_size_key"] = library_key if library_key in adata.obs else None
    screen = Screen(adata, setup)
    _ = screen.source, screen.batch  # their errors now, not in every unit of work
    return screen


def _genes_of(adata: AnnData, setup: Setup) -> AnnData:
    """Without variables that read guides."""
    of_guides = pp.guide_features(adata, setup.perturbation_key, control=setup.control, delimiter=setup.delimiter)
    if not of_guides.any():
        return adata
    n, names = of_guides.sum(), examples(adata, of_guides)
    warn([f"{n:,} of {adata.n_vars:,} variables read guides and no genes ({names}), and are left out."])
    return adata[:, ~of_guides].copy()


def _find(name: str) -> Path:
    path = screen_file(name)
    if path is None and not Path(name).exists():
        known = ", ".join([*_SIMULATED, *_PUBLIC])
        raise FileNotFoundError(f"There is no file {name!r}; screens with a name are {known}.")
    return path or Path(name)
