"""`training_step`: forward, loss, backward and optimizer on one batch, from the same weights every time.

The subject's module offers its forward, and may offer

- `loss(outputs, targets) -> scalar`; else cross-entropy, classes last in outputs of up to three dimensions ([B, C],
  [B, T, C]) and second in larger ones ([B, C, H, W]);
- `example_targets(batch, seed)`; else the labels of the task's first batch, whose inputs are the subject's; else, and
  where outputs of a stated context have other places than those labels, seeded classes of the shape of the outputs;
- `make_optimizer() -> torch.optim.Optimizer`, or `optimizer`, the name of one: `adamw` (which is the default) or `sgd`;
  the learning rate is then 1e-3, with momentum 0.9 for `sgd`. Parameters that require no gradient are left out;
- `saved_elsewhere() -> {"saved", "offloaded", "waited_s", "note"}` where its forward has hooks on saved tensors of its
  own, inside which no others are called: of the last forward, bytes of distinct storages that they were given, without
  weights and the batch, bytes that they wrote away, and seconds that the backward waited for them (None and a note
  where that is not known).

A run trains: the module is in training mode while it runs. State is parameters, buffers, the optimizer's state and
torch's random generators; all of it is put back after every run, bit for bit, so that each run is the same step. The
first step of an optimizer makes its state; it is taken once before anything is measured, so that what is timed is a
later one.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from bench.errors import UsageError, no_such
from bench.reading import Reading, reading, unavailable
from bench.workloads.workload import (
    BATCH,
    RESOLUTION,
    Built,
    Count,
    Facts,
    Held,
    Part,
    Shape,
    ShapeAxis,
    Workload,
    ask,
    require,
)

WORKLOAD = Workload(
    "training_step",
    unit="sample",
    parts=("step", "forward", "backward", "optimizer"),
    axes=(
        BATCH,
        RESOLUTION,
        ShapeAxis("context", None, unit="token", doc="tokens of a sequence; null: the model's own"),
    ),
    title="forward, loss, backward and optimizer on one batch",
    grad=True,
)

LEARNING_RATE = 1e-3
OPTIMIZERS = ("adamw", "sgd")


class _Trainer:
    """A module, its batch and its optimizer, with all that a step changes kept aside to be put back."""

    def __init__(self, subject: Built) -> None:
        require(subject.module, WORKLOAD.name, "forward")
        self._subject = subject
        self.module = subject.module
        self.targets: Any = None
        self.optimizer: Any = None
        self._kept: _Kept | None = None
        self._mode: _Mode | None = None
        self._loss: Any = None
        self._watched = False
        self._saved: list[weakref.ref[Any]] = []

    def prepare(self) -> None:
        """Training mode and seeded generators; the first time also targets, optimizer and what is kept aside."""
        if self._mode is None:
            self._mode = _Mode(self.module, self._subject.seed, self._subject.device)
        if self._kept is None:
            self._set_up()
        self._mode.seed()

    def prepare_backward(self) -> None:
        """A fresh forward, whose graph the backward walks."""
        self.prepare()
        with self._watching() if self._watched else nullcontext():
            self._loss = self.forward()
        self._watched = False

    def prepare_optimizer(self) -> None:
        """Fresh gradients, which the optimizer applies."""
        self.prepare_backward()
        self.backward()

    def held(self) -> Held:
        """What is alive beside the weights: the batch, optimizer state, gradients, and what a fresh forward saved.

        What was saved is seen from the next forward on: the hooks that see it would cost a timed backward time.
        """
        self._watched = True
        gradients = [parameter.grad for parameter in self.module.parameters()]
        batch = [self._subject.args, self._subject.kwargs, self.targets]
        return Held(batch, gradients, _optimizer_tensors(self), self._saved_now)

    def _saved_now(self) -> list[Any]:
        return [tensor for tensor in (reference() for reference in self._saved) if tensor is not None]

    def reset(self) -> None:
        """Weights, optimizer state, gradients, modes and generators as they were before the run."""
        self._loss = None
        self.module.zero_grad(set_to_none=True)
        if self._kept is not None:
            self._kept.put_back()
        if self._mode is not None:
            self._mode.put_back()
            self._mode = None

    def forward(self) -> Any:
        """The loss of the batch, with its graph."""
        with _gradients():
            return self._loss_of(self._outputs())

    def backward(self) -> Any:
        """Gradients of all parameters from the loss of the fresh forward."""
        with _gradients():
            self._loss.backward()
        return self._loss.detach()

    def optimize(self) -> None:
        """The weights after one application of the gradients."""
        with _gradients():
            self.optimizer.step()

    def step(self) -> Any:
        """The loss of one whole training step."""
        self.optimizer.zero_grad(set_to_none=True)
        self._loss = self.forward()
        loss = self.backward()
        self.optimize()
        return loss

    def _watching(self) -> Any:
        """Hooks that remember, without keeping it, what autograd saves."""
        import torch

        self._saved = []

        def pack(tensor: Any) -> Any:
            kept = tensor.detach()  # an object of its own, which lives as long as autograd keeps it
            self._saved.append(weakref.ref(kept))
            return kept

        return torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept)

    def _set_up(self) -> None:
        before = _Kept(self.module, None)
        with _gradients():
            self.targets = _targets(self._subject, self._outputs())
        self.optimizer = _optimizer(self.module)
        self.step()
        before.put_back()
        self.module.zero_grad(set_to_none=True)
        self._loss = None
        self._kept = _Kept(self.module, self.optimizer)

    def _outputs(self) -> Any:
        return self.module(*self._subject.args, **self._subject.kwargs)

    def _loss_of(self, outputs: Any) -> Any:
        own = getattr(self.module, "loss", None)
        return own(outputs, self.targets) if callable(own) else _cross_entropy(outputs, self.targets)


def make_parts(subject: Built, shape: Shape) -> list[Part]:
    """The whole step, and by itself its forward with the loss, its backward and its optimizer.

    Raises:
        UsageError: nothing in the module can be trained, or its outputs need a `loss` of its own.
    """
    trainer = _Trainer(subject)
    batch = float(shape["batch"])
    common: dict[str, Any] = {"units": batch, "reset": trainer.reset, "held": trainer.held}
    return [
        Part("step", trainer.step, prepare=trainer.prepare, **common),
        Part("forward", trainer.forward, prepare=trainer.prepare, **common),
        Part("backward", trainer.backward, prepare=trainer.prepare_backward, **common),
        Part("optimizer", trainer.optimize, prepare=trainer.prepare_optimizer, **common),
    ]


def facts(subject: Built, shape: Shape, parts: list[Part]) -> Facts:
    """Bytes that training adds: saved activations, gradients, optimizer state."""
    from bench.tensors import held_bytes, weights_of

    trainer = _Trainer(subject)
    weights = weights_of(subject.module)
    batch = [subject.args, subject.kwargs]
    try:
        trainer.prepare()
        saved, of_batch, trainer._loss = _saved(trainer, weights, [*batch, trainer.targets])
        trainer.backward()
        elsewhere = ask(trainer.module, "saved_elsewhere") or {}
        gradients = held_bytes([parameter.grad for parameter in subject.module.parameters()])
        state = held_bytes(_optimizer_tensors(trainer), without=weights)
    finally:
        trainer.reset()
    note = "distinct storages that the pack hook sees, without parameters, buffers and the batch"
    if elsewhere:
        saved += elsewhere["saved"]
        note += "; those that the subject's own hooks were given are counted by itself"
    readings = [
        *_offloading(elsewhere),
        reading("saved_activation_bytes", saved, "counted", method_note=note, part="step"),
        reading("gradient_bytes", gradients, "counted", method_note="storages of all gradients", part="step"),
        reading("optimizer_bytes", state, "counted", method_note="storages of the optimizer's state", part="step"),
    ]
    names = {"optimizer": type(trainer.optimizer).__name__, "saved_batch_bytes": of_batch}
    return Facts(readings, details=names)


def _offloading(told: dict[str, Any]) -> list[Reading]:
    """What a subject that writes activations away says of one step; nothing of any other."""
    if not told:
        return []
    note, waited = str(told["note"]), told["waited_s"]
    found = [reading("offloaded_bytes", told["offloaded"], "counted", method_note=note, part="step")]
    if waited is None:
        return [*found, unavailable("exposed_wait_ms", f"the subject does not tell it: {note}", "step")]
    return [*found, reading("exposed_wait_ms", 1e3 * waited, "measured", n=1, method_note=note, part="step")]


def counts(subject: Built, shape: Shape, parts: list[Part], count: Count) -> Facts:
    """Products of the real backward, and those of modules that ran again during it."""
    backward = next(part for part in parts if part.name == "backward")
    found = count(backward)
    again = sum(record.macs for record in found.records if record.path)
    note = (
        "products inside modules, which the backward itself never enters; what runs again outside a module is not "
        "among them"
    )
    return Facts(
        [
            reading("macs_backward", found.executed_macs / shape["batch"], "counted", part="step"),
            reading("macs_recomputed", again / shape["batch"], "counted", method_note=note, part="step"),
        ]
    )


def _saved(trainer: _Trainer, weights: list[Any], batch: Any) -> tuple[int, int, Any]:
    """Bytes that autograd keeps after the forward, of them the batch's, and the loss."""
    import torch

    from bench.tensors import held_bytes

    packed: list[Any] = []

    def pack(tensor: Any) -> Any:
        packed.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = trainer.forward()
    kept = held_bytes(packed, without=[weights, batch])
    with_batch = held_bytes(packed, without=weights)
    return kept, with_batch - kept, loss


def _targets(subject: Built, outputs: Any) -> Any:
    """What the outputs should have been."""
    from bench.tensors import placed

    module, args = subject.module, subject.args
    own = ask(module, "example_targets", len(args[0]) if args else 1, subject.seed)
    if own is not None:
        return placed(own, subject.device, subject.dtype)
    has_loss = callable(getattr(module, "loss", None))
    if subject.task is not None:
        _, labels = next(iter(subject.task.batches(len(args[0]))))
        if has_loss or _fit(labels, outputs):
            return placed(labels, subject.device)
    if has_loss:
        return None
    return _random_classes(outputs, subject)


def _random_classes(outputs: Any, subject: Built) -> Any:
    import torch

    if not isinstance(outputs, torch.Tensor) or outputs.dim() < 2:
        raise UsageError(
            f"{type(subject.module).__name__} gives no tensor of class scores: offer loss(outputs, targets) to train it"
        )
    dimension = _class_dimension(outputs)
    places = [size for index, size in enumerate(outputs.shape) if index != dimension]
    generator = torch.Generator().manual_seed(subject.seed)
    return torch.randint(outputs.shape[dimension], places, generator=generator).to(outputs.device)


def _fit(labels: Any, outputs: Any) -> bool:
    """Whether labels of the task are classes of these outputs: a stated context may be another than the task's."""
    import torch

    if not isinstance(labels, torch.Tensor) or not isinstance(outputs, torch.Tensor) or outputs.dim() < 2:
        return True  # what is no tensor of scores is refused, or judged, where it is used
    dimension = _class_dimension(outputs)
    places = outputs.shape[:dimension] + outputs.shape[dimension + 1 :]
    return labels.is_floating_point() or labels.shape == places


def _class_dimension(outputs: Any) -> int:
    return outputs.dim() - 1 if outputs.dim() <= 3 else 1


def _cross_entropy(outputs: Any, targets: Any) -> Any:
    from torch.nn import functional

    scores = outputs.movedim(_class_dimension(outputs), 1)
    return functional.cross_entropy(scores.float(), targets)


def _optimizer(module: Any) -> Any:
    """The module's own optimizer, or the one it names."""
    import torch

    own = ask(module, "make_optimizer")
    if own is not None:
        return own
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not trained:
        raise UsageError(
            f"{type(module).__name__} has no parameter that requires a gradient: there is nothing to train"
        )
    name = getattr(module, "optimizer", OPTIMIZERS[0])
    if name == "adamw":
        return torch.optim.AdamW(trained, lr=LEARNING_RATE)
    if name == "sgd":
        return torch.optim.SGD(trained, lr=LEARNING_RATE, momentum=0.9)
    raise UsageError(no_such("optimizer", str(name), OPTIMIZERS))


def _optimizer_tensors(trainer: _Trainer) -> list[Any]:
    return [] if trainer.optimizer is None else list(trainer.optimizer.state.values())


@contextmanager
def _gradients() -> Iterator[None]:
    """Gradients on, whatever mode the caller is in."""
    import torch

    with torch.inference_mode(False), torch.enable_grad():
        yield


class _Kept:
    """Values of weights, buffers and an optimizer's state at one moment, to be put back in place."""

    def __init__(self, module: Any, optimizer: Any) -> None:
        from bench.tensors import copy_of, weights_of

        self._tensors = [(tensor, tensor.detach().clone()) for tensor in weights_of(module)]
        self._optimizer = optimizer
        if optimizer is not None:
            self._state = {parameter: copy_of(dict(state)) for parameter, state in optimizer.state.items()}
            self._options = [
                {k: copy_of(v) for k, v in group.items() if k != "params"} for group in optimizer.param_groups
            ]

    def put_back(self) -> None:
        """The same values in the same tensors."""
        import torch

        with torch.inference_mode(False), torch.no_grad():
            for tensor, value in self._tensors:
                tensor.copy_(value)
            if self._optimizer is not None:
                self._put_back_optimizer()

    def _put_back_optimizer(self) -> None:
        from bench.tensors import copy_of

        state = self._optimizer.state
        for parameter in [known for known in state if known not in self._state]:
            del state[parameter]
        for parameter, kept in self._state.items():
            _put_back_entries(state[parameter], kept)
        for group, kept in zip(self._optimizer.param_groups, self._options, strict=True):
            group.update(copy_of(kept))


def _put_back_entries(state: dict[str, Any], kept: dict[str, Any]) -> None:
    """The kept entries, tensors in place where they still have their shape."""
    import torch

    from bench.tensors import copy_of

    for name in [known for known in state if known not in kept]:
        del state[name]
    for name, value in kept.items():
        current = state.get(name)
        if isinstance(value, torch.Tensor) and isinstance(current, torch.Tensor) and current.shape == value.shape:
            current.copy_(value)
        else:
            state[name] = copy_of(value)


class _Mode:
    """Training mode with generators of a known seed, until it is put back."""

    def __init__(self, module: Any, seed: int, device: str) -> None:
        import torch

        self._seed = seed
        self._cuda = torch.device(device) if device.startswith("cuda") else None
        self._modes = [(part, part.training) for part in module.modules()]
        self._random = torch.get_rng_state()
        self._cuda_random = torch.cuda.get_rng_state(self._cuda) if self._cuda is not None else None
        module.train()

    def seed(self) -> None:
        """The generators at the beginning of a run."""
        import torch

        torch.manual_seed(self._seed)

    def put_back(self) -> None:
        """Modes and generators as they were."""
        import torch

        for part, training in self._modes:
            part.training = training
        torch.set_rng_state(self._random)
        if self._cuda is not None and self._cuda_random is not None:
            torch.cuda.set_rng_state(self._cuda_random, self._cuda)
