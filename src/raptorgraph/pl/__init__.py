"""Plots of a trained model and of the tables made from it."""

from raptorgraph.pl._counterfactual import counterfactual
from raptorgraph.pl._dag import dag
from raptorgraph.pl._effect import effect
from raptorgraph.pl._enrichment import enrichment
from raptorgraph.pl._interactions import interactions
from raptorgraph.pl._latents import latents
from raptorgraph.pl._pair import pair
from raptorgraph.pl._reverse import reverse
from raptorgraph.pl._training import training
from raptorgraph.pl._uncertainty import uncertainty

__all__ = [
    "counterfactual",
    "dag",
    "effect",
    "enrichment",
    "interactions",
    "latents",
    "pair",
    "reverse",
    "training",
    "uncertainty",
]
