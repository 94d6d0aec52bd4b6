"""Blocks of the model (Figure 2 of the paper): tensors in, tensors out."""

import lazy_loader as lazy

from raptorgraph._deprecated import with_old_names

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "_decoder": ["Decoder"],
        "_encoder": ["GraphPathwayEncoder", "InteractionBlock", "PreconditionedLayer"],
        "_expectation": ["expected_log1p_nb"],
        "_likelihood_base": ["Likelihood"],
        "_likelihoods": ["NegativeBinomial", "Normal", "SquaredError"],
        "_losses": ["dagma_loss", "free_bits", "kl_standard_normal", "mk_mmd", "nb_nll", "normal_nll", "shift_nll"],
        "_modulator": ["ConditionalModulator", "LatentModulator", "relative_response"],
        "_perturbed_prior": ["PerturbedPrior"],
        "_structural": ["StructuralLayer", "acyclic_support", "acyclicity", "in_domain"],
    },
)
_MOVED = ("EffectPosterior", "GraphPosterior", "infer_graph")
__getattr__ = with_old_names(__name__, __getattr__, {name: f"raptorgraph.inference.{name}" for name in _MOVED})
