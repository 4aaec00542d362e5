"""What a prediction looks at: heat maps over the picture, and the training rows it resembles."""

from finetune.explain.files import explain_files
from finetune.explain.report import explain_report

__all__ = ["explain_files", "explain_report"]
