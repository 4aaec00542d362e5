"""End-to-end training: gives back feature spaces and a model bundle."""
