"""Every setting of a run, as frozen pydantic models: the only place with defaults. Imports no torch.

Paths read like `training.epochs`, `model.name`, `resampler.nms_iou`; unknown keys are errors. A method declares its own
section in its file; `Config` collects them by the registry of methods.
"""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ciod_core.errors import CheckpointError
from ciod_core.migrations import upgrade_settings

UnitInterval = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
# From here on, numbers overflow somewhere in libraries; no setting comes near.
NO_BOUND = 2**31
Count = Annotated[int, Field(ge=1, lt=NO_BOUND)]
Natural = Annotated[int, Field(ge=0, lt=NO_BOUND)]
LARGEST_IMAGE_SIZE = 2**14
# Of every backbone, its stem included.
NUM_STAGES = 5

# By their names, because both packages import this module.
METHOD_REGISTRY = "ciod_core.methods.registry"
DETECTOR_REGISTRY = "ciod_core.model.registry"


def _registered_detector(name: str) -> str:
    return _one_of(name, import_module(DETECTOR_REGISTRY).DETECTORS)


def _registered_method(name: str) -> str:
    return _one_of(name, import_module(METHOD_REGISTRY).METHODS)


def _one_of(name: str, known: Collection[str]) -> str:
    if name not in known:
        # Reads like pydantic's own error for a Literal.
        *others, last = (f"'{choice}'" for choice in known)
        expected = f"{', '.join(others)} or {last}"
        raise PydanticCustomError("literal_error", "Input should be {expected}", {"expected": expected})
    return name


def _device_name(value: object) -> object:
    # YAML reads `device: 0` as a number.
    return str(value) if type(value) is int else value


class Section(BaseModel):
    """Base of every section: immutable, unknown keys refused, defaults checked too."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class ModelConfig(Section):
    """The detector's shape. Fixed by step 1; later steps read it from the teacher."""

    name: Annotated[str, AfterValidator(_registered_detector)] = Field("resnet50", description="the detector")
    backbone_weights: str = Field(
        "auto",
        description="'imagenet', 'none', a .safetensors/.pth file, or 'auto': imagenet for ResNet, none for CSPDarknet",
    )
    init: str | None = Field(
        None, description="checkpoint that step 1 starts from: its backbone, neck and towers, with fresh class rows"
    )

    @property
    def pretrained(self) -> bool:
        """Whether the backbone starts from given weights (and, for a ResNet, keeps its statistics)."""
        if self.backbone_weights == "auto":
            return import_module(DETECTOR_REGISTRY).DETECTORS[self.name].imagenet is not None
        return self.backbone_weights != "none"


class DataConfig(Section):
    """How images are loaded and augmented."""

    image_size: Annotated[int, Field(ge=32, le=LARGEST_IMAGE_SIZE)] = Field(
        640, description="longer side after resizing, pixels"
    )
    shorter_side: int | None = Field(
        None,
        ge=32,
        le=LARGEST_IMAGE_SIZE,
        description="most pixels of the shorter side, for which the longer one becomes less; null: no limit",
    )
    multi_scale: bool = Field(True, description="draw the longer side per image from 65 to 100 % of image_size")
    scale_pairs: bool = Field(
        False,
        description="multi_scale draws two sizes, the larger one for the longer side and the smaller one as the limit "
        "of the shorter side (published)",
    )
    photometric: bool = Field(True, description="distort brightness, contrast, saturation and hue")
    flip: UnitInterval = Field(0.5, description="probability that an image is mirrored left and right")
    mosaic: UnitInterval = Field(0.0, description="probability that four images around a random center make one sample")
    mixup: UnitInterval = Field(0.0, description="probability that a second image is averaged with a sample")
    corrupt_images: Literal["stop", "skip"] = Field(
        "stop", description="training images that cannot be loaded: end the run, or take the next image and count"
    )
    unlabeled: str | None = Field(
        None, description="folder of further images, half of every batch, that show no object of a new class"
    )
    missing_labels: Literal["ignore", "background"] = Field(
        "ignore",
        description="where an image has no labels of a class (joint training of several datasets, replay): what the "
        "student detects as one is no background, or everything is",
    )
    missing_score: UnitInterval = Field(0.1, description="detection score from which the student detects such a class")
    workers: Natural = Field(2, description="processes that load images; 0: none but the main one")

    @model_validator(mode="after")
    def _check_stride(self) -> DataConfig:
        if self.image_size % 32:
            raise ValueError(f"data.image_size is {self.image_size}; it must be a multiple of 32")
        if self.shorter_side is not None and self.scale_pairs:
            raise ValueError(
                f"data.shorter_side is {self.shorter_side}, but data.scale_pairs draws it; set one of them"
            )
        return self

    @property
    def sizes(self) -> dict[str, Any]:
        """What resizing is told: `image_size` and `shorter_side`."""
        return {"image_size": self.image_size, "shorter_side": self.shorter_side}


class TrainingConfig(Section):
    """Optimization of one step."""

    epochs: Count = Field(12, description="passes over the training images")
    batch_size: Count = Field(16, description="images per iteration, of all processes together")
    optimizer: Literal["sgd", "adamw"] = Field("adamw", description="how gradients change the weights")
    accumulate: Count = Field(1, description="batches whose gradients make one update: a larger batch in less memory")
    lr: Positive = Field(1e-3, description="learning rate after the warm-up")
    lr_batch_size: Annotated[int, Field(ge=0)] = Field(
        0, description="images per update that lr is meant for; it is scaled to those there are; 0: lr as it is"
    )
    backbone_rate: UnitInterval = Field(1.0, description="share of the learning rate at which the backbone learns")
    frozen_stages: int | None = Field(
        None,
        ge=0,
        le=NUM_STAGES,
        description="first stages of the backbone that do not learn, counted from its stem; null: 2 of a ResNet with "
        "given weights (published), else 0",
    )
    momentum: UnitInterval = Field(0.9, description="of sgd")
    nesterov: bool = Field(True, description="Nesterov's momentum, of sgd (published: no)")
    weight_decay: NonNegative = Field(1e-4, description="of the optimizer")
    decay_all: bool = Field(
        False, description="weight decay of biases and normalization, too (published), not of kernels alone"
    )
    candidates: Literal["box-or-center", "center"] = Field(
        "box-or-center",
        description="anchor points that an object may take in YOLOX: in its box or near its center (published), or "
        "near its center alone (later YOLOX)",
    )
    center_radius: Positive = Field(
        2.5, description="how near the center is, in strides: 2.5 (published), 1.5 in later YOLOX"
    )
    schedule: Literal["cosine", "step"] = Field("cosine", description="how the learning rate falls after the warm-up")
    milestones: tuple[Count, ...] = Field((8, 11), description="epochs after which the step schedule divides lr by 10")
    final_lr_ratio: UnitInterval = Field(0.01, description="where the cosine schedule ends, as a share of lr")
    warmup_iterations: Natural = Field(
        200, description="iterations in which the learning rate rises, a fifth of all at most"
    )
    warmup_ratio: UnitInterval = Field(0.001, description="where the warm-up begins, as a share of lr")
    clip_grad_norm: NonNegative = Field(10.0, description="largest norm of the gradient; 0 switches clipping off")
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.998, description="decay of the moving average of weights; 0 switches the average off"
    )
    evaluate_every: Annotated[int, Field(ge=0)] = Field(
        0, description="epochs between evaluations during training; 0: at the end alone"
    )
    keep: Literal["last", "best"] = Field(
        "last", description="weights that are handed on: the last ones, or those of the evaluation with the best AP"
    )
    patience: Annotated[int, Field(ge=0)] = Field(
        0, description="evaluations without a better AP after which training ends; 0: it never does"
    )
    max_hours: NonNegative = Field(0.0, description="training ends after the epoch that exceeds this time; 0: no limit")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(0, description="of all random draws")
    device: Annotated[str, BeforeValidator(_device_name)] = Field(
        "auto", description="auto (the first CUDA GPU, else the CPU), cpu, cuda, a GPU's number or mps"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field("auto", description="auto: bf16 on GPUs that have it")
    channels_last: bool = Field(True, description="memory layout of images and weights; faster on most devices")
    compile: bool = Field(
        False,
        description="compile the networks for every size of a batch: a minute or two for each, after which small "
        "batches on a fast GPU take less time",
    )
    sync_batch_norm: bool = Field(
        False, description="batch statistics of all GPUs' images instead of those of each GPU's share"
    )
    deterministic: bool = Field(True, description="algorithms that repeat a run bit by bit, where there are such")
    log_interval: Count = Field(20, description="iterations between two progress records")
    log: Literal["csv", "tensorboard"] = Field(
        "csv", description="what progress records are written to; tensorboard: to its event files, beside the CSV files"
    )
    log_images: Natural = Field(
        0, description="validation images that tensorboard gets after every evaluation, with what is detected in them"
    )

    @model_validator(mode="after")
    def _check_evaluations(self) -> TrainingConfig:
        if not self.evaluate_every and (self.patience or self.keep == "best"):
            given = f"training.patience is {self.patience}" if self.patience else "training.keep is best"
            raise ValueError(f"{given}, but nothing is evaluated during training; set `training.evaluate_every` to 1")
        return self


class MethodConfig(Section):
    """Which continual-learning method a later step uses, and what all methods that learn from a teacher share."""

    name: Annotated[str, AfterValidator(_registered_method)] = Field(
        "auto", description="the method; auto chooses by the old objects that the teacher sees in the new images"
    )
    batch_norm: Literal["keep", "update"] = Field(
        "keep", description="statistics of batch normalization: the teacher's, or those of the new images (published)"
    )
    trunk_balance: NonNegative = Field(
        0.5,
        description="old objects per new one below which backbone and neck learn more slowly; 0: never (published)",
    )
    objectness: Literal["hard", "soft"] = Field(
        "soft",
        description="objectness target where an old object was selected: 1 (published), or the teacher's objectness",
    )


class ResamplerConfig(Section):
    """Which of the teacher's predictions become knowledge (center re-sampling, CRS)."""

    rule: Literal["crs", "fixed", "class-stat", "global-stat"] = Field(
        "crs", description="anchor points around centers, or those above a fixed or an image's own threshold"
    )
    center_score: UnitInterval = Field(0.3, description="class score that makes an anchor point a center")
    other_iou: UnitInterval = Field(0.65, description="IoU with a center of its class that keeps another anchor point")
    min_score: UnitInterval = Field(0.2, description="lowest class score × objectness kept (0.1 published)")
    fixed_score: UnitInterval = Field(0.3, description="class score × objectness threshold of 'fixed'")
    class_std: float = Field(1.0, description="'class-stat' threshold: mean + class_std · std per image and class")
    global_std: float = Field(2.0, description="'global-stat' threshold: mean + global_std · std per image")
    nms_iou: UnitInterval = Field(
        0.65, description="class-wise NMS threshold; 0.95 (published) keeps clusters of boxes"
    )
    ground_truth_iou: UnitInterval = Field(
        0.5, description="drop boxes overlapping a ground-truth box by this IoU; 1 (published) keeps them all"
    )


class ReplayConfig(Section):
    """Exemplar replay: a few images of earlier steps are trained on again, with the labels they had then."""

    images: Natural = Field(0, description="images in all; 0 switches replay off")
    images_per_class: Natural = Field(0, description="images of every old class instead")
    choice: Literal["random", "balanced"] = Field(
        "balanced", description="take images of the class with the fewest, or draw from all images alike"
    )

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

    score_threshold: UnitInterval = Field(0.001, description="lowest score of a detection")
    nms_iou: UnitInterval = Field(0.65, description="IoU above which the lower-scored box of a class is dropped")
    max_detections: Count = Field(100, description="most detections per image and head")
    multi_label: bool = Field(
        True, description="an anchor point may be detected as several classes, not as the best one alone"
    )
    yield_iou: UnitInterval = Field(
        0.5, description="a branch's detection yields to a better one of an older class above this IoU; 1: never"
    )
    negatives: bool = Field(
        False, description="validation images of earlier steps show none of the new classes: measure AP on them, too"
    )
    batch_size: Count = Field(32, description="images per forward pass")


SectionT = TypeVar("SectionT", bound=Section)


class Config(Section):
    """The resolved configuration of one run, saved beside it as config.yaml.

    Besides the sections below it has those of the methods, as extra attributes that `section` reads with their types.
    """

    model_config = ConfigDict(extra="allow")

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    method: MethodConfig = MethodConfig()
    resampler: ResamplerConfig = ResamplerConfig()
    replay: ReplayConfig = ReplayConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="before")
    @classmethod
    def _check_method_sections(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        sections: Any = {
            name: (kind, kind()) for name, kind in import_module(METHOD_REGISTRY).method_sections().items()
        }
        methods = create_model("MethodSections", __base__=Section, **sections)
        own = {name: value for name, value in given.items() if name not in cls.model_fields}
        # An error in here is reported with the path of its setting, like those of the fields above.
        return {name: given[name] for name in given if name in cls.model_fields} | dict(methods.model_validate(own))

    def section(self, name: str, kind: type[SectionT]) -> SectionT:
        """A method's own section; the defaults of `kind` where there is none of this name."""
        section = getattr(self, name, None) if name else None
        return section if isinstance(section, kind) else kind()


def config_sections() -> dict[str, type[Section]]:
    """All sections by name, those of the methods included."""
    fixed = {name: field.annotation for name, field in Config.model_fields.items()}
    return fixed | import_module(METHOD_REGISTRY).method_sections()


def choices_of(key: str) -> tuple[str, ...]:
    """The values of a setting with a list of them: registered methods and detectors, or those of a `Literal`."""
    registries = {"method.name": (METHOD_REGISTRY, "METHODS"), "model.name": (DETECTOR_REGISTRY, "DETECTORS")}
    if key in registries:
        module, names = registries[key]
        return tuple(getattr(import_module(module), names))
    section, _, name = key.partition(".")
    own = Config.model_fields.get(section)
    # The sections of methods come with torch, which the help does without.
    kind: Any = own.annotation if own else config_sections()[section]
    return tuple(value for value in get_args(kind.model_fields[name].annotation) if isinstance(value, str))


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
