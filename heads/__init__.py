"""Heads on stored vectors: sweeps, scores beside baselines, and bundles that predict."""

from heads.audit import audit_labels, audit_leaks, merge_duplicates
from heads.audit_report import audit_report
from heads.bundle import Bundle
from heads.bundle_folder import bundle_kind, describe_bundle, load_bundle, read_document, rebuild_bundle, write_document
from heads.calibration import Calibration
from heads.chart import draw_robustness, draw_scores
from heads.columns import prediction_words
from heads.comparison import compare_blocks, compare_entries, gain_words
from heads.conversions import chosen_conversions, compare_conversions, each_alone, mean_ranks
from heads.curve import learning_curves
from heads.distribution import draw_exploration
from heads.error_report import errors_report
from heads.errors import row_captions, write_errors
from heads.figure import FONT_PT, GREY, KEY_INCHES, PAGE_INCHES, STYLES, add_title, finish, make_panels
from heads.gap import folded, group_gap
from heads.given import Given, calibration_of, given_entry
from heads.head import balanced_weights, standardise
from heads.importance import block_importance, network_importance
from heads.layers import FEATURES, Layer, bundle_of_layers, features_matrix
from heads.leaderboard import Entry, Leaderboard, best, is_held_out, ranked, table
from heads.linear import LinearHead
from heads.matrix import MISSING, FeatureMatrix, load_matrix, load_matrix_like, metadata_columns
from heads.metrics import HEADLINE, METRICS
from heads.output import write_predictions
from heads.places import plain_name, portable_spec
from heads.predictions import Predictions
from heads.refit import fit_bundle, needed_spec
from heads.registry import HEADS, PRIOR
from heads.report import (
    conversions_report,
    curve_report,
    importance_report,
    predictions_report,
    robustness_report,
)
from heads.ridge import target_scale
from heads.robustness import check_plain, disturbed, robustness
from heads.runs import (
    bundle_folder,
    check_combinations,
    evaluate,
    open_results,
    open_rows,
    open_runs,
    run_folder,
    run_sweep,
    save_bundle,
    save_chart,
    save_warnings,
    store_beside,
    store_of_subset,
    sweep_warnings,
    training_of,
)
from heads.score_report import entries_report, outputs_report, standings_report
from heads.selection import score_choice
from heads.standings import standings
from heads.stored import Result, Stored, Wanted
from heads.strength import ABSENT
from heads.sweep import WHOLE, Sweep, check_names
from heads.transfer import held_out_groups, held_out_values, transfer
from heads.transfer_report import transfer_report
from heads.versions import versions

__all__ = [
    "ABSENT",
    "Bundle",
    "Calibration",
    "Entry",
    "FEATURES",
    "FONT_PT",
    "FeatureMatrix",
    "GREY",
    "Given",
    "HEADLINE",
    "HEADS",
    "KEY_INCHES",
    "Layer",
    "Leaderboard",
    "LinearHead",
    "METRICS",
    "MISSING",
    "PAGE_INCHES",
    "PRIOR",
    "Predictions",
    "Result",
    "STYLES",
    "Stored",
    "Sweep",
    "WHOLE",
    "Wanted",
    "add_title",
    "audit_labels",
    "audit_leaks",
    "audit_report",
    "balanced_weights",
    "best",
    "block_importance",
    "bundle_folder",
    "bundle_kind",
    "bundle_of_layers",
    "calibration_of",
    "check_combinations",
    "check_names",
    "check_plain",
    "chosen_conversions",
    "compare_blocks",
    "compare_conversions",
    "compare_entries",
    "conversions_report",
    "curve_report",
    "describe_bundle",
    "disturbed",
    "draw_exploration",
    "draw_robustness",
    "draw_scores",
    "each_alone",
    "entries_report",
    "errors_report",
    "evaluate",
    "features_matrix",
    "finish",
    "fit_bundle",
    "folded",
    "gain_words",
    "given_entry",
    "group_gap",
    "held_out_groups",
    "held_out_values",
    "importance_report",
    "is_held_out",
    "learning_curves",
    "load_bundle",
    "load_matrix",
    "load_matrix_like",
    "make_panels",
    "mean_ranks",
    "merge_duplicates",
    "metadata_columns",
    "needed_spec",
    "network_importance",
    "open_results",
    "plain_name",
    "portable_spec",
    "open_rows",
    "open_runs",
    "outputs_report",
    "prediction_words",
    "predictions_report",
    "ranked",
    "read_document",
    "rebuild_bundle",
    "robustness",
    "robustness_report",
    "row_captions",
    "run_folder",
    "run_sweep",
    "save_bundle",
    "save_chart",
    "save_warnings",
    "score_choice",
    "standardise",
    "standings",
    "standings_report",
    "store_beside",
    "store_of_subset",
    "sweep_warnings",
    "table",
    "target_scale",
    "training_of",
    "transfer",
    "transfer_report",
    "versions",
    "write_document",
    "write_errors",
    "write_predictions",
]
