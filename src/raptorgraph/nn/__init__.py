"""Blocks of the model (Figure 2 of the paper): tensors in, tensors out."""

from raptorgraph.nn._decoder import Decoder
from raptorgraph.nn._effects import EffectPosterior
from raptorgraph.nn._encoder import GraphPathwayEncoder, InteractionBlock, PreconditionedLayer
from raptorgraph.nn._expectation import expected_log1p_nb
from raptorgraph.nn._graph_posterior import GraphPosterior, infer_graph
from raptorgraph.nn._losses import dagma_loss, free_bits, kl_standard_normal, mk_mmd, nb_nll, normal_nll, shift_nll
from raptorgraph.nn._modulator import LatentModulator
from raptorgraph.nn._structural import StructuralLayer, acyclic_support, acyclicity, in_domain

__all__ = [
    "Decoder",
    "EffectPosterior",
    "GraphPathwayEncoder",
    "GraphPosterior",
    "InteractionBlock",
    "LatentModulator",
    "PreconditionedLayer",
    "StructuralLayer",
    "acyclic_support",
    "acyclicity",
    "dagma_loss",
    "expected_log1p_nb",
    "free_bits",
    "in_domain",
    "infer_graph",
    "kl_standard_normal",
    "mk_mmd",
    "nb_nll",
    "normal_nll",
    "shift_nll",
]
