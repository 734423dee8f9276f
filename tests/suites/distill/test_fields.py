"""Fields over points: check cases, forms that agree, exact distances, normals that are gradients."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.meters import macs
from suites.common import signed_distance as scenes
from suites.common.tasks.scene_distance import SceneDistance
from suites.distill import cells, closed_forms
from suites.distill.fields import encoded, nerf, neus
from suites.distill.kiloneus import kilonerf, kiloneus

FORMS = ["loop", "padded", "grouped", "gathered"]


def parameters(net):
    return sum(p.numel() for p in net.parameters())


def test_the_check_cases():
    """Brief, section 9: a point's products and parameters, one network and a grid of tiny ones."""
    assert closed_forms.kilonerf({}, {}) == 6080 and closed_forms.nerf({}, {}) == 593_408
    assert closed_forms.distance({}) == 524_544
    assert parameters(nerf()) == 595_844 and parameters(kilonerf(grid=[1, 1, 1])) == 6212
    with torch.device("meta"):
        assert parameters(kilonerf(grid=[9, 16, 10])) == 8_945_280


@pytest.mark.parametrize("make, form", [(nerf, closed_forms.nerf), (neus, closed_forms.neus)])
def test_the_trace_of_a_large_network_is_the_closed_form(make, form):
    with torch.device("meta"):
        net = make()
        given = net.example_inputs(2)
    assert macs.count(net, given).executed_macs == 2 * form({}, {})


@pytest.mark.parametrize("depth, products", [(3, 7311), (4, 9264), (5, 11_568)])
def test_positions_come_in_again_in_shallow_networks_too(depth, products):
    """Of three layers the first leaves room for them: 39 x 9 + 48 x 48 + 48 x 48 + 48 x 49 = 7311."""
    settings = {"width": 48, "depth": depth, "colour_depth": 2}
    net = neus(**settings)
    assert closed_forms.distance(settings) == products
    assert macs.count(net, net.example_inputs(2)).executed_macs == 2 * closed_forms.neus(settings, {})


@pytest.mark.parametrize("make", [kilonerf, kiloneus])
@pytest.mark.parametrize("coordinates", ["local", "global"])
def test_all_forms_of_the_products_agree(make, coordinates):
    """Sorted forms to 1e-6 as they run; the gathered one, whose sums have another order, to the digits of doubles."""
    nets = {form: make(grid=[2, 3, 2], width=8, form=form, coordinates=coordinates) for form in FORMS}
    given = nets["loop"].example_inputs(200)
    wanted = nets["loop"](*given)
    for net in nets.values():
        net.load_state_dict(nets["loop"].state_dict())
    for form in ("padded", "grouped"):
        torch.testing.assert_close(nets[form](*given), wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(nets["gathered"](*given), wanted, rtol=1e-4, atol=1e-5)
    given, wanted = [x.double() for x in given], nets["loop"].double()(*(x.double() for x in given))
    for form in ("padded", "gathered"):
        torch.testing.assert_close(nets[form].double()(*given), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_cells_that_share_one_network_are_that_network(form):
    many, one = (kilonerf(grid=grid, width=8, form=form, coordinates="global") for grid in ([3, 2, 2], [1, 1, 1]))
    for name, layer in many.layers.items():
        layer.weight.data.copy_(one.layers[name].weight.expand_as(layer.weight))
        layer.bias.data.copy_(one.layers[name].bias.expand_as(layer.bias))
    given = many.example_inputs(50)
    torch.testing.assert_close(many(*given), one(*given), rtol=1e-5, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=3, max_size=3), st.integers(1, 40), st.integers(0, 5))
def test_points_lie_in_their_cells(grid, count, seed):
    points = 2 * torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)) - 1
    cell = cells.cell_of(points, grid)
    assert bool(((cell >= 0) & (cell < math.prod(grid))).all())
    assert cells.local(points, cell, grid).abs().max() <= 1 + 1e-5
    by = cells.by_cell(cell, math.prod(grid))
    assert by.counts.sum() == count and bool((cell[by.order].diff() >= 0).all())
    assert by.order[by.back].equal(torch.arange(count))
    assert 0 < cells.useful_share(cell, math.prod(grid)) <= 100


def test_a_padded_product_computes_for_empty_slots_and_says_how_many():
    net = kilonerf(grid=[2, 1, 1], width=8, form="padded")
    points = torch.tensor([[-0.5, 0, 0]] * 6 + [[0.5, 0, 0]] * 2)
    useful = net.useful_share(points)
    assert useful == pytest.approx(100 * 8 / 12)
    need = 8 * closed_forms.kilonerf({"width": 8}, {})
    assert macs.count(net, (points, torch.randn(8, 3))).executed_macs == pytest.approx(need * 100 / useful)
    assert net.needed_share(points, points) == useful


@pytest.mark.parametrize("make, form", [(kilonerf, closed_forms.kilonerf), (kiloneus, closed_forms.kiloneus)])
def test_the_needed_share_of_the_executed_products_is_what_points_need(make, form):
    grouped = make(grid=[2, 2, 2], form="grouped")
    share, executed = grouped.needed_share(*grouped.example_inputs(9)), form({"form": "grouped"}, {})
    assert share / 100 * executed == pytest.approx(form({}, {})) and share < 100
    assert make(grid=[2, 2, 2], form="loop").needed_share(*grouped.example_inputs(9)) == 100


def test_points_outside_the_cube_go_to_the_nearest_cells():
    assert cells.cell_of(torch.tensor([[-9.0, 0, 0], [9.0, 0, 0], [1.0, 1, 1]]), [2, 1, 1]).tolist() == [0, 1, 1]


@pytest.mark.parametrize("make", [lambda: neus(width=48, depth=4, colour_depth=2), lambda: kiloneus(grid=[2, 2, 2])])
def test_a_normal_is_the_gradient_of_the_distance(make):
    net = make().double()
    points, directions = net.example_inputs(20)
    with torch.inference_mode():
        out = net(points, directions)
        for axis, step in enumerate(1e-6 * torch.eye(3, dtype=torch.float64)):
            slope = (net(points + step, directions)[:, 0] - net(points - step, directions)[:, 0]) / 2e-6
            torch.testing.assert_close(out[:, 1 + axis], slope, rtol=1e-4, atol=1e-4)


def test_a_network_of_distances_begins_as_a_sphere():
    points = torch.tensor([[0.0, 0, 0], [0.9, 0, 0], [0, 0.9, 0.3]])
    found = neus().distance(points)[0][:, 0]
    assert found[0] < 0 < found[1] and found[2] > 0


def test_positions_are_encoded_beside_themselves():
    x = torch.tensor([[0.1, -0.2, 0.3]])
    found = encoded(x, 2)
    wanted = torch.cat([x, x.sin(), (2 * x).sin(), x.cos(), (2 * x).cos()], 1)
    torch.testing.assert_close(found, wanted)


def test_a_sphere_and_a_torus_have_the_distance_that_a_picture_shows():
    points = torch.tensor([[0.0, 0, 0], [1.0, 0, 0], [0.6, 0, 0.5]])
    torch.testing.assert_close(scenes.sphere(points)[:2], torch.tensor([-0.6, 0.4]))
    torch.testing.assert_close(scenes.torus(points), torch.tensor([0.35, 0.15, 0.25]))


def test_the_distance_to_a_gyroid_is_that_to_the_nearest_point_of_its_surface():
    generator = torch.Generator().manual_seed(0)
    cloud = 2.6 * torch.rand(200_000, 3, generator=generator, dtype=torch.float64) - 1.3
    for _ in range(6):
        cloud = cloud - scenes._to_surface(cloud)
    cloud = cloud[scenes.gyroid_level(cloud).abs() < 1e-9]
    points = 2 * torch.rand(100, 3, generator=generator, dtype=torch.float64) - 1
    near = torch.cdist(points, cloud).min(1).values
    found = scenes.gyroid(points)
    assert bool((found.abs() <= near + 1e-6).all())
    assert (found.abs() - near).abs().max() < 0.02  # the cloud is that sparse
    assert found.sign().equal(scenes.gyroid_level(points).sign())


def test_normals_of_a_gyroid_are_the_gradients_of_its_distance():
    points = 2 * torch.rand(50, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 1
    steps = 1e-4 * torch.eye(3, dtype=torch.float64)
    slopes = torch.stack([(scenes.gyroid(points + s) - scenes.gyroid(points - s)) / 2e-4 for s in steps], 1)
    wrong = (slopes - scenes.normals("gyroid", points)).norm(dim=1)
    assert (
        wrong.median() < 1e-4 and float((wrong < 1e-2).double().mean()) > 0.9
    )  # but for points halfway between sheets


@pytest.mark.parametrize("scene", ["sphere", "torus", "gyroid"])
def test_normals_have_length_one_and_sampled_points_are_near_the_surface(scene):
    points, distances = scenes.sampled(scene, 400, 3)
    assert points.abs().max() <= 1 and float((distances.abs() < 0.15).float().mean()) > 0.45
    assert (scenes.normals(scene, points).norm(dim=1) - 1).abs().max() < 1e-3


def test_both_sides_of_a_border_are_asked_by_their_own_networks():
    net = kiloneus(grid=[2, 3, 2], width=8, form="gathered", coordinates="global")
    generator = torch.Generator().manual_seed(0)
    assert net.border_gap(64, generator) > 1e-4
    for layer in net.layers.values():
        layer.weight.data.copy_(layer.weight[:1].expand_as(layer.weight))
        layer.bias.data.copy_(layer.bias[:1].expand_as(layer.bias))
    assert net.border_gap(64, generator) < 1e-6


class Asked:
    """A scene without points that counts the steps that it is asked for."""

    scene, steps = "torus", 0

    def points(self, steps, count, seed):
        self.steps += steps
        return iter(())

    def remembered(self, what, key, make):
        return neus().state_dict()


@pytest.mark.parametrize("taught", [True, False])
def test_the_control_takes_as_many_steps_as_the_student(taught):
    """500 by NeuS's distances and 500 by the true ones, or 1000 by the true ones."""
    task = Asked()
    told = kiloneus(grid=[1, 1, 1], taught=taught).learn_scene(task, 0)
    assert task.steps == told["steps"] == 1000


@pytest.mark.slow
def test_tiny_networks_learn_a_scene(tmp_path):
    task = SceneDistance(tmp_path, 0, scene="sphere")
    torch.manual_seed(0)
    notes = task.prepare("tiny", lambda: kiloneus(grid=[4, 4, 4], taught=False))
    assert notes["test_distance_error"] < 0.02
    with pytest.raises(Exception, match="learns no scene"):
        task.fits(torch.nn.Linear(1, 1), "x")


@pytest.mark.parametrize("call, message", [
    (lambda: kilonerf(grid=[2, 2]), "three axes"), (lambda: neus(width=39), "wider than that"),
    (lambda: kiloneus(consistency=-1), "0 or more"), (lambda: nerf(depth=2), "3 layers"),
    (lambda: SceneDistance("none", 0, scene="cube"), "sphere, torus, gyroid"),
])  # fmt: skip
def test_what_cannot_be_is_refused_in_words(call, message):
    with pytest.raises(Exception, match=message):
        call()
