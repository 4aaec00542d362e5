"""From pixels and text to vectors in the store."""

from extract.depth import deep_blocks
from extract.encoder import ENCODERS, Encoder, Options, encoder_from_space, encoders_like, make_encoder, make_encoders
from extract.pipeline import SpaceReport, extract_features, probe_images
from extract.report import closing_lines, spaces_report
from extract.shard import Shard
from extract.total import total_reports

__all__ = [
    "ENCODERS",
    "Encoder",
    "Options",
    "Shard",
    "SpaceReport",
    "closing_lines",
    "deep_blocks",
    "encoder_from_space",
    "encoders_like",
    "extract_features",
    "make_encoder",
    "make_encoders",
    "probe_images",
    "spaces_report",
    "total_reports",
]
