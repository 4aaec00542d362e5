"""From pixels and text to vectors in the store."""

from extract.backbone import Backbone, load_backbone, vector_length, with_normalisation
from extract.depth import deep_blocks
from extract.encoder import (
    ENCODERS,
    Encoder,
    Options,
    encoder_from_space,
    encoders_like,
    make_encoder,
    make_encoders,
    modality_of,
)
from extract.language import language_module, load_language, pool_tokens
from extract.pipeline import SpaceReport, extract_features, probe_images
from extract.report import closing_lines, spaces_report
from extract.shard import Shard
from extract.total import total_reports
from extract.weights import WeightsError, seeded

__all__ = [
    "Backbone",
    "ENCODERS",
    "Encoder",
    "Options",
    "Shard",
    "SpaceReport",
    "WeightsError",
    "closing_lines",
    "deep_blocks",
    "encoder_from_space",
    "encoders_like",
    "extract_features",
    "language_module",
    "load_backbone",
    "load_language",
    "make_encoder",
    "make_encoders",
    "modality_of",
    "pool_tokens",
    "probe_images",
    "seeded",
    "spaces_report",
    "total_reports",
    "vector_length",
    "with_normalisation",
]
