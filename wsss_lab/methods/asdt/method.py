"""ASDT: two imperfect teachers take turns, by a pulse-width modulated signal.

Zhang et al., "Weakly Supervised Semantic Segmentation via Alternate Self-Dual Teaching" (IEEE TIP
34, 2025; arXiv 2112.09459). One backbone, three heads. Teacher A, a tag classifier, finds the
*discriminative part* of objects. Teacher B, a segmentation head refined by a CRF, finds their *full
structure*. A second segmentation head, the student, listens to one at a time: either alone would
trap it in its own mistakes.

| in the paper | here |
|---|---|
| selection signal, pulse-width modulation | `asdt_signal.pulse_signal` |
| class branch, teacher A | `ASDTNetwork.tag_head`, `asdt_labels.teacher_a_label` |
| mask refinement, teacher B | `ASDTNetwork.seg_head`, `asdt_labels.teacher_b_label` |
| student | `ASDTNetwork.student_head` |
| loss of reliable pixels | `asdt_losses.two_part_ce`, `wsss_lab.refine.DenseEnergyLoss` |
| distillation | `asdt_losses.hard_distillation`, `soft_distillation` |
| pseudo segmentation masks | `asdt_losses.fused_probs`, `ASDT.predict` |

With logits Z1 of teacher B's head and Z2 of the student, labels yA and yB, and signal s(t):

    L = L_tags + 1/2 (CE(Z1, yA) + E(Z1)) + 1/2 ((1 - s) CE(Z2, yA) + s 0.1 KD(Z2, yB) + E(Z2))

**Three voices.** *In the paper* (abstracts; no full text was at hand): two teachers, one student,
alternated by the signal; 69.7 mIoU on VOC val after a second stage. *In the released code* the
signal and teacher B's label are computed, but the one line that uses them, a cross-entropy times
0.1, is commented out: inside and outside the pulse the student learns the same label yA. The
released log agrees: at all 401 lines the printed loss is L_tags plus half of each head's terms
(to 7e-5), and after step 5000 the student's cross-entropy over the other head's is 0.993 to 1.000
in every phase of the pulse. Running that code does not test ASDT. *Here* `voc-released` is that
code, and `voc` puts the line back: a **reconstruction**, whose roles, 0.1 and energy inside the
pulse follow the code around that line. Nothing has been measured at full size.

**Deviations.** `voc-released` has them off; each is a field of `ASDTConfig`.

1. `pulse_in_loss`: teacher B teaches during pulses (released: commented out).
2. `aligned_crop`: teacher B's CRF sees the crop (released: the whole image squashed to its size).
3. `ignore_padding`: teacher B does not label padding (released: does).
4. `tag_mask`: teacher B chooses among the image's classes (released: among all).
5. `nan_on_empty`: a batch without background or without foreground pixels costs 0 there (released:
   NaN under today's PyTorch).
6. `old_resize`: odd sizes are halved as PyTorch does since 1.6 (released: as 0.4.1 did).
7. `truncate_images`: CRF and energy see the crop as it is (released: cut to whole numbers).

Also a switch, but on everywhere: 8. `cam_dropout`, teacher A's maps are made with dropout. Kept in
all presets: momentum 1e-5 (a slip: the weight decay stands in momentum's place), because the losses
were balanced with it. Not kept: a batch of one image fails there; inference records gradients.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from wsss_lab import IGNORE
from wsss_lab.cam import box_to_valid
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
from wsss_lab.methods.asdt.network import ASDTNetwork, Stream
from wsss_lab.methods.asdt.signal import image_signal, student_share
from wsss_lab.methods.common.base import Batch, Method, SegOutput, StepOutput
from wsss_lab.models.base import Backbone
from wsss_lab.refine import DenseEnergyLoss


class Taught(NamedTuple):
    """A step's pictures and labels."""

    images: Float[Tensor, "b 3 h w"]
    valid: Bool[Tensor, "b h w"]
    a: TeacherLabel
    b: TeacherLabel | None


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[2], images.shape[3]


class ASDT(Method):
    """The unified network and the step that trains it.

    Args:
        backbone: starts as a trained tag classifier; its batch normalisation is frozen.
        classes: tags `k`.
        config: settings; `PRESETS` in `asdt_config` has those of the paper.
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
            old_resize=config.old_resize,
        )

    def training_step(self, batch: Batch, step: int) -> StepOutput:
        """Losses of one step.

        Args:
            batch: `images` and `tags`; `valid`, True at real pixels, or `boxes`, [y0, y1, x0, x1]
                of them (default: all are real); `max_tags`, the largest number of tags of an
                image, which spares a wait for an accelerator; `squashed`, the whole images at the
                crop's size, for the released teacher B (deviation 2).
            step: 0-based.

        Raises:
            ValueError: tags of another number of classes, or no `squashed` where it is needed.
        """
        config = self.config
        seen: Stream = self.network(batch["images"])
        cam = self.network.fused_cam(batch["images"], seen.cam)
        with torch.autocast(cam.device.type, enabled=False):
            given = self._teach(batch, step, seen, cam)
            parts = {"tags": tag_loss(seen.tag_logits, batch["tags"])}
            logits = enlarge(seen.teacher_logits, _size(given.images))
            parts["ce"] = self._ce(logits, given.a.label)
            parts["energy"] = self._energy(logits, given)
            loss = parts["tags"] + config.teacher_weight * (parts["ce"] + parts["energy"])
            if seen.student_logits is not None:
                student = self._student(seen.student_logits, given, step, parts)
                loss = loss + config.student_weight * student
        panels = {"cam": cam, "a_label": given.a.label, "teacher_logits": seen.teacher_logits}
        if given.b is not None:
            panels["b_label"] = given.b.label
        if seen.student_logits is not None:
            panels["student_logits"] = seen.student_logits
        return StepOutput(loss, parts, panels)

    def _teach(self, batch: Batch, step: int, seen: Stream, cam: Tensor) -> Taught:
        """Both teachers' labels; B's only where the signal asks for it."""
        config, given = self.config, cast(dict[str, Any], batch)
        images, tags = batch["images"], batch["tags"]
        if tags.shape != (len(images), self.classes):
            raise ValueError(
                f"tags: expected {(len(images), self.classes)} like the network, got "
                f"{tuple(tags.shape)}; build ASDT with the data's number of classes"
            )
        size = _size(images)
        valid = given.get("valid")
        if valid is None:
            boxes = given.get("boxes")
            if boxes is None:
                boxes = torch.tensor([[0, size[0], 0, size[1]]], device=images.device)
            valid = box_to_valid(boxes, size).expand(len(images), -1, -1)
        picture = self._picture(images)
        index, present = strongest_classes(cam, tags, config.max_classes, given.get("max_tags"))
        cams = present_cams(cam, index, present, size)
        a = teacher_a_label(picture, cams, index, present, config)
        if not self._asks_b(step, len(images)):
            return Taught(picture, valid, a, None)
        picture_b = picture if config.aligned_crop else self._squashed(given)
        if picture_b is None:
            return Taught(picture, valid, a, None)
        logits = seen.teacher_logits.detach()
        b = teacher_b_label(picture_b, logits, index, present, config, valid)
        return Taught(picture, valid, a, b)

    def _squashed(self, given: dict[str, Any]) -> Tensor | None:
        """What the released teacher B's CRF sees; None if its label is not used anyway."""
        if "squashed" in given:
            return self._picture(given["squashed"])
        if not self.config.pulse_in_loss:
            return None
        raise ValueError(
            "squashed: expected the whole images at the crop's size, as the released teacher B "
            "sees them, got none; add them to the batch or set aligned_crop"
        )

    def _picture(self, images: Tensor) -> Tensor:
        """Images as CRF and energy see them, 0..255."""
        picture = 255 * images.detach().float()
        return picture.floor() if self.config.truncate_images else picture

    def _asks_b(self, step: int, images: int) -> bool:
        if self.config.selection == "images":
            return any(self._image_choice(step, images))
        return self._share(step) > 0

    def _share(self, step: int) -> float:
        config = self.config
        return student_share(
            step, config.selection, **config.pulse, mix=config.mix, seed=config.choice_seed
        )

    def _image_choice(self, step: int, images: int) -> list[bool]:
        wave = {name: value for name, value in self.config.pulse.items() if name != "phase"}
        return image_signal(step, images, **wave)

    def _ce(self, logits: Tensor, label: Tensor) -> Tensor:
        return two_part_ce(logits, label, cast(Tensor, self.first), self.config.nan_on_empty)

    def _energy(self, logits: Tensor, given: Taught) -> Tensor:
        return self.energy(logits.softmax(1), given.images, given.valid, given.a.label)

    def _student(
        self, logits: Tensor, given: Taught, step: int, parts: dict[str, Tensor]
    ) -> Tensor:
        """The student's loss; its terms go to `parts` as they are, `share` says who counts."""
        config = self.config
        zero = 0.0 * logits.float().sum() + 0.0  # keeps the head in the graph; + 0.0 against -0.0
        logits = enlarge(logits, _size(given.images))
        share, a_label, b = 0.0, given.a.label, given.b
        if config.pulse_in_loss and b is not None:
            share, a_label, b = self._divide(step, given.a, b)
        ce = self._ce(logits, a_label) if share < 1 else zero
        kd = zero
        if share > 0 and b is not None:
            kd = self._distill(logits, b)
        energy = self._energy(logits, given) if config.pulse_dense or share < 1 else zero
        parts |= {"student_ce": ce, "student_kd": kd, "student_energy": energy}
        parts["share"] = zero.new_tensor(share)
        weight = 1.0 if config.selection in ("soft_mean", "agreement") else config.kd_weight
        dense = 1.0 if config.pulse_dense else 1.0 - share
        return (1 - share) * ce + share * weight * kd + dense * energy

    def _divide(
        self, step: int, a: TeacherLabel, b: TeacherLabel
    ) -> tuple[float, Tensor, TeacherLabel]:
        """Share of teacher B in the student's loss, and the labels both parts use."""
        selection = self.config.selection
        if selection == "soft_mean":
            return 1.0, a.label, mean_of_teachers((a, b), len(cast(Tensor, self.first)))
        if selection == "agreement":
            return 1.0, a.label, replace(b, label=agreement_of_teachers((a, b)))
        if selection != "images":
            return self._share(step), a.label, b
        choice = self._image_choice(step, len(a.label))
        to_b = torch.tensor(choice, device=a.label.device)[:, None, None]
        mine = b.label.masked_fill(~to_b, IGNORE)
        return sum(choice) / len(choice), a.label.masked_fill(to_b, IGNORE), replace(b, label=mine)

    def _distill(self, logits: Tensor, b: TeacherLabel) -> Tensor:
        """Teacher B's loss, without weight."""
        config = self.config
        if config.selection == "agreement":
            return self._ce(logits, b.label)
        sure = b.probs.amax(1) >= config.kd_confidence
        if config.selection == "soft_mean" or config.kd == "soft_kl":
            taught = b.label != IGNORE
            if config.selection != "soft_mean":
                taught = taught & sure
            return soft_distillation(logits, b.probs, b.classes, taught, config.temperature)
        label = b.label if config.kd == "hard" else b.label.masked_fill(~sure, IGNORE)
        return hard_distillation(logits, label)

    def predict(
        self, images: Float[Tensor, "b 3 h w"], tags: Float[Tensor, "b k"] | None = None
    ) -> SegOutput:
        """Fused logits of both heads at image size, raw maps, tag logits.

        The logits are the logarithm of the heads' larger probability; their softmax is the fused
        prediction divided by its sum. The released inference (single scale) gives the undivided one
        to its CRF: `asdt_losses.fused_probs`. Without background, a first channel that never wins
        is added, so that class c is label c + 1 as in masks.

        Args:
            images: RGB in [0, 1].
            tags: not used.
        """
        seen: Stream = self.network(images)
        other = seen.teacher_logits if seen.student_logits is None else seen.student_logits
        fused = fused_probs(seen.teacher_logits, other, _size(images)).clamp(min=1e-12).log()
        if not self.config.background:
            fused = F.pad(fused, (0, 0, 0, 0, 1, 0), value=-1e4)
        return SegOutput(fused, seen.cam, seen.tag_logits)

    def load_released(self, state: Mapping[str, Tensor]) -> None:
        """Load a checkpoint of the released code, strictly."""
        self.network.load_released(state)

    def param_groups(self, lr: float, head_lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """The released four groups, see `ASDTNetwork.param_groups`."""
        return self.network.param_groups(lr, head_lr, weight_decay)
