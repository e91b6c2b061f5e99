"""Stage 4a: from a parent catalogue and a design to the manifest; everything random is decided here."""
