"use strict";
// Playwright passes what a page with a client certificate loads through Node, and Node asks the system for names.
// To a browser `*.localhost` is this machine (RFC 6761 6.3); not every system knows that.
const dns = require("node:dns");
const ask = dns.promises.lookup;
const here = { address: "127.0.0.1", family: 4 };
dns.promises.lookup = async (name, options) =>
  name.endsWith(".localhost") ? (options && options.all ? [here] : here) : ask(name, options);
const asked = dns.lookup;
dns.lookup = (name, options, done) => {
  const told = typeof options === "function" ? options : done;
  if (!name.endsWith(".localhost")) return asked(name, options, done);
  return options && options.all ? told(null, [here]) : told(null, here.address, here.family);
};
