"""What all plots share with scanpy's: where they draw, what they give back, and what they leave alone."""

import copy
import inspect

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raptorgraph import pl

PLOTS = {
    "counterfactual": lambda e, **o: pl.counterfactual(e.model, "A", basis="X_map", **o),
    "dag": lambda e, **o: pl.dag(e.edges, color=pd.Series({"A": 1.0, "B": 2.0}, name="size"), **o),
    "effect": lambda e, **o: pl.effect(e.model, perturbation="A", **o),
    "effects_map": lambda e, **o: pl.effects_map(e.model, n_genes=12, **o),
    "enrichment": lambda e, **o: pl.enrichment(e.enrichment, **o),
    "guides": lambda e, **o: pl.guides(e.guides, **o),
    "interactions": lambda e, **o: pl.interactions(e.interactions, **o),
    "latents": lambda e, **o: pl.latents(e.model, color="depth", basis="X_map", **o),
    "next_pairs": lambda e, **o: pl.next_pairs(e.next_pairs, **o),
    "pair": lambda e, **o: pl.pair(e.model, "A+B", **o),
    "power": lambda e, **o: pl.power(e.power, **o),
    "reverse": lambda e, **o: pl.reverse(e.reverse, **o),
    "similarity": lambda e, **o: pl.similarity(e.model, **o),
    "state_effects": lambda e, **o: pl.state_effects(e.states, **o),
    "training": lambda e, **o: pl.training(e.model, **o),
    "uncertainty": lambda e, **o: pl.uncertainty(e.model, "A", **o),
    "volcano": lambda e, **o: pl.volcano(e.model, "A", **o),
}
# besides these kinds, which draw other things on the axes
OTHER_KINDS = {
    "calibration": lambda e, **o: pl.uncertainty(e.model, **o),
    "cells": lambda e, **o: pl.counterfactual(e.model, "A", kind="cells", basis="X_map", **o),
    "dots": lambda e, **o: pl.enrichment(e.enrichment, kind="dots", **o),
    "groups": lambda e, **o: pl.latents(e.model, basis="X_map", **o),
}
ALL = PLOTS | OTHER_KINDS
every_plot = pytest.mark.parametrize("plot", ALL.values(), ids=ALL)


def axes_of(drawn):
    return [drawn] if isinstance(drawn, Axes) else list(drawn)


def test_every_plot_is_tried_here_and_takes_the_common_arguments_by_keyword_only():
    assert set(PLOTS) == set(pl.__all__)
    for name in pl.__all__:
        parameters = inspect.signature(getattr(pl, name)).parameters
        for argument in ("ax", "show", "save", "return_fig"):
            assert parameters[argument].kind is inspect.Parameter.KEYWORD_ONLY, (name, argument)


@every_plot
def test_given_axes_are_used_without_pyplot(plot, example, monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("pyplot was used")

    for name in ("figure", "subplots", "gcf", "gca", "show"):
        monkeypatch.setattr(plt, name, forbidden)
    figure = Figure(figsize=(9, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    drawn = axes_of(plot(example, ax=right))
    assert all(ax.figure is figure for ax in drawn)
    assert left in figure.axes
    assert not left.has_data()
    if len(drawn) == 1:
        assert drawn[0] is right
    else:  # its place is divided
        assert right not in figure.axes
        whole = figure.get_window_extent().width
        figure.draw_without_rendering()
        assert min(ax.get_window_extent().x0 for ax in drawn) > 0.4 * whole
    assert plt.get_fignums() == []


def test_panels_take_the_place_of_axes_outside_a_grid(example):
    figure = Figure(figsize=(12, 6))
    axes = pl.training(example.model, ax=figure.add_axes((0.5, 0.1, 0.4, 0.8)))
    assert min(ax.get_position().x0 for ax in axes) == pytest.approx(0.5)
    parts = Figure(figsize=(12, 6)).subfigures(1, 2)
    axes = pl.pair(example.model, "A+B", ax=parts[1].subplots())
    assert all(ax.figure is parts[1] for ax in axes)


@every_plot
def test_new_figures_are_pyplots_and_are_shown_only_when_asked(plot, example, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda *args, **kwargs: shown.append(1))
    plot(example)
    assert len(plt.get_fignums()) == 1
    assert shown == []
    plot(example, show=False)
    assert shown == []
    plot(example, show=True)
    assert shown == [1]


@every_plot
def test_figure_is_saved_and_returned(plot, example, tmp_path):
    figure = plot(example, return_fig=True, save=tmp_path / "figure.png")
    assert isinstance(figure, Figure)
    image = plt.imread(tmp_path / "figure.png")
    assert image.shape[0] > 200
    assert image.std() > 0.01
    part = Figure(figsize=(6, 4)).subfigures(1, 1)
    whole = plot(example, ax=part.subplots(), return_fig=True, save=tmp_path / "part.pdf")
    assert type(whole) is Figure
    assert (tmp_path / "part.pdf").read_bytes()[:4] == b"%PDF"


@every_plot
def test_a_file_that_cannot_be_written_is_an_error_before_the_work(plot, example, tmp_path):
    example.model.predict_effects = example.model.predict = None
    with pytest.raises(FileNotFoundError, match="does not exist"):
        plot(example, save=tmp_path / "nowhere" / "figure.png")
    with pytest.raises(ValueError, match="'.doc' is no picture format"):
        plot(example, save=tmp_path / "figure.doc")
    assert plt.get_fignums() == []


@every_plot
def test_every_axis_is_labeled(plot, example):
    for ax in plot(example, return_fig=True).axes:
        if ax.axison:
            # of panels side by side the first names the genes
            assert ax.get_xlabel() or ax.get_ylabel()
            bar = not ax.get_xlabel()
            first = ax.get_subplotspec() is None or ax.get_subplotspec().is_first_col()
            assert bar or ax.get_ylabel() or not first


@every_plot
def test_input_stays_as_it_is(plot, example):
    before = copy.deepcopy(example)
    plot(example)
    for name in ("interactions", "enrichment", "edges", "reverse", "states", "next_pairs", "power", "guides"):
        pd.testing.assert_frame_equal(getattr(example, name), getattr(before, name))
    pd.testing.assert_frame_equal(example.model.effects, before.model.effects)
    adata, old = example.model.adata, before.model.adata
    pd.testing.assert_frame_equal(adata.obs, old.obs)
    np.testing.assert_array_equal(adata.X, old.X)
    assert set(adata.obsm) == set(old.obsm)
    assert set(adata.uns) == set(old.uns)
