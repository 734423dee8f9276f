"""The atlas of the findings: which rows of the pages take part, and what is said of them."""

import re
from xml.etree import ElementTree

import pytest

from reports.finding_atlas import lines_of, main, read, tables
from reports.finding_families import FAMILIES, KERNELS, OTHER, SAME, family, kernel
from reports.finding_line import Line
from reports.finding_picture import DECADE
from reports.finding_tables import END, GAINS, START, markdown_table

HEAD = f"| {' | '.join(GAINS)} |\n|{' --- |' * len(GAINS)}\n"
PAGE = f"""# A page

### operator, cpu, fp32, batch 4, length 64, no task, protocol quick v1 (3c47da)

{HEAD}| saves | 2.00x | 1.60x [1.50, 1.70] | 0.80 [0.75, 0.85] | 1.0 | 1.6 |
| half\\|way | 4.00x | 1.00x [0.95, 1.05] | 0.25 [0.24, 0.26] | 1.0 | 1.0 |
| costs | 3.00x | 0.50x [0.49, 0.51] | 0.17 [0.16, 0.17] | 2.0 | 1.0 |
| no promise | 1.02x | 2.00x [1.90, 2.10] | 1.96 [1.90, 2.00] | 1.0 | 2.0 |
| a glance | 2.00x | 1.60x | 0.80 | 1.0 | 1.6 |
| net(scan='identity') | 2.00x | 9.00x [8.90, 9.10] | 4.50 [4.45, 4.55] | 1.0 | 9.0 |
| unknown | unavailable (why) | 1.60x [1.50, 1.70] | unavailable | 1.0 | 1.6 |

| case | efficiency |
| --- | --- |
| saves | 50 % |
"""


def test_only_rows_that_promise_and_were_measured_with_an_interval_take_part():
    found = lines_of("convnets", PAGE)
    assert [line.case for line in found] == ["saves", "half|way", "costs"]
    assert [line.verdict for line in found] == ["faster", "open", "slower"]
    assert {(line.suite, line.workload, line.batch) for line in found} == {("convnets", "operator", 4)}


@pytest.mark.parametrize("control", ["net, fewer_steps(steps=7)", "net, uniform", "net, b_lenet(exit=1)", "vertex_mlp"])
def test_controls_promise_nothing_and_a_cache_of_that_name_does(control):
    assert len(lines_of("decode", PAGE.replace("| saves", f"| {control}", 1))) == 2
    assert len(lines_of("decode", PAGE.replace("| saves", "| net, uniform_cache(bits=8)", 1))) == 3


def test_rows_that_only_imitate_what_they_promise_take_no_part():
    assert lines_of("quantization", PAGE.replace("no task", "no task, simulated: claims no speed")) == []


def test_what_arrives_is_the_time_saved_over_the_time_that_was_promised():
    # a promise of 2x saves half of the time; 1.6x saves 0.375 of it: three quarters of the promise
    first, half, costs = lines_of("convnets", PAGE)
    assert first.realised == pytest.approx(0.8) and first.arrived == pytest.approx(0.75)
    assert half.arrived == 0.0
    # 3x promises to save two thirds; half the speed is a second of the time on top
    assert costs.arrived == pytest.approx(-1.5)


def test_the_first_suites_page_says_no_workload_and_is_of_forwards():
    text = PAGE.replace("operator, cpu", "cpu").replace("batch 4", "batch 32")
    assert {(line.workload, line.batch) for line in lines_of("vit_tokens", text)} == {("forward", 32)}


def test_tables_count_rows_and_give_medians():
    made = tables(lines_of("convnets", PAGE))
    cells = re.search(r"\| convnets \|(.*)\|", made)[1].split("|")
    # promised 2, 4, 3; measured 1.6, 1.0, 0.5; realised 0.8, 0.25, 0.1667 with quartiles halfway between
    assert [cell.strip() for cell in cells] == ["3", "3.00x", "1.00x", "0.25 [0.21, 0.53]", "0 %", "1", "1", "1"]
    below = made[made.index("### Furthest below") :]
    assert below.index("costs") < below.index("half\\|way") and "saves" not in below  # two of a suite are named
    assert made.rstrip().endswith("None.")  # nothing is above its promise


def test_more_than_promised_needs_the_whole_interval():
    line = Line("ops", "case", "operator", 1, "operator, cpu", 2.0, 2.2, 1.9, 2.5)
    assert "None." in tables([line])
    assert "| ops | case |" in tables([Line("ops", "case", "operator", 1, "operator, cpu", 2.0, 2.2, 2.1, 2.3)])


def test_the_command_writes_between_the_marks_and_says_where_nothing_is(tmp_path, capsys):
    (tmp_path / "convnets.md").write_text(PAGE, encoding="utf-8")
    (tmp_path / "predict.md").write_text(PAGE, encoding="utf-8")  # compares something else
    page = tmp_path / "atlas.md"
    page.write_text(f"# Atlas\n\nprose\n\n{START}\n{END}\n", encoding="utf-8")
    assert main([str(tmp_path), "--into", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Atlas\n\nprose") and "| convnets |" in text and "predict" not in text
    assert {line.suite for line in read(tmp_path, None)} == {"convnets"}  # the atlas itself is not read again
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / "empty"), "--into", str(tmp_path / "missing.md")]) == 2
    assert "missing.md" in capsys.readouterr().err


def test_the_pages_of_the_project_are_read():
    suites = {line.suite for line in read()}
    assert {"vit_tokens", "attention", "convnets", "decode", "ops", "pruning"} <= suites


def test_a_table_that_was_written_is_read_as_it_was():
    body = [["a|b", "2.00x", "1.50x [1.40, 1.60]", "0.75", "1", "2"]]
    (line,) = lines_of("ops", "### operator, cpu, batch 2\n\n" + markdown_table(GAINS, body))
    assert line.case == "a|b" and line.promised == 2.0 and line.low == 1.4


def test_the_picture_has_a_mark_for_each_row_on_equal_scales(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the first suite has no page
    (tmp_path / "convnets.md").write_text(PAGE, encoding="utf-8")
    drawn = tmp_path / "atlas.svg"
    assert main([str(tmp_path), "--picture", str(drawn)]) == 0
    assert f"3 rows in {drawn}" in capsys.readouterr().out
    made = ElementTree.parse(drawn).getroot()
    svg = "{http://www.w3.org/2000/svg}"
    marks = {mark[0].text: mark for mark in made.find(f'{svg}g[@class="plot"]')}
    assert [mark.get("class") for mark in marks.values()] == ["slower", "open", "faster"]
    half = marks["convnets, half|way: promised 4.00x, measured 1.00x"]
    saves = marks["convnets, saves: promised 2.00x, measured 1.60x"]
    across, up = (float(half.get(name)) - float(saves.get(name)) for name in ("cx", "cy"))
    # twice the promise is 0.301 of a decade to the right, 1.6 times slower 0.204 of one downwards
    assert across == pytest.approx(DECADE * 0.30103, abs=0.11) and up == pytest.approx(DECADE * 0.20412, abs=0.11)
    words = [text.text for text in made.iter(f"{svg}text")]
    assert "25 %" in words and "faster for certain" in words and words.count("1") == 3


def _row(suite, case, conditions="operator, cpu, fp32, batch 1"):
    return Line(suite, case, "operator", 1, conditions, 2.0, 1.0, 0.9, 1.1)


@pytest.mark.parametrize(
    ("suite", "case", "conditions", "families", "kernels"),
    [
        ("pruning", "bert_base(layers=4), optin(ffn=[1], heads=[1])", "", "fewer channels, heads or features", SAME),
        ("pruning", "mobilenet_v1(slim=0.5) (against mobilenet_v1)", "", "fewer channels, heads or features", SAME),
        ("pruning", "net, sparse_weights(kernel='csr')", "", "zeros among the weights", "single places, CSR"),
        ("pruning", "net, block_sparse(sparsity=0.5)", "", "zeros among the weights", "blocks, gathered"),
        ("lowrank", "a (against sparse_linear(kernel='gather'))", "", "factors of a matrix", SAME),
        ("decode", "byte_3m_gqa2 (against byte_3m)", "", "fewer channels, heads or features", SAME),
        ("decode", "byte_3m, prefixkv(budget=0.2)", "", "work kept from the step before", SAME),
        ("convnets", "a (against b)", "cpu, fp32, compile", "another network for the same task", "a compiled graph"),
        ("nowhere", "a", "", OTHER, SAME),
    ],
)
def test_a_row_has_one_family_and_one_kernel(suite, case, conditions, families, kernels):
    row = _row(suite, case, conditions)
    assert (family(row), kernel(row)) == (families, kernels)


def test_every_row_of_the_pages_has_a_family_and_every_family_has_rows():
    lines = read()
    assert OTHER not in {family(line) for line in lines}
    assert {family(line) for line in lines} == {name for name, _ in FAMILIES}
    assert {kernel(line) for line in lines} <= {SAME, *(name for name, _ in KERNELS)}
