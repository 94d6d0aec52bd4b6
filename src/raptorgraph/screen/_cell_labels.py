"""Labels of the cells of an AnnData, with errors that name a setup that works."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raptorgraph.screen._inputs import obs_column
from raptorgraph.screen._label_hints import no_control_message
from raptorgraph.screen._labels import ParsedLabels, control_labels, parse_labels
from raptorgraph.screen._suggest import advice, other_delimiter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData


def parse_obs(
    adata: AnnData,
    perturbation_key: str,
    *,
    control: str | Sequence[str] = "control",
    delimiter: str = "+",
    require_control: bool = False,
) -> ParsedLabels:
    """Parse the labels in ``adata.obs[perturbation_key]`` (see :func:`parse_labels`).

    Raises KeyError if the column is missing and, with `require_control`, ValueError if no cell is a control cell, or if
    no label has the delimiter while another one makes combinations of labels. Messages name a setup that works.
    """
    try:
        labels = obs_column(adata, perturbation_key, "perturbation_key")
    except KeyError as error:
        raise KeyError(f"{error.args[0]}{advice(adata)}") from None
    parsed = parse_labels(labels, control=control, delimiter=delimiter)
    if not require_control:
        return parsed
    controls = control_labels(control)
    if not (parsed.codes == 0).any():
        raise ValueError(no_control_message(labels, controls, delimiter) + advice(adata, perturbation_key))
    found = other_delimiter(list(labels.unique()), controls, delimiter)
    if found is not None:
        other, example = found
        raise ValueError(
            f"No label has the delimiter {delimiter!r}, and {example!r} looks like a combination: use "
            f"delimiter={other!r}. If it is one gene, spell it without {other!r}.{advice(adata, perturbation_key)}"
        )
    return parsed
