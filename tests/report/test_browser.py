"""The page in headless Chromium: it loads alone, tables sort, figures show, it prints, and it fits a phone."""

import re

import pytest


@pytest.fixture(scope="module")
def opened(browser, written):
    """The page at laptop size, with everything that the console said and that was asked for from elsewhere."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: asked.append(request.url))
    page.goto((written / "report.html").as_uri())
    page.wait_for_load_state("load")
    yield page, said, asked
    context.close()


def number(text):
    """Value of a cell: a true minus sign and an interval are written."""
    return float(text.split(" [")[0].replace("\N{MINUS SIGN}", "-"))


def column(page, table, index):
    return page.eval_on_selector_all(f"#{table} tbody tr", f"rows => rows.map(row => row.cells[{index}].textContent)")


def test_loads_without_errors_and_without_requests(opened):
    page, said, asked = opened
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [page.url]


def test_names_are_shown_as_they_are(opened):
    page, _, _ = opened
    names = set(column(page, "all", 0))
    assert {"<b>A&amp;1", "<img src=x onerror=alert(1)>", "x\"y'z", "a<td>&lt;"} <= names
    assert page.locator("b").count() == 0
    assert page.locator("script").count() == 1


def test_figures_show(opened):
    page, _, _ = opened
    sizes = page.eval_on_selector_all("img", "images => images.map(i => [i.complete, i.naturalWidth, i.clientWidth])")
    assert len(sizes) >= 5
    assert all(complete and natural > 0 and shown > 100 for complete, natural, shown in sizes)


def test_tables_sort_by_click(opened):
    page, _, _ = opened
    head = page.locator("#all th").nth(2)
    assert head.get_attribute("aria-sort") == "none"
    before = column(page, "all", 2)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    values = [number(text) for text in column(page, "all", 2)]
    assert values == sorted(values)
    assert sorted(before) == sorted(column(page, "all", 2))
    assert "size of effect, ascending" in page.locator("#sorted").inner_text()
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert [number(text) for text in column(page, "all", 2)] == values[::-1]
    page.locator("#all th button").first.click()
    assert head.get_attribute("aria-sort") == "none"
    names = column(page, "all", 0)
    assert names != sorted(names, reverse=True)
    assert len(set(names)) == len(names)


def test_tables_sort_by_keyboard_and_missing_values_stay_last(opened):
    page, _, _ = opened
    index = page.eval_on_selector_all("#all th", "heads => heads.findIndex(h => h.textContent === 'own gene')")
    head = page.locator("#all th").nth(index)
    head.locator("button").focus()
    for key, order in (("Enter", "ascending"), ("Space", "descending")):
        page.keyboard.press(key)
        assert head.get_attribute("aria-sort") == order
        shown = column(page, "all", index)
        n = sum(text != "–" for text in shown)
        assert 0 < n < len(shown)
        assert "–" not in shown[:n]
        values = [number(text) for text in shown[:n]]  # by value and not by letter
        assert values == sorted(values, reverse=order == "descending")
        assert min(values) < 0


def test_headings_of_tables_stay_in_sight(opened):
    page, _, _ = opened
    box = page.locator("#all").locator("xpath=..")
    box.evaluate("box => { box.style.maxHeight = '150px'; box.scrollTop = 200; }")
    top = box.bounding_box()["y"]
    assert abs(page.locator("#all th").first.bounding_box()["y"] - top) < 3
    box.evaluate("box => { box.style.maxHeight = ''; }")


@pytest.mark.parametrize("width", [390, 1280])
def test_no_horizontal_overflow(browser, written, width):
    context = browser.new_context(viewport={"width": width, "height": 844})
    page = context.new_page()
    page.goto((written / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # what is wider than the screen scrolls inside its own box
    loose = page.evaluate(
        """() => [...document.querySelectorAll('body *')].filter(
            e => !e.closest('.scroll') && !e.matches('.skip, .hidden')
                && e.getBoundingClientRect().right > innerWidth + 1
        ).map(e => e.outerHTML.slice(0, 80))"""
    )
    assert loose == []
    context.close()


def test_prints(browser, written):
    context = browser.new_context(viewport={"width": 794, "height": 1123})  # A4 at 96 dots an inch
    page = context.new_page()
    page.goto((written / "report.html").as_uri())
    pdf = page.pdf(prefer_css_page_size=True)
    assert pdf.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) > 1
    # on paper nothing scrolls: tables and figures are as wide as the page at most, and whole
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 696, "height": 1123})  # less the margins of 13 mm
    cut = page.evaluate(
        """() => [...document.querySelectorAll('.scroll')].filter(
            e => e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 1
        ).map(e => e.innerHTML.slice(0, 120))"""
    )
    assert cut == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 696
    context.close()


def test_text_can_be_read(opened):
    """Contrast of all text with what is behind it, at least 4.5 to 1 (WCAG AA)."""
    page, _, _ = opened
    found = page.evaluate(
        """() => {
            const parse = c => c.match(/[\\d.]+/g).map(Number);
            const light = c => {
                const linear = v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
                const [r, g, b] = c.slice(0, 3).map(v => linear(v / 255));
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const behind = e => {
                for (; e; e = e.parentElement) {
                    const c = parse(getComputedStyle(e).backgroundColor);
                    if (c.length === 3 || c[3] > 0) return c;
                }
                return [255, 255, 255];
            };
            const low = [];
            for (const e of document.querySelectorAll('body *')) {
                if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
                const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))];
                const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
                if (ratio < 4.5) low.push([e.tagName, e.className, ratio]);
            }
            return low;
        }"""
    )
    assert found == []
