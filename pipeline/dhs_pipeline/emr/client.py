"""Clients of EMR, and what their errors mean for a user, in one line.

Requests that only look may be sent again (botocore's adaptive retries). RunJobFlow and AddJobFlowSteps may not: EMR has
no token by which it knows the second one, and a cluster too many costs money. They are sent again only where EMR says
that it did not take them (throttling); any other lost answer is told as such.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
)

_READ_ATTEMPTS = 8
_THROTTLED = ("ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded")
_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "RequestExpired")
_UNKNOWN_KEYS = ("UnrecognizedClientException", "InvalidClientTokenId", "SignatureDoesNotMatch", "InvalidSignature")
_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")


class EmrError(ValueError):
    """EMR refused or could not be asked; the message is one line for the user."""


def reading_client(service: str, region: str | None) -> Any:
    """A client for requests that change nothing; throttled and lost ones are sent again."""
    retries = {"mode": "adaptive", "total_max_attempts": _READ_ATTEMPTS}
    return _client(service, region, Config(retries=retries, connect_timeout=10, read_timeout=60))


def writing_client(service: str, region: str | None) -> Any:
    """A client that sends each request once."""
    retries = {"mode": "standard", "total_max_attempts": 1}
    return _client(service, region, Config(retries=retries, connect_timeout=10, read_timeout=120))


def send_once(
    client: Any,
    operation: str,
    request: Mapping[str, Any],
    *,
    attempts: int = 6,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Send a request that must not be doubled; again only after a throttling answer, waiting 1, 2, 4, … s.

    Raises
    ------
    EmrError
        As :func:`told`; and where the answer was lost, so that nobody knows whether it was done.
    """
    for attempt in range(attempts):
        try:
            answer: dict[str, Any] = getattr(client, operation)(**request)
            return answer
        except ClientError as error:
            if _code(error) not in _THROTTLED or attempt == attempts - 1:
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
                lost = status >= 500
                raise EmrError(explain(operation, error) + (_LOST if lost else "")) from error
            sleep(2.0**attempt)
        except (ConnectionError, HTTPClientError) as error:
            raise EmrError(explain(operation, error) + _LOST) from error
        except BotoCoreError as error:
            raise EmrError(explain(operation, error)) from error
    raise AssertionError("unreachable: the last attempt returns or raises")


_LOST = "; whether it was done is not known: look with `dhs emr status` before you submit again"


@contextmanager
def told(action: str) -> Iterator[None]:
    """Turn botocore's errors into an :class:`EmrError` of one line."""
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise EmrError(explain(action, error)) from error


def explain(action: str, error: Exception) -> str:
    """What happened and what to do about it, without any secret."""
    return f"EMR: {action}: {_without_secrets(' '.join(_meaning(error).split()))}"


def _meaning(error: Exception) -> str:
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return "no AWS credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or log in"
    if isinstance(error, NoRegionError):
        return "no AWS region: give --region or set AWS_REGION"
    if isinstance(error, ProfileNotFound):
        return f"{error}: see ~/.aws/config, or set another AWS_PROFILE"
    if isinstance(error, ParamValidationError):
        return f"the request is malformed: {error}"
    if isinstance(error, ConnectionError | HTTPClientError):
        return f"no connection ({error})"
    if isinstance(error, ClientError):
        return _answer(_code(error), error.response.get("Error", {}).get("Message") or "no message")
    return f"{type(error).__name__}: {error}"


def _answer(code: str, message: str) -> str:
    """What an error code of AWS means."""
    if code in _EXPIRED:
        return f"the credentials have expired: log in again ({code})"
    if code in _UNKNOWN_KEYS:
        return f"AWS does not accept the credentials ({code}): check AWS_PROFILE or the keys, and the machine's clock"
    if code.startswith("AccessDenied"):
        return f"not allowed: {message} (the permissions that are needed are listed in docs/emr.md)"
    if code in _THROTTLED:
        return f"throttled, and still so after all retries ({code}): try again in a minute"
    return f"{code}: {message}"


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown"))


def _without_secrets(text: str) -> str:
    for variable in _SECRETS:
        if secret := os.environ.get(variable):
            text = text.replace(secret, "***")
    return text


def _client(service: str, region: str | None, config: Config) -> Any:
    with told(service):
        return boto3.session.Session().client(service, region_name=known_region(region), config=config)


def known_region(region: str | None) -> str | None:
    """The region given, or that of the environment or the profile; needs no credentials and no network."""
    if region is not None:
        return region
    if set_ := os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"):
        return set_
    with told("region"):
        return boto3.session.Session().region_name
