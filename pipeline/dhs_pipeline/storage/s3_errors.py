"""What an S3 store answers → FileNotFoundError, StorageError or StorageUnavailable; and asking again."""

from __future__ import annotations

import errno
import secrets
import time
from collections.abc import Callable
from typing import TypeVar

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    MetadataRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.parsers import ResponseParserError

from dhs_pipeline.storage.errors import StorageError, StorageUnavailable
from dhs_pipeline.storage.s3_client import requests_sent, storage_settings

T = TypeVar("T")

_TRANSIENT_STATUSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_TRANSIENT_CODES = frozenset(
    {
        "InternalError",
        "OperationAborted",
        "PriorRequestNotComplete",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
    }
)
_KEY_CODES = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "AuthFailure"})
_EXPIRED_CODES = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_REGION_CODES = frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"})


class BrokenBodyError(Exception):
    """A body that ended early, was too long, or is not what its checksum says: worth another request."""


class ReplacedError(Exception):
    """The object is not the one any more that reading began with."""


def ask(uri: str, doing: str, call: Callable[[], T]) -> T:
    """``call()``, again while bodies break, with botocore's own retries below it.

    Parameters
    ----------
    doing
        What it is for, such as "read": goes into the message.

    Raises
    ------
    FileNotFoundError
        If there is no such object.
    StorageUnavailable
        If the store did not answer properly in any attempt.
    StorageError
        If it never will: access denied, no such bucket, wrong region.
    """
    settings = storage_settings()
    begun, started = requests_sent(), time.monotonic()
    for attempt in range(1, settings.body_attempts + 1):
        before = requests_sent()
        try:
            return call()
        except (BrokenBodyError, ResponseParserError) as error:
            last: Exception = error
        except (ClientError, BotoCoreError) as error:
            # botocore gives up after one request where its quota of retries is used up, or it knows no better.
            if not is_transient(error) or requests_sent() - before > 1:
                raise explained(error, uri, doing, requests_sent() - begun, time.monotonic() - started) from error
            last = error
        if attempt < settings.body_attempts:
            pause(attempt)
    raise _unavailable(uri, doing, last, requests_sent() - begun, time.monotonic() - started) from last


def pause(attempt: int) -> None:
    """Sleep up to backoff · 2^(attempt − 1); drawn, so that workers that failed together do not ask together."""
    settings = storage_settings()
    longest_s = min(settings.backoff_seconds * 2 ** (attempt - 1), settings.max_backoff_seconds)
    time.sleep(longest_s * secrets.randbelow(1001) / 1000)  # not a keyed stream: no datum depends on it


def is_transient(error: Exception) -> bool:
    if isinstance(error, ClientError):
        return _status(error) in _TRANSIENT_STATUSES or code(error) in _TRANSIENT_CODES
    return isinstance(
        error, (BotoConnectionError, HTTPClientError, CredentialRetrievalError, MetadataRetrievalError, BrokenBodyError)
    )


def is_transient_code(name: str) -> bool:
    return name in _TRANSIENT_CODES


def code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def is_missing(error: ClientError) -> bool:
    """No such key; HEAD answers 404 without a code, for a missing bucket too."""
    return code(error) in ("NoSuchKey", "404", "NotFound")


def is_taken(error: ClientError) -> bool:
    """A condition (If-Match, If-None-Match) that does not hold."""
    return code(error) in ("PreconditionFailed", "412")


def explained(error: Exception, uri: str, doing: str, attempts: int, seconds: float) -> OSError:
    """The exception to raise instead of one of botocore's, in one line."""
    if is_transient(error):
        return _unavailable(uri, doing, error, attempts, seconds)
    if isinstance(error, ClientError):
        return _refused(error, uri, doing)
    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        return StorageError(
            f"{uri}: cannot {doing}: no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "AWS_PROFILE, or give the machine a role"
        )
    return StorageError(f"{uri}: cannot {doing}: {_line(error)}")


def _refused(error: ClientError, uri: str, doing: str) -> OSError:
    told, name, status = answer(error), code(error), _status(error)
    bucket = uri.removeprefix("s3://").split("/")[0]
    if is_missing(error):
        return FileNotFoundError(errno.ENOENT, "no such object", uri)
    if name == "NoSuchBucket":
        return StorageError(f"{uri}: there is no bucket {bucket!r}; check its name, AWS_REGION and AWS_ENDPOINT_URL")
    if name in _EXPIRED_CODES:
        return StorageError(f"{uri}: cannot {doing}: the credentials have expired ({told}); get new ones")
    if name in _KEY_CODES:
        return StorageError(
            f"{uri}: cannot {doing}: the store does not take these keys ({told}); check AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY and AWS_PROFILE"
        )
    if name == "RequestTimeTooSkewed":
        return StorageError(f"{uri}: cannot {doing}: the clock of this machine is wrong ({told})")
    if status in (401, 403):
        return StorageError(
            f"{uri}: cannot {doing}: access denied ({told}); check the keys, and that their user or role may list "
            f"{bucket!r} and get, put and delete objects in it"
        )
    if name in _REGION_CODES or status == 301:
        return StorageError(f"{uri}: cannot {doing}: the bucket lies in another region ({told}); set AWS_REGION")
    return StorageError(f"{uri}: cannot {doing}: the store answered {told}")


def _unavailable(uri: str, doing: str, error: Exception, attempts: int, seconds: float) -> StorageUnavailable:
    told = f"answered {answer(error)}" if isinstance(error, ClientError) else f"failed with {_line(error)}"
    return StorageUnavailable(
        f"{uri}: cannot {doing}: the store {told} ({attempts} requests in {seconds:.0f} s); "
        "run the same command again when it is back"
    )


def answer(error: ClientError) -> str:
    """Status, code and message of an answer: ``503 SlowDown: Please reduce your request rate.``"""
    told = error.response.get("Error", {})
    name, message = str(told.get("Code", "")), " ".join(str(told.get("Message", "")).split())
    status = str(_status(error))
    parts = status if name in ("", status) else f"{status} {name}"
    return f"{parts}: {message}"[:300] if message else parts


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
