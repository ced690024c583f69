// Which of the tokens on standard input jose verifies with the key set beside each. Its argument is where the
// packages are.
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'
const [,, root] = process.argv
const { compactVerify, createLocalJWKSet } = await import(pathToFileURL(createRequire(root + '/x.js').resolve('jose')).href)
let text = ''
for await (const chunk of process.stdin) text += chunk
const out = []
for (const { token, jwks } of JSON.parse(text)) {
  try { await compactVerify(token, createLocalJWKSet(JSON.parse(jwks)), { algorithms: ['RS256','PS256','ES256','EdDSA'] }); out.push(true) }
  catch (error) { out.push(false) }
}
console.log(JSON.stringify(out))
