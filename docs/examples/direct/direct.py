"""Asks a service by the direct channel: direct.py CONTROL PROJECT SERVICE TOKEN KEY PICTURE. Standard library only."""

import base64
import json
import random
import sys
import urllib.error
import urllib.request

control, project, service, token, key, picture = sys.argv[1:]


def lookup():
    url = f"{control}/v1/{project}/services/{service}/predict/endpoints?type=host_endpoints"
    request = urllib.request.Request(url, headers={"X-Auth-Token": token})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return [e for e in json.load(answer)["endpoints"] if e["status"] == "ready"]


def predict(path):
    with open(path, "rb") as f:
        body = json.dumps({"image": base64.b64encode(f.read()).decode()}).encode()

    endpoints = lookup()
    random.shuffle(endpoints)

    for e in endpoints:
        request = urllib.request.Request(
            f"{e['schema']}://{e['ip']}:{e['port']}/", data=body,
            headers={"Content-Type": "application/json", "X-Sluice-Direct-Key": key})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as err:
            if err.code != 503:  # 503: it drains, another one may serve
                raise
        except urllib.error.URLError as err:
            print("try another instance:", err, file=sys.stderr)

    raise SystemExit("no instance answers")


print(predict(picture))
