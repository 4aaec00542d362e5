"""End-to-end training: gives back feature spaces and a model bundle."""

from finetune.bundle import FinetunedBundle, load_bundle, save_bundle
from finetune.predict import predict_source

__all__ = ["FinetunedBundle", "load_bundle", "predict_source", "save_bundle"]
