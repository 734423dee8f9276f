"""The site in a real browser, opened from disk: it sorts, filters, links, draws and asks the network for nothing."""

import csv
import io
import json
import os
from collections import defaultdict
from pathlib import Path
from urllib.parse import unquote

import pytest

from reports.drawing import shown
from reports.numbers import pair
from reports.rows import rows_of
from reports.site import build
from tests.analysis.test_portability import two_machines
from tests.synthetic import record, store, suite_records

pytest.importorskip("playwright", reason="the browser tests need playwright: pip install playwright")
from playwright.sync_api import sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
#: A folder for pictures of every page in both widths and themes, for eyes: SCREENSHOTS=FOLDER pytest tests/reports
SHOTS = os.environ.get("SCREENSHOTS", "")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-dev-shm-usage",
]
HOSTILE = "<img src=x onerror=alert(1)>\"'</script><script>alert(2)</script>"

pytestmark = pytest.mark.skipif(
    not CHROMIUM.exists(), reason="the browser tests need /usr/bin/chromium: apt-get install chromium"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    root = tmp_path_factory.mktemp("site")
    rows = [
        *suite_records(),
        record(dtype="bf16", latency_ms=20.0, baseline_ms=20.0, accuracy=91.0),
        record(
            model=HOSTILE,
            method=HOSTILE,
            setting=HOSTILE,
            status="oom",
            error={"phase": "load", "type": HOSTILE, "message": HOSTILE},
        ),
    ]
    store(root / "results", rows)
    build(root / "results", root / "site", figure_seconds=None)
    return root / "site"


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield running
        running.close()


def board(site):
    """The page with the table of the one suite that is in the site."""
    return site / "suites" / "vit_tokens.html"


class Visit:
    """One page with everything it complained about and everything it asked for.

    A tab is used again by later tests, which find nothing stored: a process that has read plotly once reads it sooner.
    What is out of sight is drawn only where `rest` asks for it, for most tests look at a table.
    """

    def __init__(self, browser, width, rest):
        self.kind = (width, rest)
        context = browser.new_context(viewport={"width": width, "height": 900}, accept_downloads=True)
        self.page = context.new_page()
        if not rest:
            self.page.add_init_script("window.requestIdleCallback = () => 0")
        self.complaints, self.requests = [], []
        self.page.on(
            "console",
            lambda message: self.complaints.append(message.text) if message.type in ("error", "warning") else None,
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def open(self, path, fragment=""):
        before = unquote(self.page.url).partition("#")[0]
        if before != "about:blank":
            self.page.evaluate("localStorage.clear(); sessionStorage.clear()")
        self.page.emulate_media(color_scheme="light")
        self.complaints.clear()
        self.requests.clear()
        if before == f"file://{path}":  # another fragment alone would load nothing
            self.page.goto("about:blank")
        self.page.goto(f"file://{path}{fragment}")

    def draw_all(self):
        for _ in range(400):
            waiting = self.page.evaluate(
                "[...document.querySelectorAll('[data-figure]')].filter(n => n.querySelector('.plot') && "
                "!n.dataset.drawn).map(n => n.figure.draw()).length"
            )
            if not waiting:
                return
            self.page.wait_for_timeout(50)
        pytest.fail("a figure was not drawn in 20 s")

    def names(self):
        return self.page.locator("#leaderboard tbody tr[data-page] th a").all_text_contents()

    def numbers(self, place):
        cells = self.page.locator(f"#leaderboard tbody tr[data-page] td:nth-of-type({place})").all()
        return [float(value) for cell in cells if (value := cell.get_attribute("data-value"))]


@pytest.fixture(scope="module")
def tabs():
    """Those that no test uses at the moment, by what they are made with."""
    return defaultdict(list)


@pytest.fixture
def visit(browser, tabs):
    opened = []

    def go(path, *, width=1400, rest=False, fragment=""):
        free = tabs[width, rest]
        opened.append(free.pop() if free else Visit(browser, width, rest))
        opened[-1].open(path, fragment)
        return opened[-1]

    yield go
    for one in opened:
        tabs[one.kind].append(one)


def _top(seen, name):
    """Where a section begins, in pixels from the upper edge of the window."""
    return seen.page.evaluate(f"document.getElementById('{name}').getBoundingClientRect().top")


def _first_group(values, count=8):
    return values[:count]


def test_headers_sort_inside_groups_and_say_so(site, visit):
    seen = visit(board(site))
    speedup = seen.page.locator("#leaderboard thead th", has=seen.page.locator('button[data-sort="speedup"]')).last
    assert speedup.get_attribute("aria-sort") == "descending"  # paired and tight: what rows are first sorted by
    assert seen.page.locator("#leaderboard thead th").nth(1).text_content().startswith("Status")
    for order, reverse in (("ascending", False), ("descending", True)):
        seen.page.locator('button[data-sort="latency_ms"]').last.click()
        latency = _first_group(seen.numbers(3))
        assert len(latency) > 4 and latency == sorted(latency, reverse=reverse)
        header = seen.page.locator("#leaderboard thead th").nth(3)
        assert header.get_attribute("aria-sort") == order
    seen.page.locator('button[data-sort="accuracy"]').focus()
    seen.page.keyboard.press("Enter")
    assert seen.page.locator('th[aria-sort] button[data-sort="accuracy"]').count() == 1
    assert not seen.complaints


def test_filters_and_search_narrow_the_rows_and_the_address_brings_the_view_back(site, visit):
    seen = visit(board(site))
    assert len(seen.names()) == 11
    seen.page.get_by_label("Find rows by text").fill("tome")
    assert len(seen.names()) == 4
    seen.page.locator('details[data-axis="model"] summary').click()
    seen.page.get_by_role("checkbox", name="deit_tiny").uncheck()
    assert seen.names() == ["tome(r=13)", "tome(r=8)"]
    again = visit(board(site), fragment=seen.page.evaluate("location.hash"))
    assert again.names() == seen.names()
    assert "2 of 11 rows" in again.page.locator(".status-line").text_content()
    seen.page.get_by_role("button", name="Reset", exact=True).click()
    assert len(seen.names()) == 11 and seen.page.evaluate("location.hash") == ""


def test_columns_are_chosen_and_remembered_in_the_address(site, visit):
    seen = visit(board(site))
    before = seen.page.locator("#leaderboard thead th").count()
    seen.page.locator("summary", has_text="Columns").click()
    seen.page.locator('#leaderboard input[value="params"]').check()
    assert seen.page.locator("#leaderboard thead th").count() == before + 1
    again = visit(board(site), fragment=seen.page.evaluate("location.hash"))
    assert again.page.locator('button[data-sort="params"]').count() == 1


def _saved(seen, name):
    seen.page.locator("summary", has_text="Export").click()
    with seen.page.expect_download() as waiting:
        seen.page.locator(f'[data-export="{name}"]').click()
    return Path(waiting.value.path()).read_text()


def test_exports_hold_exactly_the_rows_shown(site, visit):
    seen = visit(board(site), fragment="#find=evit")
    rows = json.loads(_saved(seen, "JSON"))
    assert [row["method"] for row in rows] == ["evit", "evit"]
    assert rows[0]["latency_ms_provenance"] == "measured" and rows[0]["latency_ms_unit"] == "ms"
    seen.page.reload()
    lines = list(csv.DictReader(io.StringIO(_saved(seen, "CSV"))))
    assert [float(line["latency_ms"]) for line in lines] == [row["latency_ms"] for row in rows]
    seen.page.reload()
    text = _saved(seen, "Markdown")
    assert text.count("evit") == 2 and "| Model | Method |" in text


def test_the_script_writes_numbers_as_the_python_does(site, visit):
    seen = visit(board(site), fragment="#find=deit_small+none")
    cell = seen.page.locator("#leaderboard tbody tr[data-page] td.num").nth(1)
    row = next(row for row in rows_of(suite_records(), []) if row.case.model == "deit_small" and row.case.is_baseline)
    reading = row.cells["latency_ms"]
    assert cell.text_content().removesuffix("m") == pair(reading.value, reading.low, reading.high)


def test_missing_values_tell_their_reason_on_hover_and_on_focus(site, visit):
    seen = visit(board(site), fragment="#find=diffrate")
    dash = seen.page.locator("#leaderboard td .missing").first
    dash.hover()
    assert "crashed" in seen.page.locator(".tip").text_content()
    seen.page.mouse.move(0, 0)
    dash.focus()
    assert "crashed" in seen.page.locator(".tip").text_content()
    assert "12 blocks need 12 entries" in seen.page.locator("#failed").text_content()


def test_the_table_is_one_stop_of_the_keyboard_and_arrows_move_in_it(site, visit):
    seen = visit(board(site))
    assert seen.page.locator('#leaderboard table [tabindex="0"]').count() == 1
    seen.page.locator("#leaderboard tbody th a").first.focus()
    at = "document.activeElement.closest('td, th').cellIndex + ' ' + document.activeElement.closest('tr').rowIndex"
    first = seen.page.evaluate(at)
    for key in ("ArrowRight", "ArrowDown", "ArrowUp", "ArrowUp", "ArrowUp", "ArrowDown", "ArrowDown", "ArrowLeft"):
        seen.page.keyboard.press(key)  # through the group's title to the head and back
    assert seen.page.evaluate(at) == first
    assert seen.page.locator('#leaderboard table [tabindex="0"]').count() == 1 and not seen.complaints


def test_the_chooser_answers_with_the_most_accurate_row_in_the_budget(site, visit):
    seen = visit(board(site))
    seen.page.locator("#budget").fill("45")
    answer = seen.page.locator("#chooser .answer")
    assert "deit_tiny with no method" in answer.text_content() and "within 45 ms" in answer.text_content()
    seen.page.locator("#budget").fill("1")
    assert "Nothing here is surely within 1 ms" in answer.text_content()
    seen.page.locator("#chooser select").select_option(index=1)  # one row, in bf16
    suggested = seen.page.evaluate("location.hash")
    assert suggested.startswith("#conditions=") and "budget" not in suggested
    seen.page.locator("#budget").fill("25")
    said, address = answer.text_content(), seen.page.evaluate("location.hash")
    assert "the best of 1 within 25 ms" in said
    seen.open(board(site), address)
    assert answer.text_content() == said and abs(_top(seen, "chooser")) < 120
    seen.open(board(site), "#budget=25&conditions=none+that+are+here")
    assert "within 25 ms" not in answer.text_content() and not seen.complaints


def test_scores_that_were_paired_are_told_apart_by_their_changes(site, visit):
    plain, other = {"kind": "plain"}, {"kind": "other side", "head": "big", "model": "big"}
    wide, change = [2.9, 2.7, 3.1], [0.107, 0.085, 0.129]
    cases = [  # the kept row, the other one, whether they are told apart
        ({**plain, "bits": [2.8, 2.6, 3.0]}, {"bits": wide, "bits_change": change}, True),
        ({**plain, "bits": [2.8, 2.6, 3.0]}, {"bits": wide, "bits_change": [0.1, -0.1, 0.3]}, False),
        ({**plain, "bits": [2.8, 2.6, 3.0]}, {"bits": wide}, False),
        ({**plain, "model": "n", "bits": [2.8, 2.6, 3.0]}, {"bits": wide, "bits_change": change}, False),
        ({**other, "bits": [2.8, 2.6, 3.0]}, {"against": "big", "bits": wide, "bits_change": change}, True),
        ({"bits": wide, "bits_change": [0.01, 0.0, 0.02]}, {"bits": wide, "bits_change": change}, True),
        ({"bits": wide, "bits_change": [0.1, 0.08, 0.12]}, {"bits": wide, "bits_change": change}, False),
        ({"bits": wide}, {"model": "n", "bits": [1.0, 0.9, 1.1]}, True),
    ]
    script = """(cases) => cases.map((pair) => {
        const chooser = Object.create(Chooser.prototype);
        const placed = (given) => {
            const cell = [];
            ["value", "low", "high"].forEach((name, place) => { cell[CELL[name]] = given[place]; });
            return cell;
        };
        const [one, other] = pair.map((given) => {
            const row = [];
            for (const [name, place] of Object.entries(ROW)) row[place] = given[name] ?? (name === "model" ? "m" : "");
            row.given = given;
            return row;
        });
        chooser.board = { text: (value) => value };
        chooser.cell = (row, key) => row.given[key] ? placed(row.given[key]) : null;
        return [chooser.apart({ key: "bits" }, one, other), chooser.apart({ key: "bits" }, other, one)];
    })"""
    found = visit(board(site)).page.evaluate(script, [[one, other] for one, other, _ in cases])
    assert found == [[apart, apart] for *_, apart in cases]


def test_figures_are_drawn_switch_views_and_answer_the_pointer(site, visit):
    page = next(
        path for path in (site / "cases").glob("*.html") if "tome(r=8)" in path.read_text().split("</title>")[0]
    )
    seen = visit(page)
    seen.draw_all()
    figure = seen.page.locator("#waterline")
    select = figure.locator("select").first
    options = select.locator("option").all_text_contents()
    select.select_option(options[2])
    seen.page.wait_for_timeout(400)
    assert options[2] in figure.get_attribute("data-drawn")
    whole = [None, True, "x", 0, 3, 123456789]
    for fraction, cells in ((False, whole), (True, [*whole, 1234.6, 0.00012346, -2.5])):
        said = seen.page.evaluate(
            "([cells, fraction]) => cells.map((cell) => shownValue(cell, fraction))", [cells, fraction]
        )
        assert said == [shown(cell, fraction) for cell in cells]
    roofline = seen.page.locator("#roofline")
    with seen.page.expect_download() as waiting:  # its table is the waterline's
        roofline.locator('[data-save="csv"]').click()
    assert Path(waiting.value.path()).read_text().startswith("layer,operator,")
    figure.scroll_into_view_if_needed()
    bar = figure.locator(".bars .point path").first
    bar.hover(force=True)
    seen.page.wait_for_timeout(300)
    assert figure.locator(".hoverlayer text").count() > 0
    assert not seen.complaints


def test_figures_are_saved_as_svg_png_and_csv(site, visit):
    seen = visit(board(site))
    seen.draw_all()
    figure = seen.page.locator("[data-figure]").first
    starts = {"svg": b"<svg", "png": b"\x89PNG", "csv": b""}
    for kind, start in starts.items():
        with seen.page.expect_download() as waiting:
            figure.locator(f'[data-save="{kind}"]').click()
        data = Path(waiting.value.path()).read_bytes()
        assert data.startswith(start) and len(data) > 50
    assert not seen.complaints


def test_the_theme_toggle_changes_page_and_figures(site, visit):
    seen = visit(board(site))
    seen.draw_all()
    ink = "getComputedStyle(document.querySelector('.xtick text')).fill"
    before, paper = seen.page.evaluate(ink), seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
    seen.page.locator("#theme").click()
    seen.page.locator("#theme").click()
    for _ in range(30):
        if seen.page.evaluate(ink) != before:
            break
        seen.page.wait_for_timeout(50)
    assert seen.page.locator("html").get_attribute("data-theme") == "dark"
    assert seen.page.evaluate("getComputedStyle(document.body).backgroundColor") != paper
    assert seen.page.evaluate(ink) != before


@pytest.mark.parametrize("width", [pytest.param(1400, marks=pytest.mark.slow), 400])
def test_every_page_is_quiet_offline_and_fits_its_width(site, claimed, visit, width):
    single = [next(iter(sorted((site / folder).glob("*.html")))) for folder in ("cases", "models", "machines")]
    tops = [site / name for name in ("index.html", "methods.html", "compare.html")]
    joined = [claimed / f"{name}.html" for name in ("claims", "machines", "history")]
    brief = max((claimed / "cases").glob("*.html"))
    more = [site / "methods" / "tome.html", *single, *joined, brief]
    first, *others = (*tops, board(site), *more)
    seen = visit(first, width=width, rest=True)
    for path in (first, *others):
        if path is not first:
            seen.open(path)
        seen.draw_all()
        for theme in ("light", "dark"):
            seen.page.emulate_media(color_scheme=theme)
            if SHOTS or seen.page.locator("[data-figure]").count():  # figures are painted anew
                seen.page.wait_for_timeout(300)
            assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
            if SHOTS:
                name = f"{path.parent.name}_{path.stem.split('.')[0][:12]}_{width}_{theme}.png"
                seen.page.screenshot(path=Path(SHOTS) / name, full_page=True)
        assert not seen.complaints
        assert all(url.startswith(("file:", "data:", "blob:")) for url in seen.requests)
        assert seen.page.locator("text=Share chart").count() == 0


def test_the_policy_stops_inline_script_and_connections(site, visit):
    seen = visit(board(site))
    seen.page.evaluate("""() => {
        const script = document.createElement('script');
        script.textContent = 'window.leaked = true';
        document.body.append(script);
    }""")
    assert seen.page.evaluate("window.leaked") is None
    assert seen.page.evaluate("fetch('https://example.org').then(() => 'sent', () => 'stopped')") == "stopped"


def test_hostile_names_are_shown_and_never_run(site, visit):
    seen = visit(board(site))
    seen.draw_all()
    assert any("<img src=x" in name for name in seen.names())
    assert seen.page.locator("img").count() == 0
    assert not seen.complaints


def test_a_link_to_a_view_opens_at_its_section_and_keeps_the_view_of_a_figure(site, visit):
    seen = visit(board(site), fragment="#find=tome")
    assert abs(_top(seen, "leaderboard")) < 120
    figure = visit(board(site))
    figure.draw_all()
    select = figure.page.locator("#flagship select")
    wanted = [select.nth(place).locator("option").all_text_contents()[-1] for place in range(2)]
    for place in (1, 0):  # small multiples of the last network
        select.nth(place).select_option(wanted[place])
    again = visit(board(site), fragment=figure.page.evaluate("location.hash"))
    again.draw_all()
    assert again.page.locator("#flagship").get_attribute("data-drawn").split(" · ") == wanted
    assert abs(_top(again, "flagship")) < 500


@pytest.mark.parametrize("width", [1400, 400])
def test_small_multiples_share_their_axes_and_are_reached_with_the_keyboard(site, visit, width):
    seen = visit(board(site), width=width)
    seen.draw_all()
    seen.page.locator("#flagship select").nth(1).focus()
    seen.page.keyboard.press("ArrowDown")
    seen.page.wait_for_selector("#flagship[data-drawn$='small multiples']")
    panels = seen.page.evaluate("""() => {
        const layout = document.querySelector('#flagship .plot')._fullLayout;
        const all = (start) => Object.keys(layout).filter((name) => name.startsWith(start)).map((name) => layout[name]);
        const told = (axis) => [axis._length / (axis.range[1] - axis.range[0]), ...axis.range];
        return ['xaxis', 'yaxis'].map((start) => all(start).map(told));
    }""")
    rates = [axis[0] for axes in panels for axis in axes]
    assert len(panels[0]) == len(panels[1]) > 1 and max(rates) / min(rates) < 1.01
    assert all(axis[1:] == axes[0][1:] for axes in panels for axis in axes)
    names = seen.page.locator("#flagship .annotation-text").all_text_contents()
    assert sorted(names) == names and {"tome", "evit"} <= set(names)
    first = """() => {
        const figure = Object.create(PageFigure.prototype);
        figure.plot = document.querySelector('#flagship .plot');
        figure.controls = () => {};
        figure.take({ views: { one: {}, several: {} }, wide: 'several' });
        return figure.choice;
    }"""
    assert seen.page.evaluate(first) == ("several" if width == 1400 else "one")
    assert not seen.complaints


def test_the_search_box_finds_and_opens_with_the_keyboard_alone(site, visit):
    seen = visit(site / "index.html")
    seen.page.keyboard.press("/")
    seen.page.keyboard.type("tome")
    seen.page.locator("#found li[role=option]").first.wait_for()
    first = seen.page.locator("#found li").first.text_content()
    assert first.startswith("method") and "tome" in first
    seen.page.keyboard.press("Enter")
    seen.page.wait_for_url("**/methods/tome.html")
    assert "tome" in seen.page.locator("h1").text_content()
    seen.page.keyboard.press("/")
    seen.page.keyboard.type("no such thing")
    seen.page.locator("#found").get_by_text("Nothing here is called so").wait_for()
    seen.page.keyboard.press("Escape")
    assert not seen.page.locator("#found").is_visible() and not seen.complaints


def test_search_finds_cases_by_key_from_any_folder_and_shows_hostile_names_as_text(site, visit):
    seen = visit(site / "methods" / "tome.html")
    seen.page.locator("table.cases tbody a").first.click()
    seen.page.wait_for_url("**/cases/*.html")
    back = seen.page.get_by_role("link", name="back to the table")
    assert back.get_attribute("href").startswith("../methods/tome.html")
    page = next(path for path in (site / "cases").glob("*.html") if not seen.page.url.endswith(path.name))
    seen.page.locator("#search").fill(page.name.split(".")[0])
    seen.page.locator("#found li[role=option] a").first.click()
    seen.page.wait_for_url(f"**/{page.name}")
    assert back.count() == 0  # it was searched for: no table has rows before and after it
    seen.page.locator("#search").fill("onerror")
    seen.page.locator("#found li[role=option]").first.wait_for()
    assert "<img src=x" in seen.page.locator("#found").text_content() and seen.page.locator("img").count() == 0


def test_menus_of_many_entries_have_a_box_to_type_in(site, visit):
    seen = visit(board(site))
    seen.page.locator("summary", has_text="Columns").click()
    menu = seen.page.locator("details.menu", has=seen.page.locator("summary", has_text="Columns"))
    shown = menu.locator("label:visible").count()
    menu.get_by_label("Find a column").fill("macs")
    assert 0 < menu.locator("label:visible").count() < shown
    axis = seen.page.locator("#scatter .choices select").first
    entries = axis.locator("option").count()
    seen.page.get_by_label("Find in Across").fill("peak memory")
    assert axis.locator("option").count() < entries and "Peak memory" in axis.locator("option").first.text_content()


def test_any_two_quantities_are_drawn_and_kept_in_the_address(site, visit):
    seen = visit(board(site))
    scatter = seen.page.locator("#scatter")
    scatter.scroll_into_view_if_needed()
    scatter.locator('select[data-of="x"]').select_option("macs")
    scatter.locator('select[data-of="y"]').select_option("speedup")
    scatter.locator('select[data-of="apart"]').select_option("model")
    seen.page.wait_for_selector('#scatter[data-scatter="macs speedup"]')
    assert scatter.locator(".point").count() == 6  # the rows with a speed-up
    assert scatter.locator(".cartesianlayer .subplot").count() == 2
    seen.page.get_by_label("Find rows by text").fill("evit")
    seen.page.wait_for_timeout(400)
    assert scatter.locator(".point").count() == 2
    scatter.locator('select[data-of="apart"]').select_option("method")  # chosen last, so a link opens here
    again = visit(board(site), fragment=seen.page.evaluate("location.hash"))
    assert abs(_top(again, "scatter")) < 120 and len(again.names()) == 2
    assert again.page.locator('#scatter select[data-of="x"]').input_value() == "macs"
    assert not seen.complaints and not again.complaints


def test_several_quantities_are_lines_of_comparable_rows_and_kept_in_the_address(site, visit):
    seen = visit(board(site))
    parallel = seen.page.locator("#parallel")
    parallel.scroll_into_view_if_needed()
    seen.page.wait_for_selector("#parallel[data-parallel]")
    axes = parallel.get_attribute("data-parallel").split()
    assert len(axes) == 5 and "speedup" in axes and "accuracy" in axes
    assert parallel.locator(".xtick").count() == 5
    whole = [item for item in suite_records() if item["status"] in ("ok", "contaminated")]
    assert parallel.locator(".scatterlayer .trace").count() == len(whole)  # not the row in bf16
    parallel.locator("summary", has_text="Quantities").click()
    parallel.locator(f'.axes input[value="{axes[0]}"]').uncheck()
    wanted = f'#parallel[data-parallel="{" ".join(axes[1:])}"]'
    seen.page.wait_for_selector(wanted)
    again = visit(board(site), fragment=seen.page.evaluate("location.hash"))
    again.page.wait_for_selector(wanted)
    assert abs(_top(again, "parallel")) < 120
    assert not seen.complaints and not again.complaints


def test_pinned_rows_stand_side_by_side_and_the_address_brings_them_back(site, visit):
    seen = visit(board(site), fragment="#find=deit_tiny")
    for _ in range(2):
        seen.page.locator('#leaderboard button.pin[aria-pressed="false"]').first.click()
    assert "2 of 4 pinned" in seen.page.locator(".tray").text_content()
    seen.page.locator(".tray a").click()
    seen.page.wait_for_selector("#pinned table")
    table = seen.page.locator("#pinned table").first
    assert table.locator("thead th").count() == 3
    rows = table.locator("tbody tr th").all_text_contents()
    assert "Speed-up" in rows and "Conditions" in rows
    address = seen.page.evaluate("location.hash")
    again = visit(site / "compare.html", fragment=address)
    again.page.wait_for_selector("#pinned table")
    assert again.page.locator("#pinned thead th").count() >= 3
    again.page.get_by_role("button", name="Remove").first.click()
    again.page.wait_for_timeout(300)
    assert again.page.locator("#pinned table").first.locator("thead th").count() == 2
    assert not seen.complaints and not again.complaints


def test_a_case_saves_its_badge_and_a_trace_and_leads_back_to_the_table(site, visit):
    seen = visit(board(site), fragment="#find=deit_tiny+tome")
    seen.page.locator("#leaderboard tbody th a").nth(1).click()
    seen.page.wait_for_url("**/cases/*.html")
    for button, start in (("#save-badge", "<svg"), ("#save-trace", '{"traceEvents":')):
        with seen.page.expect_download() as waiting:
            seen.page.locator(button).click()
        assert Path(waiting.value.path()).read_text().startswith(start)
    assert not seen.page.locator("#after").is_visible()  # it is the last of the two rows of that view
    seen.page.locator("#before").click()
    seen.page.get_by_role("link", name="back to the table").click()
    # A click returns once the address is taken; the table is there only when the page has been read and filled.
    seen.page.wait_for_load_state("load")
    seen.page.locator("#leaderboard tbody tr[data-page] th a").first.wait_for()
    assert "find=deit_tiny" in seen.page.evaluate("location.hash") and len(seen.names()) == 2


def test_a_table_for_a_paper_is_latex_with_the_rows_shown(site, visit):
    seen = visit(board(site), fragment="#find=deit_small+evit")
    text = _saved(seen, "LaTeX")
    head, *lines = [line for line in text.splitlines() if line.endswith("\\\\") and "multicolumn" not in line]
    assert "\\toprule" in text and "\\bottomrule" in text and head.startswith("Network & Method & ")
    assert len(lines) == 1 and lines[0].startswith("deit\\_small & evit(keep\\_rate=0.7) & ")
    assert all(line.count("&") == head.count("&") for line in lines) and "\\pm" in lines[0] and text.isascii()


def test_a_mark_of_the_flagship_picture_opens_its_case(site, visit):
    seen = visit(site / "index.html")
    seen.draw_all()
    seen.page.locator("#flagship").scroll_into_view_if_needed()
    point = seen.page.locator("#flagship .scatterlayer .point").first
    box = point.bounding_box()
    seen.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    seen.page.wait_for_timeout(200)
    seen.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    seen.page.wait_for_url("**/cases/*.html")
    seen.page.get_by_role("link", name="back to the figure").click()
    seen.page.wait_for_url("**/index.html#flagship")


def test_the_scales_of_the_flagship_picture_are_equal(site, visit):
    for width in (1400, 400):
        seen = visit(site / "index.html", width=width)
        seen.draw_all()
        lengths = seen.page.evaluate("""() => {
            const layout = document.querySelector('#flagship .plot')._fullLayout;
            return [layout.xaxis, layout.yaxis].map((axis) => axis._length / (axis.range[1] - axis.range[0]));
        }""")
        assert abs(lengths[0] / lengths[1] - 1) < 0.01


@pytest.fixture(scope="module")
def claimed(tmp_path_factory):
    """A site with claims of two papers, several machines and sessions, whose pages of cases wait for their figures."""
    root = tmp_path_factory.mktemp("claimed")
    common = {
        "metric": "macs", "unit": "x", "relative_to_baseline": True, "model": "deit_small", "mode": "off-the-shelf",
        "hardware": "any", "convention": "matmul", "tolerance": 0.02,
    }  # fmt: skip
    claims = [
        {**common, "method": "tome", "setting": "r=13", "value": 0.59, "source": "Bolya et al. 2023, table 1"},
        {**common, "method": "tome", "setting": "r=13", "value": 0.3, "source": "Bolya et al. 2023, table 2"},
        {**common, "method": "evit", "setting": "keep_rate=0.7", "value": 0.66, "source": "Liang et al. 2022, table 4"},
    ]
    folder = root / "vit_tokens"
    folder.mkdir()
    (folder / "claims.yaml").write_text(json.dumps({"claims": claims}))
    first = [*suite_records(), *two_machines((1.5, 0.9), (0.8, 1.4))]
    day = {"started_at": "2026-11-08T12:00:00+00:00", "finished_at": "2026-11-08T12:01:00+00:00"}
    again = [{**item, **day, "timing": {**item["timing"], "session": "another"}} for item in suite_records()[:3]]
    store(root / "results", first, with_samples=False)
    store(root / "later", again, with_samples=False)
    build([root / "results", root / "later"], root / "site", claims=[folder], figure_seconds=-1)
    return root / "site"


def test_claims_are_filtered_by_paper_and_verdict_and_the_address_brings_it_back(claimed, visit):
    seen = visit(claimed / "claims.html")
    assert seen.page.locator(".claims.lines > li:visible").count() == 3
    filters = {
        name: seen.page.locator("#claim-filters label", has_text=name).locator("select")
        for name in ("Paper", "Verdict")
    }
    filters["Paper"].select_option("Bolya et al. 2023")
    assert seen.page.locator(".claims.lines > li:visible").count() == 2
    filters["Verdict"].select_option("reproduced")
    assert seen.page.locator("#claim-count").text_content() == "1 of 3 claims"
    again = visit(claimed / "claims.html", fragment=seen.page.evaluate("location.hash"))
    assert again.page.locator(".claims.lines > li:visible").count() == 1
    one = visit(claimed / "claims.html", fragment="#claim-2")
    assert one.page.locator("#claim-2 details").get_attribute("open") is not None


def test_on_a_phone_long_sections_are_their_headings_until_they_are_opened(site, visit):
    wide, phone = visit(board(site)), visit(board(site), width=400)
    folded = "document.querySelectorAll('section[data-fold] > details.fold:not([open])').length"
    assert wide.page.evaluate(folded) == 0 and phone.page.evaluate(folded) >= 3
    assert phone.page.evaluate("document.documentElement.scrollHeight") < 8 * 900
    assert not phone.page.locator("#unavailable table").is_visible()
    phone.page.locator(".contents summary").click()
    phone.page.locator(".contents a", has_text="Not available, and why").click()
    assert phone.page.locator("#unavailable table").is_visible()
    view = visit(board(site), width=400, fragment="#savings=one%20line%20per%20case")
    assert view.page.locator("#savings").is_visible() and not view.complaints
