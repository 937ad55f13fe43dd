"""TSCD: self correspondence distillation and variation-aware refinement."""
