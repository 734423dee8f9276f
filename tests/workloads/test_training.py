"""What a training step keeps and computes again, by hand: saved bytes, products of the real backward, recomputation."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from bench.workloads.training_step import _targets, make_parts
from tests.workloads.subjects import FakeBuilt
from tests.workloads.test_facts import counts_of, facts_of, values

BATCH, WIDTH = 8, 6
#: Bytes of one hidden layer of the batch, and MACs of one product of a sample.
HIDDEN, PRODUCT = 4 * BATCH * WIDTH, WIDTH * WIDTH


class Layer(nn.Module):
    """A product and a tanh, which keeps its own output; the product keeps its input."""

    def __init__(self):
        super().__init__()
        self.product = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x):
        return torch.tanh(self.product(x))


class Stack(nn.Module):
    """So many layers, plain or checkpointed one by one; the loss is a plain sum, which keeps nothing."""

    def __init__(self, layers, reentrant=None):
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(layers))
        self.reentrant = reentrant

    def forward(self, x):
        for layer in self.layers:
            x = layer(x) if self.reentrant is None else checkpoint(layer, x, use_reentrant=self.reentrant)
        return x

    def loss(self, outputs, targets):
        return outputs.sum()


def of(module):
    given = torch.randn(BATCH, WIDTH, generator=torch.Generator().manual_seed(1))
    subject = FakeBuilt(module, (given,))
    return values(facts_of("training_step", subject, batch=BATCH)) | values(
        counts_of("training_step", subject, batch=BATCH)
    )


def test_a_plain_stack_saves_one_hidden_layer_each_and_computes_nothing_again():
    found = of(Stack(3))
    assert found["saved_activation_bytes"] == 3 * HIDDEN  # an output of a tanh is the input of the next product as well
    assert found["macs_recomputed"] == 0
    assert found["macs_backward"] == (3 + 2) * PRODUCT  # every weight, and every input but the batch


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpointed_stack_saves_what_goes_into_its_layers_and_computes_them_again(reentrant):
    module = Stack(3, reentrant)
    if reentrant:
        module.forward = lambda x: Stack.forward(
            module, x.requires_grad_()
        )  # what reentrant checkpoints ask of an input
    found = of(module)
    assert found["saved_activation_bytes"] == 2 * HIDDEN  # the batch goes into the first
    assert found["macs_recomputed"] == 3 * PRODUCT
    assert found["macs_backward"] == (3 + (6 if reentrant else 5)) * PRODUCT  # an input that asks for it has a gradient


def test_frozen_layers_save_nothing_and_have_no_products_in_the_backward():
    module = Stack(3)
    for layer in module.layers[:2]:
        layer.requires_grad_(False)
    found = of(module)
    assert found["saved_activation_bytes"] == 2 * HIDDEN  # the input of the last product and what its tanh gave
    assert found["macs_backward"] == PRODUCT and found["macs_recomputed"] == 0
    assert found["gradient_bytes"] == 4 * PRODUCT


def test_a_pre_norm_block_saves_sixteen_widths_a_token():
    """Inputs of two norms and what they give 4, queries, keys, values 3, attention 1, the hidden layer twice 8."""

    class Block(nn.Module):
        def __init__(self, width=16, heads=2):
            super().__init__()
            self.heads = heads
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x):
            b, s, width = x.shape
            q, k, v = self.qkv(self.norm1(x)).view(b, s, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, s, width)
            x = x + self.out(mixed)
            return x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))

        def loss(self, outputs, targets):
            return outputs.sum()

    b, s, h, heads = 2, 10, 16, 2
    block = nn.Sequential(nn.Linear(h, h, bias=False), Block())
    block.loss = block[1].loss
    found = values(facts_of("training_step", FakeBuilt(block, (torch.randn(b, s, h),)), batch=b))
    small = 2 * 2 * b * s + b * heads * s  # means and deviations of the norms, one number a query of the attention
    assert found["saved_activation_bytes"] == pytest.approx(4 * (16 * b * s * h + small), abs=64)


def test_dropout_saves_its_mask_and_a_batch_norm_its_statistics():
    module = nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=False), nn.BatchNorm1d(WIDTH), nn.Dropout(0.5))
    module.loss = lambda outputs, targets: outputs.sum()
    found = values(facts_of("training_step", FakeBuilt(module, (torch.randn(BATCH, WIDTH),)), batch=BATCH))
    norm = HIDDEN + 2 * 4 * WIDTH  # its input, mean and deviation
    mask = found["saved_activation_bytes"] - norm
    assert mask in (BATCH * WIDTH, HIDDEN)  # one byte an element, or a number


class Reader(nn.Module):
    """Tokens [B, T] to scores of four classes [B, T, 4]."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(4, 4)

    def forward(self, tokens):
        return self.table(tokens)


class Pieces:
    """A task whose labels are of so many places, all of class 3."""

    def __init__(self, places):
        self.places = places

    def batches(self, size):
        yield torch.zeros(size, self.places + 1, dtype=torch.long), torch.full((size, self.places), 3)


@pytest.mark.parametrize(("places", "of_task"), [(5, True), (7, False)])
def test_labels_of_another_length_than_the_context_make_room_for_seeded_classes(places, of_task):
    subject = FakeBuilt(Reader(), (torch.zeros(2, 5, dtype=torch.long),))
    subject.task = Pieces(places)
    targets = _targets(subject, subject.module(*subject.args))
    assert targets.shape == (2, 5) and bool((targets == 3).all()) is of_task
    parts = make_parts(subject, {"batch": 2})
    assert torch.isfinite(parts[0].run())
