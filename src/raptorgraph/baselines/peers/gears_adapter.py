"""GEARS: train on singles and combinations, predict mean effects of any set of genes.

It picks its best epoch on ``task["val"]``. Its own downloads, the GO terms of genes and the graph of genes with common
terms, are replaced by ``task["files"]["gene2go"]`` and by :func:`go_graph`. A target without GO terms is a node of
its own. GEARS predicts means and no cells; effects are differences to the mean of the control cells.
"""

from __future__ import annotations

import gzip
import json
import pickle
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from anndata import AnnData

_N_NEIGHBORS = 20  # GEARS' num_similar_genes_go_graph
_LEAST = 0.1  # similarity of two genes that are joined, as in GEARS


def run(cells: AnnData, task: Mapping[str, Any]) -> dict[str, Any]:
    """``effects.csv``: effects of ``task["test"]``, perturbations x genes."""
    import torch
    from gears import GEARS, PertData

    torch.manual_seed(task["seed"])
    torch.set_num_threads(task["threads"])
    start, options, asked = time.perf_counter(), task["options"], list(task["test"])
    parts = {"train": ["control", *task["train"]], "val": list(task["val"])}
    if not parts["val"]:
        raise ValueError("GEARS picks its best epoch on 'val': name combinations there.")
    condition = {label: condition_of(label) for label in [*parts["train"], *parts["val"]]}
    adata = prepared(cells, condition)
    targets = sorted({gene for label in [*condition, *asked] if label != "control" for gene in label.split("+")})
    nodes = nodes_of(read_terms(Path(task["files"]["gene2go"])), targets, adata.var_names)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        # found by PertData, so that nothing is downloaded
        with Path(folder, "gene2go_all.pkl").open("wb") as file:
            pickle.dump(nodes, file)
        with Path(folder, "nodes.pkl").open("wb") as file:
            pickle.dump(sorted(nodes), file)
        data = PertData(folder, gene_set_path=f"{folder}/nodes.pkl", default_pert_graph=False)
        data.new_data_process(dataset_name="screen", adata=adata)
        # what prepare_split(split="custom") sets, without test cells, which are not here
        data.split, data.seed, data.subgroup, data.train_gene_set_size = "no_test", task["seed"], None, 1.0
        data.set2conditions = {name: [condition[label] for label in part] for name, part in parts.items()}
        data.get_dataloader(batch_size=options["batch_size"], test_batch_size=128)
        model = GEARS(data, device="cuda" if torch.cuda.is_available() else "cpu")
        edges, weights = go_graph(list(data.pert_names), nodes)
        model.model_initialize(
            hidden_size=options["hidden_size"],
            G_go=torch.tensor(edges, dtype=torch.long),
            G_go_weight=torch.tensor(weights, dtype=torch.float32),
        )
        model.train(epochs=task["epochs"])
        fitted = time.perf_counter()
        np.random.seed(task["seed"])  # noqa: NPY002  GEARS draws control cells from it to predict
        profiles = model.predict([label.split("+") for label in asked])
    control = np.ravel(adata[adata.obs["condition"] == "ctrl"].X.mean(axis=0))
    effects = {label: profiles["_".join(label.split("+"))] - control for label in asked}
    return {
        "effects.csv": pd.DataFrame.from_dict(effects, orient="index", columns=adata.var_names),
        "seconds": {"fit": fitted - start, "predict": time.perf_counter() - fitted},
    }


def condition_of(label: str) -> str:
    """A label as GEARS spells it."""
    return "ctrl" if label == "control" else label if "+" in label else f"{label}+ctrl"


def prepared(cells: AnnData, condition: Mapping[str, str]) -> AnnData:
    """The cells with the columns that GEARS reads."""
    adata = cells.copy()
    labels = adata.obs["perturbation"].astype(str)
    adata.obs = pd.DataFrame({"condition": labels.map(condition), "cell_type": "cells"}, index=adata.obs_names)
    adata.var = pd.DataFrame({"gene_name": adata.var_names.astype(str)}, index=adata.var_names.astype(str))
    adata.uns = {"log1p": {"base": None}}  # scanpy asks for it
    adata.X = sparse.csr_matrix(adata.X, dtype=np.float32)
    return adata


def read_terms(path: Path) -> dict[str, list[str]]:
    """GO terms of each gene."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        found: dict[str, list[str]] = json.load(file)
    return found


def nodes_of(terms: Mapping[str, Iterable[str]], targets: Sequence[str], genes: Iterable[str]) -> dict[str, set[str]]:
    """Terms of the targets and of the genes that have any; of a target without terms one that it has alone."""
    nodes = {gene: set(terms[gene]) for gene in [*targets, *genes] if terms.get(gene)}
    for gene in targets:
        nodes.setdefault(gene, {f"self:{gene}"})
    return nodes


def go_graph(
    names: Sequence[str], terms: Mapping[str, Iterable[str]], k: int = _N_NEIGHBORS
) -> tuple[np.ndarray, np.ndarray]:
    """Edges, 2 x n (source, target), and weights of GEARS' graph of genes.

    The weight is the Jaccard similarity of the terms of two genes, above 0.1; each target keeps its k + 1 best
    sources, itself among them.
    """
    number = {term: i for i, term in enumerate(sorted({term for name in names for term in terms[name]}))}
    rows = np.repeat(np.arange(len(names)), [len(set(terms[name])) for name in names])
    columns = np.array([number[term] for name in names for term in sorted(set(terms[name]))])
    member = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(names), len(number)))
    both = (member @ member.T).toarray()
    size = np.diag(both)
    jaccard = both / (size[:, None] + size[None, :] - both)
    best = np.argsort(-jaccard, axis=0, kind="stable")[: k + 1]
    sources, targets = best.T.ravel(), np.repeat(np.arange(len(names)), len(best))
    weights = jaccard[sources, targets]
    kept = weights > _LEAST
    return np.stack([sources[kept], targets[kept]]), weights[kept]
