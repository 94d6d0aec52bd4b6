"""What the posterior of the effects is given, what it learns, and how both are saved."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch

from raptorgraph.inference._gene_covariance import ExtendedCovariance, GeneCovariance
from raptorgraph.inference._gene_kernel import GeneKernel
from raptorgraph.inference._scales import usual_scale
from raptorgraph.inference._sparse_interactions import SparseInteractions

if TYPE_CHECKING:
    from collections.abc import Mapping

# Keys in models saved by older versions, where they differ from the names of the fields.
_OLD_KEYS = {
    "design": "members",
    "effect": "measured",
    "condition_noise": "own_noise",
    "control_noise": "common_noise",
    "target_columns": "targets",
    "independent_covariance": "along",
    "shared_covariance": "covariance",
    "unseen_scale": "scale_unseen",
    "combination_variance": "shared",
    "interaction_variance": "interaction",
    "residual_variance": "own",
    "excess_by_condition": "excess_of",
    "responsibility": "share",
}

# Of single effects: k x k, or as its parts where genes are many.
Covariance = torch.Tensor | GeneCovariance | ExtendedCovariance

_NO_CELLS = 1e-6  # "number of cells" of a condition without any: it then says nothing
_KERNEL, _SPARSE = "kernel_", "sparse_"  # before the names of their fields


@dataclass(frozen=True)
class Measured:
    """The screen: C conditions of k perturbed genes, measured on G genes.

    Noise of a gene is in units of expression; that of conditions and controls is in units of the gene's.
    """

    design: torch.Tensor  # C x k, 0/1: the genes that each condition perturbs
    effect: torch.Tensor  # y, C x G: differences to the mean of the control cells
    gene_noise: torch.Tensor  # w, G: sampling variance in a typical condition
    condition_noise: torch.Tensor  # 1 / n_c, C: sampling variance of the mean of the condition's cells
    control_noise: torch.Tensor  # 1 / n_0, scalar: that of the control cells, part of every effect
    target_columns: torch.Tensor  # k: column of each perturbed gene, -1 where it is not measured
    lowest: torch.Tensor  # G: effect that takes a gene to zero expression, -inf where there is no such bound
    noise_loadings: torch.Tensor  # G x factors: correlation of the sampling noise between genes
    control_loadings: torch.Tensor  # L, C x columns: errors of the controls of batches, beyond that of all controls

    @classmethod
    def of(
        cls,
        design: torch.Tensor,
        effect: torch.Tensor,
        variance: torch.Tensor,
        n_cells: torch.Tensor,
        n_controls: int,
        targets: torch.Tensor,
        lowest: torch.Tensor,
        loadings: torch.Tensor,
        control_loadings: torch.Tensor | None = None,
    ) -> Measured:
        """Screen from the arguments of ``EffectPosterior.fit``, as float64; ValueError for what is not finite."""
        if control_loadings is None:
            control_loadings = effect.new_zeros(len(effect), 0)
        design, effect, variance, n_cells, lowest, loadings, control_loadings = (
            x.cpu().double().clone(memory_format=torch.contiguous_format)
            for x in (design, effect, variance, n_cells, lowest, loadings, control_loadings)
        )
        if len(control_loadings) != len(effect):
            raise ValueError(f"control_loadings has {len(control_loadings)} rows for {len(effect)} conditions.")
        named = {"effect": effect, "variance": variance[n_cells > 0], "error of the controls": control_loadings}
        for name, found in named.items():
            if not torch.isfinite(found).all():
                raise ValueError(f"A measured {name} is not finite: look for extreme values in the data.")
        sampling = 1 / n_cells[n_cells > 0] + 1 / n_controls + control_loadings[n_cells > 0].square().sum(1)
        typical = sampling.mean()
        return cls(
            design=design,
            effect=effect,
            gene_noise=(variance[n_cells > 0] / sampling[:, None]).mean(0) * typical,
            condition_noise=1 / n_cells.clamp_min(_NO_CELLS) / typical,
            control_noise=1 / n_controls / typical,
            target_columns=targets.cpu().long().clone(),
            lowest=lowest,
            noise_loadings=loadings,
            control_loadings=control_loadings / typical.sqrt(),
        )

    def of_columns(self, columns: torch.Tensor) -> Measured:
        """The same screen with the genes of the transcriptome at these columns, in this order (a permutation)."""
        targets = torch.where(self.target_columns >= 0, torch.argsort(columns)[self.target_columns], -1)
        return replace(
            self,
            effect=self.effect[:, columns],
            gene_noise=self.gene_noise[columns],
            target_columns=targets,
            lowest=self.lowest[columns],
            noise_loadings=self.noise_loadings[columns],
        )


@dataclass(frozen=True)
class Hyperparameters:
    """The prior: what is learned from all genes, and what graph and design say before.

    Variances are relative to that of the effect of a typical single perturbation on the gene.
    """

    shared_covariance: Covariance  # k x k, mean diagonal 1: K of the shared class
    independent_covariance: Covariance  # k x k, mean diagonal 1: K of the independent class, given by the graph
    scale: torch.Tensor  # a: effects of single genes in a combination over those alone
    unseen_scale: torch.Tensor  # a where a gene of the combination was never perturbed alone
    unseen: torch.Tensor  # k, 0/1: genes that were never perturbed alone, given by the design
    scale_by_condition: torch.Tensor  # C: a_c, that of each measured combination; 1 for single genes
    combination_variance: torch.Tensor  # beta: what all combinations have in common
    interaction_variance: torch.Tensor  # gamma: the interaction of one combination
    residual_variance: torch.Tensor  # omega: what belongs to a condition and not to its genes
    excess: torch.Tensor  # kappa: noise between conditions over that of sampling, typically
    excess_by_condition: torch.Tensor  # C: kappa_c
    log_weights: torch.Tensor  # classes x levels: logarithms of pi


@dataclass(frozen=True)
class Fitted:
    """Screen, prior, and the posterior probability of each class and level for every gene."""

    measured: Measured
    hyperparameters: Hyperparameters
    responsibility: torch.Tensor  # r, classes x levels x G
    kernel: GeneKernel | None = None  # what an embedding of genes says of their effects
    gene_order: torch.Tensor | None = None  # G: columns in the order in which numbers are drawn, if not their own
    sparse: SparseInteractions | None = None  # of the measured combinations, if there are any

    @property
    def inheritable(self) -> torch.Tensor:
        """Measured effects less the sparse interactions, C x G: what other sets inherit is learned from these."""
        if self.sparse is None:
            return self.measured.effect
        found = self.measured.effect.clone()
        found[self.sparse.rows] -= self.sparse.mean
        return found

    def of_columns(self, columns: torch.Tensor) -> Fitted:
        """The same posterior with the genes of the transcriptome at these columns, in this order (a permutation)."""
        measured = self.measured.of_columns(columns)
        sparse = None if self.sparse is None else self.sparse.of_columns(columns)
        responsibility = self.responsibility[:, :, columns]
        return replace(self, measured=measured, responsibility=responsibility, gene_order=None, sparse=sparse)

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """Everything by the names of the fields, for ``state_dict``."""
        found = {**vars(self.measured), **_flat(self.hyperparameters), "responsibility": self.responsibility}
        for prefix, part in ((_KERNEL, self.kernel), (_SPARSE, self.sparse)):
            if part is not None:
                found |= {f"{prefix}{name}": value for name, value in vars(part).items()}
        if self.gene_order is not None:
            found["gene_order"] = self.gene_order
        return found

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor]) -> Fitted:
        """Inverse of :meth:`to_tensors`, which also knows the keys of older models."""
        names = _OLD_KEYS if "members" in tensors else {}
        if "noise_loadings" not in tensors:  # of a model that drew genes independently
            n_genes = len(tensors[names.get("lowest", "lowest")])
            tensors = {**tensors, "noise_loadings": torch.zeros(n_genes, 0, dtype=torch.float64)}
        if "control_loadings" not in tensors:  # of a model that took all controls for one sample
            n_conditions = len(tensors[names.get("effect", "effect")])
            tensors = {**tensors, "control_loadings": torch.zeros(n_conditions, 0, dtype=torch.float64)}
        if "scale_by_condition" not in tensors:  # of a model in which all combinations had one scale
            design, unseen, scale, unseen_scale = (
                tensors[names.get(name, name)].cpu() for name in ("design", "unseen", "scale", "unseen_scale")
            )
            tensors = {**tensors, "scale_by_condition": usual_scale(design, unseen, scale, unseen_scale)}

        def named(kind: type) -> dict[str, Any]:
            found = {field.name: names.get(field.name, field.name) for field in fields(kind)}
            return {name: tensors[key].cpu() if key in tensors else _parts(tensors, key) for name, key in found.items()}

        responsibility = tensors[names.get("responsibility", "responsibility")].cpu()
        of_kernel, of_sparse = (
            {name.removeprefix(prefix): x.cpu() for name, x in tensors.items() if name.startswith(prefix)}
            for prefix in (_KERNEL, _SPARSE)
        )
        return cls(
            Measured(**named(Measured)),
            Hyperparameters(**named(Hyperparameters)),
            responsibility,
            GeneKernel(**of_kernel) if of_kernel else None,
            tensors["gene_order"].cpu() if "gene_order" in tensors else None,
            SparseInteractions(**of_sparse) if of_sparse else None,
        )


def _flat(prior: Hyperparameters) -> dict[str, torch.Tensor]:
    """Hyperparameters by name, covariances that are kept in parts by the names of these."""
    found: dict[str, torch.Tensor] = {}
    for name, value in vars(prior).items():
        if isinstance(value, GeneCovariance):
            found |= {f"{name}_{field.name}": getattr(value, field.name) for field in fields(value)}
        else:
            found[name] = value.dense() if isinstance(value, ExtendedCovariance) else value
    return found


def _parts(tensors: Mapping[str, torch.Tensor], name: str) -> GeneCovariance:
    """Inverse of :func:`_flat` for a covariance in parts; KeyError where there is none."""
    return GeneCovariance(*(tensors[f"{name}_{field.name}"].cpu() for field in fields(GeneCovariance)))
