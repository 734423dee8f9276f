"""Run as a program: which networks of the suite mix the host's tensors with a device's, found without that device.

Weights and inputs are given no storage and a made-up device, whose operators torch checks as it does those of CUDA: two
devices in one operator, or a look at a value, is an error. The device is made up for the whole process.
"""

import json
import sys

import torch
import yaml
from torch._subclasses import FakeTensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from bench import api
from bench.config.catalogue import parse_spec
from bench.config.paths import suite_folders

#: A network that every method but these is tried on, and those.
USUAL = "digits_tiny"
OF_ITS_OWN = {"topvim": "digits_scan"}
#: Tokens of the usual network.
TOKENS = 65


def specs() -> list[tuple[str, str, dict]]:
    """Model, method and settings: each method of the suite once for every set of settings that its grids give it."""
    found = {(USUAL, ""): (USUAL, "none", {}), ("digits_scan", ""): ("digits_scan", "none", {})}
    (folder,) = [folder for folder in suite_folders() if folder.name == "vit_tokens"]
    suite = yaml.safe_load((folder / "suite.yaml").read_text())
    for block in (block for grid in suite["grids"].values() for block in grid):
        for text in block["methods"]:
            name, settings = parse_spec(text)
            if name == "none":
                continue
            model = OF_ITS_OWN.get(name, USUAL)
            if max(settings.get("prune", [0])) > TOKENS:
                continue  # counts for a larger network
            found.setdefault((name, *sorted(settings)), (model, name, settings))
    return list(found.values())


def elsewhere(model: str, method: str, settings: dict) -> str:
    """The device of the output of one forward, or what went wrong."""
    try:
        module, args = api.build(model, method, **settings)
    except ValueError as error:
        return f"not built: {error}"
    mode, device = FakeTensorMode(), torch.device("elsewhere:0")
    state = {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }

    def put(tensor):
        return FakeTensor(mode, tensor.detach().to("meta"), device)

    weights, inputs = {name: put(tensor) for name, tensor in state.items()}, tuple(map(put, args))
    try:
        with torch.no_grad(), mode:
            output = functional_call(module, weights, inputs)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return str(output.device)


if __name__ == "__main__":
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend("elsewhere")
    print(
        json.dumps(
            {f"{model} {method} {settings}": elsewhere(model, method, settings) for model, method, settings in specs()}
        ),
        file=sys.stdout,
    )
