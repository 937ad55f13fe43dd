"""ASDT: two imperfect teachers alternate, by a pulse-width modulated signal.

Zhang et al., "Weakly Supervised Semantic Segmentation via Alternate Self-Dual Teaching" (IEEE TIP
34, 2025; arXiv 2112.09459). One backbone, three heads. Teacher A, a tag classifier, finds the
*discriminative part* of objects. Teacher B, a segmentation head refined by a CRF, finds their *full
structure*. A second segmentation head, the student, learns from one of them at a time, so that the
mistakes of neither trap it.

| in the paper | here |
|---|---|
| selection signal, pulse-width modulation | `signal.pulse_signal` |
| class branch, teacher A | `ASDTNetwork.tag_head`, `labels.teacher_a_label` |
| mask refinement, teacher B | `ASDTNetwork.seg_head`, `labels.teacher_b_label` |
| student | `ASDTNetwork.student_head` |
| loss of reliable pixels | `losses.two_part_ce`, `wsss_lab.refine.DenseEnergyLoss` |
| distillation | `losses.hard_distillation`, `losses.soft_distillation` |
| pseudo segmentation masks | `losses.fused_probs`, `ASDT.predict` |

With logits Z1 of teacher B's head and Z2 of the student, labels yA and yB, and signal s(t):

    L = L_tags + 1/2 (CE(Z1, yA) + E(Z1)) + 1/2 ((1 - s) CE(Z2, yA) + s 0.1 KD(Z2, yB) + E(Z2))

*In the paper* (abstracts; no full text was at hand): two teachers, one student, alternated by the
signal; 69.7 mIoU on VOC val after a second stage. *In the released code* the signal and teacher B's
label are computed, but the one line that uses them, a cross-entropy times 0.1, is commented out:
inside and outside the pulse the student learns the same label yA. The released log agrees: at all
401 lines the printed loss is L_tags plus half of each head's terms (to 7e-5), and after step 5000
the student's cross-entropy over the other head's is 0.993 to 1.000 in every phase of the pulse.
Running that code does not test ASDT. *Here* the preset `voc-released` is that code, and `voc` puts
the line back: a **reconstruction**, whose roles, 0.1 and energy inside the pulse follow the code
around that line. Nothing has been measured at full size.

`ASDTQuirks` switches on what else the released code does and we do not; to understand the method,
skip every `quirks`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wsss_lab import IGNORE
from wsss_lab.losses import enlarge, tag_loss
from wsss_lab.methods.asdt.config import ASDTConfig
from wsss_lab.methods.asdt.labels import (
    TeacherLabel,
    agreement_of_teachers,
    mean_of_teachers,
    present_cams,
    strongest_classes,
    teacher_a_label,
    teacher_b_label,
)
from wsss_lab.methods.asdt.losses import (
    first_part,
    fused_probs,
    hard_distillation,
    soft_distillation,
    two_part_ce,
)
from wsss_lab.methods.asdt.network import ASDTNetwork, Outputs
from wsss_lab.methods.asdt.oracle import Lesson, masks_of, oracle_lesson
from wsss_lab.methods.asdt.released import load_checkpoint, squashed_images
from wsss_lab.methods.asdt.schedule import images_of_b, makes_b_label, share_of_b
from wsss_lab.methods.common.base import Batch, Method, ParamGroup, SegOutput, StepOutput
from wsss_lab.methods.common.batches import tag_bound, valid_pixels
from wsss_lab.models.base import Backbone
from wsss_lab.refine import DenseEnergyLoss


class Targets(NamedTuple):
    """Pictures and pseudo-labels of a step."""

    pictures: Float[Tensor, "b 3 h w"]
    """RGB in 0..255, for CRFs and energy."""
    valid: Bool[Tensor, "b h w"]
    """True at real pixels, False in the padding of a crop."""
    a: TeacherLabel
    b: TeacherLabel | None
    """None in steps that do not need teacher B."""


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[2], images.shape[3]


class ASDT(Method):
    """The unified network and the step that trains it.

    Args:
        backbone: starts as a trained tag classifier; its batch normalisation is frozen.
        classes: tags `k`.
        config: settings; `PRESETS` has those of the paper.
    """

    def __init__(self, backbone: Backbone, classes: int, config: ASDTConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ASDTConfig()
        self.classes = classes
        self.network = ASDTNetwork(backbone, classes, config)
        first = first_part(classes + config.background, config.background, config.things)
        self.register_buffer("first", first, persistent=False)
        self.energy = DenseEnergyLoss(
            config.energy_weight,
            config.energy_sigma_rgb,
            config.energy_sigma_xy,
            old_resize=config.quirks.old_resize,
        )

    def training_step(self, batch: Batch, step: int) -> StepOutput:
        """Compute the losses of one step.

        Args:
            batch: `images` and `tags`; `valid`, True at real pixels, or `boxes`, [y0, y1, x0, x1]
                of them (default: all are real); `max_tags`, the largest number of tags of an
                image, which spares a wait for an accelerator; `squashed`, the whole images at the
                crop's size, for `ASDTQuirks.squashed_crf_image`; `masks` for `oracle`.
            step: 0-based.

        Raises:
            ValueError: tags of another number of classes, or no `squashed` or `masks` where needed.
        """
        config = self.config
        outputs: Outputs = self.network(batch["images"])
        # labels come from maps of several scales: scale 1 is there, the others need no graph
        cam = self.network.fused_cam(batch["images"], outputs.cam)
        # in float32: the CRF's exponentials, and the energy as a sum over all pixels, lose too
        # much in half precision
        with torch.autocast(cam.device.type, enabled=False):
            targets = self.pseudo_labels(batch, step, outputs, cam)
            parts = {"tags": tag_loss(outputs.tag_logits, batch["tags"])}
            # teacher B's head learns from teacher A in every step, whoever teaches the student;
            # at the size of the crop, because the CRF drew the labels' edges pixel by pixel
            logits = enlarge(outputs.teacher_logits, _size(targets.pictures))
            parts["ce"] = self._ce(logits, targets.a.label)
            parts["energy"] = self._energy(logits, targets)
            loss = parts["tags"] + config.teacher_weight * (parts["ce"] + parts["energy"])
            if outputs.student_logits is not None:
                lesson = Lesson(targets.a, targets.b)
                if config.oracle != "none":
                    masks = masks_of(batch)
                    lesson = oracle_lesson(config.oracle, lesson, masks, config.background)
                logits = outputs.student_logits
                student = self._student_loss(logits, targets, lesson, step, parts)
                loss = loss + config.student_weight * student
        panels = {"cam": cam, "a_label": targets.a.label, "teacher_logits": outputs.teacher_logits}
        if targets.b is not None:
            panels["b_label"] = targets.b.label
        if outputs.student_logits is not None:
            panels["student_logits"] = outputs.student_logits
        return StepOutput(loss, parts, panels)

    def pseudo_labels(self, batch: Batch, step: int, outputs: Outputs, cam: Tensor) -> Targets:
        """Make both teachers' labels; teacher B's only in steps whose signal selects it.

        Args:
            batch: as for `training_step`.
            step: 0-based.
            outputs: of the network for the batch.
            cam: maps of all scales, `ASDTNetwork.fused_cam`.
        """
        config, images, tags = self.config, batch["images"], batch["tags"]
        if tags.shape != (len(images), self.classes):
            raise ValueError(
                f"tags: expected {(len(images), self.classes)} like the network, got "
                f"{tuple(tags.shape)}; build ASDT with the data's number of classes"
            )
        pictures, valid = self.pictures(images), valid_pixels(batch)
        index, present = strongest_classes(cam, tags, config.max_classes, tag_bound(batch))
        cams = present_cams(cam, index, present, _size(images))
        a = teacher_a_label(pictures, cams, index, present, config)
        if not makes_b_label(config, step, len(images), "squashed" in batch):
            return Targets(pictures, valid, a, None)  # saves a CRF in most steps
        crf_pictures = pictures
        if config.quirks.squashed_crf_image:
            crf_pictures = self.pictures(squashed_images(batch))
        logits = outputs.teacher_logits.detach()  # the student must not train its teacher's head
        b = teacher_b_label(crf_pictures, logits, index, present, config, valid)
        return Targets(pictures, valid, a, b)

    def pictures(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Scale images from [0, 1] to 0..255 in float32, for CRFs and energy."""
        pictures = 255 * images.detach().float()
        return pictures.floor() if self.config.quirks.truncate_images else pictures

    def _ce(self, logits: Tensor, label: Tensor) -> Tensor:
        first = cast(Tensor, self.first)
        return two_part_ce(logits, label, first, self.config.quirks.nan_on_empty)

    def _energy(self, logits: Tensor, targets: Targets) -> Tensor:
        # teacher A's label in pulses, too: pixels without it count in full, see `confidence_gate`
        return self.energy(logits.softmax(1), targets.pictures, targets.valid, targets.a.label)

    def _student_loss(
        self, logits: Tensor, targets: Targets, lesson: Lesson, step: int, parts: dict[str, Tensor]
    ) -> Tensor:
        """Compute the student's loss; adds its unweighted terms and teacher B's share to `parts`.

        L = (1 - share) CE(Z2, yA) + share * kd_weight * KD(Z2, yB) + E(Z2)
        """
        config = self.config
        zero = 0.0 * logits.float().sum() + 0.0  # keeps the head in the graph; + 0.0 against -0.0
        logits = enlarge(logits, _size(targets.pictures))
        share, a_label, b = 0.0, lesson.a.label, lesson.b
        if b is not None and not config.quirks.ignore_pulse:
            share, a_label, b = self._divide(step, lesson.a, b)
        ce = self._ce(logits, a_label) if share < 1 else zero
        kd = self._distillation(logits, b) if share > 0 and b is not None else zero
        energy = self._energy(logits, targets) if config.pulse_dense or share < 1 else zero
        parts |= {"student_ce": ce, "student_kd": kd, "student_energy": energy}
        parts["share"] = zero.new_tensor(share)
        # a label of both teachers takes the place of teacher A's, at full weight
        weight = 1.0 if config.selection in ("soft_mean", "agreement") else config.kd_weight
        dense = 1.0 if config.pulse_dense else 1.0 - share
        return (1 - share) * ce + share * weight * kd + dense * energy

    def _divide(
        self, step: int, a: TeacherLabel, b: TeacherLabel
    ) -> tuple[float, Int[Tensor, "b h w"], TeacherLabel]:
        """Find teacher B's share in the student's loss, and the labels of both terms."""
        selection = self.config.selection
        if selection == "soft_mean":
            return 1.0, a.label, mean_of_teachers((a, b), len(cast(Tensor, self.first)))
        if selection == "agreement":
            return 1.0, a.label, replace(b, label=agreement_of_teachers((a, b)))
        if selection != "images":
            return share_of_b(self.config, step), a.label, b
        choice = images_of_b(self.config, step, len(a.label))
        to_b = torch.tensor(choice, device=a.label.device)[:, None, None]
        b_label = b.label.masked_fill(~to_b, IGNORE)
        a_label = a.label.masked_fill(to_b, IGNORE)
        return sum(choice) / len(choice), a_label, replace(b, label=b_label)

    def _distillation(self, logits: Tensor, b: TeacherLabel) -> Tensor:
        """Compute teacher B's loss, without weight."""
        config = self.config
        if config.selection == "agreement":
            return self._ce(logits, b.label)
        sure = b.probs.amax(1) >= config.kd_confidence
        if config.selection == "soft_mean" or config.kd == "soft_kl":
            mask = b.label != IGNORE
            if config.selection != "soft_mean":
                mask = mask & sure
            return soft_distillation(logits, b.probs, b.classes, mask, config.temperature)
        label = b.label if config.kd == "hard" else b.label.masked_fill(~sure, IGNORE)
        return hard_distillation(logits, label)

    def predict(
        self, images: Float[Tensor, "b 3 h w"], tags: Float[Tensor, "b k"] | None = None
    ) -> SegOutput:
        """Predict fused logits of both heads at image size, raw maps, tag logits.

        The logits are the logarithm of the heads' larger probability; their softmax is the fused
        prediction divided by its sum. The released inference (single scale) gives the undivided one
        to its CRF: `losses.fused_probs`. Without background, a first channel that never wins is
        added, so that class c is label c + 1 as in masks.

        Args:
            images: RGB in [0, 1].
            tags: not used.
        """
        outputs: Outputs = self.network(images)
        teacher, student = outputs.teacher_logits, outputs.student_logits
        fused = fused_probs(teacher, teacher if student is None else student, _size(images))
        fused = fused.clamp(min=1e-12).log()
        if not self.config.background:
            fused = F.pad(fused, (0, 0, 0, 0, 1, 0), value=-1e4)
        return SegOutput(fused, outputs.cam, outputs.tag_logits)

    def load_released(self, state: Mapping[str, Tensor]) -> None:
        """Load a checkpoint of the released code, strictly; see `released.load_checkpoint`."""
        load_checkpoint(self.network, state)

    def param_groups(self, lr: float, head_lr: float, weight_decay: float) -> list[ParamGroup]:
        """Sort parameters into the released four groups, see `ASDTNetwork.param_groups`."""
        return self.network.param_groups(lr, head_lr, weight_decay)
