"""Where an endpoint is: its address as people write it, the environment's part in it, and where a redirect leads.

The address may hold no secret, because it stands in a file or reaches messages; nothing here prints it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx2  # what the openai client is built on

from stages.common.errors import UserError

BASE_URL = "OPENAI_BASE_URL"
OPENAI = "https://api.openai.com/v1"
EXAMPLE = "http://localhost:8000/v1"
MOST_REDIRECTS = 5

_SENT = ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_CUSTOM_HEADERS")
"""Variables whose values the client sends as headers."""


def check_address(url: str, setting: str, key: str, variable: str) -> None:
    """Refuse an address that cannot be asked, or that holds what does not belong there.

    Args:
        url: what was given, which may hold a password or key and is never printed.
        setting: where it was given.
        variable: the environment variable of `key`.

    Raises:
        UserError: in one line, with the remedy.
    """
    if any(c.isspace() or not c.isprintable() or c == "\\" for c in url):
        raise UserError(f"{setting} has a blank, a backslash or a control character in it; type it again")
    try:
        parts = urlsplit(url)
        found = httpx2.URL(url)
        port_is_right = parts.port is None or 0 < parts.port < 1 << 16
    except (ValueError, httpx2.InvalidURL):
        raise UserError(f"{setting} must be an address such as {EXAMPLE}") from None
    if parts.scheme.lower() not in ("http", "https"):
        raise UserError(f"{setting} must begin with http:// or https://, such as {EXAMPLE}")
    if "@" in parts.netloc:
        raise UserError(
            f"{setting} has a user name or password before an '@', which would be sent in place of the key; take them "
            f"out of the address, and give the key in {variable}"
        )
    if "?" in url or "#" in url:
        raise UserError(
            f"{setting} has a '?' or '#' in it, and the path of each request would come after it; end the address "
            f"before that, such as {EXAMPLE}, and give the key in {variable}"
        )
    if not parts.hostname or not found.host or not port_is_right:
        raise UserError(f"{setting} must name a host, and a port from 1 to 65535 if any, such as {EXAMPLE}")
    if len(key) > 3 and key in url.split("//", 1)[1].partition("/")[2]:
        raise UserError(f"{setting} holds the key that is in {variable}; take it out of the address")


def is_openai(url: str) -> bool:
    """Whether an address is OpenAI's own, which answers nothing without a key."""
    try:
        return urlsplit(url).hostname == urlsplit(OPENAI).hostname
    except ValueError:
        return False


def check_headers() -> None:
    """Refuse variables that the client sends as headers and cannot."""
    for name in _SENT:
        value = os.environ.get(name, "").replace("\n", "")
        if not value.isascii() or not (value.isprintable() or not value):
            raise UserError(f"{name} has characters that cannot be sent; correct it or unset it")


def client_arguments(key: str, url: str | None) -> dict[str, Any]:
    """The openai client's arguments for an endpoint.

    The key is given as a header as well, because OPENAI_CUSTOM_HEADERS may hold another one, which would replace it.

    Args:
        url: None for the address in OPENAI_BASE_URL, or without one OpenAI's.
    """
    base_url = url or os.environ.get(BASE_URL, "").strip() or OPENAI
    return {"api_key": key, "base_url": base_url, "default_headers": {"Authorization": f"Bearer {key}"}}


@contextmanager
def using_environment() -> Iterator[None]:
    """Around the making of an HTTP client, which reads proxies and certificates from the environment.

    Raises:
        UserError: one that cannot be used. Its value may hold a password and is not printed.
    """
    try:
        yield
    except (ValueError, ImportError, httpx2.InvalidURL):
        raise UserError(
            "a proxy in HTTP_PROXY, HTTPS_PROXY, ALL_PROXY or NO_PROXY cannot be used; correct it or unset it "
            "(socks5:// needs the package socksio)"
        ) from None
    except OSError:
        raise UserError("SSL_CERT_FILE or SSL_CERT_DIR names no certificates; correct it or unset it") from None


def next_request(response: httpx2.Response, before: int) -> httpx2.Request | None:
    """The request that follows a redirect; None if it is not followed.

    What is posted (prompts, images) goes on only where the key goes as well: to the same host. A file of results may be
    at another host, which gets no key.

    Args:
        response: of a request that was sent with `follow_redirects=False`.
        before: how many redirects were followed.
    """
    following = response.next_request
    if following is None or before >= MOST_REDIRECTS or following.url.userinfo:
        return None
    if following.method != response.request.method:
        return None
    return following if following.method == "GET" or "Authorization" in following.headers else None


def where_it_leads(response: httpx2.Response) -> str:
    """What to say of a redirect that is not followed."""
    following = response.next_request
    if following is None:
        return "redirects to no address"
    port = f":{following.url.port}" if following.url.port else ""
    return f"redirects to {following.url.scheme}://{following.url.host}{port}, which is not followed"
