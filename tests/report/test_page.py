"""The page as a document, without a browser."""

import itertools
import re
from html.parser import HTMLParser
from importlib.resources import files

import pandas as pd
import pytest

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Document(HTMLParser):
    """Elements in order, and whether all are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.text = [], [], []
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


def test_needs_nothing_else(document):
    for tag, attrs in document.elements:
        for name in ("src", "href", "srcset", "action", "data"):
            if attrs.get(name):
                assert attrs[name].startswith(("data:", "#")), (tag, attrs[name][:80])
    anchors = {attrs["href"][1:] for tag, attrs in document.elements if tag == "a"}
    ids = [attrs["id"] for _, attrs in document.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert anchors <= set(ids)


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
    assert f"{perturbations['stands_out'].sum()} of 14 perturbations stand out" in text


def test_the_graph_was_resampled(written):
    assert {"frequency", "q_value"} <= set(pd.read_csv(written / "dag.csv").columns)
