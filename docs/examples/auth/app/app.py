"""Predict as an app, in each of the three ways. The last two need HTTPS."""

import os
import pathlib
import ssl
import sys
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from sluice_sign import sign

env = os.environ
tls = ssl.create_default_context(cafile=env.get("SLUICE_CA"))
url = env["SLUICE_EDGE"] + "/v1/infers/" + env["SLUICE_SERVICE"] + env.get("SLUICE_PATH", "")
content_type = {"Content-Type": env.get("SLUICE_CONTENT_TYPE", "application/json")}

with open(env["SLUICE_INPUT"], "rb") as f:
    body = f.read()


def predict(headers):
    with urllib.request.urlopen(urllib.request.Request(url, body, headers, method="POST"), context=tls) as answer:
        print(answer.read().decode())


predict(sign("POST", url, content_type, body, env["SLUICE_APP_KEY"], env["SLUICE_APP_SECRET"]))
predict({**content_type, "X-Apig-AppCode": env["SLUICE_APP_CODE"]})
predict({**content_type, "apikey": env["SLUICE_APP_KEY"]})
