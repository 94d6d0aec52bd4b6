"""Split cells into training and validation within each condition, pair them, and measure the shifts."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import numpy as np
from scvi import settings

from raptorgraph._arguments import check_choice, check_flag, check_integer, check_number
from raptorgraph._order import name_order, places
from raptorgraph.inference import loadings_of_cells
from raptorgraph.model._loader import Split, make_loader
from raptorgraph.model._stream import make_stream
from raptorgraph.pp._pairing import METHODS, pairing_plan, principal_components
from raptorgraph.screen._matrix import to_dense
from raptorgraph.screen._moments import control_loadings_of, effects_of, log_ratios_of, moments_of

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from raptorgraph.model._loader import Batch
    from raptorgraph.model._manager import ScreenManager
    from raptorgraph.model._targets import EffectTargets
    from raptorgraph.screen import Screen, Sums
    from raptorgraph.screen._matrix import Matrix
    from raptorgraph.screen._moments import EffectMoments, LogRatioMoments

_MOST_CONTROLS = 2000  # control cells that the correlation between genes is learned from


class ScreenSplitter(pl.LightningDataModule):
    """Data module of the training, with the arguments of scvi-tools' ``DataSplitter`` and the pairing.

    Parameters
    ----------
    adata_manager
        Manager of the registered AnnData.
    train_size, validation_size
        Shares of the cells of every condition; by default 0.9 and the rest.
    batch_size
        Perturbed cells in a batch; with each its partner, or else some controls
        (:func:`~raptorgraph.model._loader.controls_of_a_batch`).
    pairing
        Method of :func:`raptorgraph.pp.pair_cells`.
    n_comps, max_controls
        Principal components and control cells that cells are paired on, as there; None for all genes, and for all
        control cells.
    one_condition
        Whether the cells of a batch are of one condition, as many as there are up to `batch_size`; else conditions
        come in parts of up to 64 cells.
    external_indexing
        Rows of the training, the validation and the test cells, instead of shares; parts that are left out are empty.
    by_name
        Draw random numbers in the order of the names of cells, genes and conditions, and not in that of the file, so
        that a file in another order gives the same results.
    """

    def __init__(
        self,
        adata_manager: ScreenManager,
        *,
        train_size: float | None = None,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,
        batch_size: int = 256,
        pairing: str = "emd",
        n_comps: int | None = 50,
        max_controls: int | None = 2500,
        one_condition: bool = False,
        with_partners: bool = True,
        external_indexing: list[np.ndarray] | None = None,
        by_name: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        unknown = {k for k, v in kwargs.items() if k not in ("distributed_sampler", "load_sparse_tensor") and v}
        if unknown:
            raise TypeError(f"Unknown data arguments {sorted(unknown)}.")
        check_integer("batch_size", batch_size, 1)
        check_choice("pairing", pairing, METHODS)
        check_flag("shuffle_set_split", shuffle_set_split)
        check_flag("with_partners", with_partners)
        check_flag("one_condition", one_condition)
        for name, value in (("n_comps", n_comps), ("max_controls", max_controls)):
            if value is not None:
                check_integer(name, value, 1, hint=", or None for all")
        if adata_manager.stored is not None and (one_condition or (n_comps is None and pairing != "random")):
            wanted = "one_condition=True" if one_condition else "n_comps=None"
            raise ValueError(f"{wanted} needs cells in memory, and these are read from a file: adata.to_memory().")
        if train_size is not None:
            check_number("train_size", train_size, 0, 1, above=True)
        if validation_size is not None:
            check_number("validation_size", validation_size, 0, 1)
        self.adata_manager = adata_manager
        self.screen: Screen = adata_manager.screen.by_name() if by_name else adata_manager.screen
        self.place: np.ndarray | None = None  # of each cell in the order of their names
        self.gene_order = np.arange(len(self.screen.var_names))
        if by_name:
            self.place = places(name_order(adata_manager.adata.obs_names))
            self.gene_order = name_order(self.screen.var_names)
        self.train_size = 0.9 if train_size is None else train_size
        self.validation_size = 1 - self.train_size if validation_size is None else validation_size
        if self.train_size + self.validation_size > 1 + 1e-9:
            raise ValueError(
                f"train_size={self.train_size:g} and validation_size={self.validation_size:g} exceed 1: lower one."
            )
        self.shuffle_set_split = shuffle_set_split
        self.batch_size = batch_size
        self.pairing = pairing
        self.n_comps, self.max_controls, self.one_condition = n_comps, max_controls, one_condition
        self.with_partners = with_partners
        self.external_indexing = None if external_indexing is None else self._given_parts(external_indexing)
        self.seed = 0 if settings.seed is None else settings.seed
        # Effects that the network is held to, in training and in validation, where it sees all cells.
        self.targets: tuple[EffectTargets | None, EffectTargets | None] = (None, None)
        self.share = (0, 1)  # of several processes that train together, this one, and their number
        self._split_cells()

    def in_order(self, rows: np.ndarray) -> np.ndarray:
        """Rows in the order in which random numbers are given out: that of the names, or of the file."""
        rows = np.sort(rows)
        return rows if self.place is None else rows[np.argsort(self.place[rows])]

    def _given_parts(self, parts: Any) -> list[np.ndarray]:
        """Training, validation and test cells that the user names; ValueError where they are no three sets of rows."""
        if not isinstance(parts, list | tuple) or not 1 <= len(parts) <= 3:
            raise ValueError("external_indexing must be a list of one to three arrays: training, validation and test.")
        found = [np.asarray(part) for part in (*parts, *[[]] * (3 - len(parts)))]
        if any(part.ndim != 1 or (part.size and part.dtype.kind not in "iu") for part in found):
            raise ValueError("external_indexing must hold numbers of rows, one array of integers for each part.")
        rows, n = np.concatenate(found), self.adata_manager.adata.n_obs
        if rows.size and not 0 <= rows.min() <= rows.max() < n:
            raise ValueError(
                f"external_indexing has rows from {rows.min():g} to {rows.max():g}, and there are {n} cells."
            )
        if len(np.unique(rows)) < len(rows):
            raise ValueError("external_indexing names a cell twice.")
        return [part.astype(np.int64) for part in found]

    def _split_cells(self) -> None:
        """Take the shares within each condition, at least one training cell (two controls) of each."""
        self.codes = self.screen.codes
        if self.external_indexing is not None:
            self.train_idx, self.val_idx, self.test_idx = self.external_indexing
        else:
            rng = np.random.default_rng(self.seed)
            parts: tuple[list[np.ndarray], ...] = ([], [], [])
            for code in np.unique(self.codes):
                cells = np.flatnonzero(self.codes == code)
                cells = rng.permutation(self.in_order(cells)) if self.shuffle_set_split else cells
                n_train = min(len(cells), max(2 if code == 0 else 1, round(self.train_size * len(cells))))
                n_val = min(len(cells) - n_train, round(self.validation_size * len(cells)))
                parts[0].append(cells[:n_train])
                parts[1].append(cells[n_train : n_train + n_val])
                parts[2].append(cells[n_train + n_val :])
            self.train_idx, self.val_idx, self.test_idx = (np.sort(np.concatenate(part)) for part in parts)
        if (self.codes[self.train_idx] == 0).sum() < 2:
            raise ValueError("The training cells hold fewer than two control cells.")
        if not (self.codes[self.train_idx] != 0).any():
            raise ValueError("The training cells hold no perturbed cell.")
        n_val_control = (self.codes[self.val_idx] == 0).sum()
        if n_val_control < 2 or n_val_control == len(self.val_idx):
            self.val_idx = np.array([], dtype=np.int64)
        self.n_train, self.n_val = len(self.train_idx), len(self.val_idx)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        codes = self.codes[self.train_idx]
        if self.one_condition:
            sizes = np.unique(codes[codes != 0], return_counts=True)[1]
            return int((-(-sizes // self.batch_size)).sum())
        return max(1, -(-int((codes != 0).sum()) // self.batch_size))

    def setup(self, stage: str | None = None) -> None:
        """Measure shifts and pair, within each part by itself."""
        if hasattr(self, "train_split") or (self.trainer is not None and self.trainer.global_rank > 0):
            return  # done, or received from the process that does it
        X, library = self.screen.source
        coordinates: Matrix | None = None
        if self.pairing != "random":
            if self.n_comps is None:
                coordinates = self.screen.expression
            else:
                coordinates = principal_components(X, self.n_comps, library=library, seed=self.seed)
        self.train_split = self._part(self.train_idx, 0, coordinates)
        self.val_split = self._part(self.val_idx, 1, coordinates) if self.n_val else None

    @property
    def known_rows(self) -> np.ndarray:
        """Training and validation cells: all but those that are kept for a test, in the order of draws."""
        return self.in_order(np.concatenate([self.train_idx, self.val_idx]))

    @property
    def known_controls(self) -> np.ndarray:
        """Control cells among them."""
        return np.asarray(self.known_rows[self.codes[self.known_rows] == 0])

    @cached_property
    def sums(self) -> Sums:
        """Sums over these cells, the training being part 0 and the validation part 1."""
        part = np.zeros(len(self.codes), dtype=np.int64)
        part[self.val_idx] = 1
        return self.screen.sums(np.sort(self.known_rows), part=part, rates=True)

    def known_effects(self) -> tuple[EffectMoments, np.ndarray]:
        """Effects measured on them, and the mean of their controls."""
        return effects_of(self.sums), moments_of(self.sums).mean[0]

    def known_control_loadings(self) -> np.ndarray:
        """Errors of the controls of batches among them, beyond that of all controls, conditions x columns."""
        return control_loadings_of(self.sums)

    def known_noise(self) -> np.ndarray:
        """Correlation between genes of the noise of a mean, as their control cells show it within batches.

        Loadings, G x factors (:func:`raptorgraph.inference.loadings_of_cells`).
        """
        rows = self.known_controls
        if len(rows) > _MOST_CONTROLS:
            rows = self.in_order(np.random.default_rng(self.seed).choice(rows, _MOST_CONTROLS, replace=False))
        values = to_dense(self.screen.expression_at(rows)).astype(np.float64)
        batch = np.zeros(len(rows), dtype=int) if self.screen.batch is None else self.screen.batch[rows]
        for value in np.unique(batch):
            values[batch == value] -= values[batch == value].mean(0)
        loadings: np.ndarray = loadings_of_cells(np.take(values, self.gene_order, axis=1))
        found: np.ndarray = loadings[places(self.gene_order)]
        return found

    def known_log_ratios(self) -> LogRatioMoments:
        """Log ratios of rates measured on them."""
        return log_ratios_of(self.sums)

    def _part(self, rows: np.ndarray, part: int, coordinates: Matrix | None) -> Split:
        effects, batch, plan = effects_of(self.sums.of_parts(part)), self.screen.batch, None
        rows = rows if self.place is None else self.in_order(rows)
        if coordinates is not None:
            pairs = pairing_plan(
                coordinates[rows],
                self.codes[rows],
                method=self.pairing,
                max_controls=self.max_controls,
                batch=None if batch is None else batch[rows],
                seed=self.seed,
            ).tocoo()
            n = len(self.codes)
            plan = type(pairs)((pairs.data, (rows[pairs.row], rows[pairs.col])), shape=(n, n)).tocsr()
        controls = rows[self.codes[rows] == 0]
        return Split(controls, rows[self.codes[rows] != 0], self.codes, effects, plan)

    def _loader(self, split: Split, targets: EffectTargets | None, *, shuffle: bool) -> DataLoader[Batch]:
        how: dict[str, Any] = {
            "batch_size": self.batch_size,
            "shuffle": shuffle,
            "seed": self.seed,
            "with_partners": self.with_partners,
            "targets": targets,
            "share": self.share,
        }
        if self.adata_manager.stored is not None:
            return make_stream(self.adata_manager, split, **how)
        if self.one_condition and self.share[1] > 1:
            raise ValueError("one_condition=True needs one device: leave it out, or use devices=1.")
        return make_loader(self.adata_manager, split, one_condition=self.one_condition, **how)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Training batches."""
        return self._loader(self.train_split, self.targets[0], shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch] | list[Any]:
        """Validation batches, or none where too few cells are left for it."""
        return self._loader(self.val_split, self.targets[1], shuffle=False) if self.val_split is not None else []
