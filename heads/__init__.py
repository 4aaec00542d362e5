"""Heads on stored vectors: sweeps, scores beside baselines, and bundles that predict."""

from heads.audit import audit_labels, audit_leaks
from heads.bulk import target_scale
from heads.bundle import Bundle
from heads.bundle_folder import load_bundle
from heads.calibration import Calibration
from heads.chart import draw_robustness, draw_scores
from heads.comparison import compare_blocks, compare_entries, gain_words
from heads.conversions import chosen_conversions, compare_conversions, each_alone, mean_ranks
from heads.curve import learning_curves
from heads.gap import group_gap
from heads.given import Given, calibration_of, given_entry
from heads.head import balanced_weights, standardise
from heads.importance import block_importance
from heads.leaderboard import Leaderboard, best, ranked, table
from heads.linear import ABSENT
from heads.matrix import MISSING, FeatureMatrix, load_matrix, load_matrix_like, metadata_columns
from heads.metrics import HEADLINE, METRICS
from heads.output import write_predictions
from heads.predictions import Predictions
from heads.refit import fit_bundle
from heads.registry import HEADS
from heads.report import (
    audit_report,
    conversions_report,
    curve_report,
    entries_report,
    importance_report,
    robustness_report,
    transfer_report,
)
from heads.robustness import check_plain, disturbed, robustness
from heads.sweep import Sweep, check_names
from heads.transfer import held_out_groups, held_out_values, transfer

__all__ = [
    "ABSENT",
    "HEADLINE",
    "HEADS",
    "METRICS",
    "MISSING",
    "Bundle",
    "Calibration",
    "FeatureMatrix",
    "Given",
    "Leaderboard",
    "Predictions",
    "Sweep",
    "audit_labels",
    "audit_leaks",
    "audit_report",
    "balanced_weights",
    "best",
    "block_importance",
    "calibration_of",
    "check_names",
    "chosen_conversions",
    "check_plain",
    "compare_blocks",
    "compare_conversions",
    "compare_entries",
    "conversions_report",
    "curve_report",
    "disturbed",
    "draw_robustness",
    "draw_scores",
    "each_alone",
    "entries_report",
    "fit_bundle",
    "gain_words",
    "given_entry",
    "group_gap",
    "held_out_groups",
    "held_out_values",
    "importance_report",
    "learning_curves",
    "load_bundle",
    "load_matrix",
    "load_matrix_like",
    "mean_ranks",
    "metadata_columns",
    "ranked",
    "robustness",
    "robustness_report",
    "standardise",
    "table",
    "target_scale",
    "write_predictions",
    "transfer",
    "transfer_report",
]
