"""Scores of gene sets for one ranking of the genes, by gseapy or decoupler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

from raptorgraph._arguments import check_choice
from raptorgraph._order import name_order, places
from raptorgraph.pp._gene_sets import match_gene_sets, read_gene_sets
from raptorgraph.screen._noise import false_discovery_rates

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

METHODS = ("gsea", "decoupler_gsea", "ulm", "mlm")
_SCORES = {"ES": "ES", "NES": "NES", "NOM p-val": "p", "FDR q-val": "FDR"}


@dataclass(frozen=True)
class Ranking:
    """One effect and the gene sets that it is compared with.

    `values` are the effects of all genes, shape (G,), and `ranked` the positions of the genes that take part. `places`
    has the position of the gene whose effect is in `values`, its own unless gene labels are permuted. `members` has the
    name of each set and the positions of its genes, all among `ranked`; `weights` are 1 unless a method takes others.
    """

    values: np.ndarray
    ranked: np.ndarray
    places: np.ndarray
    members: Mapping[str, np.ndarray]
    weights: Mapping[str, np.ndarray]

    @property
    def moved(self) -> list[str]:
        """Sets that have an effect on at least one gene."""
        return [name for name, found in self.members.items() if self.values[found].any()]

    @property
    def order(self) -> np.ndarray:
        """Positions of the genes by falling effect; ties in their order."""
        return self.ranked[np.argsort(-self.values[self.ranked], kind="stable")]


def check_method(method: str) -> None:
    """ValueError for an unknown method, ModuleNotFoundError for one that needs decoupler, where it is missing."""
    check_choice("method", method, METHODS)
    if method != "gsea":
        try:
            import decoupler  # noqa: F401
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f'method={method!r} needs decoupler: pip install "raptorgraph[decoupler]"'
            ) from error


def read_sets(
    gene_sets: Mapping[str, Iterable[str]] | str | Path | pd.DataFrame,
    genes: Sequence[str],
    min_size: int,
    max_size: int,
    method: str,
) -> tuple[dict[str, list[str]], dict[tuple[str, str], float] | None]:
    """Genes of each set among those at hand, and their weights by set and gene; None where all are 1."""
    sets = match_gene_sets(read_gene_sets(gene_sets), genes, min_size=min_size, max_size=max_size)
    if not isinstance(gene_sets, pd.DataFrame) or "weight" not in gene_sets:
        return sets, None
    rows = gene_sets[gene_sets["source"].astype(str).isin(sets)]
    values = rows["weight"].to_numpy(dtype=np.float64)
    for bad, what in ((~np.isfinite(values), "is not a finite number"), (values == 0, "is 0")):
        if bad.any():
            first = rows[bad].iloc[0]
            raise ValueError(f"The weight of {first['target']!r} in gene set {first['source']!r} {what}.")
    if method in ("ulm", "mlm"):
        keys = zip(rows["source"].astype(str), rows["target"].astype(str).str.strip(), strict=True)
        return sets, dict(zip(keys, values, strict=True))
    if (values < 0).any():
        first = rows[values < 0].iloc[0]
        raise ValueError(
            f"The weight of {first['target']!r} in gene set {first['source']!r} is {first['weight']:g}, and "
            f"method={method!r} knows no weights: use method='ulm', or leave out the column 'weight'."
        )
    return sets, None


def rank(
    effects: pd.DataFrame,
    excluded: Sequence[Sequence[str]],
    sets: Mapping[str, Sequence[str]],
    weights: Mapping[tuple[str, str], float] | None,
    permute: int | None,
) -> list[Ranking]:
    """One ranking for each row of `effects`, without the genes that are excluded there."""
    genes = effects.columns.astype(str).to_numpy()
    position = {gene: k for k, gene in enumerate(genes)}
    members = {name: np.array([position[gene] for gene in found]) for name, found in sets.items()}
    by_name = name_order(genes)  # so that a permutation does not depend on the order of the genes
    key = None if permute is None else np.random.default_rng(permute).permutation(len(genes))[places(by_name)]
    rankings = []
    for effect, own in zip(effects.to_numpy(dtype=np.float64), excluded, strict=True):
        ranked = np.setdiff1d(np.arange(len(genes)), [position[gene] for gene in own if gene in position])
        moved = np.arange(len(genes))
        if key is not None:
            others = by_name[np.isin(by_name, ranked)]
            moved[others] = others[np.argsort(key[others])]
        inside = {name: np.intersect1d(found, ranked) for name, found in members.items()}
        given = {
            name: np.array([1.0 if weights is None else weights[name, genes[k]] for k in found])
            for name, found in inside.items()
        }
        rankings.append(Ranking(effect[moved], ranked, moved, inside, given))
    return rankings


def score(ranking: Ranking, genes: np.ndarray, method: str, n_permutations: int, seed: int) -> pd.DataFrame:
    """Table of the gene sets: ``gene_set``, ``ES``, ``NES``, ``p``, ``FDR``, ``n_genes``, ``leading_edge``."""
    table = pd.DataFrame({"gene_set": list(ranking.members), **dict.fromkeys(_SCORES.values(), np.nan)})
    table["n_genes"] = [len(found) for found in ranking.members.values()]
    table["leading_edge"] = ""
    # gseapy's compiled part aborts on a set without any effect
    if not ranking.moved:
        return table
    function = {"gsea": _gseapy, "decoupler_gsea": _decoupler_gsea, "ulm": _linear, "mlm": _linear}[method]
    found = function(ranking, method, n_permutations, seed).reindex(table["gene_set"])
    for column in _SCORES.values():
        table[column] = found[column].to_numpy(dtype=np.float64)
    edges = found["leading_edge"]
    table["leading_edge"] = ["" if isinstance(edge, float) else ";".join(genes[edge]) for edge in edges]
    return table


def _gseapy(ranking: Ranking, method: str, n_permutations: int, seed: int) -> pd.DataFrame:
    import gseapy

    order = ranking.order
    # Codes in the place of names, since gseapy changes the case of some.
    result = gseapy.prerank(
        pd.Series(ranking.values[order], index=[f"G{k}" for k in order]),
        {name: [f"G{k}" for k in ranking.members[name]] for name in ranking.moved},
        min_size=1,
        max_size=len(order),
        permutation_num=n_permutations,
        ascending=None,
        threads=1,
        seed=seed,
        no_plot=True,
    )
    found = result.res2d.set_index("Term").rename(columns=_SCORES)
    codes = found["Lead_genes"].fillna("").str.split(";")
    found["leading_edge"] = [np.array([int(code[1:]) for code in edge if code], dtype=int) for edge in codes]
    return found


def _decoupler_gsea(ranking: Ranking, method: str, n_permutations: int, seed: int) -> pd.DataFrame:
    import decoupler

    frame, rows = _frame(ranking), {}
    for name in ranking.moved:  # one at a time: decoupler adjusts the p-values of several for each other
        nes, p = decoupler.mt.gsea(
            frame, _net(ranking, [name]), tmin=1, empty=False, times=n_permutations, seed=seed + 1
        )
        es, edge = _running_sum(ranking, name)
        rows[name] = {"ES": es, "NES": nes.iloc[0, 0], "p": p.iloc[0, 0], "leading_edge": edge}
    found = pd.DataFrame.from_dict(rows, orient="index")
    found["FDR"] = false_discovery_rates(found["p"].to_numpy(dtype=np.float64))
    return found


def _linear(ranking: Ranking, method: str, n_permutations: int, seed: int) -> pd.DataFrame:
    """Slopes of the effects on the membership (or weight), of each set by itself or of all at once."""
    import decoupler

    frame, net = _frame(ranking), _net(ranking, list(ranking.members))
    run = getattr(decoupler.mt, method)
    n_genes, n_sets = len(ranking.ranked), len(ranking.members)
    free = n_genes - 2 if method == "ulm" else n_genes - n_sets - 1
    if free < 1:
        raise ValueError(f"method='mlm' fits {n_sets} gene sets to {n_genes} genes at once: use method='ulm'.")
    try:
        t, slope = (run(frame, net, tmin=1, empty=False, tval=tval)[0].iloc[0] for tval in (True, False))
    except (AssertionError, np.linalg.LinAlgError) as error:
        raise ValueError(
            f"method='mlm' cannot fit {n_sets} gene sets at once, as some hold the same genes or all sets together "
            "every gene: use method='ulm'."
        ) from error
    found = pd.DataFrame({"ES": slope, "NES": t, "p": 2 * stats.t.sf(t.abs(), free)}, index=t.index)
    found["FDR"] = false_discovery_rates(found["p"].to_numpy())
    found["leading_edge"] = [_pulling(ranking, name, t[name]) for name in found.index]
    return found


def _frame(ranking: Ranking) -> pd.DataFrame:
    columns = [f"G{k}" for k in ranking.ranked]
    return pd.DataFrame(ranking.values[None, ranking.ranked], index=["effect"], columns=columns)


def _net(ranking: Ranking, names: list[str]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "source": np.repeat(names, [len(ranking.members[name]) for name in names]),
            "target": [f"G{k}" for name in names for k in ranking.members[name]],
            "weight": np.concatenate([ranking.weights[name] for name in names]).astype(float),
        }
    )


def _running_sum(ranking: Ranking, name: str) -> tuple[float, np.ndarray]:
    """Largest deviation of GSEA's running sum, and the positions of the set's genes on that side of it."""
    order = ranking.order
    inside = np.isin(order, ranking.members[name])
    size = np.abs(ranking.values[order]) * inside
    path = np.cumsum(size / size.sum() - ~inside / (~inside).sum())
    peak, valley = int(path.argmax()), int(path.argmin())
    if path[peak] > -path[valley]:
        return float(path[peak]), order[: peak + 1][inside[: peak + 1]]
    return float(path[valley]), order[valley + 1 :][inside[valley + 1 :]][::-1]


def _pulling(ranking: Ranking, name: str, score: float) -> np.ndarray:
    """Positions of the set's genes that lie on the score's side of the other genes, those that pull most first."""
    found = ranking.members[name]
    others = np.setdiff1d(ranking.ranked, found)
    pull = np.sign(score) * ranking.weights[name] * (ranking.values[found] - ranking.values[others].mean())
    order = np.argsort(-pull, kind="stable")
    return np.asarray(found[order[pull[order] > 0]])
