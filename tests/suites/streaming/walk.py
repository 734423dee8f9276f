"""Streams taken step by step, and what they are compared with."""

import torch


def walked(stream, clip):
    """Outputs of every step, None where there is none, and the state after the last."""
    hop, along, state = stream.hop, stream.time_dim, stream.init(len(clip))
    outputs = []
    with torch.inference_mode():
        for place in range(clip.shape[along] // hop):
            x = clip.select(along, place) if hop == 1 else clip.narrow(along, place * hop, hop)
            output, state = stream.step(x, state)
            outputs.append(output)
    return outputs, state


def difference(stream, clip, first=None):
    """The largest difference between steps and reference from a step on, the transient where none is given."""
    outputs, _ = walked(stream, clip)
    with torch.inference_mode():
        found = stream.reference(clip)
    reference = found if isinstance(found, list) else list(found.unbind(stream.output_dim))
    given = [(place, output) for place, output in enumerate(outputs) if output is not None]
    pairs = list(zip(given[::-1], reference[::-1], strict=False))
    wanted = stream.transient if first is None else first
    errors = [float((output - expected).abs().max()) for (place, output), expected in pairs if place >= wanted]
    assert errors, "nothing was compared"
    return max(errors)


def first_answer(stream, clip):
    """The first step that answers."""
    outputs, _ = walked(stream, clip)
    return next(place for place, output in enumerate(outputs) if output is not None)


def numbers(state):
    """How many numbers the tensors of a state hold."""
    if isinstance(state, torch.Tensor):
        return state.numel()
    return sum(map(numbers, state)) if isinstance(state, list) else 0


def macs(call):
    """Products of a call, by the operator trace."""
    from bench.meters.macs import count

    class Call(torch.nn.Module):
        def forward(self):
            return call()

    return count(Call().eval(), (), second_count=False, inspect_values=False).executed_macs


def step_macs(stream, clip, at):
    """Products of step `at`."""
    hop, along = stream.hop, stream.time_dim
    cut = [clip.select(along, i) if hop == 1 else clip.narrow(along, i * hop, hop) for i in range(at + 1)]
    state = stream.init(len(clip))
    with torch.inference_mode():
        for x in cut[:-1]:
            _, state = stream.step(x, state)
        return macs(lambda: stream.step(cut[-1], state))
