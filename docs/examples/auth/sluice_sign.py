"""Signs requests for Sluice: SDK-HMAC-SHA256 with the standard library alone.

The signature covers what travels, so send exactly the URL, the headers and the body that were
signed. Works for the access key of a user and for the key and secret of an app.
"""

import datetime
import hashlib
import hmac
from urllib.parse import quote, unquote_to_bytes, urlsplit

ALGORITHM = "SDK-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"


def _escape(raw):
    return quote(raw, safe="-_.~")


def _canonical_uri(path):
    segments = unquote_to_bytes(path).split(b"/")
    uri = "/".join(_escape(s) for s in segments)
    return uri if uri.endswith("/") else uri + "/"


def _canonical_query(query):
    pairs = []
    for part in query.split("&"):
        if part:
            key, _, value = part.partition("=")
            pairs.append(tuple(unquote_to_bytes(x.replace("+", " ")) for x in (key, value)))
    return "&".join(_escape(k) + "=" + _escape(v) for k, v in sorted(pairs))


def sign(method, url, headers, body, access_key, secret_key, security_token=None, now=None):
    """Returns headers plus those that make the request authentic.

    headers is what the request will carry; all of it is signed, so leave out what the HTTP client
    or a proxy sets. body is bytes, or None to leave the body out of the signature.
    """
    now = now or datetime.datetime.now(datetime.timezone.utc)
    parts = urlsplit(url)
    headers = dict(headers)
    headers["X-Sdk-Date"] = now.strftime("%Y%m%dT%H%M%SZ")
    if security_token:
        headers["X-Security-Token"] = security_token
    if body is None:
        headers["X-Sdk-Content-Sha256"] = UNSIGNED

    signed = {name.lower(): value.strip() for name, value in headers.items()}
    signed["host"] = parts.netloc.rpartition("@")[2]
    names = ";".join(sorted(signed))

    canonical = "\n".join([
        method.upper(),
        _canonical_uri(parts.path),
        _canonical_query(parts.query),
        "".join("%s:%s\n" % (name, signed[name]) for name in sorted(signed)),
        names,
        UNSIGNED if body is None else hashlib.sha256(body).hexdigest(),
    ])
    text = "\n".join([ALGORITHM, headers["X-Sdk-Date"], hashlib.sha256(canonical.encode()).hexdigest()])
    signature = hmac.new(secret_key.encode(), text.encode(), hashlib.sha256).hexdigest()
    headers["Authorization"] = "%s Access=%s, SignedHeaders=%s, Signature=%s" % (ALGORITHM, access_key, names, signature)
    return headers
