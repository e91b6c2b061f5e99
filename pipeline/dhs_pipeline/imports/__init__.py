"""What users own from the earlier implementation, mapped to the tables of this one.

Nothing is filled silently: every column of the source and of the target is accounted for in ``import_report.json``.
"""

from __future__ import annotations
