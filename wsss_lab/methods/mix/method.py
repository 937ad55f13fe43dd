"""The common base, one network and one stage, and the step that calls the techniques.

A backbone, a tag classifier, a segmentation head. After a warm-up with the tags alone the network's
own class maps, cut at two thresholds, are the labels of its segmentation:

    L = L_tags + 0.1 L_seg + what the techniques add

| stage of the step | here |
|---|---|
| forward pass, tag loss | `Mix.training_step` |
| maps, thresholds, labels, weights, lessons | `Mix.make_labels`, hooks of `Technique` |
| segmentation against labels | `seg_loss`, after TSCD and CoSA |
| everything else | `wsss_lab.methods.mix.techniques` |

With every technique off this is what four papers have in common, at its simplest. No paper
published it: it is the row that their techniques are compared with here.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wsss_lab.cam import present_classes
from wsss_lab.losses import enlarge, tag_loss
from wsss_lab.methods.asdt.losses import hard_distillation
from wsss_lab.methods.common.base import (
    Batch,
    Method,
    ParamGroup,
    SegOutput,
    StepOutput,
    split_decay,
)
from wsss_lab.methods.common.batches import tag_bound, valid_pixels
from wsss_lab.methods.cosa.labels import label_from_cam
from wsss_lab.methods.cosa.losses import balanced_mean, pixel_entropy
from wsss_lab.methods.mix.config import MixConfig
from wsss_lab.methods.mix.network import MixNetwork, Outputs
from wsss_lab.methods.mix.technique import OWN, TECHNIQUES, State, Technique
from wsss_lab.methods.mix.techniques import Slow
from wsss_lab.methods.tscd.labels import normalize_inside
from wsss_lab.models.base import Backbone
from wsss_lab.models.weights import load_strictly
from wsss_lab.ranges import SettingError
from wsss_lab.refine import DenseEnergyLoss

STARTING = ("network.backbone.", "network.tag_head.")
"""Names of the tensors of a network that has learned tags; TSCD calls its own the same."""


class Mix(Method):
    """The network, the techniques that the settings switch on, and the step.

    Args:
        backbone: with two maps or more.
        classes: foreground classes `k`.
        config: settings; the default is the base alone.

    Raises:
        SettingError: `extra` names no technique of a reader.
    """

    start_prefix = "network."

    def __init__(self, backbone: Backbone, classes: int, config: MixConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or MixConfig()
        self.network = MixNetwork(backbone, classes, config)
        self.energy = DenseEnergyLoss()
        self.techniques = nn.ModuleDict()
        for name in (*OWN, *_own_of_reader(config)):
            if (technique := TECHNIQUES[name](config, self.network)) is not None:
                self.techniques[name] = technique

    @property
    def active(self) -> list[Technique]:
        """The techniques that are on, in the order of their calls."""
        return list(self.techniques.values())  # type: ignore[arg-type]

    def training_step(self, batch: Batch, step: int) -> StepOutput:
        """Compute the losses of one step.

        Args:
            batch: `images` and `tags`; `boxes` and `valid`, the real pixels of each padded crop
                (default: all); `max_tags`, which spares work on an accelerator.
            step: 0-based; the tag loss is alone up to and with step `config.warmup`.
        """
        images = self.network.backbone.normalize(batch["images"])
        outputs: Outputs = self.network(images)
        parts = {"tags": tag_loss(outputs.tag_logits, batch["tags"])}
        if step <= self.config.warmup:
            # maps of a classifier that knows no tags are noise, and so are labels from them; the
            # head stays in the graph, with zero gradients
            idle = torch.stack([weight.sum() for weight in self.network.seg_head.parameters()])
            return StepOutput(parts["tags"] + 0.0 * idle.sum(), parts)
        # thresholds, logarithms and sums over pixels act on differences that bf16 rounds away
        with torch.autocast(images.device.type, enabled=False):
            state = self.make_labels(batch, step, images, outputs)
            terms, factors = self.terms(state)
            weighted = [factors[name] * term for name, term in terms.items()]
            loss = torch.stack([parts["tags"], *weighted]).sum()
        facts: dict[str, Tensor] = {}
        for technique in self.active:
            facts |= technique.facts(state)
        panels = {"cam": state.cam, "labels": state.labels, "seg_logits": outputs.seg_logits}
        panels |= {f"lesson_{i}": lesson.labels for i, lesson in enumerate(state.lessons, 1)}
        if state.weights is not None:
            panels["weights"] = state.weights
        return StepOutput(loss, parts | terms | facts, panels)

    def make_labels(
        self, batch: Batch, step: int, images: Float[Tensor, "b 3 h w"], outputs: Outputs
    ) -> State:
        """Fill the state of a step up to its labels.

        Args:
            batch: see `training_step`.
            step: 0-based.
            images: normalised.
            outputs: of the network for the images.
        """
        classes, present = present_classes(batch["tags"], tag_bound(batch))
        size, net = (images.shape[2], images.shape[3]), self.network
        logits = enlarge(outputs.seg_logits, size)
        valid = valid_pixels(batch)
        state = State(step, batch, images, valid, net, outputs, logits, classes, present, net)
        with torch.no_grad():
            for technique in self.active:
                state.maker = technique.maker(state)
            state.maps = normalize_inside(state.maker.joined_cam(images), valid)
            chosen = state.maps.gather(1, classes[:, :, None, None].expand(-1, -1, *size))
            state.cam = chosen * present[:, :, None, None]
            for technique in self.active:
                state.cam = technique.maps(state)
            # tensors, so that fixed and searched thresholds are compared alike, pixel by pixel
            state.low = state.cam.new_tensor(self.config.low)
            state.high = state.cam.new_tensor(self.config.high)
            for technique in self.active:
                state.low, state.high = technique.thresholds(state)
            state.labels = label_from_cam(state.cam, classes, present, state.low, state.high, valid)
            for technique in self.active:
                state.labels = technique.labels(state)
            for technique in self.active:
                state.weights = technique.weights(state)
            for technique in self.active:
                state.lessons += technique.lessons(state)
        return state

    def terms(self, state: State) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Compute all losses but that of the tags, unweighted, and their weights.

        Raises:
            ValueError: two techniques call a loss by one name.
        """
        weights = self.config.weights
        terms, factors = {"seg": seg_loss(state)}, {"seg": weights.seg}
        if weights.energy > 0:
            pictures = 255 * state.batch["images"].float()
            probs = state.logits.softmax(1)
            terms["energy"] = self.energy(probs, pictures, state.valid, state.labels)
            factors["energy"] = weights.energy
        for technique in self.active:
            found = technique.losses(state)
            if taken := sorted({"tags", *terms} & set(found)):
                raise ValueError(
                    f"losses: {type(technique).__name__} calls a loss {taken[0]}, as another does; "
                    "choose another name"
                )
            terms |= found
            factors |= dict.fromkeys(found, technique.factor)
        return terms, factors

    def after_step(self, step: int) -> None:
        """Let the techniques follow the weights."""
        for technique in self.active:
            technique.after_step(self.network, step)

    def predict(
        self, images: Float[Tensor, "b 3 h w"], tags: Float[Tensor, "b k"] | None = None
    ) -> SegOutput:
        """Return segmentation logits, maps and tag logits of the trained network, raw.

        Args:
            images: RGB in [0, 1].
            tags: not used.
        """
        outputs: Outputs = self.network(self.network.backbone.normalize(images))
        return SegOutput(outputs.seg_logits, outputs.cam, outputs.tag_logits)

    def start_from(self, state: Mapping[str, Tensor]) -> None:
        """Start from an earlier run, whatever was on there, or from one that has learned tags.

        Args:
            state: tensors of a run of this method, of which the network counts, or of another whose
                backbone and tag head have the same names (TSCD); the segmentation head is new then.

        Raises:
            ValueError: a tensor is missing, left over, or of another shape.
        """
        if any(name.startswith("network.affinity_head.") for name in state):  # TSCD, see above
            own = {k: v for k, v in state.items() if k.startswith(STARTING)}
            fresh = {k: v for k, v in self.state_dict().items() if k.startswith("network.seg_head")}
            state = own | fresh
        prefix = self.start_prefix
        own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        load_strictly(self.network, own, what="start of the mix")
        self._follow()

    def start_from_classifier(self, state: Mapping[str, Tensor]) -> None:
        """Load backbone and linear head of a plain tag classifier, see `Method`."""
        super().start_from_classifier(state)
        self._follow()

    def _follow(self) -> None:
        """Make the slow copy, where there is one, a copy of the network."""
        for technique in self.active:
            if isinstance(technique, Slow):
                technique.network.load_state_dict(self.network.state_dict())

    def param_groups(self, lr: float, head_lr: float, weight_decay: float) -> list[ParamGroup]:
        """Return the backbone at `lr`; heads, and weights of techniques, at `head_lr`."""
        net = self.network
        heads = nn.ModuleList([net.tag_head, net.seg_head, self.techniques])
        return split_decay(net.backbone, lr, weight_decay) + split_decay(
            heads, head_lr, weight_decay
        )


def seg_loss(state: State) -> Float[Tensor, ""]:
    """Compare the segmentation with the labels of the maps, and with further lessons.

    L = (1 - sum of shares) balanced(labels) + sum of share times weight times mean(lesson)

    Balanced: the mean over background pixels and the mean over the others, half each (TSCD, CoSA);
    other lessons label nearly all pixels and take the plain mean (ASDT's `hard_distillation`).
    """
    entropy = pixel_entropy(state.logits, state.labels[:, None])[:, 0]
    loss = (1 - sum(lesson.share for lesson in state.lessons)) * balanced_mean(
        entropy, state.labels, state.weights
    )
    for lesson in state.lessons:
        other = hard_distillation(state.logits, lesson.labels)
        loss = loss + lesson.share * lesson.weight * other
    return loss


def _own_of_reader(config: MixConfig) -> tuple[str, ...]:
    """Return the names of `extra`, all of them known."""
    for name in config.extra or ():
        if name in OWN:
            raise SettingError(
                ["method.extra"],
                f"expected techniques of your own, got {name!r}, which method.{name} switches on",
            )
        if name not in TECHNIQUES:
            known = ", ".join(key for key in TECHNIQUES if key not in OWN) or "none yet"
            raise SettingError(
                ["method.extra"],
                f"expected one of your own techniques ({known}), got {name!r}; one of your file is "
                "known after `--use FILE.py` (from Python: import the file)",
            )
    return config.extra or ()
