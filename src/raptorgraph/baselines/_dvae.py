"""The discrepancy VAE of Zhang et al. (2023), dVAE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
import torch

from raptorgraph._arguments import check_integer, check_number, settings_of
from raptorgraph._docs import docs
from raptorgraph.baselines._base import Baseline, draw_controls, stack_cells
from raptorgraph.baselines._blocks import DiscrepancyModule, VariationalEncoder, small_linear
from raptorgraph.baselines._vae_training import TrainingSettings, sample, train
from raptorgraph.nn._posterior_draws import posterior_expectation
from raptorgraph.screen._expression import to_expression
from raptorgraph.screen._inputs import expression_source
from raptorgraph.screen._matrix import to_dense
from raptorgraph.screen._names import gene_names
from raptorgraph.screen._screen import design_matrix

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anndata import AnnData

_CHUNK = 4096  # cells decoded at a time


@docs.dedent
class DiscrepancyVAE(Baseline):
    r"""Discrepancy VAE: control cells, shifted in a causal latent space, match perturbed cells by MK-MMD.

    A dense encoder gives z of a control cell; perturbation g adds its strength times a softmax over latents,
    :math:`s_g t_g`; the latents spread along a triangular graph, :math:`u = (z + \sum_g s_g t_g)(I - A)^{-1}`; a
    decoder gives the perturbed cell. Settings and schedules are those of the published source (Zhang et al., NeurIPS
    2023, github.com/uhlerlab/discrepancy_vae), with these differences: float32; control cells drawn anew in every
    step; a condition with fewer cells than a batch is used rather than dropped; combinations in the training data
    are trained on, with the sum of their genes' shifts (the published model trains on singles: give it those alone);
    the default number of latents follows the data; the model of the last epoch predicts.

    Parameters
    ----------
    %(perturbation_key)s
    n_latent
        Number of latents d; default the number of perturbed genes (105 as published, for 105 genes).
    n_hidden
        Hidden units of encoder, targets and decoder.
    max_epochs
        Number of epochs.
    batch_size
        Cells of one condition, and as many control cells, in each step.
    lr
        Learning rate of Adam.
    mmd_weight, kl_weight, temperature
        Values that the published schedules rise to. The weight of the MMD is 0 for 5 epochs and has its value from
        half of the epochs on; that of the KL is 0 for 10, the temperature 1 for 5, and both reach their value in the
        last epoch.
    l1_weight
        Weight of the L1 norm of the graph.
    fix_sigma
        Middle bandwidth of the ten kernels of the MMD.
    predict_temperature
        Temperature of the targets in predictions. The published inference uses 1, although training ends at 5.
    seed
        Seed of the start, the batches and the noise. The same seed gives the same bits.
    **setup
        Arguments of :class:`Baseline`. `batch_key` is not used: the model knows no batches.

    Attributes
    ----------
    module_
        The trained network.
    history_
        One row for each epoch: means over its steps of ``reconstruction``, ``kl``, ``mmd`` and ``l1``, the same as
        weighted in the loss (``weighted_kl``, ...), their sum ``loss``, and the scheduled weights.
    adjacency_
        The graph A, latents x latents, row = cause.
    targets_
        Softmax weights t as predictions use them, perturbed genes x latents; each row sums to 1.
    strength_
        Strength s of each perturbed gene.
    var_names
        Genes of the training data.

    Raises
    ------
    ValueError
        If a number is out of its range.

    Examples
    --------
    Two epochs show how it is used; 100 are the default.

    >>> baseline = rg.baselines.DiscrepancyVAE(max_epochs=2, library_size_key="total_counts").fit(adata)
    >>> baseline.predict_effects(["P01", "P01+P02"]).shape
    (2, 100)
    >>> baseline.adjacency_.shape
    (6, 6)
    >>> list(baseline.history_.columns)[:3]
    ['reconstruction', 'kl', 'mmd']
    """

    def __init__(
        self,
        perturbation_key: str = "perturbation",
        *,
        n_latent: int | None = None,
        n_hidden: int = 128,
        max_epochs: int = 100,
        batch_size: int = 32,
        lr: float = 1e-3,
        mmd_weight: float = 10.0,
        kl_weight: float = 2.0,
        l1_weight: float = 1e-3,
        temperature: float = 5.0,
        fix_sigma: float = 1000.0,
        predict_temperature: float = 1.0,
        seed: int = 0,
        **setup: Any,
    ):
        self.settings = settings_of(TrainingSettings, locals())
        super().__init__(perturbation_key, **setup)
        for name, value in (("n_latent", n_latent), ("n_hidden", n_hidden)):
            if value is not None:
                check_integer(name, value, 1)
        check_number("predict_temperature", predict_temperature, 0, above=True)
        self.n_latent, self.n_hidden, self.predict_temperature = n_latent, n_hidden, predict_temperature

    # -- training --------------------------------------------------------------------------------------------------
    def fit(self, adata: AnnData) -> Self:
        """Train on the cells, of which a dense float32 copy is held; see :meth:`Baseline.fit`.

        Raises
        ------
        FloatingPointError
            If the loss does not stay finite.
        """
        screen = self._screen(adata)
        self.var_names = screen.adata.var_names
        make_encoder = self._encoder_maker()
        expression = self._expression(screen.adata)
        self._register(screen)
        genes = self.perturbed_genes
        n_latent = self.n_latent or len(genes)

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            module = DiscrepancyModule(make_encoder(n_latent), len(self.var_names), len(genes), n_latent, self.n_hidden)
        self.history_ = train(
            module,
            expression,
            screen.codes,
            self._masks(screen.parsed.conditions),
            self.settings,
            reduce_kl=self._reduce_kl,
            reduce_l1=self._reduce_l1,
        )
        self.module_ = module
        self._keep_results(genes)
        control = screen.rows(screen.control)
        self._control, self._control_names = expression[control], adata.obs_names[control].to_numpy(dtype=str)
        self._var = screen.adata.var[[]].copy()
        return self

    def _encoder_maker(self) -> Callable[[int], VariationalEncoder]:
        """Function that builds the encoder for a number of latents; ValueError where the genes do not allow one."""

        def make(n_latent: int) -> VariationalEncoder:
            return VariationalEncoder(small_linear(len(self.var_names), self.n_hidden), self.n_hidden, n_latent)

        return make

    @staticmethod
    def _reduce_kl(kl: torch.Tensor) -> torch.Tensor:
        return kl.sum(1).mean()

    @staticmethod
    def _reduce_l1(adjacency: torch.Tensor) -> torch.Tensor:
        return adjacency.abs().sum()

    @torch.no_grad()
    def _keep_results(self, genes: list[str]) -> None:
        """Write graph, targets and strengths into tables."""
        module = self.module_
        latents = [f"latent{k}" for k in range(len(module.graph.weight))]
        rows = pd.Index(genes, name="perturbed_gene")
        self.adjacency_ = pd.DataFrame(module.graph.adjacency().numpy(), index=latents, columns=latents)
        targets = module.target.targets(self.predict_temperature).numpy()
        self.targets_ = pd.DataFrame(targets, index=rows, columns=latents)
        self.strength_ = pd.Series(module.target.strength.numpy().copy(), index=rows, name="strength")

    # -- prediction ------------------------------------------------------------------------------------------------
    @torch.no_grad()
    def predict_effects(self, perturbations: str | Sequence[str]) -> pd.DataFrame:
        """Mean over the training controls of the decoded cells, with the shift minus without; see :class:`Baseline`.

        All perturbations start from the same draw of z, one for each control cell.
        """
        labels, sets = self._asked(perturbations)
        z, masks = self._draw(self._control, self.settings.seed), self._masks(sets)
        control = self._mean_decoded(z)
        effects = [self._mean_decoded(z + shift) - control for shift in self._shifts(masks)]
        return pd.DataFrame(np.stack(effects), index=pd.Index(labels, name="perturbation"), columns=self.var_names)

    @torch.no_grad()
    def predict(self, perturbations: str | Sequence[str], n_cells: int | None = None, seed: int = 0) -> AnnData:
        """Decode drawn z of control cells, shifted; see :meth:`Baseline.predict`.

        Cells are the decoder's output, which has no measurement noise and may lie slightly below 0. Control cells are
        drawn with replacement only where `n_cells` exceeds their number; all perturbations start from the same.
        """
        labels, sets = self._asked(perturbations)
        rows = draw_controls(len(self._control), n_cells, seed)
        z = self._draw(self._control[rows], seed)
        cells = torch.cat([self._decode(z + shift) for shift in self._shifts(self._masks(sets))]).numpy()
        return stack_cells(cells, labels, self._control_names[rows], self._var)

    @torch.no_grad()
    def predict_control(self) -> np.ndarray:
        """Mean of the decoded training controls, from the draw of :meth:`predict_effects`; shape (n_genes,)."""
        self._fitted_conditions()
        return self._mean_decoded(self._draw(self._control, self.settings.seed))

    @torch.no_grad()
    def predict_profiles(self, perturbations: str | Sequence[str]) -> pd.DataFrame:
        """Decode the mean training control, shifted; see :meth:`Baseline.predict_profiles`.

        Its latents are drawn from their posterior, and the profile is the mean over the draws.
        """
        labels, sets = self._asked(perturbations)
        module, seed = self.module_, self.settings.seed
        mean, log_var = module.encoder(self._control.mean(0, keepdim=True))
        found = []
        for shift in self._shifts(self._masks(sets)):

            def shifted(z: torch.Tensor, shift: torch.Tensor = shift) -> torch.Tensor:
                cells: torch.Tensor = module(z + shift)
                return cells

            found.append(posterior_expectation(shifted, mean, log_var, seed=seed)[0].double().numpy())
        return pd.DataFrame(np.stack(found), index=pd.Index(labels, name="perturbation"), columns=self.var_names)

    @torch.no_grad()
    def encode(self, adata: AnnData) -> np.ndarray:
        """Posterior mean of z of given cells, whatever their perturbation.

        Parameters
        ----------
        adata
            Cells x genes, all genes of the training data among them.

        Returns
        -------
        Cells x latents, float32.

        Raises
        ------
        KeyError, ValueError
            If genes, the layer or library sizes are missing.
        """
        self._fitted_conditions()
        return torch.cat([self.encoder_mean(x) for x in torch.split(self._expression(adata), _CHUNK)]).numpy()

    def encoder_mean(self, x: torch.Tensor) -> torch.Tensor:
        """Posterior mean of z, cells x latents, of cells x genes on the expression scale; differentiable."""
        self._fitted_conditions()
        mean: torch.Tensor = self.module_.encoder(x)[0]
        return mean

    @torch.no_grad()
    def reconstruct(self, adata: AnnData) -> np.ndarray:
        """Expected expression of given cells: the mean of the decoded draws of z from its posterior, without any shift.

        Parameters
        ----------
        adata
            Cells x genes, all genes of the training data among them.

        Returns
        -------
        Cells x genes of the training data, float32, on the expression scale.

        Raises
        ------
        KeyError, ValueError
            If genes, the layer or library sizes are missing.
        """
        self._fitted_conditions()
        module, seed = self.module_, self.settings.seed
        posteriors = (module.encoder(x) for x in torch.split(self._expression(adata), _CHUNK))
        expected = [posterior_expectation(module, mean, log_var, seed=seed) for mean, log_var in posteriors]
        return torch.cat(expected).numpy()

    # -- steps of the above ----------------------------------------------------------------------------------------
    def _expression(self, adata: AnnData) -> torch.Tensor:
        """Cells x genes of the training data, dense float32, on the expression scale."""
        found = gene_names(adata)
        missing = self.var_names.difference(found)
        if len(missing):
            raise ValueError(
                f"{len(missing)} of the {len(self.var_names)} genes of the training data are missing, for example "
                f"{', '.join(map(str, missing[:5]))}."
            )
        if not self.var_names.equals(found):
            adata = adata[:, found.get_indexer(self.var_names)]
        source = expression_source(adata, self.setup_args["layer"], self.setup_args["library_size_key"])
        return torch.from_numpy(to_dense(to_expression(*source)))

    def _masks(self, sets: Sequence[Sequence[str]]) -> torch.Tensor:
        """Sets of genes as rows of 0 and 1 over the perturbed genes."""
        return torch.from_numpy(design_matrix(sets, self.perturbed_genes)).float()

    def _shifts(self, masks: torch.Tensor) -> torch.Tensor:
        shifts: torch.Tensor = self.module_.target(masks, self.predict_temperature)
        return shifts

    def _draw(self, x: torch.Tensor, seed: int) -> torch.Tensor:
        mean, log_var = self.module_.encoder(x)
        return sample(mean, log_var, torch.Generator().manual_seed(seed))

    def _decode(self, z: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.module_(part) for part in torch.split(z, _CHUNK)])

    def _mean_decoded(self, z: torch.Tensor) -> np.ndarray:
        """Mean profile of the decoded cells, float64, without holding all of them."""
        sums = (self.module_(part).double().sum(0) for part in torch.split(z, _CHUNK))
        total = sum(sums, start=torch.zeros((), dtype=torch.float64))
        return (total / len(z)).numpy()
