"""Datasets, splits, feature spaces and vectors: what every other layer stands on."""

from store.blocks import BlockSpace, block_names, block_spaces, find_block
from store.check import PROBLEMS, Problem, check_dataset, problem_rows
from store.column import read_column
from store.counts import summary
from store.dataset import Dataset, Hashes, ImageBlock, ImageRef, MetadataColumn, TextBlock, hash_files
from store.distribution import Stratum, distributions, strata
from store.errors import InputError, StoreError, did_you_mean, first_line, one_line, write_error
from store.exchange import export_block, import_vectors
from store.folds import Rows, inner_folds
from store.keys import file_key, json_key, text_key
from store.lines import broken
from store.merging import merge_groups
from store.prediction import prediction_dataset
from store.problems import spec_problems
from store.progress import Progress
from store.reader import load_dataset
from store.report import check_report, damage_report, distribution_report, store_report
from store.samples import SAMPLES, write_sample
from store.section import Section, counted
from store.slurm import SlurmJob, array_words, batch_script, submit_script, write_script
from store.space import INFO_BAR, Crop, FeatureSpace
from store.spec import DatasetSpec, parse_spec
from store.split import Split, is_fitting, make_split
from store.split_file import open_split, remake_split
from store.subset import draw_subset
from store.task import Task
from store.threads import in_threads, usable_cores
from store.variants import with_variants
from store.vectors.features import FeatureStore
from store.vectors.names import tuned_mark
from store.view import (
    CONVERSIONS,
    PERTURBATIONS,
    USUAL_CONVERSION,
    check_view,
    is_one_crop,
    n_tiles,
    parse_view,
    perturbation_views,
    view_settings,
)

__all__ = [
    "BlockSpace",
    "CONVERSIONS",
    "Crop",
    "Dataset",
    "DatasetSpec",
    "FeatureSpace",
    "FeatureStore",
    "Hashes",
    "INFO_BAR",
    "ImageBlock",
    "ImageRef",
    "InputError",
    "MetadataColumn",
    "PERTURBATIONS",
    "PROBLEMS",
    "Problem",
    "Progress",
    "Rows",
    "SAMPLES",
    "Section",
    "SlurmJob",
    "Split",
    "StoreError",
    "Stratum",
    "Task",
    "TextBlock",
    "USUAL_CONVERSION",
    "array_words",
    "batch_script",
    "block_names",
    "block_spaces",
    "broken",
    "check_dataset",
    "check_report",
    "counted",
    "check_view",
    "damage_report",
    "did_you_mean",
    "distribution_report",
    "distributions",
    "draw_subset",
    "export_block",
    "file_key",
    "find_block",
    "first_line",
    "hash_files",
    "import_vectors",
    "in_threads",
    "inner_folds",
    "is_fitting",
    "is_one_crop",
    "json_key",
    "load_dataset",
    "make_split",
    "merge_groups",
    "n_tiles",
    "one_line",
    "open_split",
    "parse_spec",
    "parse_view",
    "perturbation_views",
    "prediction_dataset",
    "problem_rows",
    "read_column",
    "remake_split",
    "spec_problems",
    "store_report",
    "strata",
    "submit_script",
    "summary",
    "text_key",
    "tuned_mark",
    "usable_cores",
    "view_settings",
    "with_variants",
    "write_error",
    "write_sample",
    "write_script",
]
