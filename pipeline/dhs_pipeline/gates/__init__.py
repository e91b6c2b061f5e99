"""Gates: what a data set lets a classifier cheat with, as numbers with error bars.

A gate is a function of a :class:`~dhs_pipeline.gates.data.GateData` and its limits (conf/gates) that gives a
:class:`~dhs_pipeline.gates.result.GateResult`. A gate that cannot run has failed.
"""
