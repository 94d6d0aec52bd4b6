"""MuData: guides become labels of the cells, and the modality with the expression is what the model works on."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from copy import deepcopy
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import anndata as ad
import pandas as pd
from anndata import AnnData
from mudata import MuData

from raptorgraph._arguments import check_mapping
from raptorgraph.model._setup import check_screen, plain_names
from raptorgraph.pp._guide_counts import GuideSettings
from raptorgraph.pp._guides import GUIDES_KEY, plan_assignment, write_assignment
from raptorgraph.screen import Setup
from raptorgraph.screen._labels import plain_control
from raptorgraph.screen._modalities import modality, refresh, strip_modality_names

if TYPE_CHECKING:
    from raptorgraph.pp._guides import Assignment

logger = logging.getLogger(__name__)

EXPRESSION_KEY = "_raptorgraph_expression"
"""Key of ``MuData.uns`` with the name of the modality that was registered."""

REGISTRY_KEY = "mudata_args"
"""Key of the registry with the arguments that belong to the MuData, of which the AnnData's setup knows nothing."""

_COLUMNS = (
    "perturbation_key",
    "library_size_key",
    "batch_key",
    "categorical_covariate_keys",
    "continuous_covariate_keys",
)


def label_cells(mdata: MuData, mudata_args: dict[str, Any], setup_args: dict[str, Any]) -> AnnData:
    """Write labels and covariates to the expression's cells; return that modality.

    Every check of the setup is made on the cells as they will be, before anything is written.
    """
    expression, guides = _names(mudata_args["modalities"], mdata)
    cells = modality(mdata, expression, "modalities['expression']")
    key = setup_args["perturbation_key"]
    assignment = None
    if guides is not None:
        settings = _guide_settings(mudata_args, guides, setup_args)
        assignment = plan_assignment(mdata, settings, expression=expression, key_added=key)
        _check_called_before(cells, key, assignment)
        _check_decided(assignment, settings)
    columns = _global_columns(mdata, cells, setup_args, skip=() if guides is None else (key,))
    _check(cells, columns, assignment, key, setup_args)

    for name, values in columns.items():
        cells.obs[name] = values
    if assignment is not None:
        write_assignment(mdata, assignment, expression=expression, key_added=key)
        outcomes = assignment.report.outcomes
        logger.info(
            "Guides: %s.", "; ".join(f"{row.n_cells} cells {i}, {row.action}" for i, row in outcomes.iterrows())
        )
    return cells


def expression_of(mdata: MuData, name: str | None = None) -> AnnData:
    """The modality that was registered; ValueError where none was."""
    name = mdata.uns.get(EXPRESSION_KEY) if name is None else name
    if name is None:
        raise ValueError("Set up the MuData with RaptorGraphModel.setup_mudata first.")
    return modality(mdata, name, "expression")


def query_expression(
    mdata: MuData, mudata_args: dict[str, Any] | None, setup_args: dict[str, Any], *, labels: bool
) -> AnnData:
    """The expression of other cells, with the columns of the whole MuData that the model needs.

    Cells without a label count as they come, but where their guides are known and were not called, that would pass over
    something: with `labels` it is an error.
    """
    if mudata_args is None:
        raise ValueError(
            f"The model was set up with an AnnData: pass the modality with the expression, out of {list(mdata.mod)}."
        )
    expression, guides = mudata_args["modalities"]["expression"], mudata_args["modalities"].get("guides")
    cells = expression_of(mdata, expression)
    key = setup_args["perturbation_key"]
    columns = _global_columns(mdata, cells, setup_args, skip=())
    if labels and key not in cells.obs and key not in columns and guides in mdata.mod:
        raise ValueError(
            f"mdata[{expression!r}].obs has no labels {key!r}, which say what cells are controls: call "
            f"raptorgraph.pp.assign_guides(mdata, {guides!r}, expression={expression!r}, ...) first, or pass "
            f"mdata[{expression!r}] alone to start from all of its cells."
        )
    if not columns:
        return cells
    cells = cells.copy()
    for name, values in columns.items():
        cells.obs[name] = values
    return cells


def _names(modalities: Mapping[str, str], mdata: MuData) -> tuple[str, str | None]:
    example = f"modalities={{'expression': {next(iter(mdata.mod), 'rna')!r}, 'guides': ...}}"
    if not isinstance(modalities, Mapping) or "expression" not in modalities:
        raise ValueError(f"Name the modality with the expression, out of {list(mdata.mod)}: {example}.")
    unknown = sorted(set(modalities) - {"expression", "guides"})
    if unknown:
        raise ValueError(f"modalities has {unknown}; it takes 'expression' and 'guides': {example}.")
    return modalities["expression"], modalities.get("guides")


def _targets(guide_targets: Any) -> dict[str, str]:
    if not isinstance(guide_targets, Mapping | pd.Series):
        raise TypeError(
            f"guide_targets={guide_targets!r} must be a column of the guides' var, or a mapping or Series from guide "
            "to gene."
        )
    return dict(guide_targets)


def _guide_settings(mudata_args: dict[str, Any], guides: str, setup_args: dict[str, Any]) -> GuideSettings:
    given = check_mapping("guide_kwargs", mudata_args["guide_kwargs"])
    known = {field.name for field in fields(GuideSettings)} - {
        "guides", "targets", "guide_names", "control", "delimiter", "no_guide", "too_many",
    }  # fmt: skip
    unknown = sorted(set(given) - known)
    if unknown:
        raise TypeError(
            f"guide_kwargs {unknown} are unknown or have an argument of their own; it takes {sorted(known)}."
        )
    control = setup_args["control"]
    controls = [control] if isinstance(control, str) else list(control)
    non_targeting = given.pop("non_targeting", "non-targeting")
    alone = isinstance(non_targeting, str) or not isinstance(non_targeting, Iterable)
    others = [non_targeting] if alone else list(non_targeting)
    return GuideSettings(
        guides=guides,
        targets=mudata_args["guide_targets"],
        non_targeting=[*controls[1:], *others],
        control=controls[0],
        delimiter=setup_args["delimiter"],
        no_guide=mudata_args["no_guide"],
        too_many=mudata_args["too_many"],
        **given,
    )


def _check_called_before(cells: AnnData, key: str, assignment: Assignment) -> None:
    """Raise where other calls of the guides would be replaced."""
    before = cells.uns.get(GUIDES_KEY, {})
    if key in cells.obs and any(before[name] != value for name, value in assignment.note.items() if name in before):
        raise ValueError(
            f"obs[{key!r}] holds labels from guides that were called with {before}, not with {assignment.note}. Leave "
            "'guides' out of modalities to keep them, or call raptorgraph.pp.assign_guides with what you want before."
        )


def _check_decided(assignment: Assignment, settings: GuideSettings) -> None:
    """Raise where cells are left without a label."""
    outcomes, n = assignment.report.outcomes, len(assignment.labels)
    without, beyond = outcomes["n_cells"]["no guide"], outcomes["n_cells"]["too many genes"]
    open_questions = []
    if without and settings.no_guide is None:
        open_questions.append(f"{without} have no guide: no_guide='drop' takes them out, no_guide='control' counts "
                              "them as controls")  # fmt: skip
    if beyond and settings.too_many is None:
        top = "too_many='top' keeps the guides with the most counts, " if settings.has_counts else ""
        open_questions.append(
            f"{beyond} have guides of more than {settings.max_genes} genes: {top}too_many='drop' takes them out, "
            "guide_kwargs={'max_genes': ...} allows more"
        )
    if open_questions:
        raise ValueError(f"Of {n} cells, {'; '.join(open_questions)}. Say what they are.")


def _global_columns(
    mdata: MuData, cells: AnnData, setup_args: dict[str, Any], *, skip: Collection[str]
) -> dict[str, Any]:
    """Columns that are asked for, that the cells lack and the whole MuData has."""
    found = {}
    for argument in _COLUMNS:
        keys = setup_args.get(argument) or []
        for key in [keys] if isinstance(keys, str) else keys:
            if key not in skip and key not in cells.obs and key in mdata.obs:
                found[key] = mdata.obs[key].reindex(cells.obs_names).to_numpy()
    return found


def _check(
    cells: AnnData, columns: dict[str, Any], assignment: Assignment | None, key: str, setup_args: dict[str, Any]
) -> None:
    """Check the screen as it will be, on an AnnData that shares the values."""
    obs = cells.obs.assign(**columns)
    if assignment is not None:
        obs[key] = assignment.labels
    screen = ad.AnnData(cells.X, obs=obs, var=cells.var, layers=dict(cells.layers))
    if assignment is not None and assignment.dropped.any():
        screen = screen[~assignment.dropped].copy()
    check_screen(screen, Setup.of(setup_args))


class MuDataMixin:
    """Setup of a MuData, and what it changes."""

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
            As in :meth:`setup_anndata`. Columns that the expression's ``obs`` lacks are copied from ``mdata.obs``.

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
        if not isinstance(mdata, MuData):
            hint = "; use setup_anndata" if isinstance(mdata, AnnData) else ""
            raise TypeError(f"mdata must be a MuData, not {type(mdata).__name__}{hint}.")
        control, categorical_covariate_keys, continuous_covariate_keys = plain_names(
            control, categorical_covariate_keys, continuous_covariate_keys
        )
        mudata_args = {
            "modalities": modalities,
            "guide_targets": guide_targets if isinstance(guide_targets, str) else _targets(guide_targets),
            "no_guide": no_guide,
            "too_many": too_many,
            "guide_kwargs": guide_kwargs,
        }
        setup_args = {
            "perturbation_key": perturbation_key,
            "control": plain_control(control),
            "delimiter": delimiter,
            "layer": layer,
            "library_size_key": library_size_key,
            "batch_key": batch_key,
            "categorical_covariate_keys": categorical_covariate_keys,
            "continuous_covariate_keys": continuous_covariate_keys,
        }
        Setup.of(setup_args)  # raises where the arguments do not suit each other
        cells = label_cells(mdata, mudata_args, setup_args)
        strip_modality_names(mdata, modalities["expression"])
        cls.setup_anndata(cells, **setup_args)
        manager = cls._get_most_recent_anndata_manager(cells, required=True)
        manager.registry[REGISTRY_KEY] = deepcopy({**mudata_args, "modalities": dict(modalities)})
        mdata.uns[EXPRESSION_KEY] = modalities["expression"]
        refresh(mdata)

    @classmethod
    def _get_most_recent_anndata_manager(cls, adata: AnnData | MuData, required: bool = False) -> Any:
        if isinstance(adata, MuData):
            name = adata.uns.get(EXPRESSION_KEY, "rna")
            raise TypeError(f"This works on an AnnData: pass the modality with the expression, mdata[{name!r}].")
        return super()._get_most_recent_anndata_manager(adata, required)
