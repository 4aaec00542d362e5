"""Datasets, splits, feature spaces and vectors: what every other layer stands on."""

from store.errors import InputError, StoreError, did_you_mean
from store.keys import file_key, text_key
from store.space import FeatureSpace
from store.task import Task

__all__ = ["FeatureSpace", "InputError", "StoreError", "Task", "did_you_mean", "file_key", "text_key"]
