"""Numbers and names in sentences."""

from raptorgraph._text import counted, listed, percent


def test_names_in_a_sentence():
    assert listed([]) == ""
    assert listed(["A"]) == "A"
    assert listed("ABC") == "A, B and C"
    assert listed(range(20), most=3) == "0, 1, 2 and 17 more"


def test_numbers_in_a_sentence():
    assert counted(1, "cell") == "1 cell"
    assert counted(0, "batch", "batches") == "0 batches"
    assert percent(0.257) == "26 %"
