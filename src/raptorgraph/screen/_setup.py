"""How a screen is read: the keys, the labels of control cells, the delimiter and the layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from raptorgraph._arguments import check_text, check_texts
from raptorgraph._docs import docs
from raptorgraph.screen._asked import asked_perturbations
from raptorgraph.screen._labels import format_perturbation, parse_perturbation, plain_control

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

_COVARIATES = ("categorical_covariate_keys", "continuous_covariate_keys")
_WHERE_GIVEN = (*_COVARIATES, "guide_key")  # what the mapping has only where there is some


@docs.dedent
@dataclass(frozen=True)
class Setup(Mapping[str, Any]):
    """Arguments of ``setup_anndata``, checked among themselves; also a mapping of them, for ``**setup``.

    Covariates and the column of guides are in the mapping where there are some.

    Parameters
    ----------
    %(perturbation_key)s
    %(control)s
    %(delimiter)s
    %(layer)s
    %(library_size_key)s
    %(batch_key)s
    categorical_covariate_keys, continuous_covariate_keys
        Columns of ``adata.obs`` with further covariates.
    %(guide_key)s

    Raises
    ------
    TypeError
        If a key or label is no string.
    ValueError
        If `control` or `delimiter` is empty, or a column has two roles.

    Examples
    --------
    >>> setup = rg.screen.Setup(control=["NT", "safe"], delimiter="_")
    >>> setup.label(["KLF1", "BAK1", "NT"]), setup.label([])
    ('BAK1_KLF1', 'NT')
    >>> setup["control"], setup["perturbation_key"]
    (['NT', 'safe'], 'perturbation')
    """

    perturbation_key: str = "perturbation"
    control: str | Sequence[str] = "control"
    delimiter: str = "+"
    layer: str | None = None
    library_size_key: str | None = None
    batch_key: str | None = None
    categorical_covariate_keys: tuple[str, ...] = ()
    continuous_covariate_keys: tuple[str, ...] = ()
    guide_key: str | None = None

    def __post_init__(self) -> None:
        check_text("perturbation_key", self.perturbation_key, "the name of a column of obs")
        format_perturbation((), control=self.control, delimiter=self.delimiter)  # checks both
        control = plain_control(self.control)
        object.__setattr__(self, "control", control if isinstance(control, str) else tuple(control))
        for name in ("layer", "library_size_key", "batch_key", "guide_key"):
            if getattr(self, name) is not None:
                check_text(
                    name, getattr(self, name), f"the name of a {'layer' if name == 'layer' else 'column of obs'}"
                )
        if self.batch_key == self.perturbation_key:
            raise ValueError(
                f"batch_key={self.batch_key!r} is the perturbation_key: within a perturbation there is nothing to "
                "compare it with; name the column of lanes, days or donors."
            )
        used = {self.perturbation_key: "the perturbation_key", self.batch_key: "the batch_key"}
        for name in _COVARIATES:
            keys = tuple(check_texts(name, getattr(self, name), "columns of obs"))
            object.__setattr__(self, name, keys)
            for key in keys:
                if key in used:
                    raise ValueError(f"{name}: {key!r} is {used[key]} already; leave it out here.")
            used |= dict.fromkeys(keys, f"among {name}")
        if self.guide_key is not None and self.guide_key in used:
            raise ValueError(
                f"guide_key={self.guide_key!r} is {used[self.guide_key]} already: name the column with the guide of "
                "each cell."
            )

    @classmethod
    def of(cls, setup: Mapping[str, Any]) -> Setup:
        """Setup of its arguments by name."""
        if isinstance(setup, cls):
            return setup
        if not isinstance(setup, Mapping):
            raise TypeError(f"setup={setup!r} must be a Setup, or a dict of the arguments of setup_anndata.")
        known = [field.name for field in fields(cls)]
        unknown = [name for name in setup if name not in known]
        if unknown:
            raise TypeError(f"The setup has {unknown[0]!r}, which is none of its arguments: {', '.join(known)}.")
        given: dict[str, Any] = {
            name: () if value is None and name in _COVARIATES else value for name, value in setup.items()
        }
        return cls(**given)

    # -- mapping -----------------------------------------------------------------------------------------------------
    def __getitem__(self, name: str) -> Any:
        if name not in {field.name for field in fields(self)}:
            raise KeyError(name)
        value = getattr(self, name)
        return list(value) if isinstance(value, tuple) else value

    def __iter__(self) -> Iterator[str]:
        return (f.name for f in fields(self) if f.name not in _WHERE_GIVEN or getattr(self, f.name))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def without_guides(self) -> dict[str, Any]:
        """The arguments without the column of guides, for what does not tell guides apart."""
        return {name: value for name, value in self.items() if name != "guide_key"}

    # -- labels ------------------------------------------------------------------------------------------------------
    @property
    def spelling(self) -> dict[str, Any]:
        """How labels are spelled, as arguments of :func:`raptorgraph.pp.format_perturbation`."""
        return {"control": self["control"], "delimiter": self.delimiter}

    def label(self, genes: Iterable[str]) -> str:
        """Canonical label of the perturbation of these genes; that of the control without genes."""
        return format_perturbation(genes, **self.spelling)

    def genes(self, label: str | Collection[str]) -> tuple[str, ...]:
        """Sorted genes that a label names; none for the control."""
        return parse_perturbation(label, **self.spelling)

    def asked(
        self, perturbations: str | Collection[str] | Iterable[Any], known: Sequence[str], where: str = "training screen"
    ) -> list[tuple[str, ...]]:
        """Gene sets of perturbations that a user asks for; ValueError for genes that are not `known`."""
        return asked_perturbations(perturbations, known, **self.spelling, where=where)
