"""Parameters and multiply-accumulates against those that were published, to the last digit that was printed."""

from pathlib import Path

import pytest

from suites.common.torchvision_remedy import NotInstalled
from suites.convnets.convfirst import BlockShape
from suites.convnets.fdconv import extra_parameters
from suites.convnets.simplenet_ad import break_even_bank
from tests.suites.convnets import published
from tests.suites.convnets.building import counted, parameters

TABLE = Path(__file__).with_name("timm_table.tsv")
ROWS = [line.split("\t") for line in TABLE.read_text().splitlines() if not line.startswith("#")]
#: A few of each kind in every run; the whole table is slow.
FEW = ("resnet50", "tinynet_d", "mobilenetv4_conv_medium", "repvgg_a0", "convnext_atto_ols", "xcit_nano_12_p16_224")


def check(spec, resolution, params, macs):
    if macs is None:
        assert parameters(spec, resolution) == params
        return
    found, count = counted(spec, resolution)
    assert params is None or found == params
    assert count.value("matmul") == macs
    assert not count.at_least


@pytest.mark.parametrize("model, resolution", published.OWN)
def test_own_networks_count_as_published(model, resolution):
    check(model, resolution, *published.OWN[model, resolution])


@pytest.mark.parametrize("model, resolution", published.OVER_LIBRARIES)
def test_networks_over_libraries_count_as_published(model, resolution):
    try:
        check(model, resolution, *published.OVER_LIBRARIES[model, resolution])
    except NotInstalled as reason:
        pytest.skip(str(reason))


@pytest.mark.slow
@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize("name, resolution", published.TIMM)
def test_networks_of_timm_count_as_their_closed_forms(name, resolution):
    check(f"timm:{name}", resolution, *published.TIMM[name, resolution])


def check_printed(name, resolution, params, gmacs):
    found, count = counted(f"timm:{name}", int(resolution))
    # the print has two decimals; a value at the edge may round either way
    assert found / 1e6 == pytest.approx(float(params), abs=0.0051)
    assert count.value("fvcore") / 1e9 == pytest.approx(float(gmacs), abs=0.0051)


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize("row", [row for row in ROWS if row[0] in FEW], ids=lambda row: f"{row[0]}@{row[1]}")
def test_networks_of_timm_count_as_its_table_prints(row):
    check_printed(*row)


@pytest.mark.slow
@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}@{row[1]}")
def test_every_row_of_timms_table(row):
    check_printed(*row)


@pytest.mark.parametrize(
    "shape, order, macs, apart, fused",
    [
        (BlockShape(64, 64, 6, 8, 3, 128), "convfirst", 28_185_722_880, 49.41, 419.7),
        (BlockShape(256, 16, 4, 8, 3, 128), "mbconv", 19_595_788_288, 122.5, 1127.8),
    ],
)
def test_blocks_have_the_operations_a_byte_that_the_paper_draws(shape, order, macs, apart, fused):
    assert shape.macs(order) == macs
    assert shape.operations_per_byte(order, fused=False) == pytest.approx(apart, rel=5e-4)
    assert shape.operations_per_byte(order, fused=True) == pytest.approx(fused, rel=5e-4)


def test_halo_of_a_fused_tile_by_hand():
    assert BlockShape(8, 16, kernel=3).halo(8) == (10 / 8) ** 2
    assert BlockShape(8, 16, kernel=1).halo(8) == 1


def test_halos_of_the_findings_page_by_hand():
    # 10/8, 18/16, 34/32 and 14/8, 22/16, 38/32, squared
    assert [round(BlockShape(8, 16, kernel=3).halo(t), 4) for t in (8, 16, 32)] == [1.5625, 1.2656, 1.1289]
    assert [round(BlockShape(8, 16, kernel=7).halo(t), 4) for t in (8, 16, 32)] == [3.0625, 1.8906, 1.4102]


def test_extra_parameters_of_fdconv_by_hand():
    """1x1, 64 to 32 channels: hidden 16; gates, local factors of 5 taps.

    2 x 32 x 33 coefficients in place of 64 x 32.
    """
    gates = 64 * 16 + 2 * 16 + 2 + (16 * 64 + 64) + (16 * 32 + 32) + (16 * 64 + 64)
    local = 32 * 5 + 2 * 64
    assert extra_parameters(64, 32, 1) == gates + local + 2 * 32 * 33 - 64 * 32


def test_a_bank_of_3841_vectors_costs_as_much_as_the_discriminator():
    assert break_even_bank() == 3841
