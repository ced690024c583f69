// The OpenID-certified oidc-provider, with the least around it that a relying party needs: one client, people who
// sign in by naming themselves, and an interaction that says how (`acr`, `amr`). Tests only.
//
//   node server.mjs '{"client_id": …, "client_secret": …, "redirect_uris": […], "post_logout_redirect_uris": […]}' \
//     '{"port": 8443, "ca": "/path/to/ca.pem"}' '{"resource": "https://api.test", "scope": "read", "clients": [{…}]}'
//
// The second is where every https name is found, and who vouches for it: where logout tokens go. The file is read
// when it is needed. The third is an API: whose access tokens are JWTs (RFC 9068) for it, and who may get them.
//
// People are asked again whenever the session at hand is not enough: older than `max_age`, or of another `acr` than
// `acr_values` or `claims` name. An essential `acr` that is not reached is an error, and never a weaker answer.
//
// Prints one line of JSON, {"issuer": …}, once it listens on a free port, and ends when its standard input does.
import { generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { request as ask } from 'node:https';
import Provider, { errors, interactionPolicy } from 'oidc-provider';

const client = JSON.parse(process.argv[2]);
const door = JSON.parse(process.argv[3] ?? 'null');
const api = JSON.parse(process.argv[4] ?? 'null');
const amrOf = { pwd: ['pwd'], mfa: ['pwd', 'otp', 'mfa'], phr: ['hwk'] };
const groupsOf = { alice: ['engineering'], bob: ['finance'] };

const jwk = (kid, alg, type, options) => ({
  ...generateKeyPairSync(type, options).privateKey.export({ format: 'jwk' }), kid, alg, use: 'sig',
});

// `acr_values` is a wish (Core 5.5.1.1): by itself the provider answers from the session it has, however weak.
const policy = interactionPolicy.base();
const checks = policy.get('login').checks;
checks.add(new interactionPolicy.Check('acr', 'a stronger sign-in is asked for', ({ oidc }) => {
  const wanted = oidc.params.acr_values?.split(' ');
  return Boolean(wanted) && !wanted.includes(oidc.acr) && !oidc.result?.login;
}));

// A provider that is told to lie answers with less than is essential. Without this it would ask for ever.
for (const name of ['essential_acr', 'essential_acrs']) {
  const one = checks.get(name);
  const { check } = one;
  one.check = (ctx) => (ctx.oidc.result?.lies ? interactionPolicy.Check.NO_NEED_TO_PROMPT : check(ctx));
}

// The person and the way of signing in stand in the query: ?person=alice&method=mfa. Beside them may stand `lies`,
// for an answer that is weaker than what is essential, and `ago`, for somebody who signed in so many seconds ago.
const answered = (query, params) => {
  const [person, method, lies, ago] = ['person', 'method', 'lies', 'ago'].map((name) => query.get(name));
  if (person === null) {
    return { error: 'access_denied', error_description: 'nobody signed in' };
  }
  const wanted = JSON.parse(params.claims ?? '{}').id_token?.acr;
  const accepted = wanted?.essential ? wanted.values ?? [wanted.value] : [method];
  if (!accepted.includes(method) && lies === null) {
    return { error: 'unmet_authentication_requirements', error_description: 'not in this way' };
  }
  const ts = Math.floor(Date.now() / 1000) - Number(ago ?? 0);
  return { login: { accountId: person, acr: method, amr: amrOf[method], ts }, ...(lies !== null && { lies: true }) };
};

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
  clients: [
    { grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'], ...client }, ...(api?.clients ?? []),
  ],
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
    backchannelLogout: { enabled: true }, claimsParameter: { enabled: true }, devInteractions: { enabled: false },
    rpInitiatedLogout: { enabled: true },
    ...(api && {
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (ctx, resource) => {
          if (resource !== api.resource) {
            throw new errors.InvalidTarget();
          }
          return { scope: api.scope, accessTokenFormat: 'jwt', accessTokenTTL: 300, jwt: { sign: { alg: 'ES256' } } };
        },
      },
    }),
  },
  // RFC 9470 6.1: how the person signed in who delegates a token.
  extraTokenClaims: ({ oidc }) => {
    const code = oidc.entities.AuthorizationCode;
    return code && { acr: code.acr, amr: code.amr, auth_time: code.authTime };
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
    if (api) {
      grant.addResourceScope(api.resource, api.scope);
    }
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
      const { params } = await provider.interactionDetails(request, response);
      const result = answered(url.searchParams, params);
      await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
    } catch (error) {
      response.writeHead(400).end(String(error));
    }
  });
  process.stdout.write(`${JSON.stringify({ issuer })}\n`);
});
process.stdin.resume().on('end', () => process.exit(0));
