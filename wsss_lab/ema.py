"""The slow average of a network: a teacher that follows its student.

The teacher's weights are buffers, so a checkpoint holds them and a resumed run goes on as if
nothing had happened. Source: mean teacher (NeurIPS 2017, section 2); CoSA's assignment network.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class MomentumTeacher(nn.Module):
    """A network that follows another one and is never trained itself.

    Its weights are buffers under their usual names: they are in the `state_dict` and move with the
    module, but no optimiser and no gradient reduction sees them. It always runs in evaluation mode
    and without gradients.

    Args:
        network: becomes the teacher; its parameters turn into buffers. Pass a copy of the student
            (`copy.deepcopy`), or a network with weights of its own.
        momentum: share of the old weights that a step keeps, 0..1 (CoSA 0.9994 in each step, from
            the first one on).

    Raises:
        ValueError: `momentum` outside 0..1.
    """

    def __init__(self, network: nn.Module, momentum: float) -> None:
        super().__init__()
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must lie in [0, 1], got {momentum}; CoSA uses 0.9994")
        self.network = freeze_to_buffers(network)
        self.momentum = momentum
        self.eval()

    def train(self, mode: bool = True) -> "MomentumTeacher":
        """Stay in evaluation mode, whatever `mode` is."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, *args: Tensor) -> Any:
        """Run the teacher."""
        return self.network(*args)

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Move every weight by `1 - momentum` towards the student; call it after the optimiser.

        The student's own buffers (running statistics) are copied. The released networks have none.

        Raises:
            ValueError: the student has a weight that the teacher lacks.
        """
        own = dict(self.network.named_buffers())
        fast = {name: weight.detach() for name, weight in student.named_parameters()}
        unknown = [name for name in fast if name not in own]
        if unknown:
            raise ValueError(
                f"student has {len(unknown)} weights that the teacher lacks ({unknown[0]}, ...); "
                "build both with the same arguments"
            )
        average = get_ema_multi_avg_fn(self.momentum)
        average([own[name] for name in fast], list(fast.values()), 1)
        for name, value in student.named_buffers():
            own[name].copy_(value)


def freeze_to_buffers(network: nn.Module) -> nn.Module:
    """Turn every parameter into a buffer of the same name, in place."""
    for module in network.modules():
        for name, weight in list(module._parameters.items()):
            if weight is not None:
                del module._parameters[name]
                module.register_buffer(name, weight.detach().clone())
    return network
