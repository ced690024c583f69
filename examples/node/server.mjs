// An application on plain Node that knows who is calling. Settings: see README.md.
import { createPublicKey, verify as verifySignature } from "node:crypto";
import { createServer } from "node:http";

const { ZTPROXY_JWKS_URL, ZTPROXY_AUDIENCE, PORT = "8083" } = process.env;
if (!ZTPROXY_JWKS_URL || !ZTPROXY_AUDIENCE) throw new Error("set ZTPROXY_JWKS_URL and ZTPROXY_AUDIENCE");

const LEEWAY = 30; // seconds that two clocks may differ, and between two fetches of the key set
let keys = new Map();
let fetching = null;
let fetched = -Infinity;

async function fetchKeys() {
  const response = await fetch(ZTPROXY_JWKS_URL, { redirect: "error", signal: AbortSignal.timeout(3000) });
  const text = await response.text();
  if (!response.ok || text.length > 65536) throw new Error(`the key set answers ${response.status}`);
  const fits = (k) => k.kty === "EC" && k.crv === "P-256" && (k.use ?? "sig") === "sig" && !k.d;
  const usable = JSON.parse(text).keys.filter(fits);
  const unique = usable.filter((k) => usable.filter((other) => other.kid === k.kid).length === 1);
  keys = new Map(unique.map((k) => [k.kid, createPublicKey({ key: k, format: "jwk" })]));
}

async function keyFor(kid) {
  const age = performance.now() / 1000 - fetched;
  if (age > 600 || (!keys.has(kid) && age > LEEWAY)) {
    // One fetch for all who wait; a set that cannot be renewed leaves the old one in place.
    fetching ??= fetchKeys().catch((error) => console.error(String(error))).finally(() => {
      fetched = performance.now() / 1000;
      fetching = null;
    });
    await fetching;
  }
  return keys.get(kid);
}

function decode(part) {
  const bytes = Buffer.from(part, "base64url");
  if (bytes.toString("base64url") !== part) throw new Error("not canonical base64url");
  return bytes;
}

export async function verify(token) {
  if (token.length > 16384 || !/^[\w-]+\.[\w-]+\.[\w-]+$/.test(token)) throw new Error("not a compact JWS");
  const [head, body, signature] = token.split(".").map(decode);
  const header = JSON.parse(head);
  if (header.alg !== "ES256" || header.typ !== "JWT") throw new Error("not an ES256 assertion");
  if (Object.keys(header).sort().join() !== "alg,kid,typ") throw new Error("an unexpected header");
  const key = await keyFor(header.kid);
  if (!key) throw new Error("an unknown key");
  const signed = Buffer.from(token.slice(0, token.lastIndexOf(".")));
  if (!verifySignature("sha256", signed, { key, dsaEncoding: "ieee-p1363" }, signature)) throw new Error("a bad signature");
  const claims = JSON.parse(body);
  const now = Date.now() / 1000;
  if (claims.aud !== ZTPROXY_AUDIENCE) throw new Error("not for this application");
  if (!Number.isInteger(claims.exp) || claims.exp <= now - LEEWAY) throw new Error("expired");
  if (!Number.isInteger(claims.iat) || claims.iat > now + LEEWAY) throw new Error("not yet valid");
  if (typeof claims.sub !== "string" || !claims.sub) throw new Error("nobody");
  return claims;
}

const server = createServer(async (request, response) => {
  try {
    const received = request.headersDistinct["x-ztproxy-assertion"] ?? [];
    if (received.length !== 1) throw new Error(`${received.length} assertions`);
    const identity = await verify(received[0]);
    response.writeHead(200, { "Content-Type": "text/plain; charset=utf-8" });
    response.end(`Hello ${identity.name ?? identity.sub}, signed in by ${identity.acr}.\n`);
  } catch (error) {
    console.error(`refused: ${error.message}`); // for the operator; the client learns only that it is refused
    response.writeHead(401, { "Content-Type": "application/problem+json", "WWW-Authenticate": "Ztproxy-Assertion" });
    response.end('{"title":"Unauthorized","status":401}');
  }
});
server.listen(Number(PORT), "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
