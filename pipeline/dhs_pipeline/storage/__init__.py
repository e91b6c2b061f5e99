"""Local paths and ``s3://`` in one place: every stage reads and writes through :class:`Location`.

S3 is spoken with boto3, so workers need neither Hadoop's S3A nor a JVM to move bytes. The endpoint, region and
credentials are read from the usual AWS environment variables; time-outs, retries and sizes stand in conf/storage.
"""

from dhs_pipeline.storage.errors import StorageError, StorageUnavailable
from dhs_pipeline.storage.location import Location
from dhs_pipeline.storage.parquet import encode_parquet, write_parquet, write_parquet_stream

__all__ = ["Location", "StorageError", "StorageUnavailable", "encode_parquet", "write_parquet", "write_parquet_stream"]
