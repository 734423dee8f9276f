"""Every view of every figure in a real browser: drawn without a complaint, readable at phone and desktop width."""

import json
import shutil
from pathlib import Path

import pytest

from reports.figures.figure import SEPARATOR
from reports.figures.theme import CONFIG, palettes
from tests.reports.figures.gallery import gallery
from tests.reports.figures.specs import check

CHROMIUM = shutil.which("chromium")
PAINT = Path(__file__).parents[3] / "reports" / "figures" / "paint.js"

#: Draws a view and measures it: share of the height that is left to the plot, and texts that leave the picture.
MEASURE = """
async ([spec, palette, hover, config]) => {
  const div = document.createElement("div");
  div.style.height = spec.layout.height + "px";
  document.body.replaceChildren(div);
  const ready = readyFigure(spec, palette, hover);
  await Plotly.newPlot(div, ready.data, ready.layout, config);
  const box = div.getBoundingClientRect();
  const outside = [...div.querySelectorAll("svg text")].filter((text) => {
    const at = text.getBoundingClientRect();
    return at.width > 0 && (at.left < box.left - 2 || at.right > box.right + 2 || at.bottom > box.bottom + 2);
  });
  const legend = div.querySelector(".legend")?.getBoundingClientRect();
  const size = div._fullLayout._size;
  return {
    plot: size.h / box.height, width: size.w / box.width, outside: outside.map((text) => text.textContent),
    covered: legend ? legend.bottom > box.top + size.t + 2 : false,
    links: div.querySelectorAll("a[href^=http]").length,
  };
}
"""


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    with playwright.sync_playwright() as running:
        made = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture(scope="module")
def figures():
    return [check(figure) for figure in gallery()]


def page_of(browser, width, plotly=True):
    from plotly.offline import get_plotlyjs

    page = browser.new_page(viewport={"width": width, "height": 800})
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.set_content("<body style='margin:0'></body>")
    if plotly:
        page.add_script_tag(content=get_plotlyjs())
    page.add_script_tag(content=PAINT.read_text())
    return page, said


@pytest.mark.parametrize(("width", "theme"), [(400, "light"), (1400, "dark")])
def test_every_figure_is_drawn_and_readable(browser, figures, width, theme):
    draw_and_look(browser, figures, width, theme, most_views=1)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "theme"), [(400, "dark"), (1400, "light")])
def test_every_view_is_drawn_and_readable(browser, figures, width, theme):
    draw_and_look(browser, figures, width, theme, most_views=1000)


def draw_and_look(browser, figures, width, theme, most_views):
    page, said = page_of(browser, width)
    for figure in figures:
        for key, spec in list(figure.views.items())[:most_views]:
            seen = page.evaluate(MEASURE, [spec, palettes()[theme], list(figure.hover), CONFIG])
            where = f"{figure.id} [{key}] at {width}: {seen}"
            assert seen["plot"] > 0.6 and seen["width"] > 0.6, where
            assert not seen["outside"] and not seen["covered"], where
            assert not seen["links"], where
    assert said == []
    page.close()


def test_the_script_paints_as_python_does(browser, figures):
    page, said = page_of(browser, 400, plotly=False)
    for figure in figures:
        key, spec = next(iter(figure.views.items()))
        for theme in ("light", "dark"):
            painted = page.evaluate(
                "([s, p, h]) => readyFigure(s, p, h)", [spec, palettes()[theme], list(figure.hover)]
            )
            expected = figure.drawn(*key.split(SEPARATOR), theme=theme) if key else figure.drawn(theme=theme)
            assert painted == json.loads(json.dumps(expected))
    assert said == []
    page.close()
