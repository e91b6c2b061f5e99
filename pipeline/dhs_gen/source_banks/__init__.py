"""The format that every source bank has, whichever builder wrote it, and the measurements behind its checks."""

from __future__ import annotations

from dhs_gen.source_banks.bank import (
    BankError,
    BankWriter,
    Column,
    SourceBank,
    choose_template,
    open_bank,
    write_bank,
)

__all__ = ["BankError", "BankWriter", "Column", "SourceBank", "choose_template", "open_bank", "write_bank"]
