"""Experiments on the toy world and beyond: declared beforehand, run, aggregated, shown."""

from wsss_lab.studies.results import StudyResult, load_study

__all__ = ["StudyResult", "load_study"]
