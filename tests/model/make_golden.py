"""Write the golden model of the present format, with what it answers: once, by the release that brings the format.

``PYTHONPATH=src .venv/bin/python tests/model/make_golden.py`` refuses to write where there is one.
"""

from pathlib import Path

import scvi

import raptorgraph as rg
from raptorgraph.model._saved import KIND


def main() -> None:
    folder = Path(__file__).parent / "golden" / f"format_{KIND.version}"
    scvi.settings.seed = 0
    adata = rg.datasets.simulate(
        12, 3, n_doubles=2, n_control_cells=60, n_cells_per_perturbation=30, n_truth_cells=5, n_batches=2, seed=1
    )
    adata.obs["age"] = [i % 5 + 0.5 for i in range(adata.n_obs)]
    rg.RaptorGraph.setup_anndata(
        adata, library_size_key="total_counts", batch_key="batch", continuous_covariate_keys=["age"]
    )
    model = rg.RaptorGraph(adata, n_latent=3, n_hidden=2, n_subgraphs=1)
    model.train(max_epochs=2, accelerator="cpu", enable_progress_bar=False)
    model.save(folder)
    model.predict_effects(["P01", "P03", "P01+P02", "P02+P03"]).to_csv(folder / "effects.csv")
    model.get_edges()[["source", "target", "weight"]].to_csv(folder / "edges.csv", index=False)


if __name__ == "__main__":
    main()
