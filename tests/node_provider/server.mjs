// The OpenID-certified oidc-provider, with the least around it that a relying party needs: one client, people who
// sign in by naming themselves, and an interaction that says how (`acr`, `amr`). Tests only.
//
//   node server.mjs '{"client_id": …, "client_secret": …, "redirect_uris": […], "post_logout_redirect_uris": […]}' \
//     '{"port": 8443, "ca": "/path/to/ca.pem"}'
//
// The second is where every https name is found, and who vouches for it: where logout tokens go. The file is read
// when it is needed.
//
// Prints one line of JSON, {"issuer": …}, once it listens on a free port, and ends when its standard input does.
import { generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { request as ask } from 'node:https';
import Provider, { interactionPolicy } from 'oidc-provider';

const client = JSON.parse(process.argv[2]);
const door = JSON.parse(process.argv[3] ?? 'null');
const amrOf = { pwd: ['pwd'], mfa: ['pwd', 'otp', 'mfa'], phr: ['hwk'] };
const groupsOf = { alice: ['engineering'], bob: ['finance'] };

const jwk = (kid, alg, type, options) => ({
  ...generateKeyPairSync(type, options).privateKey.export({ format: 'jwk' }), kid, alg, use: 'sig',
});

// `acr_values` is a wish (Core 5.5.1.1): by itself the provider answers from the session it has, however weak.
const policy = interactionPolicy.base();
policy.get('login').checks.add(new interactionPolicy.Check('acr', 'a stronger sign-in is asked for', ({ oidc }) => {
  const wanted = oidc.params.acr_values?.split(' ');
  return Boolean(wanted) && !wanted.includes(oidc.acr) && !oidc.result?.login;
}));

// Like fetch, but that it finds the names of a test.
const reach = (url, options) => new Promise((resolve, reject) => {
  const { hostname, pathname, search } = new URL(url);
  const { method, headers } = options;
  const outgoing = ask({
    method, headers: { ...Object.fromEntries(headers), host: hostname }, host: '127.0.0.1', port: door.port, path: pathname + search,
    servername: hostname, ca: readFileSync(door.ca), agent: false,
  }, (answer) => {
    answer.resume().on('end', () => resolve(new Response(null, { status: answer.statusCode })));
  });
  outgoing.on('error', reject).end(String(options.body ?? ''));
});

const configuration = {
  clients: [{ grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'], ...client }],
  jwks: { keys: [jwk('rs', 'RS256', 'rsa', { modulusLength: 2048 }), jwk('es', 'ES256', 'ec', { namedCurve: 'P-256' })] },
  acrValues: Object.keys(amrOf),
  claims: {
    openid: ['sub', 'acr', 'amr', 'auth_time'],
    email: ['email', 'email_verified'],
    profile: ['name', 'preferred_username', 'groups'],
  },
  conformIdTokenClaims: false,
  cookies: { keys: ['tests only'] },
  features: {
    backchannelLogout: { enabled: true }, devInteractions: { enabled: false }, rpInitiatedLogout: { enabled: true },
  },
  ...(door && { fetch: reach }),
  findAccount: (ctx, id) => ({
    accountId: id,
    claims: () => ({
      sub: id, name: id, preferred_username: id, email: `${id}@example.com`, email_verified: true, groups: groupsOf[id] ?? [],
    }),
  }),
  interactions: { policy, url: (ctx, interaction) => `/interaction/${interaction.uid}` },
  issueRefreshToken: () => true,
  loadExistingGrant: async (ctx) => {
    const grant = new ctx.oidc.provider.Grant({
      accountId: ctx.oidc.session.accountId, clientId: ctx.oidc.client.clientId,
    });
    grant.addOIDCScope('openid email profile');
    await grant.save();
    return grant;
  },
};

const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, configuration);
  const answer = provider.callback();
  server.on('request', async (request, response) => {
    const url = new URL(request.url, issuer);
    if (!url.pathname.startsWith('/interaction/')) {
      answer(request, response);
      return;
    }
    try {
      // The person and the way of signing in stand in the query: ?person=alice&method=mfa
      await provider.interactionDetails(request, response);
      const [person, method] = ['person', 'method'].map((name) => url.searchParams.get(name));
      const result = person === null
        ? { error: 'access_denied', error_description: 'nobody signed in' }
        : { login: { accountId: person, acr: method, amr: amrOf[method] } };
      await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
    } catch (error) {
      response.writeHead(400).end(String(error));
    }
  });
  process.stdout.write(`${JSON.stringify({ issuer })}\n`);
});
process.stdin.resume().on('end', () => process.exit(0));
