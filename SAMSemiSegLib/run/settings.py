"""The settings of a run: one typed, validated object, written to the run folder as ``config.json``.

Each class is one stage; its defaults are what every preset begins from. A preset in
``Resources/Presets`` and ``--set key=value`` override them (``finetuning.options.rank=8``).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from SAMSemiSegLib.errors import InputError

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
Cleaned = bool | Literal["auto"] | list[str]
"""Labels that a clean-up is for: all, none, or those named; ``auto``: those that are in one piece
in every labeled volume."""
Size3 = tuple[Positive, Positive, Positive]
Spacing3 = tuple[
    Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]
]


class Settings(BaseModel):
    """Base of all settings: unknown keys are refused, values are checked on assignment."""

    model_config = ConfigDict(
        extra="forbid",
        validate_assignment=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,  # "samsemiseg settings" shows them
    )


Own = TypeVar("Own", bound=Settings)


def validated(options: type[Own], given: dict[str, Any], key: str, title: str) -> Own:
    """The options of a strategy or method, checked.

    Args:
        options: its class of settings.
        given: as a user set them.
        key: where in the settings of a run they stand.
        title: of the strategy or method.

    Raises:
        InputError: an option is unknown or its value is not allowed; the sentence names it.
    """
    try:
        return options(**given)
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(str(part) for part in problem["loc"])
        known = ", ".join(sorted(options.model_fields)) or "none"
        raise InputError(
            f"The setting {key}.{name} of {title} cannot be used ({problem['msg']}); its options "
            f"are: {known}."
        ) from error


class Budget(Settings):
    """How long a training stage lasts.

    ``minutes`` wins over ``steps``: after a few timed steps the number of steps that fits is fixed
    once and kept in the checkpoint, so that a resumed run does the same steps. Where a strategy
    keeps what it has computed (``ect``), steps become faster: there it is fixed anew after each
    quarter.
    """

    steps: Positive = 1000
    minutes: Annotated[float, Field(gt=0)] | None = None


class WarmStart(Budget):
    """The V-Net before the foundation model has said anything."""

    method: str = "supervised"
    """Any semi-supervised method, with its own defaults: ``supervised`` looks at the labeled
    volumes alone (and at the style of the others)."""


class PreprocessingSettings(Settings):
    """Common orientation, spacing and intensity; ``None`` or ``auto`` are chosen from the cases."""

    spacing: Spacing3 | None = None
    scale: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] = 1.0
    """Resolution inside, as a share of ``spacing``'s: 0.5 halves the voxels along each axis.
    ``auto``: as it is where volumes are small; else the finest axes are made coarser, up to twice
    their spacing. Thick slices stay as they are."""
    intensity: Literal["auto", "zscore", "percentile", "ct", "window"] = "auto"
    window: tuple[float, float] | None = None
    """Lower and upper gray value for ``intensity = window``."""


class AugmentationSettings(Settings):
    """3D augmentation of whole volumes or crops. Probabilities are per volume."""

    strength: Annotated[float, Field(ge=0, le=2)] = 1.0
    """Scales all ranges; 0 switches everything off but the flips."""
    affine: Fraction = 0.8
    elastic: Fraction = 0.3
    gamma: Fraction = 0.3
    curve: Fraction = 0.5
    style: Fraction = 0.5
    """A labeled volume takes on the coarse contrast of another training volume, labeled or not."""
    brightness: Fraction = 0.3
    blur: Fraction = 0.2
    noise: Fraction = 0.2
    bias_field: Fraction = 0.3
    low_resolution: Fraction = 0.2
    flip_axes: tuple[Literal[0, 1, 2], ...] = ()
    """Axes (of x, y, z) along which the anatomy may be mirrored."""

    @field_validator("flip_axes")
    @classmethod
    def _each_once(cls, axes: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(axes)) < len(axes):
            raise ValueError("an axis is named twice")
        return axes


class StitchingSettings(Settings):
    """How a volume becomes one canvas."""

    axis: Literal[0, 1, 2] = 2
    """Axis whose slices are laid out; 2 is axial."""
    margin: Annotated[int, Field(ge=0)] = 1
    """Pixels around each cell."""
    max_pixels: Positive = 1024 * 1024
    """Pixel budget of one canvas; larger volumes are split into overlapping slabs."""
    square: bool = False
    start_offset: Annotated[int, Field(ge=0)] = 8
    """Largest random number of blank cells before the first slice, in training."""


class FoundationSettings(Settings):
    """Which SAM-family model, and where its weights are (``None``: the cache, else fetched)."""

    name: str = "auto"
    """``auto``: ``sam_vit_b`` with a GPU, else ``lite_medsam``."""
    weights: str | None = None

    def resolved(self, device: str = "cpu") -> str:
        """The model's name, where ``auto`` is resolved for a device ("cuda:0")."""
        if self.name != "auto":
            return self.name
        return "sam_vit_b" if device.startswith("cuda") else "lite_medsam"


class FinetuningSettings(Settings):
    """Stage 2: adapting the foundation model to the labeled volumes."""

    strategy: str = "lora"
    options: dict[str, Any] = Field(default_factory=dict)
    """The strategy's own settings; ``samsemiseg methods`` lists them."""
    budget: Budget = Budget(steps=300)
    learning_rate: NotNegative = 1e-3
    weight_decay: NotNegative = 0.1
    warmup: Fraction = 0.04
    """Share of the steps with a linearly rising learning rate."""
    batch_size: Positive = 1
    patch: Size3 | None = None
    """Random crops of this size in place of whole volumes, as published; predictions are then
    averaged over overlapping windows of it. ``None``: whole volumes."""
    gradient_checkpointing: bool = False
    """Less memory, a third more time; of strategies that train the encoder."""
    augmentation: AugmentationSettings = AugmentationSettings()


class PseudoLabelSettings(Settings):
    """Pseudo-labels: made once for each unlabeled volume."""

    most: Positive | None = None
    """Of more unlabeled volumes than these, so many drawn at random get a pseudo-label, since the
    foundation model takes seconds for each. The V-Net segments all of them for review in any case.
    ``None``: all."""
    axes: tuple[Literal[0, 1, 2], ...] | None = None
    """Stitching axes whose predictions are averaged; ``None``: the one trained on."""
    flips: bool = False
    """Average over mirrored volumes too (only along axes the augmentation may mirror)."""
    offsets: Positive = 2
    """Number of canvas offsets averaged."""
    prototype_agreement: bool = False
    """Trust a voxel only where its features resemble those of its class in the labeled volumes
    more than those of any other class (the prototypes of CPAC-SAM)."""
    largest_component: Cleaned = "auto"
    fill_holes: bool | list[str] = True
    leave_out_implausible: bool = True
    """Let no pseudo-label take part in re-training that is empty, or holds a label twenty times
    smaller or larger than any labeled volume does."""
    vnet_share: Fraction = 0.0
    """Share of the warm-started V-Net (``retraining.warm_start``) in the probabilities: a 3D
    network and a 2D foundation model err in different places. 0: the foundation model alone."""


Norm = Literal["batch", "instance", "group"]


class NetSettings(Settings):
    """The V-Net."""

    width: Positive = 16
    norm: Norm = "batch"
    dropout: Fraction = 0.5


class SelectionSettings(Settings):
    """SFR+: which volumes the re-trained net is confident of."""

    alternation: Literal["rounds", "online"] = "rounds"
    """``rounds``: whole volumes, one stage after the other. ``online``: within re-training, crop by
    crop; the foundation model learns from confident crops and labels the others anew."""
    rounds: Positive = 2
    """After the first (which is SFR): select, fine-tune again on labeled and confident volumes,
    write new pseudo-labels, re-train."""
    online_start: Fraction = 0.25
    """For ``alternation = online``: share of the re-training before the first selection."""
    online_learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """For ``alternation = online``: of the foundation model, falling as (1 - t)^0.9."""
    confidence: Literal["everywhere", "foreground"] = "everywhere"
    """Mean over all voxels, as printed; or over those whose foreground probability is above 0.1."""
    mode: Literal["threshold", "quantile"] = "threshold"
    threshold: Fraction = 0.985
    """For ``mode = threshold``: confident from this mean confidence on."""
    quantile: Fraction = 0.4
    """For ``mode = quantile``: the share of the volumes that counts as confident."""
    guards: bool = True
    """Refuse predictions that do not look like the labeled volumes, by the three settings below or
    for lack of a label that all of them have. An empty prediction is refused in any case."""
    smallest: NotNegative = 0.3
    largest: Annotated[float, Field(gt=0)] = 3.0
    """The predicted foreground's share of the volume must be between ``smallest`` and ``largest``
    times the labeled volumes' median."""
    wholeness: Fraction = 0.7
    """A class's largest component must hold this many times the share that it holds in the labeled
    volumes."""

    @model_validator(mode="after")
    def _online_has_a_threshold(self) -> SelectionSettings:
        if self.alternation == "online" and self.mode == "quantile":
            raise ValueError(
                "alternation=online judges each crop by itself and needs mode=threshold"
            )
        return self


class RetrainingSettings(Settings):
    """Stage 3: the V-Net, semi-supervised."""

    method: str = "mean_teacher"
    options: dict[str, Any] = Field(default_factory=dict)
    """The method's own settings; ``samsemiseg methods`` lists them."""
    net: NetSettings = NetSettings()
    budget: Budget = Budget(steps=1000)
    warm_start: WarmStart | None = None
    """Train the V-Net without pseudo-labels for so long first, and begin from it: teachers are
    useful from the first step. A round of SFR+ begins from the network of the round before.
    ``None``: from random weights, as published."""
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: NotNegative = 1e-3
    weight_decay: NotNegative = 1e-4
    schedule: Literal["poly", "step"] = "poly"
    patch: Size3 | None = None
    """Voxels along x, y, z; ``None``: chosen from the median size."""
    labeled_batch: Positive = 2
    unlabeled_batch: Positive = 2
    foreground_crops: Fraction = 0.5
    """Share of labeled crops centered on a foreground voxel."""
    augmentation: AugmentationSettings = AugmentationSettings()
    pseudo_label_mode: Literal["off", "on", "selected"] = "on"
    """``off``: the plain method; ``on``: SFR; ``selected``: SFR+."""
    selection: SelectionSettings = SelectionSettings()
    pseudo_label_weight: NotNegative = 1.0
    pseudo_label_schedule: Literal["constant", "ramp_up", "ramp_down"] = "constant"
    """``ramp_up``: as exp(-5(1-t)²) over the first ``pseudo_label_ramp``; ``ramp_down``: as 1 - t
    over the whole run."""
    pseudo_label_ramp: Fraction = 0.4
    """For ``pseudo_label_schedule = ramp_up``: share of the run after which the weight is whole."""
    pseudo_label_target: Literal["hard", "soft"] = "hard"
    confidence_weights: bool = True
    """Weight each voxel of the pseudo-label term by its confidence."""
    final_model: Literal["last", "ema"] = "last"
    window_statistics: bool = True
    """With batch norm: what was trained normalizes each window by the window's own mean and spread
    at prediction, as in training, and not by running averages of the training's crops. False: as
    published."""
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Overlap of the sliding window at prediction."""
    scales: Annotated[tuple[Annotated[float, Field(ge=0.5, le=2)], ...], Field(min_length=1)] = (
        1.0,
    )
    """Resolutions at which the V-Net looks at a volume, as shares of the preprocessed one's; their
    predictions are averaged. Each costs its time: three sizes, three times the prediction."""
    largest_component: Cleaned = False
    """Keep only the largest component, of all labels or of those named, in what the V-Net gives at
    last: the table, the segmentations offered for review, and the exported model's."""


class RunSettings(Settings):
    """Everything a run does, but for the cases, which are the project's."""

    preset: str = "balanced"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1337
    device: str = "auto"
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 1.0
    preprocessing: PreprocessingSettings = PreprocessingSettings()
    stitching: StitchingSettings = StitchingSettings()
    foundation: FoundationSettings = FoundationSettings()
    finetuning: FinetuningSettings = FinetuningSettings()
    pseudolabels: PseudoLabelSettings = PseudoLabelSettings()
    retraining: RetrainingSettings = RetrainingSettings()
    supervised_baseline: bool = False
    """Also train the V-Net on the labeled cases alone, for the table."""
    supervised_budget: Budget | None = None
    """Of the baseline; ``None``: the re-training's."""
    pseudo_label_scores: bool = True
    """Also let the foundation model label the evaluation cases, for the table. It takes as long for
    each as for an unlabeled case."""
    export: tuple[Literal["torchscript", "onnx", "bundle"], ...] = ("torchscript", "onnx", "bundle")

    @model_validator(mode="after")
    def _share_has_a_vnet(self) -> RunSettings:
        if self.pseudolabels.vnet_share > 0 and self.retraining.warm_start is None:
            raise ValueError(
                "pseudolabels.vnet_share needs the V-Net of a warm start; set it to 0, or "
                "retraining.warm_start.minutes too"
            )
        return self
