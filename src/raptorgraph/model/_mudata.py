"""MuData: guides become labels of the cells, and the modality with the expression is what the model works on."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import anndata as ad
import pandas as pd
from anndata import AnnData

from raptorgraph._arguments import check_mapping
from raptorgraph.model._setup import check_screen
from raptorgraph.pp._guide_counts import GuideSettings
from raptorgraph.pp._guides import GUIDES_KEY, guides_column, plan_assignment, write_assignment
from raptorgraph.screen._labels import control_labels
from raptorgraph.screen._modalities import modality
from raptorgraph.screen._stored import keeps_order

if TYPE_CHECKING:
    import numpy as np
    from mudata import MuData

    from raptorgraph.model._gene_embedding import GeneEmbedding
    from raptorgraph.pp._guides import Assignment
    from raptorgraph.screen import Setup

logger = logging.getLogger(__name__)

EXPRESSION_KEY = "_raptorgraph_expression"
"""Key of ``MuData.uns`` with the name of the modality that was registered."""

REGISTRY_KEY = "mudata_args"
"""Key of the registry with the arguments that belong to the MuData, of which the AnnData's setup knows nothing."""


def label_cells(
    mdata: MuData, mudata_args: dict[str, Any], setup: Setup, embedding: GeneEmbedding | None = None
) -> AnnData:
    """Write labels and covariates to the expression's cells; return that modality.

    Every check of the setup is made on the cells as they will be, before anything is written.
    """
    expression, guides = _names(mudata_args["modalities"], mdata)
    cells = modality(mdata, expression, "modalities['expression']")
    key, assignment = setup.perturbation_key, None
    if guides is not None:
        settings = _guide_settings(mudata_args, guides, setup)
        assignment = plan_assignment(mdata, settings, expression=expression, key_added=key)
        _check_called_before(cells, key, assignment)
        _check_decided(assignment, settings)
    columns = _global_columns(mdata, cells, setup, skip=() if guides is None else (key, guides_column(key)))
    _check(cells, columns, assignment, setup, embedding)

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


def query_expression(mdata: MuData, mudata_args: dict[str, Any] | None, setup: Setup, *, labels: bool) -> AnnData:
    """The expression of other cells, with the columns of the whole MuData that the model needs.

    With `labels`, cells without labels are an error where they have guides, which were not called; cells that have
    neither count as they come.
    """
    if mudata_args is None:
        raise ValueError(
            f"The model was set up with an AnnData: pass the modality with the expression, out of {list(mdata.mod)}."
        )
    expression, guides = mudata_args["modalities"]["expression"], mudata_args["modalities"].get("guides")
    cells = expression_of(mdata, expression)
    key = setup.perturbation_key
    columns = _global_columns(mdata, cells, setup)
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


def plain_targets(guide_targets: str | Mapping[str, str] | pd.Series) -> str | dict[str, str]:
    """Gene of each guide as it is saved: the name of a column, or a dict."""
    if isinstance(guide_targets, str):
        return guide_targets
    if not isinstance(guide_targets, Mapping | pd.Series):
        raise TypeError(
            f"guide_targets={guide_targets!r} must be a column of the guides' var, or a mapping or Series from guide "
            "to gene."
        )
    return dict(guide_targets)


def _guide_settings(mudata_args: dict[str, Any], guides: str, setup: Setup) -> GuideSettings:
    given = check_mapping("guide_kwargs", mudata_args["guide_kwargs"])
    known = {field.name for field in fields(GuideSettings)} - {
        "guides", "targets", "guide_names", "control", "delimiter", "no_guide", "too_many",
    }  # fmt: skip
    unknown = sorted(set(given) - known)
    if unknown:
        raise TypeError(
            f"guide_kwargs {unknown} are unknown or have an argument of their own; it takes {sorted(known)}."
        )
    first, *controls = control_labels(setup.control)
    non_targeting = given.pop("non_targeting", "non-targeting")
    alone = isinstance(non_targeting, str) or not isinstance(non_targeting, Iterable)
    others = [non_targeting] if alone else list(non_targeting)
    return GuideSettings(
        guides=guides,
        targets=mudata_args["guide_targets"],
        non_targeting=[*controls, *others],
        control=first,
        delimiter=setup.delimiter,
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
    mdata: MuData, cells: AnnData, setup: Setup, *, skip: Collection[str] = ()
) -> dict[str, np.ndarray]:
    """Columns of the setup that the cells lack and the whole MuData has."""
    keys = [setup.perturbation_key, setup.library_size_key, setup.batch_key]
    keys += [*setup.categorical_covariate_keys, *setup.continuous_covariate_keys, setup.guide_key]
    asked = [key for key in keys if key is not None and key not in skip]
    found = [key for key in asked if key not in cells.obs and key in mdata.obs]
    return {key: mdata.obs[key].reindex(cells.obs_names).to_numpy() for key in found}


def _check(
    cells: AnnData,
    columns: dict[str, np.ndarray],
    assignment: Assignment | None,
    setup: Setup,
    embedding: GeneEmbedding | None,
) -> None:
    """Check the screen as it will be, on an AnnData that shares the values."""
    if keeps_order(cells, setup.layer):
        raise ValueError(
            "The values of the MuData are not in memory: load them, mdata = mdata.to_memory(), or write the modality "
            "with the expression, labels in its obs, to a file of its own and use setup_anndata."
        )
    obs = cells.obs.assign(**columns)
    if assignment is not None:
        obs[setup.perturbation_key] = assignment.labels
        obs[guides_column(setup.perturbation_key)] = assignment.guides
    screen = ad.AnnData(cells.X, obs=obs, var=cells.var, layers=dict(cells.layers))
    if assignment is not None and assignment.dropped.any():
        screen = screen[~assignment.dropped].copy()
    check_screen(screen, setup, embedding)
