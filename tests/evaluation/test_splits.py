from itertools import combinations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from raptorgraph.evaluation._splits import doubles_folds, paper_split, seen_singles, singles_only, split_cells

GENES = [f"P{i}" for i in range(10)]
DOUBLES = [f"{a}+{b}" for a, b in combinations(GENES, 2)][::2]
UNTESTABLE = ["P0+X", "X+Y"]
SCREEN = ["control", *GENES, *DOUBLES, *UNTESTABLE, "P0+P1+P2"]
COMBINED = {*DOUBLES, "P0+P1+P2"}


def check(split):
    """What holds for every split."""
    for part in (split.train, split.validation, split.test, split.refit, split.left_out):
        assert list(part) == sorted(set(part))
        assert "control" not in part
    assert not set(split.train) & set(split.validation)
    assert not set(split.refit) & set(split.test)
    assert not set(split.validation) & set(split.test)
    assert set(split.train) <= set(split.refit) <= set(split.train) | set(split.validation)
    assert set(split.groups) == set(split.test)
    assert set(split.train) | set(split.validation) | set(split.test) | set(split.left_out) == set(SCREEN) - {"control"}


def test_singles_only():
    split = singles_only(SCREEN)
    check(split)
    assert split.train == split.refit == tuple(GENES)
    assert set(split.validation) | set(split.test) == COMBINED
    assert len(split.validation) == round(0.2 * len(COMBINED))
    assert split.left_out == ("P0+X", "X+Y")
    assert set(split.groups.values()) == {"doubles"}
    assert singles_only(SCREEN, validation_share=0).test == tuple(sorted(COMBINED))


def test_paper_split():
    split = paper_split(SCREEN)
    check(split)
    assert split.train == split.refit == tuple(GENES)
    assert split.validation == ()
    assert set(split.test) == COMBINED
    assert split.left_out == ("P0+X", "X+Y")


@pytest.mark.parametrize("n_folds", [2, 5, len(COMBINED)])
def test_folds(n_folds):
    splits = doubles_folds(SCREEN, n_folds=n_folds)
    assert len(splits) == n_folds
    assert len({split.name for split in splits}) == n_folds
    for split in splits:
        check(split)
        assert set(GENES) | set(UNTESTABLE) <= set(split.train)
        assert split.left_out == ("P0+X", "X+Y")
        assert set(split.refit) == set(split.train) | set(split.validation)
        n_rest = len(COMBINED) - len(split.test)
        assert len(split.validation) == max(1, round(0.25 * n_rest))
        assert set(split.validation) < COMBINED
    tested = [label for split in splits for label in split.test]
    assert sorted(tested) == sorted(COMBINED)  # each once
    sizes = [len(split.test) for split in splits]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("seed", range(5))
def test_seen_singles(seed):
    split = seen_singles(SCREEN, seed=seed)
    check(split)
    held = {label for label, group in split.groups.items() if group == "unseen single"}
    assert len(held) == 2
    assert held <= set(GENES)
    for label in (*split.refit,):
        assert held.isdisjoint(label.split("+"))
    for label, group in split.groups.items():
        if label not in held:
            genes = set(label.split("+"))
            assert group == f"seen {len(genes - held)}"
            assert genes & held or group == f"seen {len(genes)}"
    assert {label for label in COMBINED if held & set(label.split("+"))} <= set(split.test)
    assert set(split.groups.values()) >= {"unseen single", "seen 1", "seen 2"}
    assert set(split.refit) == set(split.train) | set(split.validation)
    assert split.validation


def test_seen_zero():
    split = seen_singles(["A", "B", "C", "A+B", "A+C", "B+C"], holdout_share=0.67, validation_share=0)
    assert sorted(split.groups.values()) == ["seen 0", "seen 1", "seen 1", "unseen single", "unseen single"]
    assert len(split.train) == 1
    assert split.validation == ()


@pytest.mark.parametrize("make", [singles_only, doubles_folds, seen_singles])
def test_seeds_and_spellings(make):
    spelled = ["ctrl", *(f"{'_'.join(label.split('+')[::-1])}_ctrl" for label in SCREEN[:0:-1]), "P0_P1_P1"]
    first, again, other = make(SCREEN, seed=7), make(SCREEN, seed=7), make(SCREEN, seed=8)
    assert first == again != other
    respelled = make(spelled, seed=7, control=["ctrl", "nt"], delimiter="_")
    for one, two in zip(np.atleast_1d(first), np.atleast_1d(respelled), strict=True):
        assert [label.replace("_", "+") for label in two.test] == list(one.test)
        assert [label.replace("_", "+") for label in two.refit] == list(one.refit)


def test_split_cells():
    labels = ["control", "A", "B", "B+A", "A+B", "C", "control"]
    adata = ad.AnnData(np.arange(14.0).reshape(7, 2), obs=pd.DataFrame({"perturbation": labels}, index=list("abcdefg")))
    part = split_cells(adata, ["A", "A+B+A"])
    assert list(part.obs_names) == list("abdeg")
    assert not part.is_view
    part.X[:] = -1
    assert adata.X.min() == 0
    with pytest.raises(ValueError, match="condition 'D'"):
        split_cells(adata, ["A", "D"])
    with pytest.raises(ValueError, match="No cell is labeled as control"):
        split_cells(adata, ["A"], control="nt")
    with pytest.raises(TypeError, match="not the string"):
        split_cells(adata, "A")


def test_errors():
    for make in (singles_only, doubles_folds, paper_split, seen_singles):
        with pytest.raises(ValueError, match="No condition is a single"):
            make(["control", "A+B"])
        with pytest.raises(TypeError, match="not the string"):
            make("A+B")
    for make in (singles_only, paper_split):
        with pytest.raises(ValueError, match="No combination is left to test: 0 of the 1"):
            make(["A", "B", "A+X"])
    with pytest.raises(ValueError, match="No combination is left to test: 1 of the 1"):
        singles_only(["A", "B", "A+B"])
    with pytest.raises(ValueError, match="n_folds=5 must be from 2 to 1"):
        doubles_folds(["A", "B", "A+B"])
    for share in (-0.1, 1, float("nan")):
        for make in (singles_only, doubles_folds, seen_singles):
            with pytest.raises(ValueError, match="validation_share="):
                make(SCREEN, validation_share=share)
    for share in (0, 1):
        with pytest.raises(ValueError, match="holdout_share="):
            seen_singles(SCREEN, holdout_share=share)
    with pytest.raises(ValueError, match="two singles or more, found 1"):
        seen_singles(["A", "A+B"])


def test_screen_with_few_testable_doubles(shared_data):
    adata = ad.read_h5ad(shared_data / "norman2019_devel.h5ad", backed="r")
    conditions = adata.obs["perturbation"].astype(str).unique()
    adata.file.close()
    split = paper_split(conditions)
    assert (len(split.train), len(split.test), len(split.left_out)) == (18, 5, 10)
    assert all(len(fold.refit) == 18 + 14 for fold in doubles_folds(conditions))
