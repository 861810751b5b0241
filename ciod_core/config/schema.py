"""Every setting of a run, as frozen pydantic models: the only place where defaults live.

Paths read like `training.epochs`, `model.name`, `resampler.nms_iou`; unknown keys are errors.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ciod_core.errors import CheckpointError
from ciod_core.migrations import upgrade_settings

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]

MODEL_NAMES = Literal[
    "resnet18", "resnet50", "yolox-micro", "yolox-nano", "yolox-tiny", "yolox-s", "yolox-m", "yolox-l", "yolox-x"
]
METHOD_NAMES = Literal["crs-ckd", "erd", "sid", "rilod", "lwf", "frozen-branch", "pseudo-label", "finetune", "joint"]


class Section(BaseModel):
    """Base of every section: immutable, unknown keys refused, defaults checked too."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class ModelConfig(Section):
    """The detector's shape. Fixed by step 1; later steps read it from the teacher."""

    name: MODEL_NAMES = "resnet50"
    backbone_weights: str = Field(
        "auto",
        description="'imagenet', 'none', a .safetensors/.pth file, or 'auto': imagenet for ResNet, none for CSPDarknet",
    )


class DataConfig(Section):
    """How images are loaded and augmented."""

    image_size: Annotated[int, Field(ge=32)] = Field(640, description="longer side after resizing, pixels")
    multi_scale: bool = Field(True, description="draw the longer side per image from 65 to 100 % of image_size")
    photometric: bool = True
    flip: Fraction = 0.5
    mosaic: Fraction = Field(0.0, description="probability that four images around a random centre make one sample")
    mixup: Fraction = Field(0.0, description="probability that a second image is averaged with a sample")
    corrupt_images: Literal["stop", "skip"] = Field(
        "stop", description="training images that cannot be loaded: end the run, or take the next image and count"
    )
    workers: Annotated[int, Field(ge=0)] = 2

    @model_validator(mode="after")
    def _check_stride(self) -> DataConfig:
        if self.image_size % 32:
            raise ValueError(f"data.image_size is {self.image_size}; it must be a multiple of 32")
        return self


class TrainingConfig(Section):
    """Optimisation of one step."""

    epochs: Count = 12
    batch_size: Count = 16
    optimizer: Literal["sgd", "adamw"] = "adamw"
    lr: Positive = 1e-3
    momentum: Fraction = 0.9
    weight_decay: NotNegative = 1e-4
    schedule: Literal["cosine", "step"] = "cosine"
    milestones: tuple[Count, ...] = Field((8, 11), description="epochs after which the step schedule divides lr by 10")
    final_lr_ratio: Fraction = Field(0.01, description="where the cosine schedule ends, as a share of lr")
    warmup_iterations: Annotated[int, Field(ge=0)] = 200
    warmup_ratio: Fraction = 0.001
    clip_grad_norm: NotNegative = Field(10.0, description="0 switches clipping off")
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.998, description="0 switches the average off")
    seed: Annotated[int, Field(ge=0)] = 0
    device: str = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = True
    deterministic: bool = True
    log_interval: Count = Field(20, description="iterations between two progress records")


class MethodConfig(Section):
    """Which continual-learning method a later step uses."""

    name: METHOD_NAMES = "crs-ckd"


class ResamplerConfig(Section):
    """Which of the teacher's answers become knowledge (center re-sampling, CRS)."""

    rule: Literal["crs", "fixed", "class-stat", "global-stat"] = "crs"
    centre_score: Fraction = Field(0.3, description="class score that makes an anchor point a centre")
    other_iou: Fraction = Field(0.65, description="IoU with a centre of its class that lets another anchor point in")
    min_score: Fraction = Field(0.2, description="lowest class score × objectness kept by 'crs' (0.1 published)")
    fixed_score: Fraction = Field(0.3, description="class score × objectness threshold of 'fixed'")
    class_std: float = Field(1.0, description="'class-stat' threshold: mean + class_std · std per image and class")
    global_std: float = Field(2.0, description="'global-stat' threshold: mean + global_std · std per image")
    nms_iou: Fraction = Field(0.65, description="class-wise NMS threshold; 0.95 (published) keeps clusters of boxes")
    ground_truth_iou: Fraction = Field(
        0.5, description="drop answers overlapping a ground-truth box by this IoU; 1 (published) keeps them all"
    )


class DistillerConfig(Section):
    """How knowledge is transferred (collaborative distillation)."""

    weighting: Literal["paper", "balanced", "none"] = Field(
        "none", description="of class against location: by their errors as published ('paper') or corrected, or equal"
    )
    target: Literal["soft", "hybrid", "margin-weighted", "hard"] = "soft"
    objectness: Literal["hard", "soft"] = Field(
        "soft", description="objectness target at positives of old objects: 1 (published), or the teacher's objectness"
    )
    class_weight: NotNegative = 1.0
    location_weight: NotNegative = 1.0
    background: Literal["teacher", "zero"] = Field(
        "zero", description="objectness target where no object is: 0 (published), or the teacher's objectness"
    )
    batch_norm: Literal["keep", "update"] = Field(
        "keep", description="statistics of batch normalisation: the teacher's, or those of the new images (published)"
    )
    trunk_balance: NotNegative = Field(
        0.5,
        description="old objects per new one below which backbone and neck learn more slowly; 0: never (published)",
    )


class LwfConfig(Section):
    """LwF: class and objectness of all anchor points."""

    weight: NotNegative = Field(1.0, description="λ: 1 weighs the teacher like the labels")


class RilodConfig(Section):
    """RILOD: logits and boxes where the resampler selects, and the neck's features."""

    class_weight: NotNegative = 1.0
    box_weight: NotNegative = 1.0
    feature_weight: NotNegative = 1.0


class SidConfig(Section):
    """SID: logits and relations of the instances that the resampler selects, and the class tower's features."""

    class_weight: NotNegative = 1.0
    feature_weight: NotNegative = 1.0
    relation_weight: NotNegative = 1.0


class ErdConfig(Section):
    """ERD: responses that stand out from their image."""

    num_std: float = Field(2.0, description="a response exceeds mean + num_std · std of its image")
    nms_iou: Fraction = Field(0.005, description="class-wise NMS threshold of the responses that teach boxes")
    class_weight: NotNegative = 1.0
    box_weight: NotNegative = 1.0


class ReplayConfig(Section):
    """Exemplar replay: a few images of earlier steps are trained on again, with the labels they had then."""

    images: Annotated[int, Field(ge=0)] = Field(0, description="images in all; 0 switches replay off")
    images_per_class: Annotated[int, Field(ge=0)] = Field(0, description="images of every old class instead")
    choice: Literal["random", "balanced"] = Field(
        "balanced", description="serve the class with the fewest images, or draw from all images alike"
    )
    unlabelled: Literal["ignore", "background"] = Field(
        "ignore",
        description="new classes on old images: no background where the student suspects them, or background",
    )
    suspect_score: Fraction = Field(0.1, description="class score × objectness from which the student suspects")

    @property
    def on(self) -> bool:
        """Whether there is a budget."""
        return bool(self.images or self.images_per_class)

    @model_validator(mode="after")
    def _check_one_budget(self) -> ReplayConfig:
        if self.images and self.images_per_class:
            given = f"replay.images is {self.images} and replay.images_per_class is {self.images_per_class}"
            raise ValueError(f"{given}; set one of them")
        return self


class EvaluationConfig(Section):
    """How detections are read off the head's output."""

    score_threshold: Fraction = 0.001
    nms_iou: Fraction = 0.65
    max_detections: Count = 100
    batch_size: Count = 32


class Config(Section):
    """The resolved configuration of one run, saved beside it as config.yaml."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    method: MethodConfig = MethodConfig()
    resampler: ResamplerConfig = ResamplerConfig()
    distiller: DistillerConfig = DistillerConfig()
    lwf: LwfConfig = LwfConfig()
    rilod: RilodConfig = RilodConfig()
    sid: SidConfig = SidConfig()
    erd: ErdConfig = ErdConfig()
    replay: ReplayConfig = ReplayConfig()
    evaluation: EvaluationConfig = EvaluationConfig()


def recorded_config(recorded: dict[str, Any]) -> Config:
    """The settings that a run was trained with, from what its record holds.

    Raises:
        CheckpointError: settings that this version does not know.
    """
    try:
        return Config.model_validate(upgrade_settings(recorded))
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors(include_url=False)[0]["loc"])
        raise CheckpointError(
            f"the run's setting {where} is unknown to this version of ciod; use the version that trained it"
        ) from None
