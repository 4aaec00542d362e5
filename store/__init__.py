"""Datasets, splits, feature spaces and vectors: what every other layer stands on."""

from store.dataset import Dataset, ImageBlock, ImageRef, MetadataColumn, TextBlock
from store.errors import InputError, StoreError, did_you_mean
from store.keys import file_key, text_key
from store.reader import load_dataset, prediction_dataset
from store.space import FeatureSpace
from store.spec import DatasetSpec, parse_spec
from store.task import Task

__all__ = [
    "Dataset",
    "DatasetSpec",
    "FeatureSpace",
    "ImageBlock",
    "ImageRef",
    "InputError",
    "MetadataColumn",
    "StoreError",
    "Task",
    "TextBlock",
    "did_you_mean",
    "file_key",
    "load_dataset",
    "parse_spec",
    "prediction_dataset",
    "text_key",
]
