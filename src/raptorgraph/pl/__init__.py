"""Plots of a trained model and of the tables made from it."""

from raptorgraph.pl._dag import dag
from raptorgraph.pl._effect import effect
from raptorgraph.pl._interactions import interactions
from raptorgraph.pl._training import training

__all__ = ["dag", "effect", "interactions", "training"]
