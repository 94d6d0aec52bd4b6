"""Guides and doses in labels are told from genes that are called alike."""

import pytest

from raptorgraph.screen._variants import find_variants

KNOWN = {"KLF1", "BAK1", "ACTB", "NKX2-5", "control"}


@pytest.mark.parametrize(
    "name",
    [
        "KLF1|g2", "KLF1_1", "KLF1-2", "KLF1.3", "KLF1 #2", "KLF1 (2)", "KLF1_A", "sgKLF1", "sgKLF1-2", "sgKLF1_g2",
        "KLF1_guide2", "KLF1-sg3", "KLF1_sgRNA_1", "KLF1g1", "gRNA-KLF1", "KLF1_ACGTTGCAACGTTGCAAGTC",
        "KLF1_+_12997999.23-P1P2", "KLF1_-_12997999.23-P1", "KLF1_001", "KLF1-001", "KLF1_sgA", "KLF1_crRNA2",
        "p_sgKLF1-2", "shKLF1", "siKLF1_2", "KLF1_pDS269", "KLF1_P1P2", "KLF1_ENSG00000105610",
        "5025_KLF1_P1P2_ENSG00000105610", "KLF1_KO", "KLF1-KO", "KLF1_CRISPRi", "sgKLF1_1_g2",
    ],
)  # fmt: skip
def test_guides(name):
    assert find_variants([name, "ACTB", "BAK1", "X1", "X2", "X3"], KNOWN).guides == {name: "KLF1"}


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("KLF1 (1uM)", "KLF1"), ("JQ1_10nM", "JQ1"), ("JQ1 10 nM", "JQ1"), ("JQ1-0.5µM", "JQ1"), ("10uM JQ1", "JQ1"),
        ("TGFb (10 ng/ml)", "TGFb"), ("KLF1_24h", "KLF1"), ("KLF1 (2 hrs)", "KLF1"), ("EtOH 5%", "EtOH"),
        ("JQ1_10nM_24h", "JQ1"), ("JQ1-24h", "JQ1"), ("JQ1_3d", "JQ1"), ("JQ1 3 days", "JQ1"), ("IL6 10 U/ml", "IL6"),
        ("JQ1 1 mg/kg", "JQ1"), ("JQ1 10 nmol", "JQ1"), ("JQ1 10UM", "JQ1"), ("IR_5Gy", "IR"),
    ],
)  # fmt: skip
def test_doses_and_times(name, base):
    found = find_variants([name, "ACTB"], KNOWN)
    assert found.doses == {name: base}
    assert not found.guides


def test_genes_are_no_guides():
    genes = [
        "HLA-A", "HLA_A", "NKX2-1", "NKX2-5", "MT-CO1", "miR-1", "mir-1", "H2-K1", "H3-3A", "CDKN1A/B", "SGK1", "Sgk1",
        "sgg", "C9orf72", "Ccng1", "PF3D7_0100100", "5S_rRNA", "RP11-34P13.7", "KRTAP5-1", "KRTAP5-2", "IL-2", "IL-6",
        "ENSG00000105610.5", "si:dkey-1", "unc-22", "P01", "WT1", "A1CF", "MARCH8", "PDCD1LG2", "let-7d", "let_7d",
        "ADAM 22", "KLF1_g1:BAK1_g2",
        "sgRNA_1", "siRNA-2", "guide3", "KLF1_g1;KLF1_g2", "sgKLF1_sgBAK1", "TP53_BP1", "shd", "BCR-ABL1", "1.5",
    ]  # fmt: skip
    assert find_variants(genes, KNOWN) == ({}, {})
    worm = ["unc-22", "unc-54", "lin-4", "lin-28", "egl-1", "egl-2"]
    assert find_variants(worm, KNOWN) == ({}, {})
    # what is among the genes is a gene, whatever it looks like
    assert find_variants(["KLF1_1", "sgKLF1", "KLF1 (1uM)"], {*KNOWN, "KLF1_1", "sgKLF1", "KLF1 (1uM)"}) == ({}, {})


def test_numbers_of_a_library_are_no_guides_of_one_gene():
    assert find_variants([f"Gene_{i}" for i in range(1, 15)], KNOWN) == ({}, {})
    assert len(find_variants([f"KLF1_{i}" for i in range(1, 15)], KNOWN).guides) == 14
    # genes that are called alike stay apart where guides have a word of their own
    names = [f"sgKRTAP{i}-{j}" for i in (4, 5, 9) for j in (1, 2)]
    known = {name.removeprefix("sg") for name in names}
    assert find_variants(names, known).guides == {name: name.removeprefix("sg") for name in names}


def test_short_names_need_to_be_known():
    assert find_variants(["NTg4", "ILg2", "shABC", "siABC"], {"NT"}).guides == {"NTg4": "NT"}


def test_numbers_on_most_names_are_guides_of_genes_that_are_not_measured():
    assert find_variants(["GATA9_1", "FOXA1", "SOX2"], KNOWN).guides == {"GATA9_1": "GATA9"}
    assert find_variants(["NKX2_5", "FOXA1"], KNOWN) == ({}, {})  # NKX2-5 is measured
    names = [f"{gene}-{i}" for gene in ("GATA9", "FOXA1", "SOX2") for i in (1, 2)]
    assert find_variants(names, KNOWN).guides == {name: name[:-2] for name in names}
    assert not find_variants([*names, *(f"G{i}X" for i in range(9))], KNOWN).guides
    # a number behind sg... is the guide's where most have one
    assert find_variants(["sgNKX2-1", "sgGATA9"], KNOWN).guides == {"sgNKX2-1": "NKX2-1", "sgGATA9": "GATA9"}
    numbered = find_variants(["sgGATA9-1", "sgGATA9-2", "sgNKX2-5-1"], KNOWN).guides
    assert numbered == {"sgGATA9-1": "GATA9", "sgGATA9-2": "GATA9", "sgNKX2-5-1": "NKX2-5"}
