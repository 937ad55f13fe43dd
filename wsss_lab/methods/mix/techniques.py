"""The techniques of four papers as hooks of the common base; each calls its paper's own functions.

==============  ============================================  ======================================
technique       hooks                                         functions
==============  ============================================  ======================================
`Slow`          `maker`, `after_step`                         `wsss_lab.ema`
`Refine`        `maps`                                        `wsss_lab.refine`
`Search`        `thresholds`                                  `wsss_lab.methods.cosa.threshold`
`Perplexity`    `weights`                                     `wsss_lab.methods.cosa.losses`
`Turns`         `lessons`                                     `wsss_lab.methods.asdt.signal`, labels
`SCD`           `losses`                                      `wsss_lab.methods.tscd`, views, losses
`Separation`    `losses`                                      `wsss_lab.methods.cosa.losses`
==============  ============================================  ======================================

All-pairs consistency (ACR) needs no hook: it is a plug-in around every method of one stage, see
`wsss_lab.methods.acr.plugin`.
"""

import copy
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from wsss_lab import IGNORE
from wsss_lab.ema import MomentumTeacher
from wsss_lab.losses import enlarge
from wsss_lab.methods.asdt.config import ASDTConfig
from wsss_lab.methods.asdt.labels import teacher_b_label
from wsss_lab.methods.asdt.signal import student_share
from wsss_lab.methods.common.batches import real_boxes
from wsss_lab.methods.cosa.losses import (
    certain_regions,
    perplexity_weights,
    separation_infonce,
    separation_margin,
)
from wsss_lab.methods.cosa.threshold import RingQueue, ThresholdSearch
from wsss_lab.methods.mix.config import (
    MixConfig,
    PerplexityConfig,
    RefineConfig,
    SCDConfig,
    SeparationConfig,
    TurnsConfig,
)
from wsss_lab.methods.mix.network import MixNetwork
from wsss_lab.methods.mix.technique import Lesson, State, Technique
from wsss_lab.methods.tscd.labels import normalize_inside, scd_channels
from wsss_lab.methods.tscd.losses import correspondence, scd_loss
from wsss_lab.methods.tscd.views import place_points, sample_points, second_view, whole_image
from wsss_lab.models.modes import stateless_pass
from wsss_lab.refine import PAR, VARM, LocalRefiner, refine_in_box


class Slow(Technique):
    """A slow copy of the network makes the labels."""

    def __init__(self, network: MixNetwork, decay: float) -> None:
        super().__init__()
        self.teacher = MomentumTeacher(copy.deepcopy(network), decay)

    def maker(self, state: State) -> MixNetwork:
        """Hand over the copy."""
        return self.network

    @property
    def network(self) -> MixNetwork:
        """The copy, whose weights are buffers."""
        return cast(MixNetwork, self.teacher.network)

    def after_step(self, network: MixNetwork, step: int) -> None:
        """Move the copy towards the network."""
        self.teacher.update(network)


def refine_inside(
    refiner: LocalRefiner, state: State, masks: Float[Tensor, "b c h w"]
) -> Float[Tensor, "b c h w"]:
    """Refine masks by the images at half the size, real pixels only, and keep their level.

    The weights of PAR sum to 1.01 and those of VARM to 0.99, so ten iterations multiply every mask
    by 1.10 or 0.90. A comparison between masks does not see that, one with a threshold does; it is
    divided out.
    """
    level = torch.ones_like(masks[:, :1])
    found = refine_in_box(
        refiner,
        state.batch["images"].float(),
        torch.cat([masks, level], 1),
        real_boxes(state.batch),
    )
    masks, level = found[:, :-1], found[:, -1:]
    return torch.where(level > 0, masks / level.clamp(min=1e-6), 0.0)


class Refine(Technique):
    """The maps take the edges of the image, before thresholds are searched and labels are cut.

    TSCD and AFA refine the probabilities of maps and background score, softmax first; here the maps
    themselves are refined, so that every later technique sees the same ones.
    """

    def __init__(self, config: RefineConfig) -> None:
        super().__init__()
        self.refiner = (VARM if config.kind == "varm" else PAR)(iterations=config.iterations)

    def maps(self, state: State) -> Float[Tensor, "b m h w"]:
        """Refine the maps of the tagged classes."""
        return refine_inside(self.refiner, state, state.cam)


class Search(Technique):
    """The thresholds follow the maps."""

    def __init__(self, config: MixConfig) -> None:
        super().__init__()
        search = config.search
        self.grid = search.queue_grid
        queue = RingQueue(search.queue_rows, self.grid[0] * self.grid[1])
        how = "split" if search.how == "none" else search.how
        self.search = ThresholdSearch(queue, config.low, config.high, how, search.momentum)

    def thresholds(self, state: State) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Push the maps' largest values into the queue and search."""
        # on the coarse grid of the queue: neighbouring pixels hold nearly the same value
        small = F.interpolate(state.cam, self.grid, mode="bilinear")
        low, high = self.search(small.amax(1).flatten(1)).unbind()
        return low, high

    def facts(self, state: State) -> dict[str, Tensor]:
        """Log the thresholds."""
        return {"low": state.low, "high": state.high}


class Perplexity(Technique):
    """Labelled pixels weigh by the certainty of their map."""

    def __init__(self, config: PerplexityConfig) -> None:
        super().__init__()
        self.config = config

    def weights(self, state: State) -> Float[Tensor, "b h w"]:
        """Weigh by the distance of the largest map from the threshold; earlier weights multiply."""
        config = self.config
        found = perplexity_weights(
            state.cam.amax(1),
            state.labels,
            state.low,
            state.high,
            config.alpha,
            config.beta,
            config.certainty,
        )
        return found if state.weights is None else found * state.weights


class Turns(Technique):
    """The maps and the refined segmentation teach in turns."""

    def __init__(self, config: TurnsConfig, warmup: int) -> None:
        super().__init__()
        self.config, self.warmup = config, warmup
        self.refiner = PAR()

    def share(self, step: int) -> float:
        """Compute teacher B's share in the loss of a step, [0, 1]."""
        config = self.config
        return student_share(
            step,
            config.signal,
            period=config.period,
            duty=config.duty,
            warmup=self.warmup,
            mix=config.mix,
        )

    def lessons(self, state: State) -> list[Lesson]:
        """Add teacher B's labels in steps that it has a share in; they cost a refinement."""
        share = self.share(state.step)
        return [Lesson(self.label(state), share, self.config.weight)] if share > 0 else []

    @torch.no_grad()
    def label(self, state: State) -> Int[Tensor, "b h w"]:
        """Refine the segmentation of the network that makes labels, among the tagged classes."""
        logits = state.maker.segment(state.images).float()
        if self.config.labels == "crf":
            pictures = 255 * state.batch["images"].float()
            return teacher_b_label(
                pictures, logits, state.classes, state.present, ASDTConfig(), state.valid
            ).label
        channels = F.pad(state.classes + 1, (1, 0))
        there = F.pad(state.present, (1, 0), value=True)[:, :, None, None]
        chosen = logits.gather(1, channels[:, :, None, None].expand(-1, -1, *logits.shape[2:]))
        probs = enlarge(chosen, state.size).masked_fill(~there, -torch.inf).softmax(1)
        best = refine_inside(self.refiner, state, probs).max(dim=1).indices
        label = channels.gather(1, best.flatten(1)).view_as(best)
        return label.masked_fill(~state.valid, IGNORE)

    def facts(self, state: State) -> dict[str, Tensor]:
        """Log teacher B's share."""
        return {"share": state.logits.new_tensor(self.share(state.step))}


class SCD(Technique):
    """The correspondences of two views of the maps are the target of those of the segmentation."""

    def __init__(self, config: SCDConfig) -> None:
        super().__init__()
        self.config = config
        self.factor = config.weight

    def losses(self, state: State) -> dict[str, Float[Tensor, ""]]:
        """Compare the images with a smaller view of them, at random points."""
        config, network = self.config, state.network
        view = second_view(state.images, config.view_scale)
        real = second_view(state.valid[:, None].float(), config.view_scale)[:, 0] > 0.5
        # one more pass, with gradient; running statistics stay those of images of full size
        with stateless_pass(network):
            view_logits = network(view).seg_logits
        view_cam = normalize_inside(state.maker.joined_cam(view), real)
        sides = (view.shape[2], view.shape[3])
        logits = [
            enlarge(state.outputs.seg_logits, state.size, align_corners=True),
            enlarge(view_logits, sides, align_corners=True),
        ]
        points = place_points(
            real_boxes(state.batch),
            state.size,
            config.points,
            whole_image(len(view), view.device),
        )
        cams = [scd_channels(cam, state.tags, config.classes) for cam in (state.maps, view_cam)]
        target, student = (
            correspondence(*map(sample_points, pair, points)) for pair in (cams, logits)
        )
        return {"scd": scd_loss(target, student, config.level, config.shift)}


class Separation(Technique):
    """The maps of the network in training separate what the labels are sure of."""

    def __init__(self, config: SeparationConfig) -> None:
        super().__init__()
        self.config = config
        self.factor = config.weight

    def losses(self, state: State) -> dict[str, Float[Tensor, ""]]:
        """Compare the maps on cells labelled as their class and on those labelled background."""
        cam = state.outputs.cam
        grid = (cam.shape[2], cam.shape[3])
        cam = cam.gather(1, state.classes[:, :, None, None].expand(-1, -1, *grid))
        front, back = certain_regions(state.labels, state.classes, grid)
        if self.config.form == "margin":
            found = separation_margin(cam, front, back, state.present)
        else:
            features = state.outputs.features
            found = separation_infonce(cam, features, front, back, state.present)
        return {"separation": found}


def slow(config: MixConfig, network: MixNetwork) -> Technique | None:
    """Make the slow network where its decay is above 0."""
    return Slow(network, config.slow.decay) if config.slow.decay > 0 else None


def refine(config: MixConfig, network: MixNetwork) -> Technique | None:
    """Make the refinement of maps where it has a kind."""
    return Refine(config.refine) if config.refine.kind != "none" else None


def search(config: MixConfig, network: MixNetwork) -> Technique | None:
    """Make the search of thresholds where it has a kind."""
    return Search(config) if config.search.how != "none" else None


def perplexity(config: MixConfig, network: MixNetwork) -> Technique | None:
    """Make the perplexity weights where they are on."""
    return Perplexity(config.perplexity) if config.perplexity.on else None


def turns(config: MixConfig, network: MixNetwork) -> Technique | None:
    """Make the turns of teachers where the signal is not always teacher A."""
    return Turns(config.turns, config.warmup) if config.turns.signal != "a" else None


def scd(config: MixConfig, network: MixNetwork) -> Technique | None:
    """Make the self correspondence distillation where it has a weight."""
    return SCD(config.scd) if config.scd.weight > 0 else None


def separation(config: MixConfig, network: MixNetwork) -> Technique | None:
    """Make the separation where it has a form."""
    return Separation(config.separation) if config.separation.form != "none" else None
