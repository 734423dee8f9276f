"""What breaks counters in the field: each kind of fault with inputs of our own, their counts worked out by hand."""

import functools
import queue
import threading
from collections import UserDict, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import bench
from bench.errors import BenchError, UsageError
from bench.meters import live, macs, memory, params
from bench.meters.inputs import as_call, batch_of
from bench.meters.reach import hidden_modules, tensors_in

X = torch.rand(4, 16)


class Net(nn.Module):
    """A module whose forward is the function given."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *args, **kwargs):
        return self.function(self, *args, **kwargs)


def linear(width=8):
    return nn.Linear(16, width, bias=False)


def measured(module, inputs, **rest):
    return bench.measure(module, inputs, ["macs"], **rest)["value"].iloc[0]


def codes(found):
    return {flag["code"] for flag in found.flags}


# ---------------------------------------------------------------- the second count ends no process
class Stop(Exception):
    pass


def _stopping(kept, error):
    def hook(module, inputs, output):
        kept.append(output)
        raise error

    return hook


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("error", [Stop, KeyError, StopIteration])
def test_an_exception_that_crosses_modules_and_is_caught_costs_the_second_count_and_no_more(depth, error):
    kept = []
    inner = linear()
    inner.register_forward_hook(_stopping(kept, error("early")))
    nested = functools.reduce(lambda module, _: nn.Sequential(module), range(depth), inner)

    def forward(self, x):
        try:
            return self.after(self.before(x))
        except error:
            return kept.pop()

    net = Net(forward, before=nested, after=nn.Linear(8, 8))
    found = macs.count(net, (X,))
    assert found.macs == 4 * 128
    assert "uncounted_operator" not in codes(found)


def test_a_second_count_that_dies_says_how():
    from bench.meters.apart import ApartError, run_apart

    with pytest.raises(ApartError, match="SIGABRT"):
        run_apart(lambda: __import__("os").abort(), timeout_s=60)
    with pytest.raises(ApartError, match="longer than"):
        run_apart(lambda: threading.Event().wait(), timeout_s=0.2)
    with pytest.raises(ApartError, match="ValueError: no"):
        run_apart(lambda: (_ for _ in ()).throw(ValueError("no")), timeout_s=60)
    assert run_apart(lambda: {"a": [1, 2]}, timeout_s=60) == {"a": [1, 2]}


# ---------------------------------------------------------------- threads
def _in_pool(self, x):
    with ThreadPoolExecutor(2) as pool:
        return sum(pool.map(self.a, [x, x]))


def _in_threads(self, x):
    found = []
    threads = [threading.Thread(target=lambda: found.append(self.a(x))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(found)


@pytest.mark.parametrize("forward", [_in_pool, _in_threads])
def test_threads_that_a_forward_starts_are_counted_and_their_modules_named(forward):
    found = macs.count(Net(forward, a=linear()), (X,))
    assert found.macs == 2 * 4 * 128
    assert {record.path for record in found.records if record.macs} == {"a"}
    assert not found.at_least


def test_a_pool_that_waited_before_is_followed_when_it_is_handed_a_task():
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()
        net = Net(lambda self, x: pool.submit(self.a, x).result(), a=linear())
        assert macs.count(net, (X,)).macs == 4 * 128
        assert threading.Thread.start.__qualname__ == "Thread.start"
        assert ThreadPoolExecutor.submit.__qualname__ == "ThreadPoolExecutor.submit"


def _serve(tasks, answers):
    while (task := tasks.get()) is not None:
        answers.put(task())


def test_work_in_threads_that_cannot_be_followed_is_said_to_be_missing():
    tasks, answers = queue.Queue(), queue.Queue()
    worker = threading.Thread(target=_serve, args=(tasks, answers), daemon=True)
    worker.start()

    def forward(self, x):
        tasks.put(lambda: self.a(x))
        return answers.get(timeout=60)

    with ThreadPool(1) as pool:
        pool.apply(int)
        for net in (Net(forward, a=linear()), Net(lambda self, x: pool.apply(self.a, (x,)), a=linear())):
            found = macs.count(net, (X,))
            assert found.at_least
            assert "other_threads" in codes(found)
            assert "aten::mm" in next(flag["text"] for flag in found.flags if flag["code"] == "other_threads")
    tasks.put(None)


def test_a_busy_thread_that_computes_nothing_of_torchs_costs_no_second_count():
    """Such as the heartbeat of a notebook: the terms that fvcore alone charges would be missing."""
    stop = threading.Event()

    def spin():
        while not stop.is_set():
            sum(range(100))

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        found = macs.count(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1)), (torch.rand(1, 3, 8, 8),))
    finally:
        stop.set()
        thread.join()
    assert found.second["error"] is None
    products, pooled = 4 * 27 * 6 * 6, 4 * 6 * 6
    assert (found.value("matmul"), found.value("fvcore")) == (products, products + pooled)


def test_memory_of_a_thread_counts():
    def forward(self, x):
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(lambda: torch.ones(1 << 20).sum()).result()

    assert memory.measure(Net(forward), (X,)).peak_bytes >= 4 << 20


# ---------------------------------------------------------------- modules and tensors that are not registered
class Holder:
    def __init__(self, part):
        self.part = part


def _reached_by(how, part):
    if how == "list":
        return [part]
    if how == "dict":
        return {"k": (part,)}
    if how == "deque":
        return deque([part])
    return Holder(part) if how == "object" else functools.partial(_apply, part)


def _apply(part, x):
    return part(x)


def _call_the_held(self, x):
    found = hidden_modules(self)
    return found[0].value(x)


@pytest.mark.parametrize("how", ["list", "dict", "deque", "object", "closure"])
def test_modules_in_plain_attributes_are_counted_named_and_evaluated(how):
    part = nn.Sequential(nn.Linear(16, 16), nn.Dropout(0.5), nn.BatchNorm1d(16))
    net = Net(_call_the_held, held=_reached_by(how, part))
    size = params.measure(net)
    assert size.total == 16 * 16 + 16 + 2 * 16
    text = next(flag["text"] for flag in size.flags if flag["code"] == "unregistered_modules")
    assert "held" in text
    before = part[2].running_mean.clone()
    assert measured(net, X) == 256
    assert torch.equal(part[2].running_mean, before)
    assert part[1].training


def test_weights_in_plain_attributes_are_weights_of_the_memory_peak():
    plain = Net(lambda self, x: self.blocks[0](x), blocks=[nn.Linear(16, 4096)])
    listed = Net(lambda self, x: self.blocks[0](x), blocks=nn.ModuleList([nn.Linear(16, 4096)]))
    one, two = memory.measure(plain, (X,)), memory.measure(listed, (X,))
    assert one.peak_activation_bytes == two.peak_activation_bytes
    assert one.split["weights"] == 4 * (16 * 4096 + 4096)


def test_a_weight_that_nothing_holds_is_said_with_where_it_is_used():
    weight = torch.rand(16, 8)
    found = macs.count(Net(lambda self, x: x @ weight), (X,))
    assert found.macs == 4 * 128
    assert "16x8" in next(flag["text"] for flag in found.flags if flag["code"] == "unregistered_weights")
    assert "unregistered_weights" not in codes(macs.count(Net(lambda self, x: (x @ x.T) @ x), (X,)))


def test_a_registered_module_is_not_found_again_through_a_list():
    part = linear()
    assert hidden_modules(Net(lambda self, x: self.a(x), a=part, order=[part])) == []


@pytest.mark.parametrize("name", ["inner", "_orig_mod"])
def test_attributes_that_a_module_hands_on_are_not_its_own(name):
    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            setattr(self, name, torch.compile(linear(), backend="eager"))
            self.head = nn.Linear(8, 100, bias=False)

        def __getattr__(self, wanted):
            try:
                return super().__getattr__(wanted)
            except AttributeError:
                return getattr(super().__getattr__(name), wanted)

        def forward(self, x):
            return self.head(getattr(self, name)(x))

    assert measured(Wrapper(), X) == 128 + 800


# ---------------------------------------------------------------- how many samples
@dataclass
class Sample:
    tokens: torch.Tensor


class Slotted:
    __slots__ = ("inner",)

    def __init__(self, inner):
        self.inner = inner


@pytest.mark.parametrize(
    "inputs",
    [
        ({"x": X},),
        ([X],),
        (Sample(X),),
        (Slotted({"deep": [X]}),),
        (torch.zeros(1), X),
        (torch.tensor(3.0), X),
        {"positions": torch.zeros(1, 6), "x": X},
        UserDict({"x": X}),
        (UserDict({"x": X}),),
    ],
)
def test_the_batch_is_found_wherever_the_tensors_are(inputs):
    args, kwargs = as_call(inputs)
    assert (batch_of(args, kwargs).size, batch_of(args, kwargs).sure) == (4, True)
    net = Net(lambda self, *a, **k: self.a(next(t for t in tensors_in((a, k)) if t.shape == X.shape)), a=linear())
    assert measured(net, inputs) == 128


def test_inputs_that_disagree_are_refused_until_the_batch_is_given():
    net = Net(lambda self, x, y: self.a(x).sum() + y.sum(), a=linear())
    with pytest.raises(UsageError, match="batch="):
        measured(net, (X, torch.rand(7, 2)))
    assert measured(net, (X, torch.rand(7, 2)), batch=4) == 128


def test_images_in_a_list_are_as_many_samples_as_there_are():
    images = [torch.rand(3, 9, 9), torch.rand(3, 7, 8)]
    assert batch_of((images,), {}).size == 2
    assert batch_of((torch.nested.nested_tensor([X, X[:2], X]),), {}).size == 3
    assert batch_of((nn.utils.rnn.pack_sequence([X, X[:2]]),), {}).size == 2


@pytest.mark.parametrize(
    ("module", "inputs", "expected"),
    [
        (nn.Conv1d(2, 3, 5, bias=False), torch.rand(2, 12), 3 * 8 * 2 * 5),
        (nn.Conv3d(2, 3, 2, bias=False), torch.rand(2, 4, 4, 4), 3 * 27 * 2 * 8),
        (nn.ConvTranspose2d(3, 4, 2), torch.rand(3, 5, 5), 3 * 25 * 4 * 4),
        (linear(4), torch.rand(16), 64),
        (nn.GRU(8, 16), torch.rand(5, 8), 5 * 3 * 16 * (8 + 16)),
        (nn.GRU(8, 16), torch.rand(7, 2, 8), 7 * 3 * 16 * (8 + 16)),
        (nn.GRU(8, 16, batch_first=True), torch.rand(2, 7, 8), 7 * 3 * 16 * (8 + 16)),
        (nn.LSTMCell(8, 16), torch.rand(8), 4 * 16 * (8 + 16)),
        (nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.ReLU()), torch.rand(3, 6, 6), 4 * 36 * 3),
        (nn.Conv1d(1, 3, 5, bias=False), torch.rand(1, 12), 3 * 8 * 5),
    ],
)
def test_layers_that_take_no_batch_or_the_time_first_are_counted_per_sample(module, inputs, expected):
    assert measured(module, inputs) == expected


def test_a_layer_inside_that_takes_the_input_as_it_is_corrects_the_batch():
    assert measured(Net(lambda self, x: self.a(x), a=nn.LSTM(8, 16)), torch.rand(7, 2, 8)) == 7 * 4 * 16 * 24
    transposing = Net(lambda self, x: self.a(x.transpose(0, 1)), a=nn.LSTM(8, 16))
    assert measured(transposing, torch.rand(2, 7, 8)) == 7 * 4 * 16 * 24


@pytest.mark.parametrize("batch", [0, -1, 1.5, True, "4"])
def test_a_batch_that_is_none_is_refused_at_once(batch):
    with pytest.raises(UsageError, match="batch="):
        bench.measure(linear(), X, ["macs"], batch=batch)


def test_numbers_of_numpy_and_a_torch_device_are_taken():
    numpy = pytest.importorskip("numpy")
    assert measured(linear(), X, batch=numpy.int64(2), device=torch.device("cpu")) == 256


@pytest.mark.parametrize("device", ["cuda:3", "tpu", torch.device("cuda", 9)])
def test_a_device_that_is_not_there_is_refused_by_the_counts_too(device):
    with pytest.raises(UsageError, match="device"):
        bench.measure(linear(), X, ["macs"], device=device)


# ---------------------------------------------------------------- products written out
def _loop(x, y):
    total = torch.zeros(4, 16)
    for _ in range(5):
        total = total + x * y
    return total


def _in_place(x, y):
    total = torch.zeros(4, 16)
    for _ in range(5):
        total.addcmul_(x, y)
    return total


@pytest.mark.parametrize(
    ("forward", "products"),
    [
        (lambda x, y: ((x[:, None] - y[None]) ** 2).sum(-1), 4 * 4 * 16),
        (lambda x, y: (x[:, None] - y[None]).square().sum(-1), 4 * 4 * 16),
        (lambda x, y: (x[:, None] - y[None]).norm(dim=-1), 4 * 4 * 16),
        (lambda x, y: (x * y).contiguous().clone().double().sum(), 64),
        (lambda x, y: (x * y).neg().masked_fill(x > 2, 0).cumsum(-1), 64),
        (lambda x, y: torch.zeros(2, 16).index_add_(0, torch.tensor([0, 1, 0, 1]), x * y), 64),
        (_loop, 5 * 64),
        (_in_place, 5 * 64),
    ],
)
def test_products_that_are_summed_are_told_however_they_are_written(forward, products):
    found = macs.count(Net(lambda self, x, y: forward(x, y)), (X, torch.rand(4, 16)))
    assert found.elementwise_products == products
    assert "products_as_elementwise" in codes(found)


@pytest.mark.parametrize(
    "forward", [lambda x, y: x * y + 1, lambda x, y: x * y + y.flip(0) * x.flip(0), lambda x, y: (x + y).sum()]
)
def test_a_scale_and_shift_a_rotation_and_a_plain_sum_are_no_products(forward):
    found = macs.count(Net(lambda self, x, y: forward(x, y)), (X, torch.rand(4, 16)))
    assert found.elementwise_products == 0


@pytest.mark.parametrize(
    ("theta", "size", "expected"),
    [((2, 2, 3), (2, 3, 32, 32), 2 * 1024 * 6), ((3, 3, 4), (3, 1, 4, 5, 6), 3 * 120 * 12)],
)
def test_a_grid_of_places_is_a_product_inside_an_operator(theta, size, expected):
    found = macs.count(Net(lambda self, t: F.affine_grid(t, size, align_corners=False)), (torch.rand(theta),))
    assert found.macs == expected
    assert found.second["agrees"]


def test_a_complex_convolution_is_three_real_ones_as_torch_runs_it():
    for module, image, real in (
        (nn.Conv2d(2, 4, 3, bias=False, dtype=torch.cfloat), (2, 2, 8, 8), 2 * 4 * 36 * 18),
        (nn.Conv1d(2, 4, 3, bias=False, dtype=torch.cfloat), (1, 2, 10), 4 * 8 * 6),
    ):
        found = macs.count(module, (torch.rand(image, dtype=torch.cfloat),))
        assert found.macs == 3 * real
        assert found.second["agrees"]


# ---------------------------------------------------------------- no false alarms
def _window(x):
    return torch.stft(x, 64, window=torch.ones(64), return_complex=True)


QUIET = {
    "lstm": (nn.LSTM(8, 16, num_layers=2, bias=False), (torch.rand(5, 2, 8),)),
    "gru": (nn.GRU(8, 16, bias=False), (torch.rand(5, 2, 8),)),
    "rfft": (Net(lambda self, x: torch.fft.rfft(x)), (torch.rand(2, 50),)),
    "stft": (Net(lambda self, x: _window(x)), (torch.rand(2, 256),)),
    "broadcast query": (
        Net(lambda self, q, k: F.scaled_dot_product_attention(q, k, k)),
        (torch.rand(1, 4, 8, 16), torch.rand(3, 4, 8, 16)),
    ),
    "multi_dot": (
        Net(lambda self, *m: torch.linalg.multi_dot(m)),
        (torch.rand(9, 2), torch.rand(2, 7), torch.rand(7, 3)),
    ),
    "matrix_power": (Net(lambda self, m: torch.linalg.matrix_power(m, 6)), (torch.rand(5, 5),)),
    "chain_matmul": (
        Net(lambda self, *m: torch.chain_matmul(*m)),
        (torch.rand(9, 2), torch.rand(2, 7), torch.rand(7, 3)),
    ),
    "cov": (Net(lambda self, m: torch.cov(m)), (torch.rand(4, 30),)),
    "einsum with dots": (
        Net(lambda self, x, w: torch.einsum("b...i,oi->b...o", x, w)),
        (torch.rand(2, 3, 5, 4), torch.rand(6, 4)),
    ),
    "einsum of three": (
        Net(lambda self, x, y, z: torch.einsum("bi,ij,jk->bk", x, y, z)),
        (torch.rand(7, 4), torch.rand(4, 5), torch.rand(5, 6)),
    ),
    "repeat_interleave": (
        Net(lambda self, x, n: x.repeat_interleave(n, 0)),
        (torch.rand(3, 4), torch.tensor([1, 0, 2])),
    ),
    "max_norm": (nn.Embedding(9, 4, max_norm=0.5), (torch.tensor([[1, 2], [3, 3]]),)),
    "response norm": (nn.CrossMapLRN2d(5), (torch.rand(2, 8, 6, 6),)),
    "foreach": (Net(lambda self, x: torch._foreach_mul([x, x], 2.0)[0]), (torch.rand(2, 4),)),
}


@pytest.mark.parametrize("name", QUIET)
def test_counts_that_are_right_raise_no_alarm(name):
    module, inputs = QUIET[name]
    found = macs.count(module, inputs)
    assert not codes(found) & {"counts_differ", "second_count_failed", "uncounted_operator"}


# ---------------------------------------------------------------- the user's state
class Stateful(nn.Module):
    """A cache of four places, a counter, a list and an input changed in place; it fails where it was not put back."""

    def __init__(self):
        super().__init__()
        self.a = linear(16)
        self.cache, self.place, self.seen = torch.zeros(4, 16), 0, {"all": []}
        self.register_buffer("total", torch.zeros(()))

    def forward(self, x):
        x.add_(1)
        self.cache[self.place] = self.a(x)[0]
        self.place += 1
        self.seen["all"].append(x)
        self.total += 1
        self.a.weight.mul_(2)
        self.made = x
        return self.cache[: self.place].sum()


def test_a_forward_that_changes_everything_leaves_it_as_it_was():
    net, x = Stateful(), torch.rand(4, 16)
    given, weight = x.clone(), net.a.weight.detach().clone()
    for _ in range(6):
        assert measured(net, x) == 256
    assert torch.equal(x, given)
    assert torch.equal(net.a.weight, weight)
    assert (net.place, net.seen, float(net.total), float(net.cache.sum())) == (0, {"all": []}, 0.0, 0.0)
    assert not hasattr(net, "made")


def test_flags_reach_the_caller():
    def forward(self, x):
        y = self.a(x) if bool((x > 0.5).any()) else self.b(x)
        return y + torch.from_numpy(x.numpy())[:, :8] + (x * x).sum(-1, keepdim=True)

    frame = bench.measure(Net(forward, a=linear(), b=linear(), c=[nn.Linear(2, 2)]), X, ["macs", "params"])
    found = {flag["code"] for flag in frame.attrs["flags"]}
    assert {"outside_torch", "data_dependent", "products_as_elementwise", "unregistered_modules"} <= found


# ---------------------------------------------------------------- what is handed over
@pytest.mark.parametrize(
    "made",
    [
        lambda m: torch.export.export(m, (X,)).module(),
        torch.jit.script,
        lambda m: torch.jit.trace(m, X),
        lambda m: torch.compile(m, backend="eager"),
    ],
)
def test_exported_scripted_traced_and_compiled_modules_count(made):
    assert measured(made(linear()), X) == 128


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (nn.Linear, "class"),
        (torch.relu, "function"),
        ({"w": X}, "load_state_dict"),
        ("net", "bench.build"),
        (3, "Module"),
    ],
)
def test_what_is_no_module_is_refused_with_what_to_give(given, word):
    for call in (lambda: bench.measure(given, X, ["macs"]), lambda: bench.layers(given, X)):
        with pytest.raises(UsageError, match=word):
            call()


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), torch.Size([2, 16]), [4, 16]])
def test_a_shape_is_no_input(shape):
    with pytest.raises(UsageError, match=r"torch\.rand"):
        bench.measure(linear(), shape, ["macs"])


@pytest.mark.parametrize(
    "module", [nn.LazyLinear(8, bias=False), nn.Sequential(nn.Flatten(), nn.LazyLinear(8, bias=False))]
)
def test_a_lazy_module_is_initialised_on_a_copy(module):
    assert measured(module, X) == 128
    assert any(nn.parameter.is_lazy(parameter) for parameter in module.parameters())


def test_an_error_of_the_model_shows_its_own_lines():
    with pytest.raises(BenchError, match="in forward") as told:
        measured(Net(lambda self, x: self.a(x[:, :3]), a=linear()), X)
    assert "test_counts.py" in str(told.value)
    assert "bench/meters" not in str(told.value)


def test_layers_of_nothing_keep_their_columns():
    assert {"macs", "module_path", "time_ms"} <= set(bench.layers(nn.Identity(), X, repeats=1).columns)


def test_results_that_are_not_there_are_an_error(tmp_path):
    for place in ("no_such_folder", [tmp_path / "nor_this"], tmp_path):
        with pytest.raises(UsageError, match="results"):
            bench.load(place)


@pytest.mark.parametrize(
    "wrong", [{"dtype": "float16"}, {"resolution": 0}, {"resolution": -1}, {"seed": -1}, {"batch": 0}]
)
def test_a_value_out_of_range_is_refused_in_words(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        bench.build("deit_tiny", **wrong)


# ---------------------------------------------------------------- memory
def test_tensors_inside_objects_are_inputs_of_the_memory_peak():
    net = Net(lambda self, sample: sample.tokens.sum())
    assert memory.measure(net, (Sample(torch.rand(1 << 20)),)).split["inputs"] == 4 << 20


def test_a_nested_input_and_flex_attention_are_followed():
    flex = pytest.importorskip("torch.nn.attention.flex_attention").flex_attention
    query = torch.rand(2, 2, 16, 16)
    trace = live.record(Net(lambda self, q: flex(q, q, q)), (query,), {}, ())
    assert trace.peak({}).total >= query.numel() * 4
    nested = torch.nested.nested_tensor([torch.rand(3, 16), torch.rand(2, 16)])
    assert memory.measure(linear(), (nested,)).split["inputs"] == 5 * 16 * 4


def test_ten_thousand_modules_and_a_thousand_levels_are_counted():
    wide = nn.Sequential(*[nn.Identity() for _ in range(10_000)], linear())
    assert macs.count(wide, (X,), second_count=False).macs == 512

    def recurse(self, x, depth=150):
        return self(x, depth - 1) if depth else self.a(x)

    assert macs.count(Net(recurse, a=linear()), (X,), second_count=False).macs == 512


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (torch.rand(4, 16, dtype=torch.float64), "Linear failed in its forward: RuntimeError: .*same dtype"),
        ((), "the forward of Linear takes input and no inputs were given"),
        (torch.rand(4, 16).numpy(), "an input is a NumPy array: torch.from_numpy makes a tensor of it"),
        ("cat.png", "an input is text"),
    ],
)
def test_an_error_of_a_librarys_module_is_told_as_one_of_the_users(inputs, said):
    with pytest.raises(BenchError, match=said):
        bench.measure(nn.Linear(16, 8), inputs, ["macs"])


def test_an_error_of_ours_inside_a_forward_stays_what_it_is(monkeypatch):
    """All frames are of a library's or ours, as where a meter breaks below a forward."""
    from bench import errors
    from bench.meters import handed_over

    monkeypatch.setattr(errors, "_is_users", lambda *_: False)
    namespace = {}
    exec(compile("def hook(*_):\n    raise LookupError('ours')", handed_over.__file__, "exec"), namespace)
    layer = nn.Linear(16, 8)
    layer.register_forward_pre_hook(namespace["hook"])
    with pytest.raises(LookupError, match="ours"), handed_over.user_errors("Linear"):
        layer(torch.rand(4, 16))
