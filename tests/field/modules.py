"""Modules of a user's that need more than to be called; in a file of their own, so that a worker can import them."""

import torch
from torch import nn


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(16, 8, bias=False)


class Masked(Base):
    def forward(self, x):
        return self.a(x).masked_fill(x[:, :8] > 0.5, float("-inf"))


class Draws(Base):
    def forward(self, x):
        return self.a(torch.bernoulli(x))


class Forces(nn.Module):
    """The gradient of an energy, taken inside the forward."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 1))

    def forward(self, x):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(self.net(x).sum(), x)[0]


class Cache(nn.Module):
    """A cache of three places, one a forward: a fourth forward fails."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(16, 16, bias=False)
        self.kept, self.place = torch.zeros(3, 16), 0

    def forward(self, x):
        self.kept[self.place] = self.a(x)[0]
        self.place += 1
        return self.kept.sum()


class InPlace(Base):
    def forward(self, x):
        return self.a(x.mul_(2))


class MakesTensors(Base):
    def forward(self, x):
        return self.a(x + torch.zeros(16))


class Fails(Base):
    def forward(self, x):
        return self.a(x[:, :3])


def takes_text():
    return nn.Embedding(10, 4)


def builds_four():
    return nn.Linear(16, 8, bias=False), torch.ones(4, 16)


def builds_keywords(batch=1):
    return nn.Linear(16, 8, bias=False), {"input": torch.ones(batch, 16)}


def adapted(batch=1):
    """A low-rank adapter of 128 + 96 weights beside a layer of 256 and one of 128."""
    from suites.common.torchvision_remedy import import_beside_torchvision

    peft = import_beside_torchvision("peft")
    base = nn.Sequential(nn.Linear(16, 16, bias=False), nn.ReLU(), nn.Linear(16, 8, bias=False))
    return peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules=["0", "2"])), torch.rand(batch, 16)


def llama(batch=1):
    """A network of transformers as it is: keyword inputs, an output that is a dataclass and holds a cache object."""
    from suites.common.hf_bridge import import_transformers

    transformers = import_transformers()
    config = transformers.LlamaConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=64,
        vocab_size=100, max_position_embeddings=64,
    )  # fmt: skip
    ids = torch.randint(0, 100, (batch, 16))
    return transformers.LlamaForCausalLM(config), {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
