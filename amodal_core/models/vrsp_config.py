"""Settings of VRSP-Net."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from amodal_core.models.two_stage_config import TwoStageConfig
from amodal_core.settings import Amount, Count, Positive, Share, settings_type

COARSE, CROSS, ENSEMBLE = "coarse", "cross", "ensemble"


@settings_type
class VrspConfig(TwoStageConfig):
    """Settings of VRSP-Net.

    Attributes:
        refinement: "cross": visible sees the coarse amodal mask, amodal the refined visible one;
            "visible": only the visible mask is refined; "coarse": neither.
        masks: which masks detections have: "refined", "coarse", or "ensemble", the union of both.
        guided_weight: of the refined masks' loss under attention to the true masks.
        guided_visible: what the visible mask learns under attention to the true amodal one:
            "visible", or "amodal" as in the published code.
        reclassification: a second classification, of the visible region.
        reclassification_rescoring: it changes the scores.
        reclassification_weight: of its loss.
        reclassification_guided_weight: within that loss, of attention to the true visible mask; 0
            leaves it out.
        reclassification_hidden: width of its two layers.
        prior_refinement: the refined amodal mask sees the nearest shapes of the codebook.
        prior_rescoring: a mask's distance to the nearest shape changes its score.
        rescoring_alpha: a mask wrong everywhere keeps log(alpha - 1) / log(alpha) of its score.
        feature_matching: coarse features learn to be like those under attention to the truth.
        matching_weights: of the features before and after upsampling.
        priors: shapes that the refinement sees.
        prior_query: what they are looked up by: "mask", the binary coarse mask, as the auto-encoder
            knows binary masks; or "logits", the coarse logits, as in the published code.
        encoder_convolutions: of the mask auto-encoder, 2 or 3.
        prior_iou: a predicted mask more alike to the truth joins the auto-encoder's masks; 1 for
            true masks only.
        centres: of the codebook, a class at most.
        candidates: box and class pairs of an image that are rescored, the best-scored first; 0 for
            all.
    """

    refinement: Literal["coarse", "visible", "cross"] = "cross"
    masks: Literal["refined", "coarse", "ensemble"] = "refined"
    guided_weight: Amount = 1.0
    guided_visible: Literal["visible", "amodal"] = "visible"
    reclassification: bool = True
    reclassification_rescoring: bool = True
    reclassification_weight: Amount = 0.25
    reclassification_guided_weight: Amount = 0.1
    reclassification_hidden: Positive = 1024
    prior_refinement: bool = True
    prior_rescoring: bool = True
    rescoring_alpha: Annotated[float, Field(gt=1)] = 2.0
    feature_matching: bool = True
    matching_weights: tuple[Amount, Amount] = (0.01, 0.05)
    priors: Positive = 16
    prior_query: Literal["mask", "logits"] = "mask"
    encoder_convolutions: Literal[2, 3] = 3
    prior_iou: Share = 0.95
    centres: Positive = 1024
    candidates: Count = 400

    @model_validator(mode="after")
    def _fit(self) -> VrspConfig:
        needing = ("feature_matching", "reclassification", "prior_refinement")
        if self.refinement == COARSE and (on := [n for n in needing if getattr(self, n)]):
            raise ValueError(f"refinement: coarse has no refined masks for {', '.join(on)}")
        return self
