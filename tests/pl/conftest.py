"""Pictures against their baselines, and the models that the plots are tried on.

``RAPTORGRAPH_REGENERATE=1 python -m pytest tests/pl/test_images.py`` writes the baselines anew; look at each before
committing it.
"""

import os
import zlib
from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.testing.compare import compare_images
from matplotlib.text import Text
from packaging import version

import raptorgraph as rg

BASELINE = Path(__file__).parent / "baseline"
TOLERANCE = 1.0  # root mean square over pixels, of 255
DPI = 55
DRAWN_BY = (3, 11)  # version of matplotlib


@pytest.fixture
def fixed_style():
    """The same letters and lines whatever the user's settings are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update({"font.family": ["DejaVu Sans"], "text.hinting": "none", "svg.hashsalt": "x"})
        yield


@pytest.fixture
def differs(tmp_path, fixed_style):
    """Function of a figure and a name: how far the picture is from its baseline, 0 below the tolerance."""

    def check(figure, name):
        found, expected = tmp_path / f"{name}.png", BASELINE / f"{name}.png"
        figure.savefig(found, dpi=DPI, metadata={"Software": None}, pil_kwargs={"optimize": True})
        if os.environ.get("RAPTORGRAPH_REGENERATE"):
            expected.write_bytes(found.read_bytes())
        if version.parse(mpl.__version__).release[:2] < DRAWN_BY:
            pytest.skip("the baselines are those of a later matplotlib, which places letters otherwise")
        assert expected.exists(), f"{expected} is missing: RAPTORGRAPH_REGENERATE=1 python -m pytest tests/pl writes it"
        far = compare_images(str(expected), str(found), tol=TOLERANCE, in_decorator=True)
        return 0.0 if far is None else float(far["rms"])

    return check


def _texts(figure):
    """Every text of a figure that is seen, and the box of its letters."""
    figure.draw_without_rendering()
    labels, seen = set(), []
    for axis in (axis for ax in figure.findobj(Axes) for axis in (ax.xaxis, ax.yaxis)):
        low, high = sorted(axis.get_view_interval())
        slack = 1e-9 * (high - low)
        for ticks in (axis.get_major_ticks(), axis.get_minor_ticks()):
            labels |= {label for tick in ticks for label in (tick.label1, tick.label2)}
            inside = [tick for tick in ticks if low - slack <= tick.get_loc() <= high + slack and axis.axes.axison]
            seen += [label for tick in inside for label in (tick.label1, tick.label2)]
    seen += [text for text in figure.findobj(Text) if text not in labels]
    return [
        (text.get_text(), Text.get_window_extent(text))
        for text in seen
        if text.get_visible() and text.get_text().strip() and (text.axes is None or text.axes.get_visible())
    ]


@pytest.fixture
def overlapping():
    """Function of a figure: the pairs of texts that lie on each other by more than half a pixel."""

    def find(figure):
        texts = _texts(figure)
        assert len(texts) > 3  # it finds some
        return [
            (one, other)
            for k, (other, b) in enumerate(texts)
            for one, a in texts[:k]
            if min(a.x1, b.x1) - max(a.x0, b.x0) > 0.5 and min(a.y1, b.y1) - max(a.y0, b.y0) > 0.5
        ]

    return find


def numbers(model_seed=0):
    """Fixed effects of A, B, C and A+B over 40 genes, in which A+B departs from the sum at genes 5 to 9."""
    rng = np.random.default_rng(model_seed)
    genes = [f"gene{k:02d}" for k in range(37)]
    columns = ["A", "B", "C", *genes]
    effects = pd.DataFrame(rng.normal(scale=0.15, size=(3, 40)), index=["A", "B", "C"], columns=columns)
    for k, name in enumerate(effects.index):
        effects.loc[name, name] = -2.0
        effects.loc[name, genes[3 * k : 3 * k + 12]] += rng.choice([-0.8, 0.8], 12)
    pair = effects.loc["A"] + effects.loc["B"]
    pair[genes[5:10]] *= 0.2
    effects.loc["A+B"] = pair
    return effects


class FixedModel:
    """Answers as a trained model does, with fixed numbers, so that pictures depend on nothing but the drawing."""

    def __init__(self, n_cells=60, seed=0):
        self.effects = numbers()
        self.setup_args = {"perturbation_key": "perturbation", "control": "control", "delimiter": "+"}
        self.perturbed_genes = ["A", "B", "C"]
        self.var_names_ = list(self.effects.columns)
        self.conditions = list(self.effects.index)
        self.has_posterior = True
        rng = np.random.default_rng(seed)
        labels = np.repeat(["control", *self.effects.index], n_cells)
        shift = np.vstack([np.zeros(40), self.effects.to_numpy()])[np.repeat(np.arange(5), n_cells)]
        values = np.clip(4.0 + rng.normal(scale=0.5, size=shift.shape) + shift, 0, None)
        obs = pd.DataFrame({"perturbation": labels, "depth": rng.gamma(5.0, size=len(labels))})
        self.adata = AnnData(
            values,
            obs=obs.set_index(pd.Index([f"cell{k}" for k in obs.index])),
            var=pd.DataFrame(index=self.var_names_),
        )
        self.adata.obsm["X_map"] = (shift + rng.normal(scale=0.4, size=shift.shape))[:, [5, 14]]
        steps = np.arange(20)
        self.history = {
            f"{term}_{part}": pd.DataFrame({"x": base + np.exp(-steps / 5) + 0.1 * (part == "validation")}, index=steps)
            for term, base in (("reconstruction", 1.0), ("kl", 0.1))
            for part in ("train", "validation")
        }
        self.history["train_loss"] = self.history["reconstruction_train"] + 0.1

    def predict_effects(self, perturbations, return_sd=False):
        names = [perturbations] if isinstance(perturbations, str) else list(perturbations)
        mean = 0.9 * self.effects.loc[names]
        sd = 0.05 + 0.1 * mean.abs()
        return (mean, sd) if return_sd else mean

    def sample_effects(self, perturbations, n_draws, seed):
        """Draws of each perturbation, the same in each call."""
        mean, sd = self.predict_effects(perturbations, return_sd=True)
        rngs = [np.random.default_rng([zlib.crc32(label.encode()), seed]) for label in mean.index]
        return mean.to_numpy() + sd.to_numpy() * np.stack([rng.normal(size=(n_draws, 40)) for rng in rngs], axis=1)

    def predict(self, perturbation, n_cells, seed):
        start = self.adata[self.adata.obs["perturbation"] == "control"][:n_cells]
        obs = pd.DataFrame({"control_cell": start.obs_names}, index=[str(k) for k in range(start.n_obs)])
        shift = self.predict_effects(perturbation).to_numpy()
        return AnnData(np.clip(start.X + shift, 0, None), obs=obs, var=self.adata.var.copy())

    def get_modules(self):
        return {"M1": ["A", "B"]}

    def get_latent_representation(self, kind="causal"):
        return np.asarray(self.adata.X)[:, :6].astype(np.float32)

    def get_edges(self):
        return pd.DataFrame({"source": ["A", "B"], "target": ["C", "C"], "weight": [0.5, -0.4]})

    @property
    def screen(self):
        return rg.screen.Screen(self.adata, self.setup_args)

    @property
    def latent_names(self):
        return [*self.perturbed_genes, "latent_3"]


@pytest.fixture
def fixed():
    return FixedModel()


@pytest.fixture(scope="session")
def trained():
    """A model with measured doubles, trained for a few steps; tests leave it as it is."""
    import scvi

    scvi.settings.seed = 0
    adata = rg.datasets.simulate(
        60, 4, n_doubles=3, n_control_cells=80, n_cells_per_perturbation=40, expected_degree=2.0, seed=0
    )
    rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts")
    model = rg.RaptorGraphModel(adata, n_hidden=8)
    model.train(max_epochs=2, accelerator="cpu", enable_progress_bar=False)
    return model


@pytest.fixture
def interaction_table():
    pairs = [("A", "B"), ("A", "C"), ("A", "D"), ("B", "C"), ("B", "D")]
    return pd.DataFrame(
        {
            "gene_a": [a for a, _ in pairs],
            "gene_b": [b for _, b in pairs],
            "synergy": [1.5, 0.8, 1.0, 0.5, 1.1],
            "redundancy": [0.1, 0.2, 0.9, 0.4, 0.6],
            "measured": [True, False, False, True, False],
            "interaction": ["synergy", "suppression", "undetermined", "undetermined", "epistasis"],
        }
    )


@pytest.fixture
def enrichment_table():
    rng = np.random.default_rng(0)
    sets = [
        "HALLMARK_TNFA_SIGNALING_VIA_NFKB",
        "HALLMARK_E2F_TARGETS",
        "REACTOME_INTERFERON_ALPHA_BETA_SIGNALING",
        "HALLMARK_UV_RESPONSE_DN",
        "my own set",
    ]
    table = pd.MultiIndex.from_product([["A", "B", "C", "D"], sets], names=["latent", "gene_set"]).to_frame(index=False)
    table["NES"] = rng.normal(scale=1.5, size=20).round(3)
    table["FDR"] = np.where(np.abs(table["NES"]) > 1.5, 0.004, 0.4)
    table["stands_out"] = table["latent"] != "D"
    return table


@pytest.fixture
def edges():
    return pd.DataFrame(
        [
            ("A", "B", 0.9, 0.95),
            ("A", "C", -0.5, 0.95),
            ("B", "D", 0.3, 0.7),
            ("C", "D", 0.2, 0.2),
            ("A", "D", 0.6, 0.95),
            ("E", "F", -0.8, 0.6),
        ],
        columns=["source", "target", "weight", "frequency"],
    )


@pytest.fixture
def reverse_table():
    genes = [("A",), ("B",), ("A", "B"), ("A", "C"), ("B", "C"), ("C",)]
    return pd.DataFrame(
        {
            "query": "q1",
            "perturbation": ["+".join(g) for g in genes],
            "genes": genes,
            "rank": [2.0, 5.0, 1.0, 3.0, 6.0, 4.0],
            "distance": [2.1, 4.0, 1.2, 2.5, 4.4, 3.0],
        }
    )


@pytest.fixture
def state_table():
    names = ["A", "B", "C", "D", "A+B"]
    table = pd.DataFrame({"perturbation": names, "statistic": 1.0, "p_value": [1e-6, 0.7, 0.4, 0.02, 1e-4]})
    table["FDR"] = [5e-6, 0.7, 0.5, 0.033, 2e-4]
    table["dependence"] = [0.5, 0.01, 0.02, 0.2, 0.4]
    scales = {"early": [1.9, 1.0, 1.05, 0.6, 2.4], "late": [0.1, 1.0, 0.95, 1.0, 0.2], "resting": [1, 1, 1, 1.4, 0.4]}
    for group, scale in scales.items():
        table[f"scale_{group}"] = scale
        table[f"scale_{group}_low"] = table[f"scale_{group}"] - 0.15
        table[f"scale_{group}_high"] = table[f"scale_{group}"] + 0.15
        table[f"n_cells_{group}"] = [40, 30, 0 if group == "resting" else 20, 25, 35]
    table.attrs["groupby"] = "phase"
    return table


@pytest.fixture
def next_pairs_table():
    return pd.DataFrame(
        {
            "gene_a": ["A", "C", "A", "B"],
            "gene_b": ["B", "D", "C", "D"],
            "gain": [0.11, 0.09, 0.05, 0.04],
            "gain_alone": [0.11, 0.1, 0.1, 0.06],
            "gain_in": "share of the variance of the other pairs",
            "cells_needed": [120.0, 1500.0, np.inf, 300.0],
            "singles_measured": [True, True, True, False],
        },
        index=["A+B", "C+D", "A+C", "B+D"],
    )


@pytest.fixture
def guide_table():
    table = pd.DataFrame(
        {
            "perturbation": ["A", "A", "A", "B", "B", "C", "C"],
            "guide": ["A_1", "A_2", "A_3", "B_1", "B_2", "C_1", "C_2"],
            "n_cells": [50, 45, 3, 30, 20, 40, 25],
            "share": [0.9, 0.85, 0.7, 0.8, 0.1, 0.6, 0.7],
            "size": [1.05, 0.95, np.nan, 1.6, 0.1, 1.2, 0.7],
            "difference": [0.1, 0.1, np.nan, 0.95, 0.95, 0.4, 0.4],
            "q": [0.6, 0.6, np.nan, 0.2, 1e-4, 0.3, 0.3],
        }
    )
    for name, half in (("share", 0.08), ("size", 0.25)):
        table[f"{name}_low"], table[f"{name}_high"] = table[name] - half, table[name] + half
    return table.assign(disagrees=table["guide"] == "B_2")


@pytest.fixture
def power_table():
    return pd.DataFrame(
        {
            "n_cells": [25, 100, 400] * 2,
            "power": [0.2, 0.6, 0.95, 0.12, 0.3, 0.5],
            "size": 0.3,
            "cells_needed": [180.0] * 3 + [np.inf] * 3,
        },
        index=["A+B"] * 3 + ["A+C"] * 3,
    )


@pytest.fixture
def example(
    fixed, interaction_table, enrichment_table, edges, reverse_table, state_table, next_pairs_table, power_table,
    guide_table,
):  # fmt: skip
    """Everything that the plots can be tried on."""
    return SimpleNamespace(
        model=fixed,
        interactions=interaction_table,
        enrichment=enrichment_table,
        edges=edges,
        reverse=reverse_table,
        next_pairs=next_pairs_table,
        power=power_table,
        states=state_table,
        guides=guide_table,
    )
