// Asks a service by the direct channel: node direct.mjs CONTROL PROJECT SERVICE TOKEN KEY PICTURE. Node 18 or newer.

import { readFile } from "node:fs/promises";

const [control, project, service, token, key, picture] = process.argv.slice(2);

async function lookup() {
  const url = `${control}/v1/${project}/services/${service}/predict/endpoints?type=host_endpoints`;
  const answer = await fetch(url, { headers: { "X-Auth-Token": token } });
  if (!answer.ok) throw new Error(`look-up: ${answer.status} ${await answer.text()}`);
  return (await answer.json()).endpoints.filter((e) => e.status === "ready");
}

async function predict(path) {
  const body = JSON.stringify({ image: (await readFile(path)).toString("base64") });

  for (const e of (await lookup()).sort(() => Math.random() - 0.5)) {
    let answer;
    try {
      answer = await fetch(`${e.schema}://${e.ip}:${e.port}/`, {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-Sluice-Direct-Key": key },
        body,
      });
    } catch (err) {
      console.error("try another instance:", err.message);
      continue;
    }
    if (answer.status === 503) continue; // it drains, another one may serve
    if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
    return answer.text();
  }

  throw new Error("no instance answers");
}

console.log(await predict(picture));
