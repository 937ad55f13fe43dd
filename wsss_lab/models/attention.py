"""Recording of attention maps, with gradients, without changes to the model's code.

timm computes attention with a fused kernel that never forms the attention matrix: a hook on it gets
no input and raises no error. `record_attention` switches that kernel off, layer by layer and only
while it records, or rebuilds the logits from the projected queries and keys.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

AttentionKind = Literal["probs", "logits"]
QueriesKeys = tuple[Float[Tensor, "b n d"], Float[Tensor, "b n d"], int]
"""Queries and keys of an attention layer, all heads side by side, and the number of heads."""


@dataclass
class AttentionRecord:
    """Attention maps in the order in which they were computed.

    Attributes:
        names: module name of each recorded layer.
        maps: one (b, a, n, m) tensor per recorded layer and forward pass. They belong to the
            autograd graph of that pass, so they work in `torch.autograd.grad` and in losses.
    """

    names: list[str]
    maps: list[Float[Tensor, "b a n m"]] = field(default_factory=list)

    def clear(self) -> None:
        """Remove the maps, for instance between the two views of an image."""
        self.maps.clear()

    def stack(self) -> Float[Tensor, "b l a n m"]:
        """Stack the maps of one forward pass into one tensor.

        Returns:
            (b, l, a, n, m), layers in the order of `names`.

        Raises:
            ValueError: there is not exactly one map per layer (no pass or several passes were
                recorded), or the layers have maps of different shapes.
        """
        if len(self.maps) != len(self.names):
            raise ValueError(
                f"expected one map for each of {len(self.names)} layers, got {len(self.maps)}: "
                "run the model once inside the `with` block, and clear() the record between passes"
            )
        shapes = {tuple(m.shape) for m in self.maps}
        if len(shapes) > 1:
            raise ValueError(f"maps differ in shape: {sorted(shapes)}; use .maps one by one")
        return torch.stack(self.maps, dim=1)


def known_kinds() -> tuple[type[nn.Module], ...]:
    """Return the attention modules whose arithmetic is the plain one.

    That is softmax(scale Q K^T) V over all tokens. Of their children, and of all others, nothing is
    known: they may turn queries and keys (RoPE), add a bias for relative positions, or attend
    within windows.
    """
    import timm.layers
    from timm.models import pvt_v2

    return timm.layers.Attention, pvt_v2.Attention


def attention_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the attention modules of a timm transformer by name, in the order of execution.

    Raises:
        ValueError: the model has attention that is not of the `known_kinds`; its maps would be
            other ones than those that the model computes with.
    """
    known = known_kinds()
    found = {name: module for name, module in model.named_modules() if type(module) in known}
    inner = tuple(f"{name}." for name in found)
    strange = {
        name: type(module).__name__
        for name, module in model.named_modules()
        if name not in found and not name.startswith(inner) and _attends(module)
    }
    if strange:
        name, kind = next(iter(strange.items()))
        raise ValueError(
            f"model {type(model).__name__} has {len(strange)} attention layers whose arithmetic is "
            f"not known here, the first is {name} ({kind}): rotary or relative positions, or "
            "windows; use a plain transformer (toy_vit2, toy_mit2, vit_b16, r50_vit_b16, deit_*, "
            "mit_*)"
        )
    return found


def _attends(module: nn.Module) -> bool:
    """Whether a module computes some kind of attention between tokens; pooling is no layer."""
    kind = type(module).__name__
    heads = hasattr(module, "num_heads") or hasattr(module, "fused_attn")
    return heads and ("Att" in kind or "Msa" in kind) and "AttentionPool" not in kind


def _choose(model: nn.Module, layers: Sequence[int] | None) -> dict[str, nn.Module]:
    found = attention_layers(model)
    if not found:
        raise ValueError(
            f"model {type(model).__name__} has no attention layers to record: "
            "use a transformer (toy_vit2, toy_mit2, vit_b16, r50_vit_b16, deit_*, mit_*)"
        )
    if layers is None:
        return found
    names = list(found)
    bad = [i for i in layers if not -len(names) <= i < len(names)]
    if bad or len(layers) == 0:
        raise ValueError(
            f"layers must be numbers in [-{len(names)}, {len(names) - 1}] "
            f"(this model has {len(names)} attention layers), got {list(layers)}"
        )
    wanted = sorted({i % len(names) for i in layers})
    return {names[i]: found[names[i]] for i in wanted}


def _heads(x: Float[Tensor, "b n d"], heads: int) -> Float[Tensor, "b a n c"]:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _watch_probs(layer: Any, keep: Callable[[Tensor], None], stack: ExitStack) -> None:
    """Switch the fused kernel off and take the input of the attention dropout."""
    stack.callback(setattr, layer, "fused_attn", layer.fused_attn)
    layer.fused_attn = False
    handle = layer.attn_drop.register_forward_pre_hook(lambda _, args: keep(args[0]))
    stack.callback(handle.remove)


def _watch_logits(layer: Any, keep: Callable[[Tensor], None], stack: ExitStack) -> None:
    """Rebuild the unscaled logits from the outputs of the query and key projections."""
    heads = layer.num_heads
    if hasattr(layer, "qkv"):

        def on_qkv(_: nn.Module, __: object, output: Tensor) -> None:
            query, key, _value = output.chunk(3, dim=-1)
            keep(layer.q_norm(_heads(query, heads)) @ layer.k_norm(_heads(key, heads)).mT)

        stack.callback(layer.qkv.register_forward_hook(on_qkv).remove)
        return

    def keep_product(query: Tensor, key: Tensor) -> None:
        keep(_heads(query, heads) @ _heads(key, heads).mT)

    _watch_projections(layer, keep_product, stack)


def _watch_projections(
    layer: Any, keep: Callable[[Tensor, Tensor], None], stack: ExitStack
) -> None:
    """Give away queries and keys as the projections compute them, heads side by side."""
    if hasattr(layer, "qkv"):
        if not isinstance(layer.q_norm, nn.Identity):
            raise ValueError(
                "layers must not normalise queries and keys, got one with q_norm; use a plain "
                "vision transformer or MiT"
            )

        def on_qkv(_: nn.Module, __: object, output: Tensor) -> None:
            keep(*output.chunk(3, dim=-1)[:2])

        stack.callback(layer.qkv.register_forward_hook(on_qkv).remove)
        return
    queries: list[Tensor] = []

    def on_q(_: nn.Module, __: object, output: Tensor) -> None:
        queries.append(output)

    def on_kv(_: nn.Module, __: object, output: Tensor) -> None:
        keep(queries.pop(), output.chunk(2, dim=-1)[0])

    stack.callback(layer.q.register_forward_hook(on_q).remove)
    stack.callback(layer.kv.register_forward_hook(on_kv).remove)


@contextmanager
def record_attention(
    model: nn.Module, layers: Sequence[int] | None = None, what: AttentionKind = "probs"
) -> Iterator[AttentionRecord]:
    """Record per-head attention of every forward pass inside the `with` block.

    Works on timm's ViT, DeiT, R50-ViT hybrid and PVTv2/MiT, wrapped in a `Backbone` or not. On
    leaving the block, also by an exception, the model is exactly as before; blocks may be nested.

    Args:
        model: the network.
        layers: numbers of the attention layers to record, counted in the order of execution,
            negative ones from the end; `None` for all.
        what: ``"probs"``: after the softmax, rows sum to 1, (b, a, n, m). ``"logits"``: Q K^T per
            head before scaling and softmax, as TSCD and AFA feed to their affinity head; it costs
            one more matrix product and leaves the fused kernel on. n counts queries (with the class
            token, where there is one), m keys: fewer than n in MiT stages with spatial reduction.

    Yields:
        The `AttentionRecord` that fills up.

    Raises:
        ValueError: the model has no attention or one that is not in `known_kinds`, a layer
            does not exist, or `what` is unknown.

    Example:
        >>> with record_attention(backbone, layers=(-2, -1)) as record:
        ...     logits = head(backbone(image).last)
        >>> gradients = torch.autograd.grad(logits[:, 3].sum(), record.maps)
    """
    if what not in ("probs", "logits"):
        raise ValueError(f"what must be 'probs' or 'logits', got {what!r}")
    chosen = _choose(model, layers)
    record = AttentionRecord(names=list(chosen))
    watch = _watch_probs if what == "probs" else _watch_logits
    with ExitStack() as stack:
        for layer in chosen.values():
            watch(layer, record.maps.append, stack)
        yield record


@contextmanager
def record_queries_keys(layers: Iterable[Any]) -> Iterator[list[QueriesKeys]]:
    """Record queries and keys, with gradients, of every forward pass inside the `with` block.

    For what is a sum over heads of Q K^T: the maps of the single heads need not exist for it.

    Args:
        layers: attention layers with projections `q` and `kv`, as those of MiT, or with one `qkv`,
            as those of vision transformers.

    Yields:
        The list that fills up, one entry per layer and pass, in the order of execution; a class
        token is its first row.

    Raises:
        ValueError: a layer normalises queries or keys, head by head.
    """
    found: list[QueriesKeys] = []
    with ExitStack() as stack:
        for layer in layers:

            def keep(query: Tensor, key: Tensor, heads: int = layer.num_heads) -> None:
                found.append((query, key, heads))

            _watch_projections(layer, keep, stack)
        yield found


def pool_queries(
    attention: Float[Tensor, "b a n m"], grid: tuple[int, int], ratio: int
) -> Float[Tensor, "b a m m"]:
    """Average the queries of a MiT layer with spatial reduction until its map is square.

    AFA and TSCD do this to the logits of stages 1 to 3.

    Args:
        attention: (b, a, gh * gw, m) with m = floor(gh / ratio) * floor(gw / ratio).
        grid: (gh, gw), the query grid.
        ratio: spatial-reduction ratio of the layer.

    Returns:
        (b, a, m, m).

    Raises:
        ValueError: the number of queries or keys does not fit the grid and the ratio.
    """
    keys = (grid[0] // ratio) * (grid[1] // ratio)
    if attention.shape[-2] != grid[0] * grid[1] or attention.shape[-1] != keys:
        raise ValueError(
            f"attention must end in ({grid[0] * grid[1]}, {keys}) for a {grid[0]}x{grid[1]} grid "
            f"and ratio {ratio}, got {tuple(attention.shape[-2:])}"
        )
    b, a, _, m = attention.shape
    maps = attention.transpose(-1, -2).reshape(b * a, m, *grid)
    pooled = F.avg_pool2d(maps, kernel_size=ratio)
    return pooled.reshape(b, a, m, m).transpose(-1, -2)
