"""Other cells that a trained model is asked of, and perturbations that it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from input_table._row import GENES, Case, Row, counts, plain

if TYPE_CHECKING:
    from collections.abc import Callable

Q, P = "Other cells for a model", "Perturbations that are asked for"
UNKNOWN = "which the model was not trained on"


def latents(
    have: str, change: Callable[[ad.AnnData], ad.AnnData | None], *, happens: str = "the same latents", rows: Any = None
) -> Row:
    """Row of cells that are the model's own in another form, and have the latents of these."""

    def act(case: Case) -> None:
        cells = plain()
        found = change(cells)
        found = case.model.get_latent_representation(cells if found is None else found)
        expected = case.model.get_latent_representation()
        np.testing.assert_allclose(found, expected if rows is None else expected[rows], rtol=1e-4, atol=1e-5)

    return Row(Q, have, happens, act)


def wrong(have: str, change: Callable[[ad.AnnData], Any], error: type[BaseException], *says: str, ask: str = "") -> Row:
    """Row of cells that a model cannot read."""

    def act(case: Case) -> None:
        cells = plain()
        found = change(cells)
        found = cells if found is None else found
        if ask == "cells":
            case.model.predict("KLF1", found, n_cells=2)
        elif ask == "effects":
            case.model.predict_effects("KLF1", found)
        else:
            case.model.get_latent_representation(found)

    return Row(Q, have, "", act, error, says)


def more_genes(adata: ad.AnnData) -> ad.AnnData:
    values = np.hstack([np.full((adata.n_obs, 2), 7.0), counts()])
    return ad.AnnData(sparse.csr_matrix(values), obs=adata.obs, var=pd.DataFrame(index=["NEW1", "NEW2", *GENES]))


def blanks(adata: ad.AnnData) -> None:
    adata.var_names = [f" {name}" for name in adata.var_names]


def empty_cell(adata: ad.AnnData) -> None:
    values = counts()
    values[3] = 0
    adata.X = values


def in_obs(**columns: Any) -> Callable[[ad.AnnData], None]:
    def change(adata: ad.AnnData) -> None:
        for key, values in columns.items():
            adata.obs[key] = values

    return change


def without(key: str) -> Callable[[ad.AnnData], None]:
    def change(adata: ad.AnnData) -> None:
        del adata.obs[key]

    return change


def with_X(make: Callable[[np.ndarray], Any]) -> Callable[[ad.AnnData], None]:
    def change(adata: ad.AnnData) -> None:
        adata.X = make(counts())

    return change


def decoded(have: str, change: Callable[[ad.AnnData], ad.AnnData | None], happens: str, **ask: Any) -> Row:
    """Row of cells of which effects are decoded."""

    def act(case: Case) -> None:
        cells = plain()
        found = change(cells)
        effects = case.model.predict_effects("KLF1", cells if found is None else found, **ask)
        assert effects.shape == (1, len(GENES))
        assert np.isfinite(effects.to_numpy()).all()

    return Row(Q, have, happens, act)


ROWS: list[Row] = [
    latents("the same cells", lambda adata: None),
    latents("genes in another order", lambda adata: adata[:, ::-1].copy(), happens="matched by name, the same latents"),
    latents("more genes than the model has", more_genes, happens="those of the model are taken, the same latents"),
    latents("blanks around names of genes", blanks),
    latents("a view", lambda adata: adata[::2], rows=slice(None, None, 2)),
    latents("one cell", lambda adata: adata[7:8].copy(), rows=slice(7, 8)),
    latents("whole numbers, by genes (CSC)", with_X(lambda values: sparse.csc_matrix(values.astype(np.int16)))),
    latents("a dense matrix", with_X(lambda values: values)),
    latents("no labels", without("perturbation")),
    latents("no batches", without("lane"), happens="latents need none, the same latents"),
    latents("batches that the model does not know", in_obs(lane="z"), happens="latents need none, the same latents"),
    latents(
        "perturbed genes that the model does not know",
        in_obs(perturbation="MYC+SPI1"),
        happens="latents need no labels, the same latents",
    ),
    latents("missing labels", in_obs(perturbation=np.nan), happens="latents need no labels, the same latents"),
    latents("obsm and uns of another setup", lambda adata: adata.uns.update(_scvi_uuid="other")),
    decoded("cells of one batch of two", lambda adata: adata[::2].copy(), "effects in that batch"),
    decoded("one cell alone in its batch", lambda adata: adata[:3].copy(), "effects of its controls"),
    decoded(
        "unknown batches, with `transform_batch='all'`",
        in_obs(lane="z"),
        "the mean over the known batches",
        transform_batch="all",
    ),
    decoded("no control cell", in_obs(perturbation="KLF1"), "all cells are started from"),
    wrong(
        "a gene less", lambda adata: adata[:, 1:].copy(), ValueError, "1 of the model's 8 genes are not in var_names"
    ),
    wrong(
        "names of genes in another case",
        lambda adata: setattr(adata, "var_names", adata.var_names.str.lower()),
        ValueError,
        "8 of the model's 8 genes are not in var_names",
    ),
    wrong(
        "a gene twice",
        lambda adata: setattr(adata, "var_names", ["KLF1", *GENES[1:]]),
        ValueError,
        "var_names are not unique",
    ),
    wrong("no cell", lambda adata: adata[:0].copy(), ValueError, "adata has 0 cells"),
    wrong(
        "logarithms, where the model reads counts",
        with_X(lambda values: np.log1p(values)),
        ValueError,
        "The model was trained on counts, and these data are not",
    ),
    wrong("a negative value", with_X(lambda values: values - 1), ValueError, "negative or not finite"),
    wrong(
        "masked values", with_X(lambda values: np.ma.masked_array(values, values > 30)), ValueError, "values are masked"
    ),
    wrong("no values", lambda adata: ad.AnnData(obs=adata.obs, var=adata.var), ValueError, "adata.X is empty"),
    wrong("a cell without a count", empty_cell, ValueError, "1 cells have no positive library size", "cell3 (0)"),
    wrong(
        "a table instead of an AnnData",
        lambda adata: adata.to_df(),
        TypeError,
        "adata must be an AnnData, not DataFrame",
    ),
    wrong(
        "unknown batches",
        in_obs(lane="z"),
        ValueError,
        "obs['lane'] has 'z', " + UNKNOWN,
        "transform_batch='all'",
        ask="effects",
    ),
    wrong(
        "unknown batches, for predicted cells",
        in_obs(lane="z"),
        ValueError,
        "obs['lane'] has 'z', " + UNKNOWN,
        ask="cells",
    ),
    wrong("missing batches", in_obs(lane=None), ValueError, UNKNOWN, ask="effects"),
    wrong(
        "no column of batches",
        without("lane"),
        KeyError,
        "batch_key='lane' is not a column of adata.obs",
        "The model knows 'x', 'y'",
        ask="effects",
    ),
]


def asked(have: str, perturbations: Any, *names: str, happens: str = "") -> Row:
    """Row of perturbations that a model answers for, under these labels."""

    def act(case: Case) -> None:
        effects = case.model.predict_effects(perturbations)
        assert list(effects.index) == list(names)

    return Row(P, have, happens or "read as " + ", ".join(f"`{name}`" for name in names), act)


def unknown(have: str, perturbations: Any, error: type[BaseException], *says: str) -> Row:
    """Row of perturbations that a model cannot answer for."""
    return Row(P, have, "", lambda case: case.model.predict_effects(perturbations), error, says)


ROWS += [
    asked("`'KLF1'`", "KLF1", "KLF1"),
    asked("`'KLF1+BAK1'`, `'BAK1+KLF1'`", ["KLF1+BAK1", "BAK1+KLF1"], "BAK1+KLF1", "BAK1+KLF1"),
    asked("`('KLF1', 'BAK1')`", ("KLF1", "BAK1"), "BAK1+KLF1", happens="one perturbation of two genes"),
    asked("`['KLF1', 'BAK1']`", ["KLF1", "BAK1"], "KLF1", "BAK1", happens="two perturbations"),
    asked("`{'KLF1', 'BAK1'}`", {"KLF1", "BAK1"}, "BAK1+KLF1", happens="one perturbation of two genes"),
    asked("an array, an index or a series", np.array(["KLF1", "BAK1"]), "KLF1", "BAK1", happens="two perturbations"),
    asked("`['control', ('KLF1',)]`", ["control", ("KLF1",)], "control", "KLF1"),
    asked("blanks: `' KLF1 + BAK1'`", " KLF1 + BAK1", "BAK1+KLF1"),
    unknown(
        "a gene that was not perturbed",
        "MYC",
        ValueError,
        "'MYC': MYC was not perturbed",
        "Perturbed genes: BAK1, KLF1",
    ),
    unknown("another case", "klf1", ValueError, "did you mean 'KLF1'?"),
    unknown("another delimiter", "KLF1_BAK1", ValueError, "did you mean 'BAK1+KLF1'?"),
    unknown("none: `[]`", [], ValueError, "perturbations is empty; name at least one"),
    unknown("none: `()`", (), ValueError, "perturbations is empty; name at least one"),
    unknown("empty text", "", ValueError, "names no perturbation"),
    unknown("an empty part", "KLF1+", ValueError, "has an empty part between delimiters '+'"),
    unknown("a number", 3, TypeError, "3 is no perturbation: give a label"),
    unknown("numbers", [1, 2], TypeError, "Perturbation labels must be strings, found 1"),
    unknown("`None`", None, TypeError, "None is no perturbation"),
    unknown("`NaN` in a list", [np.nan], TypeError, "must be strings, found nan"),
    unknown("bytes", b"KLF1", TypeError, "perturbations is of type bytes"),
    unknown("a dict", {"KLF1": 1}, TypeError, "perturbations is of type dict"),
    unknown("a table", pd.DataFrame({"a": ["KLF1"]}), TypeError, "perturbations is of type DataFrame"),
    unknown(
        "a set of tuples", {("KLF1", "BAK1")}, TypeError, "A set has no order: give several perturbations as a list"
    ),
    unknown("a label within a tuple", ("KLF1+BAK1", "SPI1"), ValueError, "'KLF1+BAK1' contains the delimiter '+'"),
]
