// Talks to an echo engine through the gateway with the npm package ws: node ws_client.js URL TOKEN
const WebSocket = require('ws');
const [url, token] = process.argv.slice(2);
const fail = (why) => { console.error(why); process.exit(1); };
const ws = new WebSocket(url, ['echo'], { headers: { 'X-Auth-Token': token }, rejectUnauthorized: false, perMessageDeflate: { threshold: 64 } });
const parts = [Buffer.alloc(70000, 7), Buffer.from('héllo €'), Buffer.alloc(0), Buffer.from('x'.repeat(300000))];
let n = 0, ponged = false;

ws.on('open', () => {
  if (ws.protocol !== 'echo') fail('protocol ' + ws.protocol);
  if (!ws.extensions.includes('permessage-deflate')) fail('extensions ' + ws.extensions);
  ws.on('pong', (d) => { ponged = d.toString() === 'are you there'; });
  ws.ping('are you there');
  for (const [i, p] of parts.entries()) {
    const half = p.length >> 1;
    ws.send(p.subarray(0, half), { binary: i % 2 === 0, fin: false });
    ws.send(p.subarray(half), { binary: i % 2 === 0, fin: true });
  }
});
ws.on('message', (data, isBinary) => {
  if (!data.equals(parts[n])) fail('message ' + n + ' differs');
  if (isBinary !== (n % 2 === 0)) fail('kind of message ' + n);
  if (++n === parts.length) ws.close(3999, 'done');
});
ws.on('close', (code) => {
  if (n !== parts.length || code !== 3999 || !ponged) fail(`closed ${code} after ${n}, ponged ${ponged}`);
  console.log('ok');
  process.exit(0);
});
ws.on('unexpected-response', (req, res) => fail('status ' + res.statusCode));
ws.on('error', (e) => fail(String(e)));
setTimeout(() => fail('too slow'), 20000);
