"""Studies: many runs that a plan spans, on all cores, kept as they finish."""

from fedtl.launch.study.run import StudyState, run_study, state_of

__all__ = ["StudyState", "run_study", "state_of"]
