"""Tasks whose network learns one thing and is fine-tuned on another, and runs that count their products."""

import torch
from torch import nn

from suites.common.counted_run import CountedRun, executed
from suites.common.digits_data import labels, split
from suites.common.tasks.digits import Training as DigitsTraining
from suites.common.tasks.digits_transfer import DigitsTransfer
from suites.common.tasks.text_bytes import Training, python_topics
from suites.common.tasks.text_transfer import TextTransfer, library_source


class Seen(nn.Module):
    """A classifier that remembers which labels a loss was taken of."""

    def __init__(self):
        super().__init__()
        self.resolution, self.channels, self.classes = 8, 1, 10
        self.map, self.seen = nn.Linear(64, 10), set()

    def learning_loss(self, images, wanted):
        self.seen |= set(wanted.tolist())
        return nn.functional.cross_entropy(self(images), wanted)

    def forward(self, images):
        return self.map(images.flatten(1))


def test_five_digits_are_learned_and_the_other_five_are_fine_tuned_on_and_judged(tmp_path):
    task, module = DigitsTransfer(tmp_path, 0, training=DigitsTraining(steps=120, grown_steps=1)), Seen()
    task.fits(module, "seen")
    found = task.learn(module)
    assert module.seen == {0, 1, 2, 3, 4}
    assert found["train_accuracy"] > 80 and found["test_accuracy"] < 20
    assert {int(label) for _, batch in task.training_batches(32, 20, 0) for label in batch} == {5, 6, 7, 8, 9}
    judged = torch.cat([batch for _, batch in task.batches(64)])
    assert len(judged) == int((labels(split()[1]) >= 5).sum()) == task.describe()["n"] and int(judged.min()) == 5


class Bytes(nn.Module):
    """A table of what byte follows which, that remembers the stretches it was given."""

    def __init__(self):
        super().__init__()
        self.table, self.stretches = nn.Embedding(256, 256), []

    def forward(self, ids):
        self.stretches += [bytes(row.tolist()) for row in ids] if self.training else []
        return self.table(ids)


def test_one_text_is_learned_and_another_is_fine_tuned_on_and_judged(tmp_path):
    task, module = (
        TextTransfer(tmp_path, 0, training=Training(steps=2, batch=2, length=64), prompt=32, scored=2),
        Bytes(),
    )
    task.learn(module)
    assert len(module.stretches) == 4
    assert all(part in python_topics() and part not in library_source() for part in module.stretches)
    given = [bytes(row.tolist()) for rows, _ in task.training_batches(2, 2, 0) for row in rows]
    assert all(part in library_source() for part in given)
    cut = len(library_source()) - len(library_source()) // 10
    assert all(bytes(row.tolist()) in library_source()[cut:] for row in task.pieces())


def test_a_run_counts_every_step_and_what_choosing_took():
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    batches = [(torch.randn(4, 6), torch.randint(3, (4,))) for _ in range(5)]
    # forward 6 x 5 + 5 x 3, both weights' gradients as much, the second map's input gradient 5 x 3
    whole = 4 * (2 * (30 + 15) + 15)
    assert executed(net, *batches[0]) == whole
    run = CountedRun()
    assert len(run(net, iter(batches), 5)) == 5 and run.macs == 5 * whole
    chosen = []

    def select(module, optimizer, inputs, wanted):
        chosen.append(len(inputs))
        module[0].requires_grad_(False)
        return 1000.0

    run = CountedRun(select=select, every=2)
    before = net[0].weight.detach().clone()
    run(net, iter(batches), 5)
    assert torch.equal(net[0].weight, before) and chosen == [4, 4, 4]
    assert run.macs == 3 * 1000 + 5 * 4 * (30 + 15 + 15)  # the second map's weight alone
