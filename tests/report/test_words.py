"""Words of the report."""

from raptorgraph.baselines import ladder
from raptorgraph.evaluation._held_out_scores import MODEL
from raptorgraph.report import _words as words


def test_every_method_of_a_report_has_words():
    assert {MODEL, *ladder()} < set(words.METHODS)
    assert set(words.SINGLES) < set(ladder())


def test_a_baseline_has_other_words_where_it_answers_a_single():
    assert words.method("shrunken additive", of="singles")[0] == "measured effect, shrunk"
    assert words.method("shrunken additive")[0] == "sum of singles, shrunk"
    assert words.method("no change", of="singles") == words.METHODS["no change"]
