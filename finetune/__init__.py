"""End-to-end training: gives back feature spaces and a model bundle."""

from finetune.bundle import FinetunedBundle, load_bundle, save_bundle
from finetune.explain import explain_files, explain_report
from finetune.export import export_onnx
from finetune.listener import Listener
from finetune.options import choose_settings
from finetune.predict import predict_source
from finetune.preflight import Ready, check_choice, check_run
from finetune.report import finetune_report
from finetune.run import Run
from finetune.settings import FinetuneSettings

__all__ = [
    "FinetuneSettings",
    "FinetunedBundle",
    "Listener",
    "Ready",
    "Run",
    "check_choice",
    "check_run",
    "choose_settings",
    "explain_files",
    "explain_report",
    "export_onnx",
    "finetune_report",
    "load_bundle",
    "predict_source",
    "save_bundle",
]
