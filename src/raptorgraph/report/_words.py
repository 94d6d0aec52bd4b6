"""Plain words for methods, scores and types of interaction."""

from __future__ import annotations

METHODS = {
    "raptorgraph": ("raptorgraph", "This model."),
    "no change": ("no change", "The perturbation does nothing."),
    "mean single": ("mean of singles", "Every perturbation does what the mean single perturbation does."),
    "mean of two": ("half the sum of singles", "Half the sum of the two effects that were measured alone."),
    "additive": ("sum of singles", "The sum of the two effects that were measured alone."),
    "shrunken additive": (
        "sum of singles, shrunk",
        "The sum of the two effects that were measured alone, each value drawn to 0 as far as it is noise.",
    ),
    "low-rank additive": (
        "sum of singles, smoothed",
        "The sum of the two effects that were measured alone, after they were reduced to a few common patterns.",
    ),
    "damped low-rank": (
        "sum of singles, smoothed and damped",
        "The smoothed sum of the two effects, times one factor below 1.",
    ),
    "linear model": (
        "linear model",
        "A mean effect, and a part that is linear in common patterns of the perturbed genes' own expression.",
    ),
    "mean double": ("mean of combinations", "Every combination does what the mean measured combination does."),
    "scaled additive": (
        "sum of singles, scaled",
        "The sum of the two effects, times one factor that is learned from measured combinations.",
    ),
    "gene-scaled additive": (
        "sum of singles, scaled by gene",
        "The sum of the two effects, times a factor for each gene that is learned from measured combinations.",
    ),
    "main-effects ridge": (
        "regression on genes",
        "One effect for each perturbed gene, fitted to singles and combinations together (ridge regression).",
    ),
    "other half of the cells": (
        "measured, other half of the cells",
        "No prediction: the effect measured on the half of the cells that the fits saw, as if the experiment were done "
        "twice.",
    ),
    "perfect prediction": (
        "perfect prediction",
        "No prediction: what the true effect would score, since the measurement has noise of its own (estimate).",
    ),
}
SINGLES = {
    "shrunken additive": (
        "measured effect, shrunk",
        "The measured effect, each value drawn to 0 as far as it is noise.",
    ),
    "low-rank additive": ("measured effect, smoothed", "The measured effects, reduced to a few common patterns."),
}

# Title, meaning, and the score above which a pair is listed.
TYPES: dict[str, tuple[str, str, float | None]] = {
    "synergy": (
        "More than the sum",
        "Synergy: size of the pair's effect, divided by the size of the sum of both single effects. 1 means that "
        "effects add up; larger is stronger.",
        1.0,
    ),
    "suppression": (
        "Less than the sum",
        "Suppression: size of the sum of both single effects, divided by the size of the pair's effect. 1 means that "
        "effects add up; larger means that the pair does less.",
        1.0,
    ),
    "neomorphism": (
        "Something new",
        "Neomorphism: how far the direction of the pair's effect departs from that of the sum. 0 is the same genes in "
        "the same proportions, 1 is unrelated, 2 the opposite.",
        0.05,
    ),
    "redundancy": (
        "Like either gene alone",
        "Redundancy: how much the pair's effect resembles that of each of its genes alone, the less similar of the two "
        "(cosine). 1 is the same direction as both, 0 unrelated.",
        None,
    ),
    "epistasis": (
        "One gene masks the other",
        "Epistasis: how much more the pair's effect resembles that of one gene than that of the other (difference of "
        "cosines). 0 is both alike; larger means that one of them dominates.",
        None,
    ),
}


def method(name: str, of: str | None = None) -> tuple[str, str]:
    """Short name of a method and what it does; `of` says which set of conditions it is asked for."""
    return (SINGLES if of == "singles" else {}).get(name, METHODS[name])
