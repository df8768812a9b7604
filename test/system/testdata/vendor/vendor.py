"""Signs with the platform's own SDK for Python and prints the status of each answer.

vendor.py EDGE SERVICE ACCESS_KEY SECRET_KEY
"""
import http.client
import sys
from types import SimpleNamespace
from urllib.parse import urlsplit

from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import DerivationAKSKSigner, Signer, SM3Signer

edge, service, ak, sk = sys.argv[1:5]
host = urlsplit(edge).netloc

for name, kind in (("sha256", Signer), ("sm3", SM3Signer), ("v11", DerivationAKSKSigner)):
    for method, path, content_type, body in (
        ("GET", "/v2/models/digits", None, b""),
        ("POST", "/v2/models/digits/infer", "application/json", b'{"inputs":[]}'),
        ("POST", "/v2/models/digits/infer", "application/octet-stream", b"bytes"),
        ("DELETE", "/v2/models/digits", "application/octet-stream", b""),
    ):
        for secret in (sk, sk + "x"):
            headers = {"X-Project-Id": " p ", "User-Agent": "vendor/1"}
            if content_type:
                headers["Content-Type"] = content_type
            r = SdkRequest(method, "http", host, "/v1/infers/" + service + path, "",
                           [("b", "a b/ü+~*"), ("a", ["2", "1"]), ("c", True)], headers, body)
            signer = kind(SimpleNamespace(ak=ak, sk=secret))
            r = signer.sign(r, "modelarts", "region-1") if name == "v11" else signer.sign(r)
            c = http.client.HTTPConnection(host)
            c.request(method, r.uri, body=r.body or None, headers=r.header_params)
            a = c.getresponse()
            print(name, method, content_type or "", str(secret == sk).lower(), a.status, a.read().decode())
            c.close()
