"""Bringing the survey's coadd maps to where stage 4b reads them: ``dhs bricks fetch``.

:mod:`run` deals bricks to a few threads; :mod:`work` settles a brick's files, each by way of :mod:`download` (partial
file, retries, checks) over :mod:`server` (HTTP) at the pace of :mod:`limits`. Every file ends in one row of
:mod:`record`, and :mod:`absent` tells 4b of those that are not there.
"""
