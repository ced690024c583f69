// llhttp as Node uses it: answers with what it understood. Texts are octets, each a character; the answer to
// HEAD has no body, so there it stands in a field.
import http from 'node:http';

const [port] = process.argv.slice(2);
http.createServer({ maxHeaderSize: 131072 }, (request, response) => {
  const pieces = [];
  request.on('data', (piece) => pieces.push(piece));
  request.on('end', () => {
    const fields = [];
    for (let i = 0; i < request.rawHeaders.length; i += 2) {
      fields.push([request.rawHeaders[i], request.rawHeaders[i + 1]]);
    }
    const body = Buffer.concat(pieces).toString('base64');
    const said = Buffer.from(JSON.stringify({ method: request.method, target: request.url, fields, body }));
    if (request.method === 'HEAD') response.setHeader('X-Heard', said.toString('base64'));
    response.setHeader('Content-Length', said.length);
    response.end(said);
  });
}).listen(Number(port), '127.0.0.1');
