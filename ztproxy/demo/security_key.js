"use strict";
// Has the browser ask the security key what the form holds, and sends the answer with the form.
const octets = (text) =>
  Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (one) => one.charCodeAt(0));
const text = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const named = (keys) => keys.map((key) => ({ ...key, id: octets(key.id) }));

async function asked(options) {
  options.challenge = octets(options.challenge);
  if ("user" in options) {
    options.user.id = octets(options.user.id);
    options.excludeCredentials = named(options.excludeCredentials);
    const { id, type, response } = await navigator.credentials.create({ publicKey: options });
    return { id, type, response: {
      clientDataJSON: text(response.clientDataJSON),
      authenticatorData: text(response.getAuthenticatorData()),
      publicKey: text(response.getPublicKey()),
      publicKeyAlgorithm: response.getPublicKeyAlgorithm(),
    } };
  }
  options.allowCredentials = named(options.allowCredentials);
  const { id, type, response } = await navigator.credentials.get({ publicKey: options });
  return { id, type, response: {
    clientDataJSON: text(response.clientDataJSON),
    authenticatorData: text(response.authenticatorData),
    signature: text(response.signature),
  } };
}

const form = document.getElementById("security-key");
form.addEventListener("submit", async (event) => {
  if (event.submitter && event.submitter.name === "cancel") return;
  event.preventDefault();
  const said = document.getElementById("said");
  said.textContent = "Touch the security key.";
  try {
    form.elements.answer.value = JSON.stringify(await asked(JSON.parse(form.elements.options.value)));
  } catch (error) {
    said.textContent = `It did not work: ${error.message}`;
    return;
  }
  form.submit();
});
