import pytest

from raptorgraph.pl._set_names import clean_set_names, readable, shorten


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("HALLMARK_TNFA_SIGNALING_VIA_NFKB", "TNFA signaling via NFKB"),
        ("HALLMARK_IL6_JAK_STAT3_SIGNALING", "IL6 JAK STAT3 signaling"),
        ("HALLMARK_UV_RESPONSE_DN", "UV response down"),
        ("GOBP_DNA_REPAIR", "DNA repair"),
        ("REACTOME_CELL_CYCLE", "Cell cycle"),
        ("my set", "my set"),
        ("Interferon_alpha", "Interferon alpha"),
    ],
)
def test_names_of_collections_are_cleaned_and_others_kept(name, clean):
    assert readable(name) == clean


@pytest.mark.parametrize(("n", "short"), [(5, "a bcd"), (4, "a b…"), (3, "a…"), (2, "a…"), (1, "…")])
def test_long_names_end_in_an_ellipsis_and_not_in_a_blank(n, short):
    assert shorten("a bcd", n) == short


def test_names_have_42_letters_at_most():
    long = "GOBP_" + "_".join(["VERY"] * 12)
    (name,) = clean_set_names([long])
    assert name == "Very very very very very very very very v…"
    assert len(name) == 42


def test_different_names_stay_different():
    long = "GOBP_" + "_".join(["VERY"] * 12)
    whole = "Very" + " very" * 11
    assert clean_set_names([f"{long}_A", f"{long}_B"]) == [f"{whole} a", f"{whole} b"]  # not shortened
    assert clean_set_names(["GOBP_DNA_REPAIR", "HALLMARK_DNA_REPAIR"]) == ["GOBP_DNA_REPAIR", "HALLMARK_DNA_REPAIR"]
    assert clean_set_names(iter(["GOBP_DNA_REPAIR", "GOBP_DNA_REPAIR"])) == ["DNA repair"] * 2  # the same set
