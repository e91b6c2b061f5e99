"""EMR: clusters and steps that run the stages, from conf/emr and a few options.

:mod:`config` reads conf/emr, :mod:`jobs` says which steps a run needs, :mod:`requests` builds what EMR is asked (pure
functions: nothing in them needs a network), :mod:`estimate` what it costs, :mod:`client` asks, :mod:`status`,
:mod:`logs` and :mod:`upload` look and carry, :mod:`serverless` does the same for EMR Serverless, :mod:`cli` is the
command ``dhs emr``. Accounts, buckets, subnets and keys come from options or the environment, never from conf/.
"""
