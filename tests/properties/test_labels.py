"""Labels as sets of genes: what is true of all of them."""

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from raptorgraph.pp import format_perturbation, parse_perturbation
from raptorgraph.screen._labels import parse_labels
from raptorgraph.screen._names import means_missing

DELIMITERS = st.sampled_from(["+", "_", "|", "--", " & "])
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=8)
BLANKS = st.text(" \t", max_size=2)


@st.composite
def screens(draw):
    """A delimiter, control labels and genes whose names hold neither."""
    delimiter = draw(DELIMITERS)
    controls = draw(st.lists(NAMES, min_size=1, max_size=2, unique=True))
    genes = draw(st.lists(NAMES, max_size=5, unique=True))
    for name in [*controls, *genes]:
        # a piece of a delimiter at the end of a name would be read as a part of the next one
        assume(not set(name) & set(delimiter) and not means_missing(name))
    assume(not set(controls) & set(genes))
    return {"delimiter": delimiter, "control": controls}, genes


@given(screens(), st.randoms(use_true_random=False), st.data())
def test_order_repetition_blanks_and_controls_do_not_matter(screen, random, data):
    spelling, genes = screen
    again = random.choices(genes, k=2) if genes else []
    parts = [*genes, *again, *spelling["control"][: random.randint(0, 1)]]
    random.shuffle(parts)
    assume(parts)
    blank = data.draw(BLANKS)
    label = spelling["delimiter"].join(f"{blank}{part}{blank}" for part in parts)
    assert parse_perturbation(label, **spelling) == tuple(sorted(set(genes)))


@given(screens())
def test_parsing_undoes_formatting(screen):
    spelling, genes = screen
    label = format_perturbation(genes, **spelling)
    assert parse_perturbation(label, **spelling) == tuple(sorted(genes))
    assert format_perturbation(parse_perturbation(label, **spelling), **spelling) == label
    assert parse_perturbation(set(genes), **spelling) == tuple(sorted(genes))


@given(screens(), st.randoms(use_true_random=False))
def test_the_union_of_two_labels_is_that_of_their_genes(screen, random):
    spelling, genes = screen
    cut = random.randint(0, len(genes))
    first, second = (format_perturbation(part, **spelling) for part in (genes[:cut], genes[cut:]))
    both = spelling["delimiter"].join([first, second])
    assert parse_perturbation(both, **spelling) == tuple(sorted(genes))


@given(screens(), st.randoms(use_true_random=False))
def test_codes_of_cells(screen, random):
    spelling, genes = screen
    sets = [(), *((gene,) for gene in genes), tuple(genes)]
    cells = random.choices(sets, k=20)
    labels = [format_perturbation(x, **spelling) for x in cells]
    parsed = parse_labels(labels, **spelling)
    assert parsed.conditions[0] == ()
    assert [parsed.conditions[code] for code in parsed.codes] == [tuple(sorted(x)) for x in cells]
    assert list(parsed.conditions[1:]) == sorted(set(parsed.conditions[1:]))
    order = random.sample(range(20), 20)
    again = parse_labels([labels[i] for i in order], **spelling)
    assert again.conditions == parsed.conditions
    np.testing.assert_array_equal(again.codes, parsed.codes[order])
