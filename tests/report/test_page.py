"""The page as a document, without a browser."""

import itertools
import json
import re
from html.parser import HTMLParser
from importlib.resources import files

import pandas as pd
import pytest

from raptorgraph.report._states import NEAR

LINKED = {
    "perturbations.csv", "top_genes.csv", "effects.csv", "interactions.csv", "next_pairs.csv", "reverse.csv", "dag.csv",
    "responders.csv", "heldout.csv", "summary.csv", "facts.csv", "dag.png", "effects.png", "effects_map.png",
    "similarity.png", "volcano.png", "umap.png", "training.png", "run.json", "annotated.h5ad",
}  # fmt: skip
SHORT = r'<figcaption>(.*?)</figcaption>|<p class="(?:caption|reading)"[^>]*>(.*?)</p>'
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Document(HTMLParser):
    """Elements in order, and whether all are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.source, self.elements, self.open, self.text = text, [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.text.append(data)


@pytest.fixture(scope="module")
def document(html):
    return Document(html)


def test_needs_nothing_else(document, written):
    for tag, attrs in document.elements:
        for name in ("src", "href", "srcset", "action", "data"):
            if attrs.get(name) and not (tag == "a" and attrs[name] in LINKED):
                assert attrs[name].startswith(("data:", "#")), (tag, attrs[name][:80])
    anchors = {attrs["href"][1:] for tag, attrs in document.elements if tag == "a" and attrs["href"].startswith("#")}
    ids = [attrs["id"] for _, attrs in document.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert anchors <= set(ids)


def test_names_of_files_are_links_to_files_that_are_there(document, written):
    links = [attrs["href"] for tag, attrs in document.elements if tag == "a" and not attrs["href"].startswith("#")]
    assert set(links) == LINKED
    assert all((written / name).is_file() for name in links)
    loose = re.sub(r"<pre.*?</pre>|<a [^>]*>[^<]*</a>", "", document.source, flags=re.DOTALL)
    assert [name for name in LINKED if name in loose] == []


def test_captions_and_readings_are_short(html):
    found = re.findall(SHORT, html, re.DOTALL)
    texts = [re.sub("<[^>]*>", "", one or other) for one, other in found]
    assert len(texts) > 20
    assert [text for text in texts if len(text.split()) > 40] == []


def test_columns_are_explained_where_they_are_shown(document, html):
    explained = re.findall(r"<summary>What the columns mean</summary>", html)
    assert len(explained) >= 6
    hints = [attrs["title"] for tag, attrs in document.elements if tag == "th" and "title" in attrs]
    assert all(hint in "".join(document.text) for hint in hints)


def test_the_wanted_state_is_searched_for(document, written):
    text = " ".join("".join(document.text).split())
    table = pd.read_csv(written / "reverse.csv")
    assert set(table["query"]) == {"wanted"}
    assert table["perturbation"].iloc[0] == "<b>A&amp;1"
    assert "What brings cells to this state" in text
    probability = table["best_probability"].iloc[0]
    words = "comes nearest to the state “wanted”, with" if probability >= NEAR else "is ranked first, with"
    assert f"<b>A&amp;1 {words} a probability of {probability:.2f}" in text


def test_style_and_script_ask_for_nothing():
    for name in ("style.css", "sort.js"):
        text = (files("raptorgraph.report") / name).read_text()
        assert not re.search(r"url\(|@import|https?:|fetch\(|</", text)


def test_headings_are_in_order_and_figures_have_words(document):
    levels = [int(tag[1]) for tag, _ in document.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
    images = [attrs for tag, attrs in document.elements if tag == "img"]
    assert images
    assert all(len(attrs["alt"]) > 30 for attrs in images)


def test_every_table_can_be_sorted_and_says_how_to_read_it(document, html):
    tables = [attrs for tag, attrs in document.elements if tag == "table"]
    assert len(tables) >= 6
    assert all(attrs["class"] == "sortable" for attrs in tables)
    heads = [attrs for tag, attrs in document.elements if tag == "th"]
    assert all(attrs["aria-sort"] == "none" and attrs["scope"] == "col" for attrs in heads)
    readings = re.findall(r'<p class="reading">(.*?)</p>', html, flags=re.DOTALL)
    assert len(readings) == len(tables)
    assert all(len(text) > 40 for text in readings)


def test_names_are_escaped(html):
    assert "<img src=x" not in html
    assert "&lt;img src=x onerror=alert(1)&gt;" in html
    assert "&lt;b&gt;A&amp;amp;1" in html
    assert "screen &lt;1&gt; &amp; 2" in html


def test_says_where_it_came_from(document, written):
    text = " ".join("".join(document.text).split())
    for piece in ("raptorgraph run 'screen <1> & 2.h5ad' --report", "SHA-256", "torch 2", "scvi-tools 1", "seed"):
        assert piece in text
    files = ("effects.csv", "dag.csv", "heldout.csv", "perturbations.csv", "responders.csv")
    listed = {name for name in files if name in text}
    assert all((written / name).is_file() for name in listed)
    assert len(listed) == 5


def test_numbers_are_those_of_the_files(document, written):
    text = " ".join("".join(document.text).split())
    scores = pd.read_csv(written / "heldout.csv")
    unseen = scores[scores["set"] == "unseen combinations"].set_index("method")
    assert f"The squared error of raptorgraph is {unseen.at['raptorgraph', 'relative_mse']:.2f}" in text
    perturbations = pd.read_csv(written / "perturbations.csv")
    n = perturbations["stands_out"].sum()
    assert f"{'All' if n == 14 else f'{n} of'} 14 perturbations stand out from the noise" in text


def test_the_graph_was_resampled(written):
    assert {"frequency", "q_value"} <= set(pd.read_csv(written / "dag.csv").columns)


def test_in_short_is_what_the_run_keeps(document, written):
    text = " ".join("".join(document.text).split())
    kept = json.loads((written / "run.json").read_text(encoding="utf-8"))["stages"]["report"]["found"]
    assert len(kept["short"]) > 8
    assert kept["unsaid"]
    for sentence in [*kept["short"], *kept["unsaid"]]:
        assert sentence in text
        assert sentence.endswith(".")


def test_strongest_perturbations_and_their_genes_are_those_of_the_files(document, written):
    text = " ".join("".join(document.text).split())
    perturbations = pd.read_csv(written / "perturbations.csv")
    strong = perturbations[perturbations["stands_out"]].sort_values("magnitude", ascending=False, kind="stable")
    first = strong.iloc[0]
    size = f"{first['magnitude']:.2f} [{first['magnitude_low']:.2f}, {first['magnitude_high']:.2f}]"
    assert f"The strongest are {first['perturbation']}, with an effect of size {size};" in text
    genes = pd.read_csv(written / "top_genes.csv")
    sure = genes[(genes["perturbation"] == first["perturbation"]) & (genes["FDR"] <= 0.05) & ~genes["own_target"]]
    assert len(sure)
    assert f"{first['perturbation']} {'lowers' if (sure['effect'] < 0).any() else 'raises'} " in text
