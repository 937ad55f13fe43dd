"""The consistency losses of ACR as a plug-in for other methods that train a transformer.

ACR's abstract claims that its losses can be built into other methods. Here they come without ACR's
network, head and localisation: `with_consistency(method, config)` trains a method as before, adding

    alpha * (activation consistency + affinity consistency)

between the attention of the batch's (weak) images and of one view of them, in the backbone that the
method trains (of CoSA's two networks the online one).

| backbone | activation (class token) | affinity (all pairs) | layers |
|---|---|---|---|
| vision transformer (`toy_vit2`, `vit_b16`, `deit_*`, hybrid) | yes | yes | all |
| MiT (`toy_mit2`, `mit_b*`) | no class token | yes | stages without spatial reduction |
| convolutional (`toy_cnn`, ResNet, WRN-38) | – | – | refused: there is no attention |

It takes one more pass of the backbone over images and views, in one batch where both have one size.
That pass changes nothing but gradients. Batch normalisation uses the statistics of the pass itself;
its running ones, which evaluation uses, are updated by the method's own passes alone.
Stochastic depth and dropout are off: two views that lose different layers would differ for that
alone. ACR's own two passes are also its training passes, so there they do train the running
statistics. CoSA's tag classifiers read patches, not the class token: there only the losses of other
layers and tokens keep its attention from becoming uniform, which would make both losses zero.

The plug-in has no weights and no state. The method is saved under its own names, and is evaluated
without the plug-in.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from jaxtyping import Float
from torch import Tensor, nn

from wsss_lab.methods.acr.losses import consistency
from wsss_lab.methods.acr.network import comparable_layers, forward_views, prefix_of
from wsss_lab.methods.acr.views import ViewName, views_of
from wsss_lab.methods.common.base import Batch, Method, ParamGroup, SegOutput, StepOutput
from wsss_lab.models.base import Backbone
from wsss_lab.models.modes import stateless_pass
from wsss_lab.ranges import Factor, Range, Settings


@dataclass(frozen=True)
class ConsistencyConfig(Settings):
    """Settings of the plug-in."""

    alpha: Factor = 0.0
    """Weight of both losses; 0 leaves the method alone. ACR's released script: 125."""
    activation: bool | None = None
    """Use the class-token (activation) consistency; None: where there is a class token."""
    affinity: bool = True
    """Use the patch-to-patch (all-pairs) consistency."""
    views: tuple[ViewName, ...] = ("flip",)
    """Second views by name, taken in turn, one a step: see `NAMED_VIEWS`."""
    layers: Annotated[tuple[int, ...], Range("[-1000, 1000]")] | None = None
    """Attention layers compared; None for all that can be."""

    def require(self) -> None:
        """Refuse names of views that are not known."""
        views_of(self.views)


def with_consistency(method: Method, config: ConsistencyConfig) -> Method:
    """Add consistency losses to a method; where `alpha` is 0, return the method itself.

    Raises:
        ValueError: see `WithConsistency`.
    """
    return WithConsistency(method, config) if config.alpha > 0 else method


class WithConsistency(Method):
    """Wrapper that adds the consistency losses on the backbone that a method trains.

    Args:
        method: trained in place, through this wrapper.
        config: settings; `alpha` above 0.

    Raises:
        ValueError: the method does not train exactly one backbone; the backbone is not a
            transformer; it has no class token but activation consistency is wanted; nothing is
            left to compare.
    """

    def __init__(self, method: Method, config: ConsistencyConfig) -> None:
        super().__init__()
        backbone = trained_backbone(method)
        self.method, self.config = method, config
        self.uses_tags = method.uses_tags
        self.layers = comparable_layers(backbone, config.layers)
        self.prefix = prefix_of(backbone)
        self.activation = bool(self.prefix) if config.activation is None else config.activation
        if self.activation and not self.prefix:
            raise ValueError(
                f"activation: {backbone.name} has no class token whose attention could be compared;"
                " set it to False (affinity consistency is left), or take a vision transformer"
            )
        if not (self.activation or config.affinity):
            raise ValueError(
                "activation, affinity: expected at least one of them on, or alpha 0, got neither"
            )
        self.views = views_of(config.views)

    def training_step(self, batch: Batch, step: int) -> StepOutput:
        """Run the method's own step, then compare the attention of its images.

        Args:
            batch: as the method takes it; sides of the images: multiples of the backbone's stride.
            step: 0-based; takes view ``step % number of views``.

        Returns:
            The method's output with the weighted losses added, and both of them, unweighted, as
            parts `acr_activation` and `acr_affinity`.
        """
        output = self.method.training_step(batch, step)
        backbone = trained_backbone(self.method)
        view = self.views[step % len(self.views)]
        images = backbone.normalize(batch["images"])
        other = view.image(images, backbone.stride)
        # a pass of its own: the method's passes may see other crops, scales or colours
        with stateless_pass(backbone):
            _, pairs, grid = forward_views(backbone, images, other, self.layers)
        terms = consistency(
            pairs,
            view,
            grid,
            self.prefix,
            activation=self.activation,
            affinity=self.config.affinity,
        )
        loss = output.loss
        for term in terms.values():
            loss = loss + self.config.alpha * term
        parts = output.parts | {f"acr_{name}": term for name, term in terms.items()}
        return StepOutput(loss, parts, output.panels)

    @property
    def input_mean(self) -> tuple[float, ...]:
        """The method's own."""
        return self.method.input_mean

    def predict(
        self, images: Float[Tensor, "b 3 h w"], tags: Float[Tensor, "b k"] | None = None
    ) -> SegOutput:
        """Predict as the method does."""
        return self.method.predict(images, tags)

    def param_groups(self, lr: float, head_lr: float, weight_decay: float) -> list[ParamGroup]:
        """List the method's own groups."""
        return self.method.param_groups(lr, head_lr, weight_decay)

    def after_step(self, step: int) -> None:
        """Call the method's own."""
        self.method.after_step(step)

    def state_dict(self, *args: Any, **options: Any) -> Any:  # type: ignore[override]
        """Return the state of the method under its own names."""
        return self.method.state_dict(*args, **options)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load the state of the method, with the plug-in or without."""
        return self.method.load_state_dict(state_dict, strict, assign)


def trained_backbone(method: nn.Module) -> Backbone:
    """Find the one backbone of a method that gets gradients.

    Raises:
        ValueError: there is none, or there are several.
    """
    found = [
        module
        for module in method.modules()
        if isinstance(module, Backbone) and any(p.requires_grad for p in module.parameters())
    ]
    if len(found) != 1:
        names = ", ".join(backbone.name for backbone in found) or "none"
        raise ValueError(
            f"method: {type(method).__name__} must train exactly one backbone for its attention to "
            f"be compared, it trains {names}"
        )
    return found[0]
