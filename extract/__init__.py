"""From pixels and text to vectors in the store."""

from extract.backbone import Backbone, ImageEncoder, image_space, vector_length, with_normalisation
from extract.catalogue import load_backbone
from extract.contract import Encoder
from extract.decode import ImageError, read_image
from extract.depth import deep_blocks
from extract.drawing import Drawing
from extract.encoder import (
    ENCODERS,
    encoder_from_space,
    encoders_from_spaces,
    encoders_like,
    fitting_blocks,
    folder_digests,
    folder_fingerprints,
    make_encoders,
    modality_of,
)
from extract.engine import Device
from extract.explore import Looks, describe_images, draw_examples, look_at_images
from extract.language import Language, TextEncoder, load_language, pool_tokens, text_space
from extract.network import Options
from extract.outcome import Failure, SpaceReport
from extract.pipeline import extract_features
from extract.preparation import probe_images
from extract.report import closing_lines, images_report, row_status, spaces_report
from extract.resize import prepare_image
from extract.runner import Runtime, resolve_device
from extract.saving import save_backbone, save_language
from extract.shard import Shard
from extract.sheet import draw_rows, draw_sheet, row_picture, with_words
from extract.total import total_reports
from extract.view import crop, join_pictures, seen_parts, whole_picture
from extract.weights import WeightsError, load_or_random, seeded, state_digest

__all__ = [
    "Backbone",
    "Drawing",
    "Device",
    "ENCODERS",
    "Encoder",
    "ImageEncoder",
    "Failure",
    "ImageError",
    "Language",
    "Looks",
    "Options",
    "Runtime",
    "Shard",
    "SpaceReport",
    "TextEncoder",
    "WeightsError",
    "closing_lines",
    "crop",
    "deep_blocks",
    "describe_images",
    "draw_examples",
    "draw_rows",
    "draw_sheet",
    "encoder_from_space",
    "encoders_from_spaces",
    "encoders_like",
    "extract_features",
    "fitting_blocks",
    "folder_digests",
    "folder_fingerprints",
    "image_space",
    "images_report",
    "join_pictures",
    "load_backbone",
    "load_language",
    "load_or_random",
    "look_at_images",
    "make_encoders",
    "modality_of",
    "pool_tokens",
    "prepare_image",
    "probe_images",
    "read_image",
    "save_backbone",
    "save_language",
    "resolve_device",
    "row_picture",
    "row_status",
    "seeded",
    "seen_parts",
    "spaces_report",
    "state_digest",
    "text_space",
    "total_reports",
    "vector_length",
    "whole_picture",
    "with_normalisation",
    "with_words",
]
